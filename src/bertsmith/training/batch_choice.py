"""`batch_size = "auto"`: how many examples an update should average over, from what is known before the run.

It weighs the number of updates against the noise in each. What a batch gains beyond the gradient noise scale is little,
and that scale grows as the loss falls (McCandlish et al. 2018, arXiv:1812.06162), so a longer run has use for a larger
batch. In pre-training the size lies on a line, in logarithms, through two runs that are known: 2,000 updates of 8
(our trials of minutes, docs/train-from-scratch.md) and the paper's million of 256 (Devlin et al. 2018, A.2). In
fine-tuning the paper takes 16 or 32; a small table takes less, so that there are enough updates.

Nothing here is measured, so that the same recipe is the same run on every machine. Memory is no part of it: what does
not fit at once is cut into micro-batches (`micro_batch_size = "auto"`), and the update is the same. What the rule
cannot know is in the log: `gradient_noise_scale`.
"""

import math

_SMALLEST, _LARGEST = 4, 256
_SHORT_UPDATES, _SHORT_SIZE = 2_000, 8
_LONG_UPDATES, _LONG_SIZE = 1_000_000, 256
_SLOPE = math.log(_LONG_SIZE / _SHORT_SIZE) / math.log(_LONG_UPDATES / _SHORT_UPDATES)
_EXAMPLES_PER_MINUTE = 3_200  # of 128 tokens, on two processor cores with bfloat16, by a model of
_PARAMETERS_AT_THAT_RATE = 5_500_000
_UPDATES_OF_AN_EPOCH = 100
_FINE_TUNING_UPDATES, _FINE_TUNING_SIZE = 500, 32


def pretraining_batch_size(
    *, num_examples: int | None, parameters: int, max_steps: int | None, budget_minutes: float | None
) -> tuple[int, str]:
    """A power of two from 4 to 256, and why; where `num_examples` is not known yet, there are enough of them.

    A budget holds as many examples as two processor cores work through: 3,200 a minute with 5.5 million parameters,
    fewer in proportion with more; a faster machine has use for more than is chosen here. An epoch has at least a
    hundred updates.
    """
    sizes = [] if max_steps is None else [_SHORT_SIZE * (max_steps / _SHORT_UPDATES) ** _SLOPE]
    if budget_minutes is not None:
        examples = budget_minutes * _EXAMPLES_PER_MINUTE * _PARAMETERS_AT_THAT_RATE / parameters
        sizes.append((_SHORT_SIZE * (examples / _SHORT_UPDATES) ** _SLOPE) ** (1 / (1 + _SLOPE)))
    by_length, by_data = min(sizes), (num_examples or math.inf) / _UPDATES_OF_AN_EPOCH
    size = _power_of_two(min(by_length, by_data), most=_LARGEST)
    if by_data < by_length:
        reason = f"an epoch of {num_examples:,} examples should have {_UPDATES_OF_AN_EPOCH} updates"
    else:
        length = _length(max_steps, budget_minutes)
        reason = f"{length} with {parameters:,} parameters has use for about {by_length:,.0f}"
    return size, reason if num_examples is None else f"{reason}; {_per_epoch(num_examples, size)}"


def finetuning_batch_size(*, num_examples: int, epochs: int) -> tuple[int, str]:
    """A power of two from 4 to 32, and why: the largest with about 500 updates in the run, or more."""
    by_data = num_examples * epochs / _FINE_TUNING_UPDATES
    size = _power_of_two(by_data, most=_FINE_TUNING_SIZE)
    updates = epochs * math.ceil(num_examples / size)
    reason = (
        f"{num_examples:,} rows, {epochs} times, should make about {_FINE_TUNING_UPDATES} updates or more"
        if by_data < _FINE_TUNING_SIZE
        else f"{num_examples:,} rows, {epochs} times, are enough for the usual {_FINE_TUNING_SIZE}"
    )
    return size, f"{reason}; {_per_epoch(num_examples, size)}, {updates:,} in all"


def _power_of_two(wanted: float, *, most: int) -> int:
    """The nearest one, in logarithms, from the smallest to `most`."""
    return min(max(1 << max(round(math.log2(wanted)), 0), _SMALLEST), most)


def _length(max_steps: int | None, budget_minutes: float | None) -> str:
    parts = [] if max_steps is None else [f"{max_steps:,} updates"]
    if budget_minutes is not None:
        parts.append(f"{budget_minutes:,.4g} minutes")
    return f"a run of {' or '.join(parts)}"


def _per_epoch(num_examples: int, size: int) -> str:
    return f"{math.ceil(num_examples / size):,} updates an epoch"
