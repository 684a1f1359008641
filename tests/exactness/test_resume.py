"""Promise 5: a run stopped at any checkpoint and resumed equals one that never stopped, bit for bit, dropout on.

A tiny model on the loop alone, then a small BERT through `pretrain`, eager and compiled; float32 and bfloat16.
"""

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from bertsmith.runtime import Runtime
from bertsmith.training.compiling import has_compiler
from bertsmith.training.pretrain import pretrain
from bertsmith.training.track import read_metrics
from pretrain_case import Made, make_examples
from training_case import CPU, PLAN, TinyModel, run, with_every_checkpoint

RUNTIMES = {"float32": CPU, "bfloat16": replace(CPU, dtype=torch.bfloat16)}
PLAN_9 = with_every_checkpoint(replace(PLAN, total_steps=9, evaluate_every=4, log_every=4))
_CLOCK = ("elapsed_seconds", "seconds", "time", "tokens_per_second", "loader_wait_seconds", "memory_bytes")


def _another_model() -> nn.Module:
    torch.manual_seed(999)  # other weights than the first run's: all of them must come from the checkpoint
    torch.rand(77)
    return TinyModel()


def _bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def _log(directory: Path) -> list[dict[str, Any]]:
    """The log without what a clock or meter says, without start events, which tell of the resume."""
    kept = [event for event in read_metrics(directory / "metrics.jsonl") if event["event"] != "start"]
    return [{name: value for name, value in event.items() if name not in _CLOCK} for event in kept]


def _straight(directory: Path, runtime: Runtime) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    result, model, _ = run(directory, plan=PLAN_9, runtime=runtime)
    assert result.steps == 9
    assert sorted(path.name for path in (directory / "checkpoints").iterdir()) == [
        f"step-{step:08d}" for step in range(1, 10)
    ]
    return _bits(model), _log(directory)


def _resumed(straight: Path, directory: Path, step: int, runtime: Runtime) -> tuple[Any, Any]:
    shutil.copytree(straight, directory)
    for later in range(step + 1, 10):
        shutil.rmtree(directory / "checkpoints" / f"step-{later:08d}")
    result, model, _ = run(directory, plan=PLAN_9, model=_another_model(), runtime=runtime)
    assert result.resumed_from == step
    return _bits(model), _log(directory)


@pytest.mark.parametrize("dtype", RUNTIMES)
def test_the_loop_from_every_checkpoint(tmp_path: Path, dtype: str) -> None:
    expected = _straight(tmp_path / "straight", RUNTIMES[dtype])
    for step in range(1, 10):
        got = _resumed(tmp_path / "straight", tmp_path / f"from-{step}", step, RUNTIMES[dtype])
        assert got[0] == expected[0], f"weights differ after resuming from step {step}"
        assert got[1] == expected[1], f"logs differ after resuming from step {step}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_examples(tmp_path_factory.mktemp("made"))


def _pretrain(made: Made, directory: Path, dtype: str, compile_mode: str) -> tuple[bytes, list[dict[str, Any]]]:
    """A BERT with dropout, pre-trained for 6 steps with a checkpoint after each; its weights and log.

    Compiled in float32 it has no layers, only embeddings and heads: compiling one takes a minute on two cores.
    """
    if (compile_mode, dtype) == ("on", "float32"):
        made = replace(
            made, raw=json.loads(json.dumps(made.raw).replace('"num_hidden_layers": 1', '"num_hidden_layers": 0'))
        )
    recipe = made.recipe(
        max_steps=6,
        evaluate_every_steps=4,
        log_every_steps=2,
        compile=compile_mode,
        checkpoint_every_seconds=1e-9,
        keep_checkpoints=9,
    )
    output = io.StringIO()
    pretrain(
        recipe,
        directory,
        examples=made.examples,
        tokenizer=made.tokenizer,
        runtime=RUNTIMES[dtype],
        console=Console(file=output, width=120),
    )
    assert "going on eager" not in output.getvalue()
    return (directory / "model" / "model.safetensors").read_bytes(), _log(directory)


def _as_if_killed_after(step: int, directory: Path, copy: Path) -> None:
    shutil.copytree(directory, copy)
    shutil.rmtree(copy / "model")
    for later in range(step + 1, 7):
        shutil.rmtree(copy / "checkpoints" / f"step-{later:08d}")
    state = json.loads((copy / "state.json").read_text())
    (copy / "state.json").write_text(json.dumps({**state, "finished": False}))


@pytest.mark.parametrize("dtype", RUNTIMES)
def test_a_bert_eager_from_every_checkpoint(tmp_path: Path, made: Made, dtype: str) -> None:
    expected = _pretrain(made, tmp_path / "straight", dtype, "off")
    for step in range(1, 7):
        _as_if_killed_after(step, tmp_path / "straight", tmp_path / f"from-{step}")
        torch.rand(step)
        assert _pretrain(made, tmp_path / f"from-{step}", dtype, "off") == expected, f"resumed from step {step}"


@pytest.mark.skipif(not has_compiler(), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("dtype", RUNTIMES)
def test_a_bert_compiled_from_a_checkpoint_in_another_process(tmp_path: Path, made: Made, dtype: str) -> None:
    expected = _pretrain(made, tmp_path / "straight", dtype, "on")
    _as_if_killed_after(3, tmp_path / "straight", tmp_path / "resumed")
    resume = (
        "import sys; from pathlib import Path; import test_resume as t;"
        "made = t.Made(t.json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]));"
        "t._pretrain(made, Path(sys.argv[4]), sys.argv[5], 'on')"
    )
    arguments = [json.dumps(made.raw), str(made.examples), str(made.tokenizer), str(tmp_path / "resumed"), dtype]
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run(
        [sys.executable, "-c", resume, *arguments], env={**os.environ, "PYTHONPATH": path}, check=True, timeout=300
    )
    assert (tmp_path / "resumed" / "model" / "model.safetensors").read_bytes() == expected[0]
    assert _log(tmp_path / "resumed") == expected[1]


def test_dropout_is_on_in_these_tests(tmp_path: Path) -> None:
    _, with_dropout, _ = run(tmp_path / "a", plan=PLAN_9)
    torch.manual_seed(1)
    _, without, _ = run(tmp_path / "b", plan=PLAN_9, model=TinyModel(dropout=0.0))
    assert _bits(with_dropout) != _bits(without)


def test_global_generator_and_settings_are_left_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = TinyModel()
    before = torch.random.get_rng_state()
    run(tmp_path, model=model)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_budget_s_step_count_is_read_back(tmp_path: Path) -> None:
    budget = with_every_checkpoint(replace(PLAN, total_steps=None, budget_seconds=2.0, evaluate_every=1000))
    result, model, _ = run(tmp_path / "straight", plan=budget)
    decision = [e for e in read_metrics(tmp_path / "straight/metrics.jsonl") if e["event"] == "decision"][-1]
    assert (decision["name"], decision["value"]) == ("total_steps", result.steps)
    for step in {decision["step"], (decision["step"] + result.steps) // 2}:
        directory = tmp_path / f"from-{step}"
        shutil.copytree(tmp_path / "straight", directory)
        for path in (directory / "checkpoints").iterdir():
            if json.loads((path / "manifest.json").read_text())["step"] > step:
                shutil.rmtree(path)
        again, other, _ = run(directory, plan=budget, model=_another_model())
        assert (again.resumed_from, again.steps) == (step, result.steps)
        assert _bits(other) == _bits(model)
