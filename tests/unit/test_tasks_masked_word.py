"""Masked words: what is hidden, anew each epoch and always the same where it is scored; learning; filling in."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import bertsmith
from bertsmith.errors import DataError, Stopped, UsageError
from bertsmith.examples.mask import budgets
from bertsmith.tasks.base import Columns
from bertsmith.tasks.batches import TrainingBatches, assemble
from bertsmith.tasks.evaluate import evaluate
from bertsmith.tasks.fill import MaskFiller
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.masked_word import MaskedTexts, MaskedWord
from bertsmith.tasks.predict import Predictor, predict
from bertsmith.tokenizer.encode import Tokenizer
from finetune_case import CPU, quiet, recipe, text_rows, write_tiny_model

TEXTS = [text for text, _ in text_rows(120, seed=2)]
SURE = [
    "tom is awful today .",
    "paris is so kind and bright .",
    "rome was very lovely .",
    "it was the gloomy day .",
] * 30


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Tokenizer:
    return Tokenizer.load(base)


def encoded(task: MaskedWord, texts: Any, tokenizer: Tokenizer, max_length: int = 32) -> MaskedTexts:
    rows = task.read(texts, Columns(), require_labels=True)
    features = task.encode(rows, tokenizer, labels=task.own_labels, max_length=max_length)
    assert isinstance(features, MaskedTexts)
    return features


def drawn(task: MaskedWord, features: MaskedTexts, examples: list[int], *, seed: int = 1, epoch: int = 0) -> Any:
    batch = assemble(features, np.array(examples), objective="x", pad_id=0)
    return task.redraw(batch, features, seed=seed, epoch=epoch)


def unmasked(batch: Any) -> list[list[int]]:
    ids = batch.input_ids.clone()
    ids.view(-1)[batch.items] = batch.targets
    return ids.tolist()


@pytest.mark.parametrize("by", ["token", "word", "span"])
def test_what_is_hidden_is_a_function_of_seed_epoch_and_example(tokenizer: Tokenizer, by: Any) -> None:
    task = MaskedWord(mask_share=0.4, mask_by=by)
    features = encoded(task, TEXTS, tokenizer)
    every = list(range(len(TEXTS)))
    whole = drawn(task, features, every)
    plain = [[tokenizer.cls_id, *ids, tokenizer.sep_id] for ids in tokenizer.encode_ids(TEXTS)]
    assert [[piece for piece in row if piece] for row in unmasked(whole)] == plain
    assert whole.counts == {"x": len(whole.items)}

    def hidden(batch: Any) -> dict[int, list[tuple[int, int]]]:
        """Example -> (place, what the model sees there)."""
        seq = batch.input_ids.shape[1]
        found: dict[int, list[tuple[int, int]]] = {example: [] for example in batch.example_ids}
        for item in batch.items.tolist():
            found[batch.example_ids[item // seq]].append((item % seq, int(batch.input_ids.view(-1)[item])))
        return found

    alone = {example: hidden(drawn(task, features, [example]))[example] for example in every}
    assert alone == hidden(whole), "whatever batch it is in"
    backwards = drawn(task, features, every[::-1])
    assert hidden(backwards) == hidden(whole)
    for other in (drawn(task, features, every, epoch=1), drawn(task, features, every, seed=2)):
        assert hidden(other) != hidden(whole)
        assert unmasked(other) == unmasked(whole)


def test_how_much_is_hidden(tokenizer: Tokenizer) -> None:
    """mask_share in training; 15 % where it is scored, the same for all seeds and shares."""
    few, many = MaskedWord(mask_share=0.15), MaskedWord(mask_share=0.6)
    one, other = (encoded(task, TEXTS, tokenizer) for task in (few, many))
    assert np.array_equal(one.tokens.values, other.tokens.values)
    assert one.targets is not None
    assert np.array_equal(one.targets, other.targets)  # type: ignore[arg-type]
    counts = one.tokens.lengths - 2
    assert np.array_equal(one.items.lengths, budgets(counts, 0.15))
    every = list(range(len(TEXTS)))
    assert len(drawn(many, other, every).items) == budgets(counts, 0.6).sum()
    at_items = one.whole[one.tokens.starts[:-1].repeat(one.items.lengths) + one.items.values]
    assert np.array_equal(at_items, one.targets)
    changed = one.whole != one.tokens.values
    assert 0 < changed.sum() <= len(one.targets)
    assert (one.tokens.values[changed] == tokenizer.mask_id).mean() > 0.7


def test_whole_words_are_hidden_whole(tokenizer: Tokenizer) -> None:
    task = MaskedWord(mask_share=0.5, mask_by="word")
    features = encoded(task, ["tomorrow tomorrow the tomorrow day"] * 50, tokenizer)
    batch = drawn(task, features, list(range(50)))
    chosen = torch.zeros_like(batch.input_ids, dtype=torch.bool)
    chosen.view(-1)[batch.items] = True
    whole = torch.tensor(unmasked(batch))
    second = torch.nonzero(whole == tokenizer.token_id("##orrow"))
    assert len(second) == 150
    assert all(chosen[row, place] == chosen[row, place - 1] for row, place in second.tolist())
    by_token = drawn(MaskedWord(mask_share=0.5), features, list(range(50)))
    chosen = torch.zeros_like(chosen)
    chosen.view(-1)[by_token.items] = True
    assert not all(chosen[row, place] == chosen[row, place - 1] for row, place in second.tolist())


def test_long_texts_are_read_in_parts_and_nothing_is_lost(tokenizer: Tokenizer) -> None:
    text = " ".join(["the day was so kind and bright"] * 4)
    features = encoded(MaskedWord(), [text, "paris", "\u200b", text], tokenizer, max_length=10)
    assert features.row_of_example.tolist() == [0, 0, 0, 0, 1, 3, 3, 3, 3], (
        "a text of which nothing is left has no part"
    )
    assert not features.cut_tokens.any()
    parts = np.split(features.whole, features.tokens.starts[1:-1])
    joined = [piece for part in parts[:4] for piece in part[1:-1].tolist()]
    assert joined == tokenizer.encode_ids([text])[0]
    assert features.items.lengths.tolist()[4] == 1, "a text of one token has one word to guess"


def test_a_batch_is_a_function_of_the_step(tokenizer: Tokenizer) -> None:
    task = MaskedWord()
    features = encoded(task, TEXTS, tokenizer)

    def batches() -> TrainingBatches:
        return TrainingBatches(
            features,
            objective="x",
            redraw=lambda batch, epoch: task.redraw(batch, features, seed=3, epoch=epoch),
            pad_id=0,
            batch_size=16,
            seed=3,
        )

    straight = batches()
    found = [straight.batch(step)[0] for step in range(17)]
    sought = batches().batch(16)[0]
    assert torch.equal(sought.input_ids, found[16].input_ids)
    assert torch.equal(sought.items, found[16].items)
    micro = batches().batch(16, micro_batch_size=5)
    assert sorted(target for part in micro for target in part.targets.tolist()) == sorted(found[16].targets.tolist())


def learn(folder: Path, base: Path, **settings: Any) -> Any:
    given: dict[str, Any] = {"train": SURE, "validation": SURE[:4], "console": quiet(), "runtime": CPU}
    given |= {key: settings.pop(key) for key in ("train", "on_evaluation") if key in settings}
    return finetune(recipe(task="masked-word", **settings), folder, model=base, **given)


def test_each_epoch_hides_other_words(tmp_path: Path, base: Path) -> None:
    """Through `finetune`, where nothing else changes: no dropout, and no step that would matter."""
    still: dict[str, Any] = {"learning_rate": 1e-12, "dropout": 0.0, "epochs": 3, "train": SURE[:24]}
    losses = [row.training_loss for row in learn(tmp_path / "run", base, **still).table]
    assert len({round(loss, 3) for loss in losses}) == 3
    found = evaluate(tmp_path / "run", SURE[:4], runtime=CPU).loss
    assert found == pytest.approx(learn(tmp_path / "run", base, **still).table[0].validation_loss, rel=1e-5)


@pytest.mark.parametrize("stop_at", [2, 5])
def test_stopped_and_resumed_equals_never_stopped(tmp_path: Path, base: Path, stop_at: int) -> None:
    """In the first epoch and in the second, which hides other words."""
    settings = {"evaluate_every": 1, "micro_batch_size": 3, "mask_by": "word", "mask_share": 0.3, "train": SURE[:24]}
    straight = learn(tmp_path / "straight", base, **settings)

    def interrupt(step: int, _: object) -> None:
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped):
        learn(tmp_path / "stopped", base, on_evaluation=interrupt, **settings)
    resumed = learn(tmp_path / "stopped", base, **settings)
    for name in ("model", "last"):
        one, other = (load_file(tmp_path / run / name / "model.safetensors") for run in ("stopped", "straight"))
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert resumed.scores == straight.scores


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    folder = tmp_path_factory.mktemp("learned") / "run"
    result = learn(folder, base, epochs=20)
    assert result.scores["validation"]["accuracy"] > 0.7
    assert result.table[-1].validation_loss < result.table[0].validation_loss
    return folder


def test_scores_say_the_same_thing(learned: Path) -> None:
    found = evaluate(learned, SURE[:8], runtime=CPU)
    assert found.scores["perplexity"] == pytest.approx(np.exp(found.scores["loss"]))
    assert found.loss == pytest.approx(found.scores["loss"], rel=1e-6)
    for row in found.table:
        assert row.low <= row.score <= row.high
    again = evaluate(learned, SURE[:8], runtime=CPU)
    assert again.scores == found.scores
    blanks = [blank for record in found.records for blank in record["blanks"]]
    right = [max(blank["guesses"], key=blank["guesses"].get) == blank["truth"] for blank in blanks]
    assert np.mean(right) == pytest.approx(found.scores["accuracy"])
    assert np.mean([blank["loss"] for blank in blanks]) == pytest.approx(found.scores["loss"], abs=1e-5)
    json.dumps(found.records)


def test_masks_are_filled_in(learned: Path) -> None:
    predictor = bertsmith.load(learned, runtime=CPU)
    assert isinstance(predictor, Predictor)
    (answer,) = predictor.predict(["Rome was [MASK] lovely [MASK]"])
    assert answer.text == "Rome was very lovely ."
    assert [len(blank.guesses) for blank in answer.blanks] == [5, 5]
    shares = [share for _, share in answer.blanks[0].guesses]
    assert shares == sorted(shares, reverse=True)
    assert answer.blanks[0].truth is None
    filler = MaskFiller.load(learned, runtime=CPU)
    text = "rome was [MASK] lovely ."
    (one,) = predictor.predict([text])
    assert list(one.blanks[0].guesses) == [(word, pytest.approx(p, abs=1e-6)) for word, p in filler.predict(text)]


def test_a_piece_that_continues_a_word_is_joined_to_it(tokenizer: Tokenizer) -> None:
    task, ids = MaskedWord(), [tokenizer.token_id("##orrow"), tokenizer.token_id("kind")]
    rows = [task.row("So Tom [MASK] is [MASK].", 1)]
    features = task.encode(rows, tokenizer, labels=None, max_length=32)  # type: ignore[arg-type]
    results = np.array([[0.0, np.log(0.5), number] for number in ids], dtype=np.float32)
    (answer,) = task.decode(rows, features, results, task.own_labels)  # type: ignore[arg-type]
    assert answer.text == "So Tomorrow is kind."
    assert answer.blanks[0].guesses == (("##orrow", 0.5),)


def test_files_to_fill_in(learned: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("rome was very [MASK] .\n\nit was the [MASK] day .\n", encoding="utf-8")
    records = list(predict(learned, texts, runtime=CPU))
    assert [record["filled"] for record in records] == ["rome was very lovely .", "it was the gloomy day ."]
    assert [record["line"] for record in records] == [1, 3]
    table = tmp_path / "rows.csv"
    table.write_text("text\nrome was [MASK] lovely .\nno blank\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"rows.csv:3: no \[MASK\] in the text"):
        list(predict(learned, table, runtime=CPU))
    with pytest.raises(UsageError, match=r"expected a text with \[MASK\] in it"):
        list(predict(learned, ["nothing to fill in"], runtime=CPU))


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"labels": ["a", "b"]}, UsageError, "labels is for classes; here the words"),
        ({"pair_column": "pair"}, UsageError, "pair_column is for texts"),
        ({"train": ["\u200b", "\u200b"]}, DataError, "no text has a word that the tokenizer keeps"),
        ({"lazy_embeddings": "on"}, UsageError, "they are the decoder too, whose gradient reaches all rows"),
    ],
)
def test_what_is_refused(tmp_path: Path, base: Path, settings: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        learn(tmp_path / "run", base, **settings)


def test_an_empty_file(tmp_path: Path) -> None:
    file = tmp_path / "empty.txt"
    file.write_text("\n\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"empty\.txt: the file is empty"):
        MaskedWord().read(file, Columns(), require_labels=True)
    with pytest.raises(DataError, match="row 2: the text in column 'text' is empty"):
        MaskedWord().read(["a", " "], Columns(), require_labels=True)


@pytest.mark.parametrize("extra", [{"r_drop": 1.0}, {"adversarial": "fgm"}, {"l2_start": 0.01}])
def test_what_holds_on_works_for_words_too(tmp_path: Path, base: Path, extra: dict[str, Any]) -> None:
    result = learn(tmp_path / "run", base, train=SURE[:16], epochs=1, **extra)
    assert np.isfinite(result.scores["validation"]["loss"])
