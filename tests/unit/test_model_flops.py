"""The formula for FLOPs against PyTorch's own counter, forward and backward."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bertsmith.examples.assemble import PretrainBatch
from bertsmith.model import BertForMaskedLM, BertForPreTraining, preset
from bertsmith.model.flops import forward_flops, train_flops
from bertsmith.model.language import LanguageModel
from bertsmith.training.batch_flops import flops_of
from bertsmith.training.objectives import loss_sums_of

ROWS, LENGTH, MASKS = 3, 16, 7


def _batch(counts: dict[str, int]) -> PretrainBatch:
    generator = torch.Generator().manual_seed(0)
    return PretrainBatch(
        input_ids=torch.randint(5, 50, (ROWS, LENGTH), generator=generator),
        attention_mask=torch.ones(ROWS, LENGTH, dtype=torch.int64),
        token_type_ids=torch.zeros(ROWS, LENGTH, dtype=torch.int64),
        masked_positions=torch.arange(1, 1 + MASKS),
        masked_labels=torch.arange(10, 10 + MASKS),
        next_sentence_label=torch.zeros(ROWS, dtype=torch.int64),
        same_document_negative=torch.zeros(ROWS, dtype=torch.bool),
        counts=counts,
        num_tokens=ROWS * LENGTH,
        example_ids=tuple(range(ROWS)),
    )


def _counted(model: LanguageModel, batch: PretrainBatch) -> int:
    """By PyTorch; with dropout attention is plain matrix products, where a fused one would count work done twice."""
    loss_sums = loss_sums_of(model.train(), model.masked_states, skips_mask=True)
    with FlopCounterMode(display=False) as counter:
        torch.stack(list(loss_sums(batch).values())).sum().backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("counts", [{"mlm": MASKS}, {"mlm": MASKS, "nsp": ROWS}], ids=["mlm", "mlm and nsp"])
def test_a_step_is_the_formula_to_the_last_flop(layers: int, counts: dict[str, int]) -> None:
    config = preset("tiny", {"vocab_size": 50, "num_hidden_layers": layers, "hidden_size": 32, "intermediate_size": 48})
    model = (BertForPreTraining if "nsp" in counts else BertForMaskedLM)(config)
    batch = _batch(counts)
    assert flops_of(config)(batch) == _counted(model, batch)


def test_agreement_adds_a_forward_pass_of_the_encoder() -> None:
    config = preset("tiny", {"vocab_size": 50, "num_hidden_layers": 2, "hidden_size": 32})
    flops = flops_of(config)
    extra = flops(_batch({"mlm": MASKS, "agreement": ROWS * LENGTH})) - flops(_batch({"mlm": MASKS}))
    assert extra == forward_flops(config, tokens=ROWS * LENGTH, length=LENGTH)


def test_words_are_words_in_every_task() -> None:
    flops = flops_of(preset("tiny"))
    for name in ("masked-word", "language-model"):
        assert flops(_batch({name: MASKS})) == flops(_batch({"mlm": MASKS}))


def test_padding_is_no_work() -> None:
    config = preset("tiny")
    whole = train_flops(config, tokens=64, length=32, masks=9)
    assert whole > train_flops(config, tokens=48, length=24, masks=9)
    assert train_flops(config, tokens=0, length=0) == 0
