"""Promise 2, the part of padding: a text alone, in a batch, or padded to any length gets the same answer."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from torch import Tensor

from bertsmith.model import BertForMaskedLM, BertForTokenClassification, BertModel, preset

TINY = preset("tiny", {"vocab_size": 97, "max_position_embeddings": 64, "initializer_range": 0.2})


def padded(rows: list[Tensor], length: int, filler: int = 0) -> tuple[Tensor, Tensor]:
    """(batch, length) ids and mask; `filler` stands where nothing is."""
    ids = torch.full((len(rows), length), filler)
    mask = torch.zeros(len(rows), length, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return ids, mask


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    return bool(((a - b).abs() <= tolerance * b.abs().clamp(min=1)).all())


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    surplus=st.integers(0, 30),
    filler=st.integers(0, 96),
    kept=st.booleans(),
    seed=st.integers(0, 1000),
)
@pytest.mark.parametrize(
    ("dtype", "initializer_range", "tolerance"),
    [(torch.float32, 0.02, 1e-5), (torch.float64, 0.2, 1e-10)],  # large weights make float32's own rounding large
)
def test_padding_changes_nothing(
    dtype: torch.dtype,
    initializer_range: float,
    tolerance: float,
    lengths: list[int],
    surplus: int,
    filler: int,
    kept: bool,
    seed: int,
) -> None:
    """Whatever stands in the padding, however much there is, and in both ways of computing attention."""
    torch.manual_seed(seed)
    model = BertModel(TINY.replace(initializer_range=initializer_range)).to(dtype).eval()
    rows = [torch.randint(1, 97, (length,)) for length in lengths]
    ids, mask = padded(rows, max(lengths) + surplus, filler)
    with torch.no_grad():
        together = model(ids, mask, output_attentions=kept)
        for i, row in enumerate(rows):
            alone = model(row[None])
            assert close(together.last_hidden_state[i, : len(row)], alone.last_hidden_state[0], tolerance)
            assert close(together.pooler_output[i], alone.pooler_output[0], tolerance)


@pytest.mark.parametrize("causal", [False, True])
def test_a_mask_of_ones_is_no_mask(causal: bool) -> None:
    model = BertModel(TINY.replace(is_decoder=causal)).double().eval()
    ids = torch.randint(1, 97, (3, 11))
    with torch.no_grad():
        a, b = model(ids), model(ids, torch.ones_like(ids))
    torch.testing.assert_close(a.last_hidden_state, b.last_hidden_state, rtol=0, atol=1e-12)


def test_gradients_do_not_see_padding() -> None:
    model = BertForTokenClassification(TINY).double().eval()
    rows = [torch.randint(1, 97, (length,)) for length in (3, 9, 6)]
    gradients = []
    for length in (9, 40):
        model.zero_grad()
        ids, mask = padded(rows, length)
        loss = model(ids, mask, labels=torch.where(mask == 1, ids % 2, -100)).loss
        assert loss is not None
        loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_predictions_at_masked_positions_are_those_of_all() -> None:
    model = BertForMaskedLM(TINY).eval()
    ids, mask = padded([torch.randint(1, 97, (length,)) for length in (5, 12, 8)], 16)
    positions = torch.tensor([1, 4, 16, 27, 32 + 7, 0, 0])  # padded with 0 to a fixed count
    labels = torch.tensor([5, 6, 7, 8, 9, -100, -100])
    everywhere = torch.full((3, 16), -100)
    everywhere.view(-1)[positions[:5]] = labels[:5]
    full = model(ids, mask, labels=everywhere)
    few = model(ids, mask, labels=labels, masked_positions=positions)
    assert few.logits.shape == (7, 97)
    assert close(few.logits, full.logits.flatten(0, 1)[positions])
    assert few.loss.item() == pytest.approx(full.loss.item(), rel=1e-6)
    hidden, next_sentence, _ = model.masked_states(ids, positions, mask)
    assert next_sentence is None
    assert close(hidden @ model.decoder_weight.T + model.decoder_bias, few.logits)


SENTENCES = (
    "The cat slept on the warm roof all afternoon.",
    "A kitten was lying in the sun.",
    "Interest rates rose for the third time this year, and banks expect more.",
    "The central bank raised its rate again.",
    "Boil the pasta in salted water for nine minutes, then drain it, but keep a cup of the water for the sauce.",
    "Cook the noodles.",
    "She scored twice in the last ten minutes and won the match.",
    "The striker's late goals decided the game.",
    "The telescope found water vapour around a distant planet.",
    "Astronomers detected steam in the air of a far world, a first for a planet of that size.",
)


def nearest(model: BertModel, batches: list[tuple[Tensor, Tensor]]) -> list[int]:
    """For each text the number of the one most like it, by the cosine of mean token vectors."""
    vectors = []
    for ids, mask in batches:
        hidden = model(ids, mask).last_hidden_state.float() * mask[..., None]
        vectors.append(torch.nn.functional.normalize(hidden.sum(1) / mask.sum(1, keepdim=True), dim=-1))
    together = torch.cat(vectors)
    answers: list[int] = (together @ together.T).fill_diagonal_(-1).argmax(-1).tolist()
    return answers


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_real_checkpoint_decides_the_same(dtype: torch.dtype, minilm_dir: Path) -> None:
    model = BertModel.from_pretrained(minilm_dir)
    tokenizer = Tokenizer.from_file(str(minilm_dir / "tokenizer.json"))
    tokenizer.no_padding()
    rows = [torch.tensor(tokenizer.encode(text).ids) for text in SENTENCES]
    alone = [padded([row], len(row)) for row in rows]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        answers = nearest(model, [padded(rows, 96)])
        assert answers == [1, 0, 3, 2, 5, 4, 7, 6, 9, 8]
        assert answers == nearest(model, alone)
        if dtype == torch.float32:
            for single, row in zip(model(*padded(rows, 96)).last_hidden_state, rows, strict=True):
                assert close(single[: len(row)], model(row[None]).last_hidden_state[0])
