"""metrics.jsonl and what a person sees."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bertsmith.errors import DataError
from bertsmith.training import view
from bertsmith.training.track import Track, read_metrics
from bertsmith.training.view import View, clock_text, figures
from training_case import PLAN, run

FIGURES = {
    "loss": 1.0,
    "accuracies": {"mlm": 0.412, "nsp": 0.88},
    "tokens_per_second": 1234.4,
    "flops_per_token": 0.63 * 2e9 / 1234.4,
    "gradient_norm": 0.83,
}


def _track(path: Path, *, terminal: bool = False) -> tuple[Track, io.StringIO]:
    output = io.StringIO()
    about = {"run": "r", "environment": {"matmul_flops_per_second": 2e9}}
    return Track(path, about=about, console=Console(file=output, force_terminal=terminal, width=100)), output


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_events_are_lines_of_strict_json_on_disk_at_once(tmp_path: Path) -> None:
    track, _ = _track(tmp_path / "run" / "metrics.jsonl")
    with track:
        track.event("step", 1, {"loss": math.nan, "losses": {"mlm": math.inf}, "list": [1.5, -math.inf], "text": "中"})
        line = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8")
    fields = {"event": "step", "step": 1, "loss": None, "losses": {"mlm": None}, "list": [1.5, None], "text": "中"}
    assert json.loads(line, parse_constant=pytest.fail) == fields


def test_a_torn_last_line_is_passed_over(tmp_path: Path) -> None:
    path = _write(tmp_path / "m", '{"event": "start", "step": 0}\n{"event": "step", "st')
    assert list(read_metrics(path)) == [{"event": "start", "step": 0}]


def test_a_line_broken_in_the_middle_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "m", '{"event": "start", "step": 0}\n{"event"\n{"event": "stop", "step": 0}\n')
    with pytest.raises(DataError, match=r"m:2: not a line of JSON"):
        list(read_metrics(path))


def _steps(path: Path) -> list[Any]:
    return [(event["event"], event["step"]) for event in read_metrics(path)]


def test_rewinding_leaves_the_log_of_one_straight_run(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    track, _ = _track(path)
    with track:
        track.event("step", 1, {})
        track.event("step", 2, {})
        num_bytes, _ = track.place()
        track.event("checkpoint", 2, {"seconds": 0.1})
        track.event("step", 3, {})
        track.event("checkpoint", 3, {"seconds": 0.1})
    with path.open("a", encoding="utf-8") as file:
        file.write('{"event": "step", "st')
    with track:
        track.rewind(num_bytes, 2)
        track.event("step", 3, {})
    assert _steps(path) == [("step", 1), ("step", 2), ("checkpoint", 2), ("step", 3)]


def test_rewinding_a_log_that_lost_its_end_keeps_whole_lines(tmp_path: Path) -> None:
    path = _write(tmp_path / "metrics.jsonl", '{"event": "step", "step": 1}\n{"event": "st')
    track, _ = _track(path)
    with track:
        track.rewind(10_000, 2)
        track.event("step", 3, {})
    assert _steps(path) == [("step", 1), ("step", 3)]


def test_a_terminal_gets_a_bar_and_tables_above_it(tmp_path: Path) -> None:
    track, output = _track(tmp_path / "m", terminal=True)
    with track:
        track.steps(5, 10, {"loss": 1.25, "tokens_per_second": 1234.5})
        track.say("a line")
        track.steps(10, 10, FIGURES)
    printed = output.getvalue()
    for text in ("10/10", "loss 1.0000", "1,234 tokens/s", "mlm 41.2%", "63% of peak", "gradient 0.83"):
        assert text in printed
    assert _steps(tmp_path / "m") == [("step", 5), ("step", 10)]
    assert "a line" in printed


def test_elsewhere_lines_are_plain_and_few(tmp_path: Path) -> None:
    track, output = _track(tmp_path / "m")
    with track:
        for step in range(1, 100):
            track.steps(step, None, {"loss": 1.0, "tokens_per_second": 10.0})
    assert output.getvalue() == "step 1/?  loss 1.0000  10 tokens/s\n"


def test_a_plain_line_says_how_long_it_will_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(view.time, "monotonic", lambda: now)
    output = io.StringIO()
    shown = View(Console(file=output, width=200), peak=2e9)
    shown.show(100, 400, FIGURES)
    for step in (150, 200):  # the first of these comes too soon after a line to be one
        now += 6.0
        shown.show(step, 400, FIGURES)
    assert output.getvalue().splitlines() == [
        "step 100/400  loss 1.0000  mlm 41.2%  nsp 88.0%  1,234 tokens/s  63% of peak  gradient 0.83",
        "step 200/400  loss 1.0000  mlm 41.2%  nsp 88.0%  1,234 tokens/s  63% of peak  gradient 0.83  0:00:24 left",
    ]


def test_without_a_measured_peak_no_share_is_shown() -> None:
    assert not any("peak" in text for text in figures(FIGURES, None))
    assert not any("peak" in text for text in figures(FIGURES | {"flops_per_token": None}, 1e9))


def test_markup_in_texts_is_not_markup(tmp_path: Path) -> None:
    track, output = _track(tmp_path / "m")
    with track:
        track.say("[MASK] and [bold]")
    assert output.getvalue() == "[MASK] and [bold]\n"


def test_evaluations_make_a_table(tmp_path: Path) -> None:
    track, output = _track(tmp_path / "m")
    result = {"training_loss": None, "loss": 1.5, "scores": {"mlm_accuracy": 0.25}, "best": True}
    with track:
        track.evaluation(0, {"epoch": 0.0, "elapsed_seconds": 1.0}, result)
        track.evaluation(
            1000, {"epoch": 1.5, "elapsed_seconds": 3725.0}, result | {"training_loss": 2.0, "best": False}
        )
    assert output.getvalue().splitlines() == [
        "   step    epoch  training loss  validation loss  mlm_accuracy     time",
        "      0     0.00                          1.5000        0.2500  0:00:01  best",
        "  1,000     1.50         2.0000           1.5000        0.2500  1:02:05",
    ]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (360_000, "100:00:00")])
def test_clock_text(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text


def test_the_page_on_metrics_names_every_field_that_is_written(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    run(tmp_path, plan=replace(PLAN, total_steps=None, budget_seconds=0.5))
    logged = list(read_metrics(tmp_path / "metrics.jsonl"))
    assert {event["event"] for event in logged} == {"start", "step", "evaluation", "decision", "checkpoint", "stop"}
    for event in logged:
        assert f"## {event['event']}\n" in page
        for field in {**event, **event.get("plan", {})}:
            assert f"`{field}`" in page, f"docs/metrics.md says nothing of {field!r}"
