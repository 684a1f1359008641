"""The loss of a guess by frequency: against its formula, against a model that knows nothing else, and its memory."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from bertsmith.artifact import open_artifact
from bertsmith.examples import unigrams
from bertsmith.examples.batches import PretrainData
from bertsmith.examples.blocks import Block
from bertsmith.examples.shards import KIND
from bertsmith.examples.spans import open_spans
from bertsmith.examples.unigrams import chosen_blocks, unigram_losses
from bertsmith.model import BertForMaskedLM, preset
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.heldout import HeldOut
from bertsmith.training.pretrain import pretrain
from pretrain_case import Made, make_examples
from training_case import CPU, events


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_examples(tmp_path_factory.mktemp("made"))


def test_it_is_its_formula(made: Made) -> None:
    blocks = open_spans(open_artifact(made.examples, KIND), "train").blocks
    counts = Counter(token for block in blocks for token in block.tokens.tolist())
    size = Tokenizer.load(made.tokenizer).vocab_size
    losses = unigram_losses(made.examples, vocab_size=size)
    assert losses.shape == (size,)
    for token in range(size):
        expected = -math.log((counts[token] + 1) / (counts.total() + size))
        assert losses[token] == pytest.approx(expected, rel=1e-6)
    assert np.exp(-losses.astype(np.float64)).sum() == pytest.approx(1.0)


def test_a_model_that_knows_frequencies_alone_loses_just_that(made: Made) -> None:
    tokenizer = Tokenizer.load(made.tokenizer)
    losses = torch.from_numpy(unigram_losses(made.examples, vocab_size=tokenizer.vocab_size))
    model = BertForMaskedLM(preset("tiny", {**made.raw["model"]["overrides"], "vocab_size": tokenizer.vocab_size}))
    with torch.no_grad():
        for parameter in model.cls.predictions.transform.LayerNorm.parameters():  # type: ignore[union-attr]
            parameter.zero_()  # so that the context reaches no logit
        model.decoder_bias.copy_(-losses)
    data = PretrainData(made.examples, split="validation", tokenizer=tokenizer, objectives=("mlm",), seed=1)
    heldout = HeldOut(model.eval(), data, num_examples=40, tokenizer=tokenizer, runtime=CPU, unigram_losses=losses)
    with torch.no_grad():
        evaluation = heldout.evaluate()
    assert evaluation.details["unigram_entropy"] == pytest.approx(evaluation.losses["mlm"], rel=1e-5)


def test_a_run_logs_and_shows_it(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = made.recipe(max_steps=2, evaluate_every_steps=1)
    pretrain(recipe, tmp_path / "run", examples=made.examples, tokenizer=made.tokenizer, runtime=CPU)
    first, second = events(tmp_path / "run", "evaluation")
    assert first["unigram_entropy"] == second["unigram_entropy"] < first["losses"]["mlm"]
    printed = capsys.readouterr().out
    assert printed.count("is the loss at hidden words by frequency alone") == 1
    assert f"baseline   {first['unigram_entropy']:.4f}" in printed


def test_pairs_alone_have_no_such_baseline(made: Made, tmp_path: Path) -> None:
    recipe = made.recipe(max_steps=1, objectives=["nsp"])
    pretrain(recipe, tmp_path / "run", examples=made.examples, tokenizer=made.tokenizer, runtime=CPU)
    assert "unigram_entropy" not in events(tmp_path / "run", "evaluation")[-1]


def test_much_text_is_counted_in_some_blocks_one_at_a_time(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    monkeypatch.setattr(unigrams, "open_index", lambda *_: type("Index", (), {"spans": np.ones(1000)}))

    def map_block(folder: Path, split: str, number: int) -> Block:
        read.append(number)
        tokens = np.array([3, 3, 1], dtype=np.uint16)
        return Block(tokens, *[np.zeros(0)] * 5)

    monkeypatch.setattr(unigrams, "map_block", map_block)
    losses = unigram_losses(made.examples, vocab_size=4)
    assert len(read) == 32
    assert (read[0], read[-1]) == (0, 999)
    assert np.diff(read).min() >= 32
    assert losses.tolist() == pytest.approx([-math.log(n / 100) for n in (1, 33, 1, 65)])


def test_few_blocks_are_all_counted() -> None:
    assert chosen_blocks(3) == [0, 1, 2]
    assert chosen_blocks(1) == [0]
