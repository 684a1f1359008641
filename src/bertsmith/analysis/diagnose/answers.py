"""Illnesses that show in what a model answers."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from bertsmith.analysis.diagnose import thresholds as at
from bertsmith.analysis.diagnose.facts import Facts
from bertsmith.analysis.diagnose.finding import Finding
from bertsmith.analysis.folder import mapping, read_lines, step_of
from bertsmith.analysis.markup import number


def one_class(facts: Facts) -> Iterator[Finding]:
    """The same answer to every held-out row."""
    told = [(step_of(event), counts) for event in facts.evaluations if (counts := _counts(event)) and step_of(event)]
    if not told:
        return
    step, counts = told[-1]
    if facts.is_pretraining and step < at.ONE_CLASS_STEPS.value:
        return
    label, most = max(counts.items(), key=lambda pair: pair[1])
    labels = facts.label_counts()
    if labels and max(labels.values()) > at.ONE_CLASS_LABELS.value * sum(labels.values()):
        return
    if sum(counts.values()) < 20 or most < at.ONE_CLASS_SHARE.value * sum(counts.values()):
        return
    since = step
    for where, found in reversed(told):
        if found.get(label, 0.0) < at.ONE_CLASS_SHARE.value * sum(found.values()):
            break
        since = where
    rows = (
        " (" + ", ".join(f"{name} {count:,.0f}" for name, count in sorted(labels.items())[:6]) + " in training)"
        if labels
        else ""
    )
    yield Finding(
        "one-class",
        "sure" if len(told) > 1 and since < step else "likely",
        f"at step {step:,} {most:,.0f} of {sum(counts.values()):,.0f} held-out items are answered {label!r}{rows}, "
        f"and have been since step {since:,}",
        _to_tell_classes_apart(facts, never_did=since == told[0][0]),
    )


def _to_tell_classes_apart(facts: Facts, *, never_did: bool) -> tuple[str, ...]:
    """What to try: a model that once told classes apart was thrown off; one that never did may only have begun."""
    rate = f"{facts.section}.learning_rate"
    thrown_off = f"lower {rate} from {facts.recipe_rate()} and warm up; too large updates end like this"
    begun = f"train longer, or raise {rate} from {facts.recipe_rate()} where the loss falls slowly"
    first, second = (begun, thrown_off) if never_did else (thrown_off, begun)
    if facts.is_pretraining:
        return first, second
    return (
        first,
        second,
        "finetune.class_weights = 'balanced' where labels are unequal",
        "another seed: some starts of the head fail",
    )


def leak(facts: Facts) -> Iterator[Finding]:
    """Rows that are scored and were learned."""
    data = mapping(facts.training.start.get("data"))
    totals = {"validation": number(data.get("validation_rows")), "test": number(data.get("test_rows"))}
    found = {
        str(split): count for split, value in mapping(data.get("repeated_rows")).items() if (count := number(value))
    }
    shares = {}
    for split, count in found.items():
        total = totals.get(split) or totals["test"]
        if total:
            shares[split] = count / total
    worst = max(shares.values(), default=0.0)
    if worst < at.LEAKED_SHARE.value:
        return
    told = ", ".join(f"{found[split]:,.0f} of the {split} rows ({share:.1%})" for split, share in shares.items())
    yield Finding(
        "leak",
        "sure",
        f"{told} say the same as a training row: their scores are of memory, not of skill",
        (
            "remove them from the training rows, and split by groups where rows belong together "
            "(finetune.group_column)",
            "until then tell scores without these rows",
        ),
    )


def label_noise(facts: Facts) -> Iterator[Finding]:
    """Answers that are wrong as often where the model is sure as where it is not."""
    for split, path in facts.training.predictions:
        rows = [row for row in map(_judged, read_lines(path)) if row is not None]
        if len(rows) < at.NOISE_ROWS.value:
            continue
        rows.sort(key=lambda row: -row["sure"])
        errors = sum(not row["right"] for row in rows) / len(rows)
        top = rows[: len(rows) // 2]
        sure_errors = sum(not row["right"] for row in top) / len(top)
        most = max(Counter(row["label"] for row in rows).values()) / len(rows)
        if errors > at.NOISE_KNOWS.value * (1 - most):
            continue
        if sure_errors < at.NOISE_CONFIDENT_ERRORS.value or sure_errors < at.NOISE_RATIO.value * errors:
            continue
        wrong = [row for row in rows if not row["right"]][:10]
        yield Finding(
            "label-noise",
            "likely" if sure_errors > 0.85 * errors else "possible",
            f"{split}: among the surer half of {len(rows):,} answers {sure_errors:.1%} are wrong, among all "
            f"{errors:.1%}; where labels are right, errors gather where the model doubts",
            (
                "look at these rows first, and correct the labels that are wrong",
                "until then finetune.label_smoothing = 0.1 or fewer epochs learn less of them by heart",
            ),
            tuple(
                f"{row['where']}: labelled {row['label']!r}, answered {row['prediction']!r} ({row['sure']:.2f}): "
                f"{row['text']}"
                for row in wrong
            ),
        )


def next_sentence_by_length(facts: Facts) -> Iterator[Finding]:
    """Pairs that the length of the second text tells apart, told apart by nothing else."""
    if facts.training.start.get("task") != "next-sentence":
        return
    for split, path in facts.training.predictions:
        rows = [row for row in read_lines(path) if isinstance(row.get("pair"), str) and row.get("label")]
        if len(rows) < at.NOISE_ROWS.value:
            continue
        lengths = np.array([len(str(row["pair"])) for row in rows])
        labels, guesses = (np.array([row.get(key) == "is_next" for row in rows]) for key in ("label", "prediction"))
        limits = np.unique(lengths)
        accuracies = [float((labels == (lengths <= limit)).mean()) for limit in limits]
        place = int(np.argmax([max(one, 1 - one) for one in accuracies]))
        is_short = accuracies[place] >= 0.5
        by_length = (lengths <= limits[place]) == is_short
        accuracy, agrees = float((by_length == labels).mean()), float((by_length == guesses).mean())
        if accuracy < at.BY_LENGTH.value or agrees < at.BY_LENGTH_AGREES.value:
            continue
        yield Finding(
            "next-sentence-by-length",
            "likely",
            f"{split}: second texts of up to {limits[place]} characters "
            f"{'follow and longer ones do not' if is_short else 'do not follow and longer ones do'}: this alone is "
            f"right for {accuracy:.0%} of {len(rows):,} pairs, and {agrees:.0%} of the model's answers are the same",
            (
                "draw the texts that do not follow from those that do, so that their lengths are alike",
                "cut both to one length before they are paired",
            ),
        )


def miscalibrated(facts: Facts) -> Iterator[Finding]:
    """Probabilities that are not right as often as they say."""
    calibration = mapping(facts.training.scores.get("calibration"))
    if calibration.get("kept"):
        return
    for split, found in mapping(calibration.get("splits")).items():
        before, after = mapping(mapping(found).get("before")), mapping(mapping(found).get("after"))
        error, better, decisions = number(before.get("ece")), number(after.get("ece")), number(before.get("decisions"))
        if error is None or decisions is None or error < at.ECE.value or decisions < at.NOISE_ROWS.value:
            continue
        temperature = number(calibration.get("temperature")) or 1.0
        helped = (
            f"; a temperature of {temperature:.2f}, fitted on the validation rows, leaves {better:.3f}"
            if better is not None and better < error
            else ""
        )
        yield Finding(
            "miscalibrated",
            "sure",
            f"{split}: what the model says and how often it is right differ by {error:.3f} on average over "
            f"{decisions:,.0f} decisions{helped}",
            ("finetune.calibrate = true keeps that temperature; no answer changes", "label_smoothing, or fewer epochs"),
        )


def _counts(event: Mapping[str, Any]) -> dict[str, float]:
    found = mapping(event.get("predictions_per_class"))
    return {str(label): count for label, value in found.items() if (count := number(value)) is not None}


def _judged(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """A row of a classifier's predictions, where it has a label and probabilities."""
    label, prediction, shares = record.get("label"), record.get("prediction"), mapping(record.get("probabilities"))
    if not isinstance(label, str) or not isinstance(prediction, str) or len(shares) < 2:
        return None
    text = " | ".join(str(record[key]) for key in ("text", "pair") if record.get(key))
    return {
        "label": label,
        "prediction": prediction,
        "right": label == prediction,
        "sure": number(shares.get(prediction)) or 0.0,
        "where": f"line {record['line']}" if record.get("line") is not None else f"row {record.get('row')}",
        "text": text if len(text) <= 100 else text[:99] + "…",
    }


CHECKS = (one_class, leak, label_noise, next_sentence_by_length, miscalibrated)
