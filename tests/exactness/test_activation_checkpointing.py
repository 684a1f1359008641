"""Layers computed again in the backward pass: the same gradients bit for bit, dropout on, from much less memory."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from bertsmith.model import BertForPreTraining
from bertsmith.model.encoder import encoder_of
from bertsmith.model.presets import preset
from bertsmith.training.pretrain import pretrain
from pretrain_case import make_examples
from ranks_case import ONE_THREAD
from training_case import events


def _loss_and_kept_bytes(model: BertForPreTraining) -> tuple[Tensor, int]:
    """Loss of a batch, and bytes that its backward pass keeps beside the weights."""
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(5, 900, (4, 64), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(64) < torch.tensor([64, 50, 64, 9])[:, None]).long()
    torch.manual_seed(7)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(ids, mask, labels=ids, next_sentence_label=torch.tensor([0, 1, 1, 0])).loss
    assert loss is not None
    return loss, sum(kept.values())


def _model() -> BertForPreTraining:
    torch.manual_seed(3)
    sizes = {"vocab_size": 900, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 256}
    return BertForPreTraining(preset("tiny", {**sizes, "num_hidden_layers": 6})).train()


def test_gradients_are_the_same_and_memory_is_less() -> None:
    plain, again = _model(), _model()
    encoder_of(again).recomputes = True
    assert plain.config.hidden_dropout_prob > 0
    assert plain.config.attention_probs_dropout_prob > 0
    plain_loss, plain_bytes = _loss_and_kept_bytes(plain)
    again_loss, again_bytes = _loss_and_kept_bytes(again)
    assert torch.equal(plain_loss, again_loss)
    state = torch.get_rng_state()
    plain_loss.backward()
    again_loss.backward()
    for (name, one), other in zip(plain.named_parameters(), again.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad), name
    assert torch.equal(torch.get_rng_state(), state), "computing again draws nothing from the run's own generator"
    assert again_bytes < 0.4 * plain_bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_pretraining_is_the_same(tmp_path: Path, dtype: torch.dtype) -> None:
    made = make_examples(tmp_path)
    for name, on in (("plain", False), ("again", True)):
        pretrain(
            made.recipe(max_steps=5, activation_checkpointing=on, compile="off"),
            tmp_path / name,
            examples=made.examples,
            tokenizer=made.tokenizer,
            runtime=ONE_THREAD if dtype == torch.float32 else type(ONE_THREAD)(ONE_THREAD.device, dtype, 1),
            console=Console(file=io.StringIO()),
        )
    weights = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("plain", "again")]
    assert weights[0] == weights[1]
    (start,) = events(tmp_path / "again", "start")
    assert start["plan"]["step"] == "eager: activation_checkpointing"
