"""The words that drove a mistake, and validation rows followed over evaluations."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bertsmith.analysis.report import write_report
from bertsmith.config import parse_recipe
from bertsmith.tasks.classify import Classification, Classify
from bertsmith.tasks.features import Features
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.followed import MOST_ROWS, followed_rows
from bertsmith.tasks.occlusion import MOST_PIECES, driving_words, pieces_of
from bertsmith.tasks.rows import ClassRow, TextRow
from bertsmith.tokenizer.encode import Tokenizer
from finetune_case import CPU, quiet, text_rows, write_tiny_model, write_tsv


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("It's so-so, 价格高!", ["It's", "so", "-", "so", ",", "价", "格", "高", "!"]),
        ("", []),
        (" \n ", []),
        ("a\u0301b <b>", ["a", "\u0301", "b", "<", "b", ">"]),
    ],
)
def test_pieces_are_words_signs_and_chinese_characters(text: str, pieces: list[str]) -> None:
    assert [text[begin:end] for begin, end in pieces_of(text)] == pieces


def test_of_a_long_text_neighbours_are_hidden_together() -> None:
    text = "word " * 1000
    found = pieces_of(text)
    assert len(found) <= MOST_PIECES
    assert found[0][0] == 0
    assert found[-1][1] == len(text.rstrip())


def told(tokenizer: Tokenizer, row: ClassRow, max_length: int = 32) -> dict[str, Any]:
    """With a model whose probability of `good` is 0.1, and 0.4 more for each `lovely` that it sees, in either text."""
    task = Classify()
    lovely = tokenizer.encode_ids(["lovely"])[0][0]

    def encode(rows: Sequence[ClassRow]) -> Features:
        return task.encode(rows, tokenizer, labels=("bad", "good"), max_length=max_length)

    def answer(rows: Sequence[ClassRow], features: Features) -> list[Classification]:
        starts = features.tokens.starts
        seen = [features.tokens.values[b:e] == lovely for b, e in itertools.pairwise(starts)]
        shares = [0.1 + 0.4 * int(one.sum()) for one in seen]
        assert len(rows) == len(shares)
        return [Classification("good", {"good": share, "bad": 1 - share}) for share in shares]

    (record,) = driving_words(
        task, [row], answer([row], encode([row])), tokenizer=tokenizer, encode=encode, answer=answer
    )
    return record


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer.load(write_tiny_model(tmp_path / "base"))


def test_the_word_that_drove_a_mistake_is_found(tokenizer: Tokenizer) -> None:
    text = "The  day was LOVELY, tomorrow."
    record = told(tokenizer, TextRow(text, "bad", 7))
    assert (record["row"], record["line"], record["label"], record["prediction"]) == (0, 7, "bad", "good")
    assert "".join(piece for piece, _ in record["text"]) == text
    assert {piece: fall for piece, fall in record["text"] if fall} == {"LOVELY": 0.4}
    assert [piece for piece, fall in record["text"] if fall is None] == ["  ", " ", " ", " "]


def test_pairs_and_what_is_cut_off(tokenizer: Tokenizer) -> None:
    row = TextRow("it was so", "bad", 1, pair="the day is lovely and very very very lovely")
    record = told(tokenizer, row, max_length=11)
    assert all(fall == 0 for _, fall in record["text"] if fall is not None)
    falls = [(piece, fall) for piece, fall in record["pair"] if piece.strip()]
    assert falls[3] == ("lovely", 0.4)
    assert falls[-1] == ("lovely", None), "the model has not read it"


def test_rows_followed_are_spread_over_all() -> None:
    assert followed_rows(3) == [0, 1, 2]
    found = followed_rows(10_000)
    assert len(set(found)) == MOST_ROWS
    assert (found[0], found[-1]) == (0, 9999)


def test_a_fine_tuning_writes_both_and_the_report_tells_them(tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "base")
    table = write_tsv(tmp_path / "rows.tsv", text_rows(80))
    settings = {"model": str(base), "train": str(table), "epochs": 2, "max_length": 32}
    recipe = parse_recipe({"name": "moods", "finetune": settings})
    run = finetune(recipe, tmp_path / "run", runtime=CPU, console=quiet()).run_dir
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluations = [event for event in events if event["event"] == "evaluation"]
    texts = [json.loads(line) for line in (run / "followed.jsonl").read_text().splitlines()]
    for event in evaluations:
        assert [row for row, *_ in event["followed"]] == [line["row"] for line in texts]
        share = sum(right for _, right, *_ in event["followed"]) / len(texts)
        assert share == pytest.approx(event["scores"]["accuracy"])
    (mistakes,) = run.glob("mistakes-*.jsonl")
    records = [json.loads(line) for line in mistakes.read_text().splitlines()]
    assert all(one["label"] != one["prediction"] for one in records)
    page = write_report(run).read_text(encoding="utf-8")
    assert "Rows followed" in page
    assert "Each word was hidden in turn" in page
