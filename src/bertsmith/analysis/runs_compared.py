"""Several runs against a first one: scores with paired tests, what differs in the recipes, and what each cost."""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertsmith.analysis.compare import Comparison, compare
from bertsmith.analysis.folder import RunFolder, Training, mapping, read_run_folder
from bertsmith.analysis.markup import number
from bertsmith.analysis.recipes import differences
from bertsmith.errors import ArtifactError, UsageError


@dataclass(frozen=True)
class Cost:
    """What a training took; None where its log does not say. Of several runs (seeds) the mean of each."""

    seconds: float | None
    steps: float | None
    tokens: float | None
    flops: float | None
    """Of matrix products in updates: tokens times the mean of `flops_per_token`."""
    parameters: float | None
    peak_memory_bytes: float | None


@dataclass(frozen=True)
class HeldOut:
    """Held-out figures of a pre-training's best evaluation; of several runs the mean of each."""

    loss: float
    figures: Mapping[str, float]
    """Losses by objective, accuracies, and the baseline of word frequencies."""


@dataclass(frozen=True)
class Against:
    """One other run, tested against the first."""

    name: str
    splits: tuple[Comparison, ...]
    """Empty where rows were not scored on both sides, as in pre-training."""
    adjusted: Mapping[tuple[str, str], float]
    """(split, metric) -> p of the bootstrap, by Holm's rule over all other runs (Holm 1979); as it is with one."""


@dataclass(frozen=True)
class RunsCompared:
    """What `compare_runs` found. The first run is the one that the others are tested against."""

    names: tuple[str, ...]
    others: tuple[Against, ...]
    recipes: tuple[tuple[str, tuple[str | None, ...]], ...]
    """Key -> its value in each recipe, of keys that differ; empty where a side is no folder of a run."""
    costs: Mapping[str, tuple[Cost | None, ...]]
    """"pretrain" or "finetune" -> what it cost in each run."""
    held_out: tuple[HeldOut | None, ...]
    """Of each run's pre-training, where it has one."""


def compare_runs(
    runs: Sequence[str | Path], *, split: str | None = None, seed: int = 42, resamples: int = 10_000
) -> RunsCompared:
    """Compare two runs or more. Each is a run, a predictions file, or a pattern for several runs (`compare`).

    Raises `UsageError` for one run alone, or runs of different tasks; `ArtifactError` where there is
    nothing that two of them have in common; `DataError` where rows are not the same.
    """
    names = [str(run) for run in runs]
    if len(names) < 2:
        raise UsageError("compare takes two runs or more")
    folders = [_folders(name) for name in names]
    held_out = tuple(_held_out(found) for found in folders)
    if all(held_out) and not any(_has_scores(found) for found in folders):
        paired: list[tuple[Comparison, ...]] = [()] * (len(names) - 1)
    else:
        paired = [compare(names[0], name, split=split, seed=seed, resamples=resamples) for name in names[1:]]
    adjusted = _holm(paired)
    kinds = ("pretrain", "finetune") if all(folders) else ()
    costs = {kind: tuple(_mean_cost(found, kind) for found in folders) for kind in kinds}
    return RunsCompared(
        names=tuple(names),
        others=tuple(map(Against, names[1:], paired, adjusted)),
        recipes=_recipes(folders),
        costs={kind: found for kind, found in costs.items() if any(found)},
        held_out=held_out if any(held_out) else (),
    )


def _folders(name: str) -> list[RunFolder]:
    """Folders of runs that are meant; none for files."""
    places = [Path(place) for place in (sorted(glob.glob(name)) if glob.has_magic(name) else [name])]  # noqa: PTH207
    if not places:
        raise ArtifactError(f"{name}: no such run; a pattern must match runs or predictions files")
    return [read_run_folder(place) for place in places if not place.is_file()]


def _has_scores(folders: Sequence[RunFolder]) -> bool:
    return any(training.predictions for folder in folders for training in folder.trainings)


def _holm(paired: Sequence[Sequence[Comparison]]) -> list[dict[tuple[str, str], float]]:
    """For each other run its p values, adjusted: the smallest times their number, the next times one less, and so on,
    never falling.
    """
    found: list[dict[tuple[str, str], float]] = [{} for _ in paired]
    keys = {(one.split, metric) for splits in paired for one in splits for metric in one.metrics}
    for key in keys:
        known = [
            (one.metrics[key[1]].bootstrap_p, place)
            for place, splits in enumerate(paired)
            for one in splits
            if one.split == key[0] and key[1] in one.metrics
        ]
        least = 0.0
        for smaller, (p, place) in enumerate(sorted(known)):
            least = max(least, min(1.0, p * (len(known) - smaller)))
            found[place][key] = least
    return found


def _recipes(folders: Sequence[Sequence[RunFolder]]) -> tuple[tuple[str, tuple[str | None, ...]], ...]:
    """Of several runs of one side the first one's recipe, and then without the seed."""
    if not all(folders) or not all(found[0].recipe for found in folders):
        return ()
    several = any(len(found) > 1 for found in folders)
    rows = differences([found[0] for found in folders])
    return tuple((key, tuple(values)) for key, values in rows if not (several and key.split(".")[-1] == "seed"))


def _mean_cost(folders: Sequence[RunFolder], kind: str) -> Cost | None:
    found = [cost for folder in folders if (cost := _cost(folder, kind)) is not None]
    return None if not found else Cost(*(_mean([vars(cost)[name] for cost in found]) for name in vars(found[0])))


def _cost(folder: RunFolder, kind: str) -> Cost | None:
    training = _main(folder, kind)
    if training is None:
        return None
    tokens = number((training.stop or {}).get("tokens"))
    per_token = training.steps.mean("flops_per_token")
    return Cost(
        seconds=training.elapsed_seconds,
        steps=float(training.last_step),
        tokens=tokens,
        flops=None if tokens is None or per_token is None else tokens * per_token,
        parameters=number(training.plan.get("parameters")),
        peak_memory_bytes=training.steps.largest("memory_bytes"),
    )


def _held_out(folders: Sequence[RunFolder]) -> HeldOut | None:
    found = [figures for folder in folders if (figures := _of_best_evaluation(folder)) is not None]
    if not found:
        return None
    names = [name for name in found[0] if all(name in figures for figures in found)]
    means = {name: sum(figures[name] for figures in found) / len(found) for name in names}
    return HeldOut(means.pop("loss"), means)


def _of_best_evaluation(folder: RunFolder) -> dict[str, float] | None:
    training = _main(folder, "pretrain")
    known = [event for event in training.of("evaluation") if number(event.get("loss")) is not None] if training else []
    if not known:
        return None
    best = min(known, key=lambda event: float(event["loss"]))
    told = {"loss": best["loss"]} | {f"{name} loss": value for name, value in mapping(best.get("losses")).items()}
    told |= {**mapping(best.get("scores")), "loss by word frequencies": best.get("unigram_entropy")}
    return {name: amount for name, value in told.items() if (amount := number(value)) is not None}


def _main(folder: RunFolder, kind: str) -> Training | None:
    """The folder's own training of this kind, and not a simple model's beside it."""
    of_kind = [training for training in folder.trainings if training.kind == kind]
    return next((training for training in of_kind if training.name == kind), of_kind[0] if of_kind else None)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
