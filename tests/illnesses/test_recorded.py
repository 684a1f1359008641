"""Each illness is found in the log of a run that truly had it, and none in the logs of healthy runs.

The logs were recorded by makers.py. The table at the end of docs/diagnose.md is what the tool says of them; to make it
anew:

    python tests/illnesses/test_recorded.py

Some runs have more than one illness, and each that is found is named here: a new
one, or one that is not found any more, is a change for people to look at.
"""

import json
import shutil
from pathlib import Path

import pytest
from makers import MAKERS, RECORDED
from typer.testing import CliRunner

from bertsmith.analysis.diagnose import thresholds
from bertsmith.analysis.diagnose.diagnose import diagnose
from bertsmith.analysis.diagnose.finding import ILLNESSES
from bertsmith.analysis.diagnose.told import lines, section
from bertsmith.analysis.report import write_report
from bertsmith.cli import app

ALSO: dict[str, set[str]] = {
    "diverged": {"miscalibrated", "one-class"},
    "one-class": {"learning-rate-too-high", "plateau"},
    "overfitting": {"miscalibrated"},
    "underfitting": {"miscalibrated"},
    "learning-rate-too-high": {"one-class", "plateau"},
    "learning-rate-too-low": {"miscalibrated"},
    "gradients-vanish": {"learning-rate-too-high", "miscalibrated", "one-class", "plateau"},
    "label-noise": {"miscalibrated"},
    "miscalibrated": {"overfitting"},
    "repeated-text": {"word-frequencies-only"},
    "truncation": {"learning-rate-too-high"},
    "padding": {"miscalibrated"},
    "loader-bound": {"word-frequencies-only"},
    "seeds-outweigh-gain": {"one-class"},
}
"""Illness -> others that its run has too."""
HEALTHY = sorted(path.name for path in (RECORDED / "healthy").iterdir())


PAGE = Path(__file__).parents[2] / "docs" / "diagnose.md"
BEGIN, END = "<!-- table: made by tests/illnesses/test_recorded.py -->", "<!-- end of table -->"


def table_of_illnesses() -> str:
    """Each illness, the run that has it, and what the tool says."""
    lines = ["| illness | the run that has it | how sure | what the tool says |", "|---|---|---|---|"]
    for illness, name in ILLNESSES.items():
        finding = next(one for one in diagnose(RECORDED / illness).findings if one.illness == illness)
        said = finding.seen.replace("|", "\\|")
        lines.append(f"| {name} | `{illness}` | {finding.degree} | {said} |")
    return "\n".join(lines)


def page_with(table: str) -> str:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}"


def test_the_page_says_what_the_tool_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page_with(table_of_illnesses())


def found_in(run: Path) -> set[str]:
    return {finding.illness for finding in diagnose(run).findings}


@pytest.mark.parametrize("illness", MAKERS)
def test_an_illness_is_found(illness: str) -> None:
    assert found_in(RECORDED / illness) == {illness} | ALSO.get(illness, set())


@pytest.mark.parametrize("run", HEALTHY)
def test_a_healthy_run_is_left_in_peace(run: str) -> None:
    assert found_in(RECORDED / "healthy" / run) == set()


def test_every_illness_has_a_maker() -> None:
    assert MAKERS.keys() == ILLNESSES.keys()


@pytest.mark.parametrize("illness", MAKERS)
def test_findings_have_numbers_and_something_to_try(illness: str) -> None:
    for finding in diagnose(RECORDED / illness).findings:
        assert any(letter.isdigit() for letter in finding.seen)
        assert finding.advice
        assert all(finding.advice)


def test_advice_names_keys_of_a_recipe() -> None:
    """`finetune.something` in an advice is a key that there is."""
    from bertsmith.config import FinetuneConfig, PretrainConfig

    known = {"finetune": FinetuneConfig.model_fields, "pretrain": PretrainConfig.model_fields}
    for illness in MAKERS:
        for finding in diagnose(RECORDED / illness).findings:
            for advice in finding.advice:
                for word in advice.replace("(", " ").replace(")", " ").replace(",", " ").replace(";", " ").split():
                    part, dot, key = word.partition(".")
                    if dot and part in known and key:
                        assert key.rstrip(".:").split(".")[0] in known[part], f"{illness}: {word}"


def test_every_threshold_has_a_reason() -> None:
    for name, value in vars(thresholds).items():
        if isinstance(value, thresholds.Threshold):
            assert len(value.because) > 10, name


def test_a_copied_folder_and_a_run_that_was_killed(tmp_path: Path) -> None:
    """Half a log, its last line torn, and nothing beside it."""
    source = RECORDED / "overfitting" / "finetune" / "metrics.jsonl"
    whole = source.read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(whole[: int(len(whole) * 0.9)])
    shutil.copyfile(source.parent / "recipe.toml", tmp_path / "recipe.toml")
    assert "overfitting" in found_in(tmp_path)


def test_a_long_log_is_read_in_a_moment_and_its_spike_is_seen(tmp_path: Path) -> None:
    start = '{"event": "start", "step": 0, "kind": "finetune", "task": "classify"}\n'
    with (tmp_path / "metrics.jsonl").open("w") as file:
        file.write(start)
        for step in range(1, 60_001):
            loss = 5.0 if step == 40_000 else 2 / (1 + step / 1000) + 0.01 * (step % 7)
            file.write(
                f'{{"event": "step", "step": {step}, "loss": {loss:.4f}, "losses": {{"classify": {loss:.4f}}}}}\n'
            )
    (finding,) = diagnose(tmp_path).findings
    assert finding.illness == "spikes"
    assert finding.evidence[0].startswith("step 40,0")
    assert len(finding.series[0].points) <= 80


def test_numbers_that_are_none_do_not_hurt(tmp_path: Path) -> None:
    events = [json.loads(line) for line in (RECORDED / "overfitting/finetune/metrics.jsonl").read_text().splitlines()]
    for number, event in enumerate(events):
        if event["event"] == "step" and number % 3 == 0:
            event |= {"loss": None, "gradient_norm": "x", "losses": [], "learning_rate": float("nan")}
        if event["event"] == "evaluation" and number % 5 == 0:
            event |= {"scores": None, "predictions_per_class": 7}
    text = "".join(json.dumps(event) + "\n" for event in reversed(events))
    (tmp_path / "metrics.jsonl").write_text(text)
    diagnose(tmp_path)


def test_a_run_without_one_finite_loss_is_told_of(tmp_path: Path) -> None:
    """float16 without a scale, say: all updates are left out, and there is no curve to draw."""
    start = {"event": "start", "step": 0, "kind": "finetune", "task": "classify"}
    steps = [{"event": "step", "step": n, "loss": None, "losses": {}, "skipped_updates": n} for n in range(1, 30)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in (start, *steps)))
    found = diagnose(tmp_path)
    assert [finding.illness for finding in found.findings] == ["diverged"]
    assert "29 of 29 updates" in next(iter(found.findings)).seen
    assert "DIVERGED" in "\n".join(lines(found))
    assert "<polyline" not in "".join(section(found))


def test_a_score_that_falls_may_be_a_better_one(tmp_path: Path) -> None:
    """Of a language model the perplexity: the loss rises by 10 % and so does it."""
    start = {"event": "start", "step": 0, "kind": "finetune", "task": "language-model"}
    told = [start]
    for n, loss in enumerate((3.0, 2.5, 2.6, 2.75), start=1):
        told.append({"event": "step", "step": 10 * n, "loss": 3 - 0.4 * n, "losses": {"language-model": 3 - 0.4 * n}})
        scores = {"perplexity": 2.718**loss}
        told.append(
            {"event": "evaluation", "step": 10 * n, "loss": loss, "training_loss": 3 - 0.4 * n, "scores": scores}
        )
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in told))
    assert found_in(tmp_path) == {"overfitting"}


def test_one_class_counts_from_where_it_stayed_the_same(tmp_path: Path) -> None:
    """First all of one label, then both, then all of the other."""
    told: list[dict[str, object]] = [{"event": "start", "step": 0, "kind": "finetune", "task": "classify"}]
    for step, counts in ((10, {"a": 100, "b": 0}), (20, {"a": 50, "b": 50}), (30, {"a": 0, "b": 100})):
        told.append({"event": "evaluation", "step": step, "predictions_per_class": counts})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in told))
    (finding,) = diagnose(tmp_path).findings
    assert (finding.illness, finding.degree) == ("one-class", "likely")
    assert "'b'" in finding.seen
    assert finding.seen.endswith("since step 30")


@pytest.mark.parametrize(("metric", "is_told"), [("rmse", False), ("spearman", True)])
def test_of_errors_the_smallest_is_the_best(tmp_path: Path, metric: str, is_told: bool) -> None:
    """One setting is far below two that are alike: as an error it has won, as a correlation the first two are even."""
    rows: list[dict[str, object]] = [{"search": {"config": {"task": "regress", "metric": metric}}}]
    for rate, scores in ((1, (0.92, 0.90)), (2, (0.91, 0.92)), (3, (0.22, 0.23))):
        rows += [{"settings": {"learning_rate": rate}, "seed": n, "score": score} for n, score in enumerate(scores)]
    (tmp_path / "search.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.toml").write_text("name = 'x'\n")
    assert found_in(tmp_path) == ({"seeds-outweigh-gain"} if is_told else set())


def test_the_command_and_the_report_say_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(RECORDED / "overfitting", run)
    told = CliRunner().invoke(app, ["diagnose", str(run)])
    assert told.exit_code == 0
    assert "OVERFITTING [finetune]" in told.output
    as_json = json.loads(CliRunner().invoke(app, ["diagnose", str(run), "--json"]).output)
    assert "overfitting" in {finding["illness"] for finding in as_json["findings"]}
    page = write_report(run).read_text()
    assert "Overfitting" in page
    assert "finetune.stop_after" in page


def test_rows_that_look_like_markup_are_text(tmp_path: Path) -> None:
    shutil.copytree(RECORDED / "label-noise", tmp_path / "run")
    path = tmp_path / "run" / "finetune" / "predictions-test.jsonl"
    rows = [json.loads(line) | {"text": "<script>alert(1)</script>"} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    html = "".join(section(diagnose(tmp_path / "run")))
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert any("<script>" in line for line in lines(diagnose(tmp_path / "run")))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["diagnose", str(tmp_path)])
    assert told.exit_code != 0
    assert "is not a run" in str(told.exception)


if __name__ == "__main__":
    PAGE.write_text(page_with(table_of_illnesses()), encoding="utf-8")
    print(f"wrote {PAGE}")
