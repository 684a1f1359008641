"""A model and a smaller one on the same rows: how good each is, how large, and how quick."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsmith.model.flops import forward_flops
from bertsmith.model.int8 import Int8Embedding, Int8Layer
from bertsmith.model.pretrained import Pretrained
from bertsmith.runtime import derive_seed
from bertsmith.tasks.evaluate import score_features, score_table
from bertsmith.tasks.predict import Predictor

ROUNDS = 7
"""Both models answer in turn so many times; a time is the median."""
BATCH = 32
MOST_ROWS = 512
"""Rows that are answered for the throughput, at most."""


@dataclass(frozen=True)
class Measured:
    """One model on the user's rows. Times are of whole calls: from text to answer, tokenising included."""

    score: float
    low: float
    high: float
    """Bounds of the score's 95 % bootstrap interval."""
    rows: int
    megabytes: float
    """Of the file of weights."""
    parameters: int
    """0 where it cannot be told: of graphs, and of layers of integers."""
    flops_per_token: float
    """Of the layers, at the mean length of these rows."""
    one_ms: float
    """Milliseconds for one row alone."""
    batch_ms: float
    """Milliseconds for `BATCH` rows."""
    rows_per_second: float


def measure(predictors: Sequence[Predictor], rows: Sequence[Any], metric: str, *, seed: int) -> list[Measured]:
    """Measure models of one task, in turn so that what disturbs the machine disturbs all.

    `rows` are labelled, at least one. Scores are of all rows, times of some, the same for each model.
    """
    order = sorted(range(len(rows)), key=lambda number: derive_seed("compress rows", seed, number))
    some = [rows[number] for number in order[:MOST_ROWS]]
    batch = [some[number % len(some)] for number in range(BATCH)]
    times: list[dict[str, list[float]]] = [{"one": [], "batch": [], "all": []} for _ in predictors]
    for turn in range(ROUNDS + 1):
        for predictor, taken in zip(predictors, times, strict=True):
            found = {
                "one": _seconds(predictor, [some[turn % len(some)]]),
                "batch": _seconds(predictor, batch),
                "all": _seconds(predictor, some),
            }
            if turn:  # the first round warms up
                for name, seconds in found.items():
                    taken[name].append(seconds)
    return [
        _measured(predictor, rows, metric, taken, timed=len(some), seed=seed)
        for predictor, taken in zip(predictors, times, strict=True)
    ]


def size_megabytes(directory: Path) -> float:
    """Of the files of weights in a model directory."""
    files = (path for path in directory.iterdir() if path.suffix in (".safetensors", ".onnx", ".bin"))
    return sum(path.stat().st_size for path in files) / 1e6


def _parameters(model: Pretrained) -> int:
    return 0 if any(isinstance(part, Int8Layer | Int8Embedding) for part in model.modules()) else model.num_parameters


def _seconds(predictor: Predictor, rows: Sequence[Any]) -> float:
    started = time.perf_counter()
    for _ in predictor.stream(rows):
        pass
    return time.perf_counter() - started


def _measured(
    predictor: Predictor,
    rows: Sequence[Any],
    metric: str,
    times: Mapping[str, Sequence[float]],
    *,
    timed: int,
    seed: int,
) -> Measured:
    task, model = predictor.task, predictor.model
    features = predictor.encode(rows, labelled=True)
    answers = score_features(predictor, rows, features).answers
    table = score_table(task, rows, answers, predictor.labels, name="", split="validation", seconds=0.0, seed=seed)
    score = next(line for line in table if line.metric == metric)
    return Measured(
        score=score.score,
        low=score.low,
        high=score.high,
        rows=len(rows),
        megabytes=size_megabytes(predictor.directory),
        parameters=_parameters(model),
        flops_per_token=forward_flops(model.config, tokens=1.0, length=float(features.lengths.mean())),
        one_ms=1000 * statistics.median(times["one"]),
        batch_ms=1000 * statistics.median(times["batch"]),
        rows_per_second=timed / statistics.median(times["all"]),
    )
