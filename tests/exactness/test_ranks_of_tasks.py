"""Promise 4 for every task: two processes fine-tune as one does, and answer as one does.

Dropout is 0. In float64 losses, gradient norms and weights are equal to 1e-9; in float32 losses are to 1e-5. 13 rows in
a batch and micro-batches of 3 give the processes unequal shares; questions have unequal numbers of choices and windows.
Each process reads some batches of the validation rows, of which there are several here, and one of them for one row.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from bertsmith.runtime import Runtime
from bertsmith.tasks import finetune as finetune_room
from bertsmith.tasks.evaluate import evaluate
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.predict import BATCH_TOKENS
from bertsmith.training.distributed import Ranks
from finetune_case import (
    choice_rows,
    multilabel_rows,
    pair_rows,
    question_rows,
    recipe,
    tagged_rows,
    text_rows,
    write_tiny_model,
)
from ranks_case import ONE_THREAD, on_ranks
from training_case import events


def rated_rows(count: int, *, seed: int = 0) -> list[tuple[str, float]]:
    return [(text, float(label == "good") + len(text) / 100) for text, label in text_rows(count, seed=seed)]


def sentence_pairs(count: int, *, seed: int = 0) -> list[tuple[str, str, int]]:
    return [(one, other, int(label == "other")) for one, other, label in pair_rows(count, seed=seed)]


def plain_texts(count: int, *, seed: int = 0) -> list[str]:
    return [text for text, _ in text_rows(count, seed=seed)]


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "classify": (text_rows, {}),
    "pairs": (pair_rows, {"task": "classify", "pair_column": "pair", "pooling": "mean", "head_layers": 1}),
    "multilabel": (multilabel_rows, {}),
    "regress": (rated_rows, {"refit": True}),
    "choose": (choice_rows, {}),
    "tag": (tagged_rows, {}),
    "answer": (question_rows, {"stride": 4, "max_length": 20}),
    "next-sentence": (sentence_pairs, {}),
    "masked-word": (plain_texts, {"mask_by": "word", "max_length": 10}),
    "language-model": (plain_texts, {"max_length": 8}),
}
"""Name -> rows, and what the recipe says besides."""
DTYPES = {"float64": torch.float64, "float32": torch.float32}
RUNS = [*((name, "float64") for name in CASES), ("classify", "float32"), ("choose", "float32")]


def finetuned(ranks: Ranks, runtime: Runtime, base: Path, directory: Path, name: str, dtype: str) -> dict[str, Any]:
    rows, settings = CASES[name]
    usual = {"task": name, "epochs": 2, "batch_size": 13, "micro_batch_size": 3, "dropout": 0.0, "learning_rate": 1e-3}
    torch.set_default_dtype(DTYPES[dtype])  # that of the weights as they are loaded
    try:
        result = finetune(
            recipe(**usual | {"log_every_steps": 1} | settings),
            directory / f"{name}-{dtype}",
            model=base,
            train=rows(30, seed=1),
            validation=rows(17, seed=2),
            test={"test": rows(17, seed=3)},
            console=Console(quiet=True),
            runtime=runtime,
            ranks=ranks,
        )
    finally:
        torch.set_default_dtype(torch.float32)
    return {"scores": {split: dict(scores) for split, scores in result.scores.items()}, "best": result.best_step}


def every_case(ranks: Ranks, runtime: Runtime, base: Path, directory: Path) -> dict[str, dict[str, Any]]:
    """All cases in one start of the processes: that, and measuring the machine, is what would take time."""
    with mock.patch.object(finetune_room, "matmul_peak", return_value=1e9), mock.patch.dict(BATCH_TOKENS, cpu=64):
        return {f"{name}-{dtype}": finetuned(ranks, runtime, base, directory, name, dtype) for name, dtype in RUNS}


def evaluated(ranks: Ranks, runtime: Runtime, model: Path, few: int) -> list[Any]:
    """The score table, without seconds, of a table that gives each process batches, and of one that gives but one."""
    tables = []
    for count in (40, few):
        result = evaluate(model, text_rows(count, seed=5), runtime=runtime, ranks=ranks)
        tables.append([replace(row, seconds=0.0) for row in result.table])
    return tables


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, dict[str, Any]]]]:
    """The folder with one/ and two/, and what one process and each of two returned."""
    folder = tmp_path_factory.mktemp("ranks")
    base = write_tiny_model(folder / "base")
    one = every_case(Ranks(0, 1), ONE_THREAD, base, folder / "one")
    return folder, [one, *on_ranks(2, every_case, base, folder / "two")]


@pytest.mark.parametrize(("name", "dtype"), RUNS)
def test_two_processes_are_equal_to_one(runs: tuple[Path, list[Any]], name: str, dtype: str) -> None:
    folder, (one, *two) = runs
    case = f"{name}-{dtype}"
    for each in two:
        assert isinstance(each, dict), each
        assert each[case]["best"] == one[case]["best"]
        for split, scores in one[case]["scores"].items():
            assert each[case]["scores"][split] == pytest.approx(scores, abs=1e-9 if dtype == "float64" else 1e-5)
    tolerance = 1e-9 if dtype == "float64" else 1e-5
    for kind in ("step", "evaluation"):
        ours, theirs = events(folder / "two" / case, kind), events(folder / "one" / case, kind)
        assert len(ours) == len(theirs) >= 2
        for mine, other in zip(ours, theirs, strict=True):
            wanted = 1e-5 if kind == "evaluation" else tolerance  # answers are float32 as soon as they are computed
            assert mine["losses"] == pytest.approx(other["losses"], rel=wanted)
            if kind == "step":
                assert mine["examples"] == other["examples"]
                assert mine["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=10 * tolerance)
            else:
                assert mine["scores"] == pytest.approx(other["scores"], abs=1e-9 if dtype == "float64" else 1e-5)
    if dtype == "float64":
        _same_weights(folder / "two" / case, folder / "one" / case)
    answers = [(folder / which / case / "predictions-test.jsonl").read_text() for which in ("one", "two")]
    first, second = ([json.loads(line) for line in text.splitlines()] for text in answers)
    for mine, other in zip(first, second, strict=True):
        assert [mine.get(key) for key in ("row", "predictions")] == [other.get(key) for key in ("row", "predictions")]


def _same_weights(two: Path, one: Path) -> None:
    found, wanted = (load_file(folder / "last" / "model.safetensors") for folder in (two, one))
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert tensor.dtype == torch.float64
        if not name.endswith("key.bias"):  # its true gradient is 0, and AdamW makes full steps of what rounding leaves
            torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-9, msg=name)


def test_processes_evaluate_as_one_does(runs: tuple[Path, list[Any]]) -> None:
    model = runs[0] / "one" / "classify-float32"
    expected = evaluated(Ranks(0, 1), ONE_THREAD, model, 1)
    assert on_ranks(2, evaluated, model, 1) == [expected] * 2
