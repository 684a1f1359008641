"""Reading a log: as columns, bit by bit, and with words for whatever is wrong with it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_run import pretraining_events, write_events

from bertsmith.analysis import run_log, tail
from bertsmith.analysis.run_log import LogReader, Steps


def step(number: int, loss: object = 1.0, **fields: object) -> dict[str, Any]:
    return {"event": "step", "step": number, "loss": loss, "losses": {"mlm": loss}, **fields}


def read(folder: Path, events: list[dict[str, Any]], torn: str = "") -> tuple[Steps, list[str]]:
    write_events(folder, events, torn=torn)
    return LogReader(folder / "metrics.jsonl").read()


def losses(steps: Steps) -> dict[int, float | None]:
    values = steps.column("loss")
    return {int(at): None if np.isnan(value) else float(value) for at, value in zip(steps.step, values, strict=True)}


def test_columns_hold_what_the_lines_say(tmp_path: Path) -> None:
    events = pretraining_events(200)
    steps, said = read(tmp_path, events)
    lines = [event for event in events if event["event"] == "step"]
    assert said == []
    assert list(steps.step) == [event["step"] for event in lines]
    assert list(steps.column("losses.nsp")) == [event["losses"]["nsp"] for event in lines]
    assert steps.inner("losses") == ["mlm", "nsp"]
    assert np.isnan(steps.column("nothing such")).all()
    again = [{key: value for key, value in event.items() if key in ("step", "loss", "losses")} for event in lines]
    assert [{key: event[key] for key in ("step", "loss", "losses")} for event in steps.events()] == again


def test_lines_one_by_one_and_by_arrow_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_arrow, _ = read(tmp_path, pretraining_events(100))
    monkeypatch.setattr(run_log, "_by_arrow", lambda lines: None)
    one_by_one, _ = LogReader(tmp_path / "metrics.jsonl").read()
    assert by_arrow.columns.keys() == one_by_one.columns.keys()
    assert all(np.array_equal(values, one_by_one.columns[name]) for name, values in by_arrow.columns.items())


def test_broken_lines_are_gaps_and_named(tmp_path: Path) -> None:
    events = [step(i) for i in range(1, 101)]
    write_events(tmp_path, events)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    lines[49] = lines[49][:30]  # torn, and written on
    lines[79] = "[1, 2]"
    lines[89] = '{"event": "step", "loss": 3.0}'
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    steps, said = LogReader(tmp_path / "metrics.jsonl").read()
    assert said == ["3 lines of the log cannot be read (lines 50, 80, 90): gaps in the curves"]
    assert list(steps.gaps) == [49, 79, 89]
    assert len(steps) == 97


def test_a_torn_end_is_told_and_waited_for(tmp_path: Path) -> None:
    steps, said = read(tmp_path, [step(1)], torn='{"event": "step", "step": 2')
    assert losses(steps) == {1: 1.0}
    assert said == ["the last line of the log is torn: the run is at work, or was killed"]


def test_numbers_that_are_not_finite_are_gaps_and_named(tmp_path: Path) -> None:
    steps, said = read(tmp_path, [step(1), step(2, None), step(3, float("nan")), step(4, float("inf")), step(5, 2.0)])
    assert losses(steps) == {1: 1.0, 2: None, 3: None, 4: None, 5: 2.0}
    assert said == ["no finite loss at steps 2, 3, 4: gaps in the curve"]


def test_a_repeated_line_counts_once_and_lines_that_differ_not_at_all(tmp_path: Path) -> None:
    steps, said = read(
        tmp_path, [step(1), step(2), step(2), step(3, 5.0, gradient_norm=1.0), step(3, 6.0, gradient_norm=1.0)]
    )
    assert losses(steps) == {1: 1.0, 2: 1.0, 3: None}
    assert list(steps.column("gradient_norm"))[2] == 1.0
    assert said[0] == "2 lines repeat a step that was logged before (steps 2, 3)"
    assert said[1] == "lines of one step tell different values at step 3: gaps in the curves"


def test_lines_out_of_order_are_shown_by_their_steps(tmp_path: Path) -> None:
    steps, said = read(tmp_path, [step(1, 1.0), step(3, 3.0), step(2, 2.0), step(4, 4.0)])
    assert losses(steps) == {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}
    assert said == ["the log is not in order at step 2: its lines are shown by their steps"]


def test_only_new_bytes_are_read_and_the_answer_is_that_of_reading_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "MOST_BYTES", 10_000)
    events = pretraining_events(300)
    write_events(tmp_path, events)
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    log = tmp_path / "growing.jsonl"
    log.write_bytes(b"")
    reader = LogReader(log)
    for upto in (5_000, 5_001, 90_000, len(whole)):
        log.write_bytes(whole[:upto])
        steps, _ = reader.read()
    all_steps, said = LogReader(tmp_path / "metrics.jsonl").read()
    assert said == []
    assert len(reader.events) == len([event for event in events if event["event"] != "step"])
    assert all(np.array_equal(steps.columns[name], values) for name, values in all_steps.columns.items())


def test_a_resume_forgets_what_it_did_again(tmp_path: Path) -> None:
    events = [*(step(i, 9.0) for i in range(1, 31)), {"event": "start", "step": 20, "resumed_from": 20}]
    steps, said = read(tmp_path, [*events, *(step(i, 5.0) for i in range(21, 26))])
    assert losses(steps) == dict.fromkeys(range(1, 21), 9.0) | dict.fromkeys(range(21, 26), 5.0)
    assert said == []


def test_two_objects_in_a_line_are_no_line(tmp_path: Path) -> None:
    one = json.dumps(step(2))
    (tmp_path / "metrics.jsonl").write_text(f"{json.dumps(step(1))}\n{one}{one}\n{json.dumps(step(4))}\n")
    steps, said = LogReader(tmp_path / "metrics.jsonl").read()
    assert list(steps.step) == [1, 4]
    assert said == ["1 line of the log cannot be read (line 2): a gap in the curves"]
