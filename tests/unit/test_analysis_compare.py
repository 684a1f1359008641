"""Two models on the same rows, from the files that they left: the tests' figures, and what cannot be compared."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from bertsmith.analysis.compare import Comparison, compare
from bertsmith.errors import ArtifactError, DataError, UsageError
from bertsmith.tasks.answer import Span
from bertsmith.tasks.choose import Choice
from bertsmith.tasks.classify import Classification
from bertsmith.tasks.multilabel import Labelling
from bertsmith.tasks.predict import TASKS
from bertsmith.tasks.predictions import read_predictions
from bertsmith.tasks.regress import Rating
from bertsmith.tasks.rows import ChoiceRow, QuestionRow, TaggedRow, TextRow
from bertsmith.tasks.tag import Tagging

LABELS = ["a", "b"] * 20
RECORDED: dict[str, tuple[list[Any], list[Any], tuple[str, ...]]] = {
    "classify": (
        [TextRow("t", "a", 1), TextRow("u", "b", 2, pair="v")],
        [Classification("a", {"a": 0.75, "b": 0.25}), Classification("a", {"a": 0.5, "b": 0.5})],
        ("a", "b"),
    ),
    "multilabel": (
        [TextRow("t", ("a",), 1), TextRow("u", (), 2)],
        [Labelling(("a",), {"a": 0.75, "b": 0.25}), Labelling(("b",), {"a": 0.5, "b": 0.5})],
        ("a", "b"),
    ),
    "regress": ([TextRow("t", 1.0, 1), TextRow("u", 2.5, 2)], [Rating(0.5), Rating(2.25)], ("value",)),
    "choose": (
        [ChoiceRow("t", "q", ("x", "y"), 1, 1), ChoiceRow("t", None, ("x", "y", "z"), 2, 2)],
        [Choice(1, "y", (0.25, 0.75)), Choice(0, "x", (0.5, 0.25, 0.25))],
        ("score",),
    ),
    "tag": (
        [TaggedRow(("a", "b"), ("B-x", "O"), 1), TaggedRow(("c", "d"), ("B-x", "B-y"), 4)],
        [Tagging(("a", "b"), ("B-x", "O"), (0.9, 0.8)), Tagging(("c", "d"), ("O", "B-y"), (0.7, 0.0))],
        ("B-x", "B-y", "O"),
    ),
    "answer": (
        [QuestionRow("q", "in paris", (("paris", 3), ("in paris", 0)), 1, "k"), QuestionRow("q", "in rome", (), 2)],
        [Span("paris", 3, 8, 0.75), Span("rome", 3, 7, 0.5)],
        ("start", "end"),
    ),
}
"""Task -> two rows, of which the first is answered rightly, the answers, and the labels."""


def classified(guesses: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"row": row, "line": row + 1, "text": f"text {row}", "label": label, "prediction": guess,
         "probabilities": {"a": 0.7 if guess == "a" else 0.3, "b": 0.7 if guess == "b" else 0.3}}
        for row, (label, guess) in enumerate(zip(LABELS, guesses, strict=True))
    ]  # fmt: skip


def wrong_at(*rows: int) -> list[str]:
    return [("b" if label == "a" else "a") if row in rows else label for row, label in enumerate(LABELS)]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(folder: Path, guesses: Sequence[str], split: str = "test") -> Path:
    write(folder / f"predictions-{split}.jsonl", classified(guesses))
    return folder


def only(found: tuple[Comparison, ...]) -> Comparison:
    (one,) = found
    return one


def test_a_model_against_itself(tmp_path: Path) -> None:
    model = run(tmp_path / "a", wrong_at(1, 5, 8))
    found = only(compare(model, model))
    assert (found.split, found.rows, found.runs) == ("test", 40, (1, 1))
    assert set(found.metrics) == set(TASKS["classify"].metrics)
    for one in found.metrics.values():
        assert (one.difference, one.low, one.high, one.bootstrap_p, one.randomization_p) == (0, 0, 0, 1, 1)
    assert found.disagreement is not None
    assert (found.disagreement.only_first, found.disagreement.only_second, found.disagreement.p) == (0, 0, 1)


def test_mcnemar_s_test_is_the_binomial_one(tmp_path: Path) -> None:
    found = only(compare(run(tmp_path / "a", wrong_at(0, 1)), run(tmp_path / "b", wrong_at(1, *range(10, 20)))))
    apart = found.disagreement
    assert apart is not None
    assert (apart.only_first, apart.only_second) == (10, 1)
    assert apart.p == pytest.approx(binomtest(1, 11, 0.5).pvalue)
    accuracy = found.metrics["accuracy"]
    assert (accuracy.first, accuracy.second) == (0.95, 1 - 11 / 40)
    assert accuracy.low > 0
    assert max(accuracy.bootstrap_p, accuracy.randomization_p or 1) < 0.03


def test_several_runs_of_a_model_and_every_split_that_both_have(tmp_path: Path) -> None:
    for seed, rows in enumerate([(0,), (0, 1, 2), (3, 4)]):
        run(run(tmp_path / f"a-{seed}", wrong_at(*rows)), wrong_at(*rows), split="other")
    run(tmp_path / "b" / "finetune", wrong_at(7, 8, 9, 10))
    run(tmp_path / "b" / "finetune", wrong_at(7), split="new")
    found = only(compare(str(tmp_path / "a-*"), tmp_path / "b"))
    assert (found.split, found.runs, found.disagreement) == ("test", (3, 1), None)
    accuracy = found.metrics["accuracy"]
    assert accuracy.first == pytest.approx(1 - 2 / 40)
    assert accuracy.randomization_p is None
    both = compare(str(tmp_path / "a-*"), str(tmp_path / "a-*"))
    assert [one.split for one in both] == ["other", "test"]
    assert both[0].metrics["accuracy"].randomization_p == 1
    assert [one.split for one in compare(tmp_path / "a-0", tmp_path / "a-1", split="other")] == ["other"]


def test_files_are_compared_whatever_they_are_called(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one.jsonl", classified(LABELS)), write(tmp_path / "x.jsonl", classified(wrong_at(0)))
    assert only(compare(one, other)).split == "one"


def test_other_rows_are_refused_by_the_first_that_differs(tmp_path: Path) -> None:
    one, rows = run(tmp_path / "a", LABELS), classified(LABELS)
    rows[3]["text"] = "another text"
    write(tmp_path / "b" / "predictions-test.jsonl", rows)
    with pytest.raises(DataError, match=r"row 3 \(from 0\) is not the same: .*'text 3'.*'another text'"):
        compare(one, tmp_path / "b")
    rows[3] |= {"text": "text 3", "label": "a"}
    write(tmp_path / "b" / "predictions-test.jsonl", rows)
    with pytest.raises(DataError, match=r"row 3 \(from 0\) is not the same"):
        compare(one, tmp_path / "b")
    write(tmp_path / "b" / "predictions-test.jsonl", classified(LABELS)[:-1])
    with pytest.raises(DataError, match=r"has 40 rows, .* has 39; score both on the same rows"):
        compare(one, tmp_path / "b")


def test_what_is_no_run_and_what_shares_no_split(tmp_path: Path) -> None:
    one = run(tmp_path / "a", LABELS)
    with pytest.raises(ArtifactError, match=r"nowhere has no predictions-SPLIT\.jsonl; give a finished fine-tuning"):
        compare(one, tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="no such run"):
        compare(one, str(tmp_path / "none-*"))
    with pytest.raises(ArtifactError, match=r"no split is with both: .* has test; .* has other"):
        compare(one, run(tmp_path / "b", LABELS, split="other"))
    with pytest.raises(ArtifactError, match="split 'dev' is not with both"):
        compare(one, one, split="dev")


def test_other_tasks_and_lines_that_are_no_predictions(tmp_path: Path) -> None:
    one = run(tmp_path / "a", LABELS)
    rated = [{"line": 1, "text": "t", "label": 1.0, "prediction": 1.5}]
    write(tmp_path / "b" / "predictions-test.jsonl", rated)
    with pytest.raises(UsageError, match=r"of task 'classify', .* of 'regress'; compare models of one task"):
        compare(one, tmp_path / "b")
    for number, broken in enumerate(
        ['{"text": "t"}', "[1]", "{torn", '{"text": "t", "label": null, "prediction": "a"}']
    ):
        path = write(tmp_path / f"{number}.jsonl", classified(LABELS))
        path.write_text(path.read_text() + broken + "\n", encoding="utf-8")
        with pytest.raises(DataError, match=r"\.jsonl:41: not a labelled row with its prediction"):
            compare(path, path)


@pytest.mark.parametrize("name", list(RECORDED))
def test_what_a_task_writes_it_reads_again(tmp_path: Path, name: str) -> None:
    """Row and answer come back, with the same scores: so a file is as good as the model."""
    task, (rows, answers, labels) = TASKS[name], RECORDED[name]
    pairs = enumerate(zip(rows, answers, strict=True))
    path = write(tmp_path / "p.jsonl", [task.record(number, *pair) for number, pair in pairs])
    found = read_predictions(path)
    assert found.task.name == task.name
    assert list(found.answers) == list(answers)
    assert task.score(found.rows, found.answers, labels) == task.score(rows, answers, labels)
    assert {name: one.value for name, one in task.statistics(rows, answers, labels).items()} == pytest.approx(
        task.score(rows, answers, labels)
    )
    assert set(task.metrics) == set(task.statistics(rows, answers, labels))
    decisions = task.decisions(rows, answers)
    assert (decisions is not None) == task.gives_probabilities
    if decisions is not None:
        assert len(decisions.confidence) == len(decisions.right) > 0
    right = task.right(rows, answers)
    assert right is None or right.tolist() == [True, False]
