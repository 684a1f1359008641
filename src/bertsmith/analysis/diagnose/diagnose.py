"""Read a run as somebody would who has seen many: what is wrong with it, how that shows, and what to try next.

Everything comes from metrics.jsonl and from files that the run wrote, so a copied folder, a run that is still going and
one that was killed are read alike.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from bertsmith.analysis.diagnose import answers, curves, data, gradients, seeds, speed
from bertsmith.analysis.diagnose.facts import Facts
from bertsmith.analysis.diagnose.finding import DEGREES, ILLNESSES, Diagnosis, Finding
from bertsmith.analysis.folder import RunFolder, Training, read_run_folder

_OF_TRAININGS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    *curves.CHECKS,
    *gradients.CHECKS,
    *answers.CHECKS,
    *data.CHECKS,
    *speed.CHECKS,
)
_OF_FOLDERS: tuple[Callable[[RunFolder], Iterator[Finding]], ...] = (*data.OF_FOLDERS, *seeds.OF_FOLDERS)
_EXPLAINED_BY = {
    "plateau": ("diverged", "word-frequencies-only"),
    "learning-rate-too-high": ("diverged",),
    "underfitting": ("one-class",),
    "learning-rate-too-low": ("one-class",),
}
"""Illness -> those that say the same and more."""
_SPEED = ("padding", "loader-bound", "thread-bound")


def diagnose(run: str | Path | RunFolder) -> Diagnosis:
    """What a run's files say of its health.

    Args:
        run: runs/NAME, one run directory inside it, or what `read_run_folder` found there.

    Raises `ArtifactError` where there is no such folder, or it holds no run.
    """
    folder = run if isinstance(run, RunFolder) else read_run_folder(Path(run))
    found: list[Finding] = []
    for training in folder.trainings:
        facts = Facts(training, folder.recipe or training.recipe)
        of_this = [finding for check in _OF_TRAININGS for finding in check(facts)]
        found += [replace(finding, training=training.name) for finding in _without_echoes(of_this)]
    found += [finding for check in _OF_FOLDERS for finding in check(folder)]
    return Diagnosis(folder.name, tuple(sorted(found, key=_gravity)), _unknown(folder))


def _without_echoes(found: list[Finding]) -> list[Finding]:
    names = {finding.illness for finding in found}
    return [finding for finding in found if not names & set(_EXPLAINED_BY.get(finding.illness, ()))]


def _gravity(finding: Finding) -> tuple[bool, int, int]:
    order = list(ILLNESSES)
    return finding.illness in _SPEED, DEGREES.index(finding.degree), order.index(finding.illness)


def _unknown(folder: RunFolder) -> dict[str, str]:
    """Illness -> why nothing can be said of it."""
    found = {}
    stages = {stage.name for stage in folder.stages}
    if any(training.kind == "pretrain" for training in folder.trainings) and "examples" not in stages:
        found["repeated-text"] = "the examples are not in this folder"
    for training in folder.trainings:
        if not _evaluated(training):
            found["overfitting"] = f"{training.name} has fewer than three evaluations"
        if training.kind == "finetune" and not training.predictions:
            found["label-noise"] = f"{training.name} has written no predictions yet"
    if not (folder.path / "search.jsonl").is_file():
        found["seeds-outweigh-gain"] = "this is no search over seeds"
    return found


def _evaluated(training: Training) -> bool:
    return len(training.of("evaluation")) >= 3
