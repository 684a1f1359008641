"""Promise 5 with frozen parts, other ones in each phase; and what is frozen keeps every bit, through `pretrain`."""

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from bertsmith.config import Recipe
from bertsmith.errors import UsageError
from bertsmith.training.pretrain import pretrain
from bertsmith.training.track import read_metrics
from pretrain_case import Made, make_examples
from training_case import CPU

PHASES: list[dict[str, Any]] = [
    {"name": "head", "max_steps": 3, "freeze": ["embeddings", "encoder"]},
    {"name": "top", "max_steps": 3, "freeze": ["bert.embeddings", "encoder.layer.0-1"], "optimizer": "lamb"},
    {"name": "all", "max_steps": 2, "freeze": []},
]
STEPS = 8


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = make_examples(tmp_path_factory.mktemp("made"))
    made.raw["model"]["overrides"]["num_hidden_layers"] = 3
    return made


def _recipe(made: Made, **changes: Any) -> Recipe:
    every = {"phases": PHASES, "keep_checkpoints": 99, "checkpoint_every_seconds": 1e-9, "log_every_steps": 1}
    return made.recipe(**every | changes)


def _run(made: Made, directory: Path, recipe: Recipe) -> bytes:
    console = Console(file=io.StringIO(), width=200)
    result = pretrain(recipe, directory, examples=made.examples, tokenizer=made.tokenizer, runtime=CPU, console=console)
    return (result.model / "model.safetensors").read_bytes()


def _checkpoint(directory: Path, step: int, name: str) -> dict[str, Tensor]:
    return load_file(directory / "checkpoints" / f"step-{step:08d}" / f"{name}.safetensors")


def _moved(directory: Path, first: int, last: int) -> set[str]:
    before, after = (_checkpoint(directory, step, "model") for step in (first, last))
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_each_phase_moves_what_it_says_and_resumes_from_every_checkpoint(made: Made, tmp_path: Path) -> None:
    straight = tmp_path / "straight"
    weights = _run(made, straight, _recipe(made))
    every = set(_checkpoint(straight, 1, "model"))
    outside = {name for name in every if not name.startswith("bert.")} | {n for n in every if "pooler" in n}
    assert _moved(straight, 1, 3) == outside
    assert _moved(straight, 3, 6) == outside | {name for name in every if "encoder.layer.2." in name}
    assert _moved(straight, 6, 8) == every
    for step, trained in ((3, outside), (6, _moved(straight, 3, 6)), (8, every)):
        assert {name.rpartition(".")[0] for name in _checkpoint(straight, step, "optimizer")} == trained
    plans = [e["plan"] for e in read_metrics(straight / "metrics.jsonl") if e["event"] in ("start", "phase")]
    counts = {plan["phase"]: (plan["trained_tensors"], plan["frozen_tensors"]) for plan in plans}
    moved = {0: len(outside), 1: len(_moved(straight, 3, 6)), 2: len(every)}
    assert counts == {phase: (number, len(every) - number) for phase, number in moved.items()}
    for step in range(1, STEPS + 1):
        directory = tmp_path / f"from-{step}"
        shutil.copytree(straight, directory, ignore=shutil.ignore_patterns("model"))
        for later in range(step + 1, STEPS + 1):
            shutil.rmtree(directory / "checkpoints" / f"step-{later:08d}")
        assert _run(made, directory, _recipe(made)) == weights, f"resumed from step {step}"


def test_a_part_that_a_later_phase_cannot_freeze_is_refused_before_the_first_begins(made: Made, tmp_path: Path) -> None:
    phases = [PHASES[0], {"max_steps": 2, "freeze": ["encoder.layer.3"]}]
    with pytest.raises(UsageError, match=r"encoder\.layer has 0 to 2"):
        _run(made, tmp_path / "run", _recipe(made, phases=phases))
    assert not (tmp_path / "run").exists()
