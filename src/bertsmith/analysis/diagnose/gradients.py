"""Illnesses that show in the gradients."""

import statistics
from collections.abc import Iterator

from bertsmith.analysis.diagnose import thresholds as at
from bertsmith.analysis.diagnose.facts import Facts, series, values
from bertsmith.analysis.diagnose.finding import Finding


def vanish(facts: Facts) -> Iterator[Finding]:
    """Gradients that are nothing beside those of the beginning, while there is much to learn."""
    norms = facts.column("gradient_norm")
    if len(norms) < at.FLAT_STEPS.value or len(facts.own) < at.FLAT_STEPS.value:
        return
    tenth = max(1, len(norms) // 10)
    first, last = statistics.median(values(norms[:tenth])), statistics.median(values(norms[len(norms) // 2 :]))
    is_high = statistics.median(values(facts.own[-tenth:])) > 0.5 * statistics.median(values(facts.own[:tenth]))
    if first <= 0 or last > at.GRADIENT_VANISHED.value * first or not is_high:
        return
    yield Finding(
        "gradients-vanish",
        "sure",
        f"the gradient's norm was {first:.3g} and is {last:.3g}, while the loss is still {facts.own[-1][1]:.3g}",
        (
            f"lower {facts.section}.learning_rate from {facts.recipe_rate()}: units that are saturated for good "
            "pass no gradient",
            "begin again from the checkpoint; weights that came here rarely come back",
        ),
        series=(series("gradient norm", norms),),
    )


def always_clipped(facts: Facts) -> Iterator[Finding]:
    """Gradients far above the limit in nearly all updates; the limit that their distribution asks for."""
    norms = values(facts.column("gradient_norm"))
    rates = values(facts.column("clip_rate"))
    if len(norms) < at.FLAT_STEPS.value or not rates or statistics.fmean(rates) < at.CLIPPED_SHARE.value:
        return
    limit = facts.clip
    middle, high = statistics.median(norms), statistics.quantiles(norms, n=10)[-1]
    if limit is None or middle < at.CLIPPED_TIMES.value * limit:
        return
    yield Finding(
        "always-clipped",
        "sure",
        f"{statistics.fmean(rates):.0%} of the updates were clipped to {limit:g}; the gradient's norm is "
        f"{middle:.3g} in the middle, {high:.3g} in one line of ten",
        (
            f"{facts.section}.clip = {high:.2g}, which lets nine of ten lines pass and still holds outliers; or "
            "clip = 'auto'",
            "Adam's steps do not hang on the gradient's size, so only the clipping of differences between updates "
            "is lost; with SGD it is the learning rate that is too low by this factor",
        ),
        series=(series("gradient norm", facts.column("gradient_norm")),),
    )


CHECKS = (vanish, always_clipped)
