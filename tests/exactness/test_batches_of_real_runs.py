"""Batch sizes that a run decides for itself, through `pretrain`: said, logged, the same after a resume."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bertsmith.training.memory_limit import can_measure_peak
from bertsmith.training.pretrain import pretrain
from bertsmith.training.track import read_metrics
from pretrain_case import Made, make_examples
from training_case import CPU, events

GROWING = {
    "max_steps": 70,
    "batch_size": 4,
    "micro_batch_size": 2,
    "batch_size_rampup": (2, 0.2),
    "batch_size_growth": "noise-scale",
    "max_batch_size": 16,
    "evaluate_every_steps": 40,
    "log_every_steps": 10,
    "keep_checkpoints": 100,
    "checkpoint_every_seconds": 1e-9,
}
_CLOCK = {"elapsed_seconds", "seconds", "time", "tokens_per_second", "loader_wait_seconds", "memory_bytes"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_examples(tmp_path_factory.mktemp("made"))


def _pretrain(made: Made, directory: Path, **settings: Any) -> tuple[bytes, str]:
    output = io.StringIO()
    pretrain(
        made.recipe(**settings),
        directory,
        examples=made.examples,
        tokenizer=made.tokenizer,
        runtime=CPU,
        console=Console(file=output, width=300),
    )
    return (directory / "model" / "model.safetensors").read_bytes(), output.getvalue()


def _log(directory: Path) -> list[dict[str, Any]]:
    left_out = {"start", "checkpoint"}
    kept = [event for event in read_metrics(directory / "metrics.jsonl") if event["event"] not in left_out]
    return [{name: value for name, value in event.items() if name not in _CLOCK} for event in kept]


def _as_if_killed_after(step: int, directory: Path, copy: Path) -> None:
    shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("model"))
    for path in (copy / "checkpoints").iterdir():
        if json.loads((path / "manifest.json").read_text())["step"] > step:
            shutil.rmtree(path)
    state = json.loads((copy / "state.json").read_text())
    (copy / "state.json").write_text(json.dumps({**state, "finished": False}))


def test_a_growing_pre_training_from_before_at_and_after_its_growth(made: Made, tmp_path: Path) -> None:
    straight = tmp_path / "straight"
    weights, printed = _pretrain(made, straight, **GROWING)
    decided = [(event["step"], event["value"]) for event in events(straight, "decision")]
    assert decided == [(16, 4), (64, 8)]
    assert "batch      4: ramp-up at 23.6% of the phase" in printed
    assert "batch      8: the gradient noise scale is" in printed
    examples = {event["step"]: event["examples"] for event in events(straight, "step")}
    assert examples[70] == 16 * 2 + 48 * 4 + 6 * 8
    for step in (16, 63, 64, 65):
        again = tmp_path / f"from-{step}"
        _as_if_killed_after(step, straight, again)
        assert _pretrain(made, again, **GROWING)[0] == weights, f"weights differ after resuming from step {step}"
        assert _log(again) == _log(straight), f"logs differ after resuming from step {step}"


@pytest.mark.skipif(not can_measure_peak(), reason="peaks are measured by way of /proc")
def test_an_automatic_batch_says_why_and_its_micro_batch_fits(made: Made, tmp_path: Path) -> None:
    settings = {"batch_size": "auto", "micro_batch_size": None, "max_steps": 6, "evaluate_every_steps": None}
    weights, printed = _pretrain(made, tmp_path / "auto", **settings)
    decided = {event["name"]: event for event in events(tmp_path / "auto", "decision")}
    chosen = decided["batch_size"]["value"]
    assert "a run of 6 updates with" in decided["batch_size"]["because"]
    assert chosen == 4
    assert 1 <= decided["micro_batch_size"]["value"] <= chosen
    assert f"batch      {chosen}: " in printed
    assert f"micro-batch {decided['micro_batch_size']['value']}: a step takes" in printed
    plan = events(tmp_path / "auto", "start")[0]["plan"]
    assert (plan["batch_size"], plan["micro_batch_size"]) == (chosen, decided["micro_batch_size"]["value"])
    given = {"batch_size": chosen, "micro_batch_size": decided["micro_batch_size"]["value"], "max_steps": 6}
    assert _pretrain(made, tmp_path / "given", **given)[0] == weights, "nothing but the sizes was decided"
