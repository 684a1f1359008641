"""Several runs against a first one: Holm's rule, recipes, costs, held-out figures; tables that no text can break."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from bertsmith.analysis.compared_told import tables
from bertsmith.analysis.paper_tables import PaperTable, written
from bertsmith.analysis.runs_compared import compare_runs
from bertsmith.errors import ArtifactError, UsageError

LABELS = ["a", "b"] * 30


def run_of(folder: Path, *, wrong: int, rate: float = 1e-3, seed: int = 1, minutes: float = 2.0) -> Path:
    """What a fine-tuning leaves: the first rows are answered wrongly."""
    folder.mkdir(parents=True)
    with (folder / "predictions-test.jsonl").open("w") as file:
        for row, label in enumerate(LABELS):
            guess = {"a": "b", "b": "a"}[label] if row < wrong else label
            shares = {"a": 0.7 if guess == "a" else 0.3, "b": 0.7 if guess == "b" else 0.3}
            record = {"row": row, "line": row + 1, "text": f"text {row}", "label": label, "prediction": guess}
            file.write(json.dumps(record | {"probabilities": shares}) + "\n")
    log(folder, "finetune", minutes, [])
    (folder / "recipe.toml").write_text(f"name = 'x'\nseed = {seed}\n[finetune]\nlearning_rate = {rate}\n")
    return folder


def log(folder: Path, kind: str, minutes: float, evaluations: list[dict[str, Any]]) -> None:
    step = {"flops_per_token": 100.0, "memory_bytes": 5e6, "loss": 0.5, "elapsed_seconds": 60 * minutes}
    lines = [
        {"event": "start", "step": 0, "kind": kind, "task": "classify", "plan": {"parameters": 1234}},
        {"event": "step", "step": 10, **step},
        *({"event": "evaluation", "step": 10 * (n + 1), **one} for n, one in enumerate(evaluations)),
        {"event": "stop", "step": 10, "reason": "done", "elapsed_seconds": 60 * minutes, "tokens": 1000},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_several_runs_are_tested_against_the_first_by_holms_rule(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / name, wrong=wrong) for name, wrong in (("best", 0), ("near", 2), ("far", 12))]
    found = compare_runs(runs, resamples=500)
    ps = [other.splits[0].metrics["accuracy"].bootstrap_p for other in found.others]
    adjusted = [other.adjusted["test", "accuracy"] for other in found.others]
    assert ps[1] < ps[0]
    assert adjusted == [max(ps[0], 2 * ps[1]), 2 * ps[1]]
    text = written(list(tables(found)), "text")
    assert "p by Holm" in text
    assert "A is better" in text


def test_one_other_run_keeps_its_p(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / name, wrong=wrong) for name, wrong in (("one", 0), ("two", 5))]
    (other,) = compare_runs(runs, resamples=300).others
    assert other.adjusted["test", "accuracy"] == other.splits[0].metrics["accuracy"].bootstrap_p


def test_recipes_and_costs(tmp_path: Path) -> None:
    one = run_of(tmp_path / "one", wrong=0, rate=1e-3, minutes=2)
    other = run_of(tmp_path / "two", wrong=1, rate=5e-4, minutes=4)
    found = compare_runs([one, other], resamples=200)
    assert found.recipes == (("finetune.learning_rate", ("0.001", "0.0005")),)
    costs = found.costs["finetune"]
    assert [cost.seconds for cost in costs if cost] == [120, 240]
    assert costs[0] is not None
    assert (costs[0].flops, costs[0].tokens, costs[0].parameters, costs[0].steps) == (1e5, 1000, 1234, 10)
    text = written(list(tables(found)), "text")
    assert "0:02:00" in text
    assert "learning_rate" in text


def test_of_several_seeds_costs_are_means_and_seeds_are_no_difference(tmp_path: Path) -> None:
    for seed in (1, 2):
        run_of(tmp_path / f"one-{seed}", wrong=seed, seed=seed, minutes=seed)
        run_of(tmp_path / f"two-{seed}", wrong=4, seed=seed + 5, minutes=1)
    found = compare_runs([str(tmp_path / "one-*"), str(tmp_path / "two-*")], resamples=200)
    assert found.recipes == ()
    assert found.costs["finetune"][0] is not None
    assert found.costs["finetune"][0].seconds == 90
    assert found.others[0].splits[0].runs == (2, 2)


def test_pre_trainings_are_compared_by_held_out_figures(tmp_path: Path) -> None:
    for name, loss in (("one", 5.0), ("two", 4.5)):
        (tmp_path / name).mkdir()
        best = {"loss": loss, "losses": {"mlm": loss}, "scores": {"mlm_accuracy": 0.2}, "unigram_entropy": 6.5}
        log(tmp_path / name, "pretrain", 1, [best, best | {"loss": loss + 1}])
    found = compare_runs([tmp_path / "one", tmp_path / "two"])
    assert [one.loss for one in found.held_out if one] == [5.0, 4.5]
    assert found.others[0].splits == ()
    text = written(list(tables(found)), "text")
    assert "loss by word frequencies" in text


def test_one_run_alone_and_no_run(tmp_path: Path) -> None:
    one = run_of(tmp_path / "one", wrong=0)
    with pytest.raises(UsageError, match="two runs or more"):
        compare_runs([one])
    with pytest.raises(ArtifactError):
        compare_runs([one, tmp_path / "nothing"])


NASTY = PaperTable(
    "a | b & c", ("", "50 % <b>"), (("x_1 | y", "=1+1"), ("\\cmd{z}", "-0.5"), ("中文", "a\nb")), ("note #1",)
)


def test_no_text_breaks_a_table() -> None:
    markdown = written([NASTY], "markdown").splitlines()
    assert "| x_1 \\| y | =1+1 |" in markdown
    assert "<b>" not in "".join(markdown)
    latex = written([NASTY], "latex")
    assert r"x\_1 | y & =1+1 \\" in latex
    assert r"\textbackslash{}cmd\{z\} & -0.5 \\" in latex
    assert r"50 \% \textless{}b\textgreater{}" in latex
    rows = list(csv.reader(io.StringIO(written([NASTY], "csv"))))
    assert rows[1] == ["a | b & c", "x_1 | y", "'=1+1"]
    assert rows[2][2] == "-0.5"
    text = written([NASTY], "text").splitlines()
    assert text[0] == "a | b & c"
