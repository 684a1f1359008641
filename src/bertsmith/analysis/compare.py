"""Is one model better than another? Paired tests on the same test rows."""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from bertsmith.errors import ArtifactError, DataError, UsageError
from bertsmith.model.weights import read_card
from bertsmith.tasks.predictions import Predictions, read_predictions
from bertsmith.tasks.resampling import Difference
from bertsmith.tasks.resampling import compare as compare_statistics

_FILES = "predictions-*.jsonl"


@dataclass(frozen=True)
class Disagreement:
    """Rows that only one of two models answers rightly."""

    only_first: int
    only_second: int
    p: float
    """McNemar's exact test (McNemar 1947): of rows that only one has right, is either's share unlike a half?"""


@dataclass(frozen=True)
class Comparison:
    """Two models on one split."""

    split: str
    rows: int
    runs: tuple[int, int]
    """How many runs (seeds) each model has."""
    metrics: Mapping[str, Difference]
    smaller_is_better: frozenset[str]
    disagreement: Disagreement | None
    """None where answers are not right or wrong, and where a model has several runs."""


def compare(
    first: str | Path, second: str | Path, *, split: str | None = None, seed: int = 42, resamples: int = 10_000
) -> tuple[Comparison, ...]:
    """Test whether two models differ on the same rows, on every split that both were scored on.

    Args:
        first, second: a finished run, a predictions file (.jsonl), or a pattern such as "runs/cola-seed-*" for several
            runs of one model, whose mean score is compared.
        split: only this one.
        resamples: of the paired bootstrap and of the randomization test; a tenth of them for `roc_auc` and `spearman`.

    Raises `ArtifactError` where there is nothing to compare, `DataError` where rows are not the same.
    """
    ours, theirs = _splits(str(first)), _splits(str(second))
    if len(ours) == len(theirs) == 1 and split is None and all(Path(str(one)).is_file() for one in (first, second)):
        theirs = dict(zip(ours, theirs.values(), strict=True))  # two files that are named are meant, as they are called
    shared = [name for name in ours if name in theirs and split in (None, name)]
    if not shared:
        wanted = "no split is with both" if split is None else f"split {split!r} is not with both"
        raise ArtifactError(f"{wanted}: {first} has {', '.join(ours)}; {second} has {', '.join(theirs)}")
    return tuple(
        _compare(ours[name], theirs[name], split=name, seed=seed, resamples=resamples) for name in sorted(shared)
    )


def _splits(given: str) -> dict[str, list[Path]]:
    """Split -> predictions files, one a run; only splits that every run has."""
    names = sorted(glob.glob(given)) if glob.has_magic(given) else [given]  # noqa: PTH207 - absolute patterns too
    places = [Path(name) for name in names]
    if not places:
        raise ArtifactError(f"{given}: no such run; a pattern must match runs or predictions files")
    of_runs = [_files(place) for place in places]
    shared = [name for name in of_runs[0] if all(name in files for files in of_runs)]
    if not shared:
        raise ArtifactError(f"{given}: its runs have no split in common")
    return {name: [files[name] for files in of_runs] for name in shared}


def _files(place: Path) -> dict[str, Path]:
    """Split -> predictions file of one run; of a file its own name is the split's."""
    files = [place] if place.is_file() else sorted(place.glob(_FILES)) or sorted((place / "finetune").glob(_FILES))
    if not files:
        raise ArtifactError(
            f"{place} has no predictions-SPLIT.jsonl; give a finished fine-tuning, such as runs/cola/finetune, or a "
            "file of labelled rows that `bertsmith predict --file ROWS --out FILE` wrote"
        )
    return {file.stem.removeprefix("predictions-"): file for file in files}


def _compare(first: Sequence[Path], second: Sequence[Path], *, split: str, seed: int, resamples: int) -> Comparison:
    runs = [
        read_predictions(path, task_name=read_card(path.parent / "model").get("task")) for path in (*first, *second)
    ]
    for path, run in zip((*first, *second), runs, strict=True):
        _check_same_rows(runs[0], first[0], run, path)
    ours, theirs = runs[: len(first)], runs[len(first) :]
    task, rows = runs[0].task, runs[0].rows
    labels = sorted({label for run in runs for label in run.labels})
    pairs = list(zip(ours, theirs, strict=True)) if len(ours) == len(theirs) else []
    of_ours = [task.statistics(rows, run.answers, labels) for run in ours]
    of_theirs = [task.statistics(rows, run.answers, labels) for run in theirs]
    pooled = [task.statistics([*rows, *rows], [*one.answers, *other.answers], labels) for one, other in pairs]
    return Comparison(
        split=split,
        rows=len(rows),
        runs=(len(ours), len(theirs)),
        metrics={
            metric: compare_statistics(
                [of_run[metric] for of_run in of_ours],
                [of_run[metric] for of_run in of_theirs],
                [of_pair[metric] for of_pair in pooled],
                seed=seed,
                resamples=resamples,
            )
            for metric in of_ours[0]
        },
        smaller_is_better=task.smaller_is_better,
        disagreement=_disagreement(*pairs[0]) if len(runs) == 2 else None,
    )


def _check_same_rows(one: Predictions, path: Path, other: Predictions, other_path: Path) -> None:
    """Raise `DataError` naming the first row that differs."""
    if one.task.name != other.task.name:
        tasks = f"{path} is of task {one.task.name!r}, {other_path} of {other.task.name!r}"
        raise UsageError(f"{tasks}; compare models of one task")
    for number, (row, beside) in enumerate(zip(one.rows, other.rows, strict=False)):
        if replace(row, line=0) != replace(beside, line=0):
            told = [f"{path}: {_told(row)}", f"{other_path}: {_told(beside)}"]
            raise DataError(f"row {number} (from 0) is not the same: {'; '.join(told)}; score both on the same rows")
    if len(one.rows) != len(other.rows):
        counts = f"{len(one.rows):,} rows, {other_path} has {len(other.rows):,}"
        raise DataError(f"{path} has {counts}; score both on the same rows")


def _told(row: Any) -> str:
    text = str({key: value for key, value in asdict(row).items() if key != "line" and value is not None})
    return text if len(text) <= 150 else text[:149] + "…"


def _disagreement(one: Predictions, other: Predictions) -> Disagreement | None:
    right, beside = one.task.right(one.rows, one.answers), one.task.right(other.rows, other.answers)
    if right is None or beside is None:
        return None
    only_first, only_second = int((right & ~beside).sum()), int((beside & ~right).sum())
    apart = only_first + only_second
    return Disagreement(only_first, only_second, float(binomtest(only_first, apart).pvalue) if apart else 1.0)
