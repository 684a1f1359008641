"""What a diagnosis says of one illness."""

from dataclasses import dataclass, field
from typing import Literal

Degree = Literal["sure", "likely", "possible"]
DEGREES: tuple[Degree, ...] = ("sure", "likely", "possible")
"""How far the evidence goes, from most to least."""


@dataclass(frozen=True)
class Series:
    """Numbers that show it, drawn small."""

    name: str
    points: tuple[tuple[float, float], ...]
    """(step, value), in order."""


@dataclass(frozen=True)
class Finding:
    """An illness that a run has."""

    illness: str
    """Its name, one of `ILLNESSES`."""
    degree: Degree
    seen: str
    """What was seen, in a sentence with numbers and steps."""
    advice: tuple[str, ...]
    """What to try next, the first thing first."""
    evidence: tuple[str, ...] = ()
    """More of it: rows, steps, counts."""
    series: tuple[Series, ...] = ()
    training: str = ""
    """The part of the run that has it: pretrain, finetune, or the folder's own name."""


ILLNESSES: dict[str, str] = {
    "diverged": "diverged",
    "spikes": "loss spikes",
    "word-frequencies-only": "only word frequencies learned",
    "one-class": "one class predicted always",
    "plateau": "stuck on a plateau",
    "overfitting": "overfitting",
    "underfitting": "underfitting",
    "learning-rate-too-high": "learning rate too high",
    "learning-rate-too-low": "learning rate too low",
    "gradients-vanish": "gradients vanish",
    "always-clipped": "gradients always clipped",
    "leak": "training rows in the test",
    "label-noise": "label noise suspected",
    "miscalibrated": "probabilities are not to be trusted",
    "repeated-text": "repeated text",
    "unknown-tokens": "many unknown tokens",
    "truncation": "much text cut off",
    "padding": "much padding",
    "next-sentence-by-topic": "next sentence told by topic alone",
    "next-sentence-by-length": "next sentence told by length alone",
    "loader-bound": "waiting for data",
    "thread-bound": "threads and processors do not match",
    "seeds-outweigh-gain": "seeds differ more than settings",
}
"""Name -> what a person calls it; findings are told in this order."""


@dataclass(frozen=True)
class Diagnosis:
    """All that was found in a run, the gravest first, and what could not be looked for."""

    run: str
    findings: tuple[Finding, ...]
    unknown: dict[str, str] = field(default_factory=dict)
    """Illness -> why the files do not tell."""
