"""Entities as spans, columns of CoNLL, tagging schemes, and tags that go on with nothing."""

import json
import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.errors import DataError
from bertsmith.tasks.base import Columns
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.metrics import are_entities, entities, orphans
from bertsmith.tasks.predict import Predictor, predict
from bertsmith.tasks.rows import TaggedRow
from bertsmith.tasks.spans import Entity, tags_of
from bertsmith.tasks.tag import Tag
from bertsmith.tasks.tag_tables import read_tagged_rows
from bertsmith.tasks.words import word_spans
from finetune_case import CPU, quiet, recipe, tagged_rows, write_tiny_model

TEXT = "Ada Lovelace met Charles in London."
SPANS: list[dict[str, Any]] = [
    {"start": 0, "end": 12, "label": "PER"},
    {"start": 17, "end": 24, "label": "PER"},
    {"start": 28, "end": 34, "label": "LOC"},
]
WORDS = ("Ada", "Lovelace", "met", "Charles", "in", "London", ".")
TAGS = ("B-PER", "I-PER", "O", "B-PER", "O", "B-LOC", "O")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_spans_are_read_from_every_kind_of_table(tmp_path: Path) -> None:
    records = [{"text": TEXT, "entities": SPANS}, {"text": "None here", "entities": []}]
    triples = [{"text": TEXT, "entities": [[s["start"], s["end"], s["label"]] for s in SPANS]}, records[1]]
    path = write(tmp_path / "a.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    pd.DataFrame(records).to_parquet(tmp_path / "a.parquet")
    expected = [TaggedRow(WORDS, TAGS, 1), TaggedRow(("None", "here"), ("O", "O"), 2)]
    for source in (records, triples, path, tmp_path / "a.parquet", pd.DataFrame(records)):
        assert read_tagged_rows(source) == expected
    renamed = [{"body": record["text"], "names": record["entities"]} for record in records]
    assert Tag().read(renamed, Columns(text="body", label="names"), require_labels=True) == expected
    bare = read_tagged_rows([{"text": TEXT}], require_labels=False)
    assert bare == [TaggedRow(WORDS, None, 1)]


@given(
    cuts=st.lists(st.integers(0, 7), max_size=8, unique=True),
    labels=st.lists(st.sampled_from("XY"), min_size=4, max_size=4),
)
def test_tags_say_what_the_spans_did(cuts: set[int], labels: list[str]) -> None:
    """Spans of whole words go there and back."""
    spans = word_spans(TEXT)
    borders = sorted(cuts)
    given = [
        Entity(spans[first][1], spans[last - 1][2], label)
        for first, last, label in zip(borders[::2], borders[1::2], labels, strict=False)
    ]
    words, tags, widened = tags_of(TEXT, given)
    assert words == WORDS
    assert not widened
    found = [Entity(spans[first][1], spans[end - 1][2], label) for label, first, end in entities(tags)]
    assert found == given


def test_a_span_inside_a_word_is_widened_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"text": "about 12kg", "entities": [{"start": 8, "end": 10, "label": "UNIT"}]}] * 12
    path = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert {row.labels for row in read_tagged_rows(path)} == {("O", "B-UNIT")}
    assert "a.jsonl: 12 rows have an entity that begins or ends inside a word" in caplog.text
    assert "1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more" in caplog.text


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ([[0, 12, "PER"], [4, 16, "X"]], r"row 2: entities PER \[0, 12\) and X \[4, 16\) overlap"),
        ([[0, 12, "PER"], [0, 12, "PER"]], r"row 2: entities PER \[0, 12\) and PER \[0, 12\) overlap"),
        ([[0, 2, "A"], [2, 3, "B"]], r"row 2: entity B \[2, 3\) begins in a word that an entity before it ends in"),
        ([[0, 99, "PER"]], r"row 2: entity PER \[0, 99\) is no part of a text of 35 characters"),
        ([[5, 5, "PER"]], r"row 2: entity PER \[5, 5\) is no part"),
        ([[3, 4, "PER"]], r"row 2: entity PER \[3, 4\) holds no word"),
        ([[0, 3, ""]], r"row 2: the label is missing"),
        ([[0, 3]], r'row 2: entity .\[0, 3\]. is not \{"start": 0'),
        ([{"start": "0", "end": 3, "label": "X"}], r"row 2: entity .* is not"),
        ("PER", r"row 2: column 'entities' is str 'PER'; expected a list of entities"),
        (None, r"row 2: column 'entities' is missing; expected a list"),
    ],
)
def test_wrong_spans(listed: object, message: str) -> None:
    rows = [{"text": TEXT, "entities": SPANS}, {"text": TEXT, "entities": listed}, {"text": " ", "entities": []}]
    with pytest.raises(DataError, match=message + r".*\(wrong rows besides: 3\)"):
        read_tagged_rows(rows)


def test_any_columns_of_conll(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conll", "1 EU NNP B-ORG x\n2 rejects VBZ O y\n\n1 Lamb NN O x\n")
    rows = read_tagged_rows(path, words_column=1, labels_column=3)
    assert [(row.words, row.labels) for row in rows] == [(("EU", "rejects"), ("B-ORG", "O")), (("Lamb",), ("O",))]
    with pytest.raises(DataError, match=r"a\.conll:1: no column 5 in a line of 5; columns are counted from 0"):
        read_tagged_rows(path, labels_column=5)


@pytest.mark.parametrize(
    "tags",
    [
        ["B-X", "I-X", "O", "B-Y", "B-X"],
        ["B-X", "E-X", "O", "S-Y", "S-X"],
        ["B-X", "L-X", "O", "U-Y", "U-X"],
        ["I-X", "I-X", "O", "I-Y", "I-X"],
    ],
)
def test_schemes_are_read_alike(tags: list[str]) -> None:
    assert are_entities(tags)
    assert entities(tags) == [("X", 0, 2), ("Y", 3, 4), ("X", 4, 5)]


def test_bmes_has_long_entities_and_bare_letters() -> None:
    assert entities(["B-X", "M-X", "M-X", "E-X", "S-X"]) == [("X", 0, 4), ("X", 4, 5)]
    assert entities(["B", "M", "E", "S"]) == [("_", 0, 3), ("_", 3, 4)]
    assert are_entities(["B", "M", "E", "S"])
    assert not are_entities(["S", "M", "L", "O"]), "sizes of clothes"


def test_tags_that_go_on_with_nothing_are_read_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert orphans(["I-X", "I-X", "O", "B-X", "I-Y", "I-Y"]) == [0, 4]
    path = write(tmp_path / "a.conll", "a B-X\nb I-X\n\nc O\nd I-X\n\ne B-X\n")
    with caplog.at_level(logging.WARNING):
        read_tagged_rows(path)
    assert "a.conll: 1 tags go on with an entity that has not begun" in caplog.text
    assert caplog.text.rstrip().endswith("as seqeval does: 5")
    caplog.clear()
    read_tagged_rows(write(tmp_path / "io.conll", "a I-X\nb I-X\n\nc O\nd I-X\n"))
    assert not caplog.text, "plain IO tags are a scheme of their own"


def test_spans_are_learned_and_predicted(tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "base")
    rows = []
    for words, tags in tagged_rows(60):
        text, spans = "", []
        for word, tag in zip(words, tags, strict=True):
            text += " " if text else ""
            if tag != "O":
                spans.append({"start": len(text), "end": len(text) + len(word), "label": "PLACE"})
            text += word
        rows.append({"text": text, "entities": spans})
    finetune(recipe(task="tag", epochs=3), tmp_path / "run", model=base, train=rows, console=quiet(), runtime=CPU)
    predictor = Predictor.load(tmp_path / "run", runtime=CPU)
    assert predictor.labels == ("B-PLACE", "O")
    path = write(tmp_path / "new.jsonl", json.dumps({"text": "the day paris"}) + "\n")
    (record,) = predict(predictor, path)
    assert record["words"] == ("the", "day", "paris")
