"""From a fine-tuned model to one of fewer bits that is proven: quantized layer by layer, measured beside the whole one.

FOLDER/
    model/              the smaller model; only where it lost no more than it may
    compression.json    what each layer costs alone, which were left as they are, and both models side by side
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from bertsmith.artifact import remove_drafts
from bertsmith.compress.int8_onnx import OnnxQuantizer
from bertsmith.compress.int8_torch import TorchQuantizer, write_bfloat16
from bertsmith.compress.measure import measure
from bertsmith.compress.outcome import Outcome, check_request, is_within, lost_points
from bertsmith.errors import UsageError
from bertsmith.model.int8 import has_fast_int8
from bertsmith.model.int8_files import is_int8
from bertsmith.model.onnx_network import OnnxNetwork
from bertsmith.runtime import Runtime, cpu_has_bfloat16, detect
from bertsmith.tasks.evaluate import score_rows
from bertsmith.tasks.inputs import Inputs
from bertsmith.tasks.own_rows import own_inputs, own_recipe
from bertsmith.tasks.predict import Predictor

Bits = Literal["int8", "bf16"]
EngineName = Literal["auto", "torch", "onnx"]
CALIBRATION_ROWS = 256
"""Training rows by which the ranges of activations are measured, at most."""
SENSITIVITY_ROWS = 256
"""Validation rows on which each layer is tried alone, at most."""


@dataclass(frozen=True)
class Sensitivity:
    """What it costs to quantize one layer alone."""

    layer: int
    loss_change: float
    """Mean over targets, of some validation rows; above 0 where it is worse."""
    lost_points: float
    """Of the metric, on the same rows."""


def quantize(
    model: str | Path,
    folder: str | Path,
    *,
    to: Bits = "int8",
    engine: EngineName = "auto",
    static: bool = False,
    max_drop: float = 1.0,
    recipe: str | Path | None = None,
    console: Console | None = None,
    runtime: Runtime | None = None,
) -> Outcome:
    """Quantize a fine-tuned model and compare both on the validation rows.

    int8 layers that cost most are left in float32 one after the other until no more than `max_drop` is lost.

    Args:
        model: a run or its model directory, in float32.
        to: int8, or bf16, which is stored and, where the CPU has it, computed.
        engine: of int8: torch, ranges of activations fixed beforehand; onnx, a graph for ONNX Runtime, with ranges
            taken from each batch or, if `static`, fixed beforehand; auto: torch where it is fast here, else onnx.
        max_drop: hundredths of the metric that may be lost; more, and no model is kept.
        recipe: that names the rows; default: that of the run.

    Raises `UsageError` for a model without a recipe or rows, and `BertsmithError` where it lost more than `max_drop`.
    """
    console, runtime, folder = console or Console(soft_wrap=True), runtime or detect(), Path(folder)
    if to == "bf16" and (engine == "onnx" or static):
        raise UsageError("bf16 is for PyTorch, and has no ranges to fix; leave --engine and --static out")
    check_request(folder, max_drop)
    whole = Predictor.load(model, runtime=detect(device="cpu", dtype="float32", threads=runtime.threads))
    if isinstance(whole.model, OnnxNetwork) or is_int8(whole.model.config):
        raise UsageError(f"{whole.directory} is quantized or exported already; give the model that it was made from")
    inputs = own_inputs(own_recipe(whole, recipe), whole, runtime)
    folder.mkdir(parents=True, exist_ok=True)
    with _work_folder(folder) as work:
        search = _Search(whole, inputs, work, max_drop, console)
        if to == "bf16":
            made, how = search.run(lambda target, _: write_bfloat16(whole, target), layers=0)
            how |= {"to": "bf16", "computed_in": "bfloat16" if cpu_has_bfloat16() else "float32"}
        else:
            chosen = ("torch" if has_fast_int8() else "onnx") if engine == "auto" and not static else engine
            quantizer = _quantizer(chosen, whole, inputs, work, static=static)
            _say(console, f"int8       {quantizer.in_words}")
            made, how = search.run(quantizer.write, layers=whole.model.config.num_hidden_layers)
            how |= {"to": "int8", "engine": quantizer.name, "static": static or quantizer.name == "torch"}
        smaller = Predictor.load(made, runtime=whole.runtime)
        before, after = measure([whole, smaller], inputs.splits.validation, inputs.metric, seed=inputs.seed)
        found = Outcome.of(folder, inputs, before, after, how)
        found.keep(made, whole, max_drop, "try another --engine, or allow more")
    return found


@contextmanager
def _work_folder(folder: Path) -> Iterator[Path]:
    """For what is tried; that of a call which was killed goes too."""
    remove_drafts(folder / "quantize")
    work = folder / f".quantize.draft-{os.getpid()}"
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _quantizer(
    engine: str, whole: Predictor, inputs: Inputs, work: Path, *, static: bool
) -> TorchQuantizer | OnnxQuantizer:
    rows = inputs.splits.train[:CALIBRATION_ROWS]
    if engine == "torch":
        return TorchQuantizer.calibrated(whole, inputs.features(rows))
    return OnnxQuantizer(whole, work, inputs.features(rows) if static else None)


@dataclass
class _Search:
    """Which layers to leave as they are."""

    whole: Predictor
    inputs: Inputs
    work: Path
    max_drop: float
    console: Console

    def run(self, write: Callable[[Path, frozenset[int]], None], *, layers: int) -> tuple[Path, dict[str, Any]]:
        """The directory of the smallest model that is good enough, or of the last one tried, and what was found out.

        write: called with a directory to make and the layers to quantize.
        """
        rows = self.inputs.splits.validation
        some = rows[:SENSITIVITY_ROWS]
        every = frozenset(range(layers))
        costs = self._sensitivities(write, some, every)
        before, left = self._score(self.whole, rows)[1], set[int]()
        for layer in [None, *(one.layer for one in sorted(costs, key=lambda one: -one.loss_change))]:
            left |= set() if layer is None else {layer}
            made = self._made(write, every - left)
            lost = self._lost(before, self._score(Predictor.load(made, runtime=self.whole.runtime), rows)[1])
            if layers:
                _say(self.console, f"layers left in float32: {_listed(left)}; {lost:+.2f} points lost")
            if is_within(lost, self.max_drop) or len(left) >= layers - 1:
                break
        return made, {"left_in_float32": sorted(left), "sensitivity": [vars(one) for one in costs]}

    def _sensitivities(
        self, write: Callable[[Path, frozenset[int]], None], rows: Sequence[Any], layers: frozenset[int]
    ) -> list[Sensitivity]:
        if not layers:
            return []
        loss, score = self._score(self.whole, rows)
        found = []
        for layer in sorted(layers):
            alone = Predictor.load(self._made(write, frozenset({layer})), runtime=self.whole.runtime)
            its_loss, its_score = self._score(alone, rows)
            found.append(Sensitivity(layer, its_loss - loss, self._lost(score, its_score)))
            _say(self.console, f"layer {layer:<4} alone: loss {found[-1].loss_change:+.5f}")
        return found

    def _made(self, write: Callable[[Path, frozenset[int]], None], layers: frozenset[int]) -> Path:
        made = self.work / "made"
        shutil.rmtree(made, ignore_errors=True)
        write(made, layers)
        return made

    def _score(self, model: Predictor, rows: Sequence[Any]) -> tuple[float, float]:
        """Loss and metric."""
        found = score_rows(model, rows)
        return found.loss, found.scores[self.inputs.metric]

    def _lost(self, before: float, after: float) -> float:
        is_reversed = self.inputs.metric in self.inputs.task.smaller_is_better
        return lost_points(before, after, smaller_is_better=is_reversed)


def _listed(layers: set[int]) -> str:
    return ", ".join(map(str, sorted(layers))) or "none"


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)
