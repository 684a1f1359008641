"""Illnesses that show in the losses."""

import math
import statistics
from collections.abc import Iterator
from itertools import pairwise

from bertsmith.analysis.diagnose import thresholds as at
from bertsmith.analysis.diagnose.facts import Facts, Points, series, smoothed, third, values
from bertsmith.analysis.diagnose.finding import Finding
from bertsmith.analysis.folder import mapping, step_of
from bertsmith.analysis.markup import number


def diverged(facts: Facts) -> Iterator[Finding]:
    """Loss that is not finite, or as bad as at the beginning after it was better."""
    found, rate = facts.loss, facts.recipe_rate()
    advice = (
        f"lower {facts.section}.learning_rate from {rate} to a third, or warm up longer ({facts.section}.warmup_share)",
        f"clip gradients ({facts.section}.clip = 1.0)",
    )
    stop = facts.training.stop or {}
    skipped, updates = facts.steps.largest("skipped_updates") or 0.0, facts.training.last_step
    rollbacks = len(facts.training.of("rollback"))
    if stop.get("reason") == "error" and rollbacks:
        seen = (
            f"the run ended with an error after {rollbacks} returns to a checkpoint: {str(stop.get('message'))[:200]}"
        )
        yield Finding("diverged", "sure", seen, advice, series=(series("loss", found),))
    elif updates and skipped > at.SKIPPED_SHARE.value * updates:
        seen = f"{skipped:,.0f} of {updates:,} updates had a loss or gradient that was not finite, and were left out"
        yield Finding("diverged", "likely", seen, advice, series=(series("loss", found),))
    elif len(found) >= at.FLAT_STEPS.value:
        smooth = smoothed(found, width=len(found) // 5)
        step, lowest = min(smooth, key=lambda point: point[1])
        start, last = statistics.median(values(found[:3])), smooth[-1][1]
        if last > (1 + at.DIVERGED_RISE.value) * start:
            seen = f"training loss began at {start:.3g}, was {lowest:.3g} at step {step:,.0f}, and is {last:.3g} now"
            yield Finding("diverged", "sure", seen, advice, series=(series("loss", found),))


def spikes(facts: Facts) -> Iterator[Finding]:
    """Single losses far above those around them."""
    found = facts.peaks()
    if len(found) < at.FLAT_STEPS.value:
        return
    middle = smoothed(facts.loss, width=11)
    distances = [abs(value - around) for (_, value), (_, around) in zip(found, middle, strict=True)]
    usual, start = sorted(distances)[len(distances) * 19 // 20], statistics.median(values(found[:3]))
    places = [
        (step, value, around)
        for index, ((step, value), (_, around)) in enumerate(zip(found, middle, strict=True))
        if index > len(found) // 10
        and value > (1 + at.SPIKE_HEIGHT.value) * around
        and value > (start if around < at.SPIKE_OF_START.value * start else 0)
        and value - around > at.SPIKE_TIMES.value * usual
    ]
    if not places:
        return
    examples = [name for event in facts.training.of("rollback") for name in event.get("examples") or []]
    told = [
        f"step {step:,.0f}: {value:.3g} where {around:.3g} is usual{_examples(facts, step)}"
        for step, value, around in places[:10]
    ]
    if examples:
        told.append(f"left out after going back: {', '.join(map(str, examples[:10]))}")
    yield Finding(
        "spikes",
        "sure" if len(places) > 1 else "likely",
        f"{len(places)} of {len(found)} lines of the log have a loss far above those around them, the highest "
        f"{max(value for _, value, _ in places):.3g}",
        (
            "look at the examples that were read there: tables, code, repeated characters or wrong labels",
            f"go back and leave them out by itself: {facts.section}.spike_factor = 2.0",
            f"a longer warm-up or a lower {facts.section}.learning_rate than {facts.recipe_rate()}",
        ),
        tuple(told),
        (series("loss", found),),
    )


def _examples(facts: Facts, step: float) -> str:
    """Which examples were read up to a step since the line before, by their number in the run."""
    counts = facts.column("examples")
    place = next((index for index, (where, _) in enumerate(counts) if where == step), 0)
    if not place:
        return ""
    return f", examples {counts[place - 1][1]:,.0f} to {counts[place][1]:,.0f} in the order of the run"


def word_frequencies_only(facts: Facts) -> Iterator[Finding]:
    """Held-out loss at hidden words no better than of somebody who only knows how frequent each word is."""
    known = [
        (float(step_of(event)), loss, baseline)
        for event in facts.evaluations
        if (loss := number(mapping(event.get("losses")).get("mlm"))) is not None
        and (baseline := number(event.get("unigram_entropy"))) is not None
        and step_of(event) > 0
    ]
    if not known:
        return
    best = min(loss for _, loss, _ in known)
    step, _, baseline = known[-1]
    if best < at.UNIGRAM_SHARE.value * baseline:
        return
    yield Finding(
        "word-frequencies-only",
        "sure" if best > 0.98 * baseline else "likely",
        f"after {step:,.0f} updates the held-out loss at hidden words is {best:.2f} at best; knowing word "
        f"frequencies alone gives {baseline:.2f}",
        (
            "train longer: context is learned after frequencies, often with a sudden fall of the loss",
            f"raise pretrain.learning_rate (now {facts.recipe_rate()}; small models take 1e-3), with a warm-up",
            "for short runs model.position_init = 'sinusoids', a smaller model or a smaller batch",
        ),
        series=(
            series("held-out loss", [(where, loss) for where, loss, _ in known]),
            series("word frequencies", [(where, entropy) for where, _, entropy in known]),
        ),
    )


def overfitting(facts: Facts) -> Iterator[Finding]:
    """Held-out loss that rises while training loss falls."""
    held, between = facts.held_out(), dict(facts.between())
    if len(held) < 3:
        return
    best = min(range(len(held)), key=lambda index: held[index][1])
    step, lowest = held[best]
    last_step, last = held[-1]
    fell = between.get(step), between.get(last_step)
    if best == len(held) - 1 or fell[0] is None or fell[1] is None or lowest <= 0:
        return
    rise = last / lowest - 1
    if rise < at.OVERFIT_RISE.value or fell[1] > (1 - at.OVERFIT_FALL.value) * fell[0]:
        return
    scores, better = dict(facts.scores()), False
    cost = ""
    if scores:
        before = scores.get(step, min(scores.values()))
        after = [score for where, score in scores.items() if where > step]
        gain = statistics.fmean(after) - before if after else 0.0
        better = (-gain if facts.smaller_is_better else gain) > at.OVERFIT_SCORE.value
        if better and rise < at.OVERFIT_LARGE.value:
            return
        if after:
            cost = f"; {facts.metric()} was {before:.3f} there and is {after[-1]:.3f} at the end"
    since = held[best + 1][0]
    kept = "keep that checkpoint" if facts.is_pretraining else "the model kept is that of the best score"
    yield Finding(
        "overfitting",
        "possible" if better else "sure" if rise > 3 * at.OVERFIT_RISE.value and len(held) - best > 2 else "likely",
        f"since step {since:,.0f} the held-out loss rises, from {lowest:.3g} to {last:.3g} ({rise:+.0%}), while "
        f"training loss falls from {fell[0]:.3g} to {fell[1]:.3g}{cost}",
        (
            f"the held-out loss was lowest at step {step:,.0f}; {kept}; stop there: "
            + ("fewer steps" if facts.is_pretraining else "finetune.stop_after = 2, or fewer epochs"),
            "more text" if facts.is_pretraining else "more rows, or changed copies of them (docs/more-data.md)",
            "more dropout or weight decay"
            + ("" if facts.is_pretraining else "; finetune.r_drop or label_smoothing (docs/hold-on.md)"),
        ),
        series=(series("held-out loss", held), series("training loss", facts.between())),
    )


def too_little(facts: Facts) -> Iterator[Finding]:
    """Underfitting and a learning rate that is too low: the loss is high, and still falls."""
    found = facts.own
    chance = _entropy(facts)
    if len(found) < at.FLAT_STEPS.value or chance is None:
        return
    first, last = third(found, 0), third(found, 2)
    if last < at.NOTHING_LEARNED.value * chance or not _still_falls(found):
        return
    fell = 1 - last / max(first, found[0][1])
    told = (
        f"training loss fell from {found[0][1]:.3g} to {last:.3g}, is still falling, and label frequencies alone give "
        f"{chance:.3g}"
    )
    curve = (series("training loss", found),)
    if fell < at.SLOW_FALL.value:
        advice = (
            f"raise {facts.section}.learning_rate from {facts.recipe_rate()} to three or ten times as much",
            "train more epochs",
            "see what a search says: bertsmith search RECIPE --space 'learning_rate=log(1e-5, 1e-3)'",
        )
        yield Finding("learning-rate-too-low", "likely", told, advice, series=curve)
    else:
        advice = (
            "train more epochs",
            f"raise {facts.section}.learning_rate from {facts.recipe_rate()}",
            "less dropout, or a larger model",
        )
        yield Finding("underfitting", "likely", told, advice, series=curve)


def plateau(facts: Facts) -> Iterator[Finding]:
    """Training loss that does not fall any more, though it is high and the learning rate too."""
    found = facts.own
    if len(found) < at.FLAT_STEPS.value:
        return
    first, second, last = (third(found, number) for number in range(3))
    start, chance = max(value for _, value in found[:3]), _entropy(facts)
    rates = dict(facts.column("learning_rate"))
    middle = rates.get(found[len(found) * 2 // 3][0], 0.0)
    high = last > 0.5 * start if chance is None else last > at.NOTHING_LEARNED.value * chance
    if not high or _still_falls(found) or middle < 0.2 * facts.peak_rate():
        return
    if facts.is_pretraining and abs(second - first) > 0.1 * first:
        return
    against = "" if chance is None else f"; label frequencies alone give {chance:.3g}"
    yield Finding(
        "plateau",
        "likely",
        f"training loss is {second:.4g} in the second third of the run and {last:.4g} in the last{against}",
        (
            f"another {facts.section}.learning_rate: a third of {facts.recipe_rate()} if it ever was lower, three "
            "times it if not",
            f"a longer warm-up ({facts.section}.warmup_share)",
            "look at rows and labels: bertsmith data show FILE"
            if not facts.is_pretraining
            else "see whether context is learned at all",
        ),
        series=(series("training loss", found),),
    )


def rate_too_high(facts: Facts) -> Iterator[Finding]:
    """Smoothed training loss that rises again, while the learning rate is high."""
    found = facts.own
    if len(found) < at.FLAT_STEPS.value or list(diverged(facts)):
        return
    smooth, rates = smoothed(found, width=len(found) // 5), dict(facts.column("learning_rate"))
    lowest, low_step, worst = math.inf, 0.0, (0.0, 0.0, 0.0, 0.0)
    for step, value in smooth:
        if value < lowest:
            lowest, low_step = value, step
        elif rates.get(step, 0.0) > 0.3 * facts.peak_rate() and value / lowest - 1 > worst[0]:
            worst = (value / lowest - 1, step, value, low_step)
    start = statistics.median(values(found[:3]))
    rise, step, value, before = worst
    if rise < at.HIGH_RISE.value or value < 0.3 * start:
        return
    yield Finding(
        "learning-rate-too-high",
        "likely" if rise > 2 * at.HIGH_RISE.value else "possible",
        f"smoothed training loss rose again to {value:.3g} at step {step:,.0f}, from {value / (1 + rise):.3g} at step "
        f"{before:,.0f}, while the learning rate was near its peak of {facts.recipe_rate()}",
        (
            f"lower {facts.section}.learning_rate from {facts.recipe_rate()} to a third of it",
            f"a longer warm-up ({facts.section}.warmup_share), or a lower clip",
        ),
        series=(series("training loss", found),),
    )


def _still_falls(found: Points) -> bool:
    """Whether the loss of the last third is below those of the first and the second, by more than noise."""
    before, last = min(third(found, 0), third(found, 1)), third(found, 2)
    apart = [abs(one - other) for (_, one), (_, other) in pairwise(found)]
    deviation = 1.05 * statistics.median(apart)  # of one line: the median of |a - b| is 0.95 of it
    error = deviation * (math.pi / max(1, len(found) // 3)) ** 0.5  # of the difference of two medians
    least: float = max(at.STILL_FALLING.value * before, at.FALL_ERRORS.value * error)
    return before - last > least


def _entropy(facts: Facts) -> float | None:
    """Loss of the labels' frequencies, where labels are classes of rows."""
    counts = facts.label_counts()
    if facts.is_pretraining or facts.training.start.get("task") not in ("classify", "next-sentence") or len(counts) < 2:
        return None
    total = sum(counts.values())
    return -sum(count / total * math.log(count / total) for count in counts.values())


CHECKS = (diverged, spikes, word_frequencies_only, plateau, overfitting, too_little, rate_too_high)
