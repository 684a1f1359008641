"""`evaluate` and `compare` at the terminal: what a person reads, and what a program does."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bertsmith.cli import app
from bertsmith.tasks.finetune import finetune
from finetune_case import (
    CPU,
    multilabel_rows,
    quiet,
    recipe,
    tagged_rows,
    text_rows,
    write_conll,
    write_tiny_model,
)

RATED = [(text, float(len(text))) for text, _ in text_rows(40, seed=1)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


def learned(folder: Path, base: Path, rows: list[Any], **keys: Any) -> Path:
    tables = {"model": base, "train": rows, "test": {"new": rows}, "console": quiet(), "runtime": CPU}
    return finetune(recipe(epochs=1, **keys), folder, **tables).run_dir


def said(*command: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in command], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_evaluate_tells_of_parts_and_mistakes(base: Path, tmp_path: Path) -> None:
    run = learned(tmp_path / "run", base, text_rows(40, seed=1), learning_rate=1e-9)
    file = tmp_path / "rows.csv"
    rows = text_rows(40, seed=1)
    lines = [f"{text},{label},{number % 2}" for number, (text, label) in enumerate(rows)]
    file.write_text("text,label,half\n" + "\n".join(lines), encoding="utf-8")
    text = said("evaluate", run, file, "--slice", "half", "--mistakes", 3)
    for part in (
        "calibration        ECE 0.",
        "\nhalf               macro_f1\n  0   ",
        "precision  recall",
        "\nlabel  ",
    ):
        assert part in text
    assert text.split("most confident mistakes\n")[1].count("\n") == 3
    assert "mistakes" not in said("evaluate", run, file, "--mistakes", 0)
    found = json.loads(said("evaluate", run, file, "--slice", "half", "--mistakes", 2, "--json"))
    assert [row["rows"] for row in found["slices"] if row["slice"] == "half"] == [20, 20]
    assert len(found["mistakes"]) == 2
    assert len(found["calibration"]["bins"]) == 15


def test_evaluate_of_other_tasks(base: Path, tmp_path: Path) -> None:
    tagger = learned(tmp_path / "tag", base, tagged_rows(30, seed=1), task="tag", learning_rate=1e-9)
    text = said("evaluate", tagger, write_conll(tmp_path / "rows.conll", tagged_rows(30, seed=1)))
    assert "\n  PLACE  " in text
    assert "most frequent confusions" in text
    file = tmp_path / "rows.jsonl"
    labelled = ({"text": text, "label": labels} for text, labels in multilabel_rows(30, seed=1))
    file.write_text("".join(json.dumps(row) + "\n" for row in labelled), encoding="utf-8")
    marks = learned(tmp_path / "marks", base, multilabel_rows(30, seed=1), task="multilabel")
    assert "right  wrongly   missed  neither" in said("evaluate", marks, file)
    file.write_text("".join(json.dumps({"text": text, "label": n}) + "\n" for text, n in RATED), encoding="utf-8")
    text = said("evaluate", learned(tmp_path / "rated", base, RATED, task="regress"), file)
    assert "largest errors" in text
    assert "calibration" not in text


def test_compare(base: Path, tmp_path: Path) -> None:
    rows = text_rows(40, seed=1)
    one, other = (learned(tmp_path / name, base, rows, seed=seed) for name, seed in (("one", 1), ("two", 2)))
    text = said("compare", one, one, "--resamples", 100)
    assert "new: 40 rows" in text
    assert "accuracy" in text
    assert "McNemar's exact test: p 1.0000" in text
    assert "is better" not in text
    found = json.loads(said("compare", one, str(tmp_path / "*"), "--resamples", 200, "--json"))
    (split,) = found["against_first"][0]["splits"]
    assert (split["split"], split["rows"], split["runs"]) == ("new", 40, [1, 2])
    accuracy = split["metrics"]["accuracy"]
    assert accuracy["low"] <= accuracy["difference"] <= accuracy["high"]
    assert accuracy["resamples"] == 200
    worse = tmp_path / "worse.jsonl"
    records = [json.loads(line) for line in (other / "predictions-new.jsonl").read_text().splitlines()]
    flipped = {"good": "bad", "bad": "good"}
    for record in records:
        record["prediction"] = flipped[record["label"]]
    worse.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    right = tmp_path / "right.jsonl"
    for record in records:
        record["prediction"] = record["label"]
    right.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    assert said("compare", right, worse, "--resamples", 100).count("A is better") >= 9
    assert said("compare", worse, right, "--resamples", 100).count("B is better") >= 9
