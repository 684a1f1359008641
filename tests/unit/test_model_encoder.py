"""The encoder by itself: fresh weights, masks, dropout, and what torch.compile and the meter see of it."""

import math

import pytest
import torch
from torch import nn

from bertsmith.errors import UsageError
from bertsmith.model import BertForPreTraining, BertForSequenceClassification, BertModel, preset
from bertsmith.model.config import BertConfig

TINY = BertConfig(
    vocab_size=53,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=12,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)


@pytest.mark.parametrize("network", [BertForPreTraining, BertForSequenceClassification])
@pytest.mark.parametrize("std", [0.02, 0.1])
def test_fresh_weights_follow_the_paper(network: type[nn.Module], std: float) -> None:
    model = network(preset("tiny", {"initializer_range": std, "vocab_size": 3000, "tie_word_embeddings": False}))
    for name, parameter in model.named_parameters():
        if name.endswith("LayerNorm.weight"):
            assert (parameter == 1).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        else:
            values = parameter[1:] if name.endswith("word_embeddings.weight") else parameter
            assert values.abs().max() <= 2 * std, name
            # A normal cut at two deviations has 0.8796 of its deviation left.
            spread = 3 * 0.8796 * std / math.sqrt(values.numel())
            assert values.mean().abs() <= 1.5 * spread, name
            assert (values.std() - 0.8796 * std).abs() <= 1.5 * spread, name
    assert (model.bert.embeddings.word_embeddings.weight[0] == 0).all()


def test_fresh_weights_are_those_of_the_seed() -> None:
    torch.manual_seed(5)
    first = BertModel(TINY)
    torch.manual_seed(5)
    second = BertModel(TINY)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_no_random_numbers_are_drawn_where_dropout_is_0() -> None:
    model = BertModel(TINY).train()
    before = torch.get_rng_state()
    ids = torch.randint(1, 53, (2, 9), generator=torch.Generator().manual_seed(0))
    model(ids).pooler_output.sum().backward()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("field", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_each_dropout_acts_in_training_only(field: str) -> None:
    model = BertModel(TINY.replace(**{field: 0.5}))
    ids = torch.randint(1, 53, (2, 9))
    assert not torch.equal(model.train()(ids).last_hidden_state, model(ids).last_hidden_state)
    assert torch.equal(model.eval()(ids).last_hidden_state, model(ids).last_hidden_state)


def test_attention_that_is_kept_is_that_of_the_fused_call() -> None:
    model = BertModel(TINY).double().eval()
    ids = torch.randint(1, 53, (2, 9))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    kept = model(ids, mask, output_attentions=True)
    fused = model(ids, mask)
    torch.testing.assert_close(kept.last_hidden_state, fused.last_hidden_state, rtol=0, atol=1e-12)
    assert (kept.attentions[0][1, :, :, 5:] == 0).all()
    torch.testing.assert_close(kept.attentions[0].sum(-1), torch.ones(2, 2, 9, dtype=torch.double))
    assert fused.attentions is None


def test_outputs_that_the_config_asks_for() -> None:
    outputs = BertModel(TINY.replace(output_hidden_states=True, output_attentions=True))(torch.tensor([[1, 2]]))
    assert len(outputs.hidden_states) == 3
    assert len(outputs.attentions) == 2
    assert torch.equal(outputs.hidden_states[-1], outputs.last_hidden_state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kept", [False, True])
def test_a_row_of_padding_alone_is_finite(dtype: torch.dtype, kept: bool) -> None:
    model = BertModel(TINY).eval()
    ids = torch.zeros(2, 5, dtype=torch.long)
    mask = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        outputs = model(ids, mask, output_attentions=kept)
    assert outputs.last_hidden_state.isfinite().all()


def test_wrong_inputs_are_named() -> None:
    model = BertModel(TINY)
    ids = torch.tensor([[1, 2, 3]])
    with pytest.raises(UsageError, match="either input_ids or inputs_embeds"):
        model()
    with pytest.raises(UsageError, match="either input_ids or inputs_embeds"):
        model(ids, inputs_embeds=torch.randn(1, 3, 16))
    with pytest.raises(UsageError, match=r"attention_mask has shape \(1, 2\); it must be \(batch, seq\) = \(1, 3\)"):
        model(ids, torch.ones(1, 2))
    with pytest.raises(UsageError, match="13 tokens are more than this model's 12 positions"):
        model(torch.ones(1, 13, dtype=torch.long))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_training_path_is_one_graph(masked: bool, dropout: float) -> None:
    """torch.compile sees the step whole; the compiler itself is not needed to know that."""
    model = BertForPreTraining(TINY.replace(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)).train()
    ids = torch.randint(1, 53, (2, 9))
    positions, labels = torch.tensor([1, 4, 12]), torch.tensor([5, 6, -100])

    def step() -> torch.Tensor:
        outputs = model(
            ids,
            torch.ones_like(ids) if masked else None,
            masked_positions=positions,
            labels=labels,
            next_sentence_label=torch.tensor([0, 1]),
        )
        assert outputs.loss is not None
        return outputs.loss

    loss = torch.compile(step, backend="eager", fullgraph=True)()
    loss.backward()
    assert loss.isfinite()
    if dropout == 0.0:
        assert loss.item() == pytest.approx(step().item(), rel=1e-6)
