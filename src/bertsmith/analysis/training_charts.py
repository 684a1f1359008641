"""The charts of a training, or of several of the same kind in the same charts, a colour each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from bertsmith.analysis.curves import NUM_COLOURS, chart
from bertsmith.analysis.folder import Training, mapping
from bertsmith.analysis.marks import marks_of
from bertsmith.analysis.markup import Html, number, title, words
from bertsmith.analysis.run_log import Floats
from bertsmith.analysis.series import Series, line_of, noisy, series, smooth


def training_charts(trainings: Sequence[Training], *, group: str) -> list[Html]:
    """Losses, scores, and what tells of the machine; a chart only where there is something to draw."""
    charts: dict[str, list[Series]] = {"Loss": []}
    several = len(trainings) > 1
    for i, training in enumerate(trainings):
        colour = i % NUM_COLOURS + 1
        _add(charts, _losses(training, colour, several=several))
        _add(charts, _scores(training, colour, several=several))
        _add(charts, _machine(training, colour, several=several))
    marks = marks_of(trainings)
    notes = {"Share of the matmul peak": "Of the best of a few large matrix products on the same machine."}
    made = [chart(name, lines, group=group, marks=marks, note=notes.get(name, "")) for name, lines in _ordered(charts)]
    return [figure for figure in made if figure is not None]


def _add(charts: dict[str, list[Series]], found: Mapping[str, list[Series]]) -> None:
    for name, lines in found.items():
        charts.setdefault(name, []).extend(lines)


def _ordered(charts: Mapping[str, list[Series]]) -> list[tuple[str, list[Series]]]:
    """Losses first, then scores, then what tells of the machine, whichever training had them first."""
    return sorted(charts.items(), key=lambda item: (item[0] in _MACHINE, not item[0].startswith("Loss")))


def _losses(training: Training, colour: int, *, several: bool) -> dict[str, list[Series]]:
    steps, evaluations = training.steps, training.of("evaluation")
    of = f"{training.name}: " if several else ""
    names = dict.fromkeys([*steps.inner("losses"), *(key for e in evaluations for key in mapping(e.get("losses")))])

    def both(field: str, value: Callable[[Mapping[str, Any]], object]) -> list[Series]:
        trained = line_of(steps, field, name=f"{of}training", colour=colour)
        checked = series(evaluations, value, name=f"{of}validation", colour=colour if several else 2, style="dots")
        return [*([replace(smooth(trained), style="dashed")] if several else noisy(trained)), checked]

    charts = {"Loss": both("loss", lambda event: event.get("loss"))}
    for name in names if len(names) > 1 else ():
        charts[f"Loss: {words(name)}"] = both(f"losses.{name}", _inner("losses", name))
    return charts


def _scores(training: Training, colour: int, *, several: bool) -> dict[str, list[Series]]:
    """One run's scores share a chart, as many as there are colours: the one that chooses comes first."""
    evaluations = training.of("evaluation")
    names = dict.fromkeys(key for event in evaluations for key in mapping(event.get("scores")))
    charts: dict[str, list[Series]] = {}
    if several:
        for name in names:
            line = series(evaluations, _inner("scores", name), name=training.name, colour=colour, style="dots")
            charts[title(name)] = [line]
    elif names:
        charts["Validation scores"] = [
            series(evaluations, _inner("scores", name), name=words(name), colour=i + 1, style="dots")
            for i, name in enumerate(islice(names, NUM_COLOURS))
        ]
    for i, name in enumerate(training.steps.inner("accuracies")):
        own = colour if several else i % NUM_COLOURS + 1
        line = line_of(training.steps, f"accuracies.{name}", name=training.name if several else words(name), colour=own)
        heading = f"Accuracy on training batches: {words(name)}" if several else "Accuracy on training batches"
        charts.setdefault(heading, []).extend([smooth(line)] if several else noisy(line))
    return charts


def _machine(training: Training, colour: int, *, several: bool) -> dict[str, list[Series]]:
    charts = {}
    for name, (values, is_noisy) in _MACHINE.items():
        found = values(training)
        line = line_of(training.steps, found, name=training.name if several else name.lower(), colour=colour)
        if len(line.known) and not (name in _ONLY_IF_IT_CHANGES and _is_flat(line.known)):
            charts[name] = noisy(line) if is_noisy and not several else [smooth(line) if is_noisy else line]
    return charts


def _is_flat(values: Floats) -> bool:
    return bool(values.max() - values.min() <= 0.01 * abs(values.max()))


def _share_of_peak(training: Training) -> Floats:
    peak = number(mapping(training.start.get("environment")).get("matmul_flops_per_second")) or np.nan
    return training.steps.column("tokens_per_second") * training.steps.column("flops_per_token") / peak


def _field(name: str, factor: float = 1.0) -> Callable[[Training], Floats]:
    return lambda training: training.steps.column(name) * factor


_MACHINE: dict[str, tuple[Callable[[Training], Floats], bool]] = {
    "Learning rate": (_field("learning_rate"), False),
    "Gradient norm": (_field("gradient_norm"), True),
    "Batch size": (_field("batch_size"), False),
    "Gradient noise scale": (_field("gradient_noise_scale"), False),
    "Loss scale": (_field("loss_scale"), False),
    "Tokens per second": (_field("tokens_per_second"), True),
    "Share of the matmul peak": (_share_of_peak, True),
    "Memory in MB": (_field("memory_bytes", 1e-6), False),
}
"""Heading -> values over steps, and whether they jump so much that they are smoothed."""
_ONLY_IF_IT_CHANGES = ("Batch size", "Loss scale", "Memory in MB")
"""Charts of what is often one number all along."""


def _inner(outer: str, key: str) -> Callable[[Mapping[str, Any]], object]:
    return lambda event: mapping(event.get(outer)).get(key)
