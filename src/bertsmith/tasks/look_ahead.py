"""What is about to be learned from, in a few lines, before training begins: rows, labels, lengths, what is cut off."""

from collections import Counter
from typing import Any

from bertsmith.tasks.base import Task
from bertsmith.tasks.features import Features
from bertsmith.tasks.lengths import in_words, lengths_of, row_lengths
from bertsmith.tasks.splits import Splits

_LABELS = 6
"""That are named with their share."""


def look_ahead(
    task: Task[Any, Any], splits: Splits, features: Features, *, max_length: int, positions: int
) -> list[str]:
    """Lines to be shown; features: of the training rows."""
    counts = Counter(label for row in splits.train for label in task.labels_of(row))
    shares = [f"{label} {count / counts.total():.1%}" for label, count in counts.most_common(_LABELS)]
    if len(counts) > _LABELS:
        shares.append(f"{len(counts) - _LABELS} more labels")
    told = f"{len(splits.train):,} to train on, {len(splits.validation):,} to choose by"
    lengths = lengths_of(row_lengths(features), positions=positions)
    lines = [f"rows       {'; '.join(filter(None, (told, ', '.join(shares))))}"]
    if features.are_windows:
        return [*lines, f"tokens     of a window: {in_words(lengths)}"]
    cut = float((row_lengths(features) > max_length).mean())
    return [
        *lines,
        f"tokens     {in_words(lengths)}; max_length = {max_length} cuts {cut:.1%} of the rows, "
        f"{features.truncation_share:.1%} of the tokens",
        f"advised    max_length = {lengths.advised} cuts {lengths.cut_share:.1%} of the rows",
    ]
