"""Scores of parts of a table: the right rows in each, their scores those of the rows alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bertsmith.errors import DataError, UsageError
from bertsmith.tasks.evaluate import evaluate
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.metrics import classification_interval, score_classification
from bertsmith.tasks.slices import MOST_VALUES, SliceRow, read_slices
from finetune_case import CPU, choice_rows, question_rows, quiet, recipe, tagged_rows, text_rows, write_tiny_model

ROWS = [
    {"text": text, "label": label, "topic": ("sport", "news", "")[number % 3], "part": number % 30}
    for number, (text, label) in enumerate(text_rows(48, seed=3))
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def model(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tables = {"model": base, "train": text_rows(60, seed=1), "console": quiet(), "runtime": CPU}
    return finetune(recipe(), tmp_path_factory.mktemp("run"), **tables).run_dir


def of(rows: tuple[SliceRow, ...], name: str) -> dict[str, SliceRow]:
    return {row.value: row for row in rows if row.slice == name}


def test_each_part_is_scored_as_a_table_of_its_own(model: Path, tmp_path: Path) -> None:
    found = evaluate(model, ROWS, slice_columns=["topic", "part"], runtime=CPU)
    topics = of(found.slices, "topic")
    assert [(value, row.rows) for value, row in topics.items()] == [("(empty)", 16), ("news", 16), ("sport", 16)]
    records = [record for record, row in zip(found.records, ROWS, strict=True) if row["topic"] == "news"]
    truth, guess = [one["label"] for one in records], [one["prediction"] for one in records]
    news = topics["news"]
    assert (news.metric, news.score) == ("macro_f1", score_classification(truth, guess, ("bad", "good"))["macro_f1"])
    assert (news.low, news.high) == classification_interval(truth, guess, ("bad", "good"), "macro_f1", seed=42)
    labels = of(found.slices, "label")
    bad = [record["prediction"] == "bad" for record in found.records if record["label"] == "bad"]
    assert (labels["bad"].metric, labels["bad"].score) == ("accuracy", pytest.approx(np.mean(bad)))
    assert sum(row.rows for row in labels.values()) == 48
    lengths = of(found.slices, "tokens")
    assert 2 <= len(lengths) <= 4
    assert sum(row.rows for row in lengths.values()) == 48
    assert min(row.rows for row in lengths.values()) >= 4
    parts = of(found.slices, "part")
    assert len(parts) == MOST_VALUES + 1
    assert parts["(10 other values)"].rows == 48 - sum(row.rows for value, row in parts.items() if value.isdigit())

    frame, file = pd.DataFrame(ROWS), tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    for table in (frame, file):
        again = evaluate(model, table, slice_columns=["topic"], runtime=CPU)
        assert [row.score for row in of(again.slices, "topic").values()] == [row.score for row in topics.values()]


def test_columns_by_number_and_names_that_are_taken(model: Path, tmp_path: Path) -> None:
    rows = [(row["text"], row["label"], row["topic"]) for row in ROWS]
    assert set(read_slices(rows, [], [2], header=False)) == {"column 2"}
    with pytest.raises(UsageError, match="rows that are tuples have no column 'topic'; give dicts, or"):
        evaluate(model, rows, slice_columns=["topic"], runtime=CPU)
    named = [row | {"tokens": "x"} for row in ROWS]
    found = evaluate(model, named, slice_columns=["tokens"], runtime=CPU)
    assert of(found.slices, "column tokens")["x"].rows == 48
    file = tmp_path / "rows.tsv"
    file.write_text("text\tlabel\ttopic\n" + "\n".join("\t".join(row) for row in rows), encoding="utf-8")
    with pytest.raises(DataError, match=r"rows\.tsv:1: no column 'topics' \(did you mean 'topic'\?\)"):
        evaluate(model, file, slice_columns=["topics"], runtime=CPU)


def test_a_recipe_names_columns_and_is_scored_again_for_others(base: Path, tmp_path: Path) -> None:
    tables = {"model": base, "train": ROWS, "test": {"new": ROWS}, "runtime": CPU, "console": quiet()}
    result = finetune(recipe(epochs=1), tmp_path, **tables)
    weights = (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns
    names = {row["slice"] for row in json.loads((tmp_path / "scores.json").read_text())["slices"]}
    assert names == {"tokens", "label"}
    again = finetune(recipe(epochs=1, slice_columns=["topic"]), tmp_path, **tables)
    slices = json.loads((tmp_path / "scores.json").read_text())["slices"]
    assert {row["value"] for row in slices if row["slice"] == "topic"} == {"sport", "news", "(empty)"}
    assert {row["split"] for row in slices} == {"new"}
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns == weights
    assert again.scores == result.scores
    with pytest.raises(DataError, match="no field 'topics'"):
        finetune(recipe(epochs=1, slice_columns=["topics"]), tmp_path / "other", **tables)
    assert not (tmp_path / "other").exists(), "before the first step"


def test_several_tables_and_rows_that_are_held_out(base: Path, tmp_path: Path) -> None:
    for name, rows in (("a", ROWS[:20]), ("b", ROWS[20:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    files = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    settings: dict[str, Any] = {"epochs": 1, "slice_columns": ["topic"]}
    shared: dict[str, Any] = {"model": base, "console": quiet(), "runtime": CPU}

    def topics(folder: str) -> dict[str, int]:
        slices = json.loads((tmp_path / folder / "scores.json").read_text())["slices"]
        return {row["value"]: row["rows"] for row in slices if row["slice"] == "topic"}

    finetune(recipe(**settings, train=files, test={"new": files}), tmp_path / "two", **shared)
    assert topics("two") == {"sport": 16, "news": 16, "(empty)": 16}
    finetune(recipe(**settings, train=files[1], test_share=0.5), tmp_path / "held", **shared)
    assert sum(topics("held").values()) == 14
    with pytest.raises(UsageError, match=r"slices by column 'topic' need rows that are lines of one table"):
        finetune(recipe(**settings, train=files, test_share=0.5), tmp_path / "lost", **shared)


@pytest.mark.parametrize(
    ("task", "rows"),
    [("tag", tagged_rows(20)), ("choose", choice_rows(20)), ("answer", question_rows(20))],
    ids=["tag", "choose", "answer"],
)
def test_other_tasks_have_parts_by_length(base: Path, tmp_path: Path, task: str, rows: list[Any]) -> None:
    result = finetune(
        recipe(task=task, epochs=1, stride=4) if task == "answer" else recipe(task=task, epochs=1),
        tmp_path,
        model=base,
        train=rows,
        test={"new": rows},
        console=quiet(),
        runtime=CPU,
    )
    slices = json.loads((tmp_path / "scores.json").read_text())["slices"]
    assert {row["slice"] for row in slices} == {"tokens"}
    assert sum(row["rows"] for row in slices) == 20
    if task == "tag":
        sure = tmp_path / "rows.conll"
        sure.write_text("paris B-PLACE\nrome B-PLACE\n\nday O\n", encoding="utf-8")
        with pytest.raises(DataError, match=r"unknown kind of file '\.conll'"):
            evaluate(result.run_dir, sure, slice_columns=["topic"], runtime=CPU)
