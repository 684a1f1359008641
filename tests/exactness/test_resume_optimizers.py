"""Promise 5 for each optimizer, and for a clip that was picked: resumed = never stopped, bit for bit."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bertsmith.config import OptimizerConfig
from bertsmith.training import clip
from training_case import PLAN, TinyModel, events, run, with_every_checkpoint

STEPS = 6
CONFIGS: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": "adam"},
    "adamw without bias correction": {"bias_correction": False},
    "lamb": {"optimizer": "lamb"},
    "lamb without bias correction": {"optimizer": "lamb", "bias_correction": False},
    "sgd": {"optimizer": "sgd"},
    "sgd without momentum": {"optimizer": "sgd", "momentum": 0.0},
}


def _bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_resumed_from_every_checkpoint(tmp_path: Path, name: str) -> None:
    config = OptimizerConfig(**CONFIGS[name])
    plan = with_every_checkpoint(replace(PLAN, total_steps=STEPS))
    _, straight, _ = run(tmp_path / "straight", plan=plan, config=config, evaluates=False)
    torch.manual_seed(1)
    assert _bits(straight) != _bits(TinyModel())
    for step in range(1, STEPS):
        directory = tmp_path / f"from-{step}"
        shutil.copytree(tmp_path / "straight", directory)
        for later in range(step + 1, STEPS + 1):
            shutil.rmtree(directory / "checkpoints" / f"step-{later:08d}")
        torch.manual_seed(999)
        result, resumed, _ = run(directory, plan=plan, config=config, model=TinyModel(), evaluates=False)
        assert result.resumed_from == step
        assert _bits(resumed) == _bits(straight), f"resumed from step {step}"


@pytest.mark.parametrize("by", ["norm", "value"])
def test_a_picked_clip_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: Any) -> None:
    """Resumed before, at and after the decision, which is then the same and is told once."""
    monkeypatch.setattr(clip, "RECORDED_UPDATES", 5)
    monkeypatch.setattr(clip, "PERCENTILE", 10)  # so low that what follows is clipped
    plan = with_every_checkpoint(replace(PLAN, total_steps=9, clip="auto", clip_by=by))
    _, straight, _ = run(tmp_path / "straight", plan=plan, evaluates=False)
    decided = events(tmp_path / "straight", "decision")
    assert [(event["name"], event["step"]) for event in decided] == [("clip", 5)]
    for step in range(1, 9):
        directory = tmp_path / f"from-{step}"
        shutil.copytree(tmp_path / "straight", directory)
        for later in range(step + 1, 10):
            shutil.rmtree(directory / "checkpoints" / f"step-{later:08d}")
        torch.manual_seed(999)
        result, resumed, printed = run(directory, plan=plan, model=TinyModel(), evaluates=False)
        assert result.resumed_from == step
        assert _bits(resumed) == _bits(straight), f"resumed from step {step}"
        assert events(directory, "decision") == decided
        assert ("10th percentile" in printed) == (step < 5)
    never = replace(plan, clip=1.0)
    assert _bits(run(tmp_path / "never", plan=never, evaluates=False)[1]) != _bits(straight), "it changed something"
