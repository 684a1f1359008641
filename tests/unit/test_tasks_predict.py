"""Prediction and evaluation: order kept, any input, any directory that holds a trained head."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from bertsmith.errors import CheckpointError, UsageError
from bertsmith.model.heads import BertForSequenceClassification
from bertsmith.tasks import predict as predict_module
from bertsmith.tasks.base import Columns
from bertsmith.tasks.evaluate import evaluate
from bertsmith.tasks.fill import fill_mask
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.predict import Predictor, predict
from bertsmith.tasks.rows import TaggedRow
from bertsmith.tasks.words import split_words
from finetune_case import (
    CPU,
    POSITIONS,
    quiet,
    recipe,
    tagged_rows,
    text_rows,
    write_conll,
    write_tiny_model,
    write_tsv,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "classify"
    finetune(recipe(epochs=6), folder, model=base, train=text_rows(60), console=quiet(), runtime=CPU)
    return folder


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tag"
    settings = recipe(task="tag", epochs=8, max_length=12)
    finetune(settings, folder, model=base, train=tagged_rows(60), console=quiet(), runtime=CPU)
    return folder


def test_answers_come_in_order_whatever_stands_beside(classifier: Path, monkeypatch: pytest.MonkeyPatch):
    predictor = Predictor.load(classifier, runtime=CPU)
    texts = [text for text, _ in text_rows(50, seed=5)]
    alone = [predictor.predict([text])[0] for text in texts]
    monkeypatch.setattr(predict_module, "ROWS_AT_ONCE", 7)
    monkeypatch.setitem(predict_module.BATCH_TOKENS, "cpu", 40)
    together = predictor.predict(texts)
    assert [answer.label for answer in together] == [answer.label for answer in alone]
    for one, other in zip(alone, together, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    assert predictor.predict([]) == []
    assert len({answer.label for answer in together}) == 2


def test_a_tagger_takes_words_or_plain_text(tagger: Path):
    predictor = Predictor.load(tagger, runtime=CPU)
    words, text = predictor.predict([["Tomorrow", "paris", "."], "Tomorrow paris."])
    assert words == text
    assert words.tags == ("O", "B-PLACE", "O")
    assert all(0.5 < share <= 1 for share in words.confidence)


def test_words_past_the_longest_length_are_outside(tagger: Path):
    predictor = Predictor.load(tagger, runtime=CPU)
    (answer,) = predictor.predict([["paris"] * 15])
    assert answer.tags == ("B-PLACE",) * 10 + ("O",) * 5, "12 positions, two of them [CLS] and [SEP]"
    assert answer.confidence[10:] == (0.0,) * 5
    assert predictor.encode([TaggedRow(("paris",) * 15, None, 1)]).lost_items == 5


def test_a_long_text_is_cut(classifier: Path):
    predictor = Predictor.load(classifier, runtime=CPU)
    start = "lovely " + "the " * 13
    assert predictor.predict([start])[0] == predictor.predict([start + "awful " * 50])[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Call np.array(x_1)!", ["Call", "np", ".", "array", "(", "x_1", ")", "!"]),
        ("我爱Python3", ["我", "爱", "Python3"]),
        ("  ", []),
    ],
)
def test_plain_text_is_split_into_words_and_marks(text: str, words: list[str]):
    assert split_words(text) == words


def test_empty_texts_are_answered(classifier: Path, tagger: Path):
    assert len(Predictor.load(classifier, runtime=CPU).predict(["", "lovely"])) == 2
    empty, full = Predictor.load(tagger, runtime=CPU).predict(["", "paris"])
    assert (empty.words, empty.tags) == ((), ())
    assert full.tags == ("B-PLACE",)
    assert Predictor.load(tagger, runtime=CPU).predict([""])[0].tags == ()


def test_files_of_every_kind_give_the_same_answers(classifier: Path, tmp_path: Path):
    rows = text_rows(9, seed=4)
    lines = tmp_path / "texts.txt"
    lines.write_text("".join(f"{text}\n" for text, _ in rows), encoding="utf-8")
    frame = pd.DataFrame(rows, columns=["text", "label"])
    frame.drop(columns="label").to_csv(tmp_path / "texts.csv", index=False)
    frame.to_json(tmp_path / "texts.jsonl", orient="records", lines=True)
    bare = tmp_path / "bare.tsv"
    bare.write_text("".join(f"x\t{text}\n" for text, _ in rows), encoding="utf-8")
    predictor = Predictor.load(classifier, runtime=CPU)
    expected = list(predict(predictor, [text for text, _ in rows]))
    assert list(predict(predictor, lines)) == expected
    assert [r["prediction"] for r in predict(predictor, tmp_path / "texts.csv")] == [r["prediction"] for r in expected]
    with_labels = list(predict(predictor, str(tmp_path / "texts.jsonl")))
    assert [r["label"] for r in with_labels] == [label for _, label in rows]
    assert "label" not in expected[0]
    positions = Columns(text=1, label=2, header=False)
    assert [r["text"] for r in predict(predictor, bare, columns=positions)] == [text for text, _ in rows]
    assert json.loads(json.dumps(expected)) == expected


def test_conll_files_are_tagged(tagger: Path, tmp_path: Path):
    rows = tagged_rows(6, seed=8)
    records = list(predict(tagger, write_conll(tmp_path / "test.conll", rows), runtime=CPU))
    assert [record["words"] for record in records] == [tuple(words) for words, _ in rows]
    assert [record["labels"] for record in records] == [tuple(tags) for _, tags in rows]
    (tmp_path / "words.conll").write_text("paris\nday\n\nthe\n", encoding="utf-8")
    first, second = predict(tagger, tmp_path / "words.conll", runtime=CPU)
    assert (first["predictions"], second["words"]) == (("B-PLACE", "O"), ("the",))


def test_evaluate_scores_with_intervals(classifier: Path, tmp_path: Path):
    rows = text_rows(40, seed=6)
    from_file = evaluate(classifier, write_tsv(tmp_path / "held-out.tsv", rows), runtime=CPU)
    in_memory = evaluate(Predictor.load(classifier, runtime=CPU), rows, split="held-out", name="mine")
    assert from_file.scores == in_memory.scores
    assert from_file.metric == "macro_f1"
    assert {row.split for row in (*from_file.table, *in_memory.table)} == {"held-out"}
    assert {row.name for row in in_memory.table} == {"mine"}
    right = sum(record["label"] == record["prediction"] for record in from_file.records)
    assert from_file.scores["accuracy"] == right / 40
    for row in from_file.table:
        assert row.rows == 40
        assert row.low <= row.score <= row.high


def test_a_plain_hugging_face_classifier_works(classifier: Path, tmp_path: Path):
    """No bertsmith.json: task and labels from config.json, length from its positions."""
    folder = tmp_path / "plain"
    folder.mkdir()
    for file in (classifier / "model").iterdir():
        if file.name != "bertsmith.json":
            (folder / file.name).write_bytes(file.read_bytes())
    predictor = Predictor.load(folder, runtime=CPU)
    assert (predictor.task.name, predictor.labels, predictor.max_length) == ("classify", ("bad", "good"), POSITIONS)
    assert predictor.predict(["a lovely day"]) == Predictor.load(classifier, runtime=CPU).predict(["a lovely day"])


@pytest.mark.parametrize("texts", ["one text", [3], [["a", "list"]]])
def test_wrong_texts_are_refused(classifier: Path, texts: Any):
    with pytest.raises(UsageError, match=r"list|string"):
        Predictor.load(classifier, runtime=CPU).predict(texts)


def test_a_model_without_a_head_is_refused(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with pytest.raises(CheckpointError, match="holds BertForPreTraining, which has no head of a task"):
        Predictor.load(base)
    with caplog.at_level(logging.ERROR), pytest.raises(CheckpointError, match=r"no trained head \(classifier"):
        Predictor.load(base, task="classify")
    with pytest.raises(
        UsageError, match="'translate' is unknown; tasks: classify, multilabel, regress, choose, tag, answer"
    ):
        Predictor.load(base, task="translate")


def test_max_length_beyond_the_positions_is_refused(classifier: Path):
    with pytest.raises(UsageError, match=f"has {POSITIONS} positions"):
        Predictor.load(classifier, max_length=POSITIONS + 1)


def test_prediction_leaves_the_model_as_it_was(classifier: Path):
    predictor = Predictor.load(classifier, runtime=CPU)
    predictor.model.train()
    before = torch.get_rng_state()
    first, second = (predictor.predict(["a lovely day"]) for _ in range(2))
    assert first == second, "no dropout"
    assert predictor.model.training
    assert torch.equal(before, torch.get_rng_state())


def test_fill_mask_gives_the_best_pieces(base: Path):
    found = fill_mask(base, "the [MASK] was lovely", top=4, runtime=CPU)
    shares = [share for _, share in found]
    assert len(found) == 4
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1
    everything = fill_mask(base, "the [MASK] was lovely", top=1000, runtime=CPU)
    assert sum(share for _, share in everything) == pytest.approx(1, abs=1e-5)
    assert len({piece for piece, _ in everything}) == len(everything)


@pytest.mark.parametrize(("sentence", "found"), [("no blank", "no"), ("[MASK] and [MASK]", "2")])
def test_fill_mask_needs_one_mask(base: Path, sentence: str, found: str):
    with pytest.raises(UsageError, match=rf"has {found} \[MASK\]"):
        fill_mask(base, sentence)


def test_fill_mask_refuses_a_model_that_was_fine_tuned(classifier: Path):
    with pytest.raises(CheckpointError, match="no trained language head"):
        fill_mask(classifier, "the [MASK]", runtime=CPU)


def test_label_names_of_the_config_are_those_of_the_answers(tmp_path: Path, classifier: Path):
    model = BertForSequenceClassification.from_pretrained(classifier, labels=("NEG", "POS"))
    for file in (classifier / "model").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    model.save_pretrained(tmp_path)
    renamed = Predictor.load(tmp_path, runtime=CPU).predict(["a lovely day"])[0]
    assert renamed.probabilities.keys() == {"NEG", "POS"}


@pytest.mark.parametrize("change", [{"options": {"strides": 3}}, {"options": 3}, {"columns": [1]}])
def test_a_card_that_is_not_ours_is_refused(classifier: Path, tmp_path: Path, change: dict[str, Any]):
    folder = tmp_path / "odd"
    shutil.copytree(classifier / "model", folder)
    card = json.loads((folder / "bertsmith.json").read_text()) | {"task": "answer"} | change
    (folder / "bertsmith.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match=r"bertsmith\.json is not as bertsmith writes it"):
        Predictor.load(folder, runtime=CPU)
