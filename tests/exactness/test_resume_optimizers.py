"""Promise 5 for each optimizer: resumed at any checkpoint = never stopped, bit for bit."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bertsmith.config import OptimizerConfig
from training_case import PLAN, TinyModel, run, with_every_checkpoint

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
