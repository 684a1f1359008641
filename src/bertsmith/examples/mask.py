"""Masked language model: which tokens are hidden, and behind what.

Of the tokens that may be masked, exactly `round(share * count)` are chosen (at least one); of these 80 % become
`[MASK]`, 10 % a random token, 10 % stay (BERT, arXiv 1810.04805, section 3.1 and appendix A.1). The choice is a pure
function of an example's key and the token's position, whatever batch the example is in.
"""

import numpy as np
import numpy.typing as npt

from bertsmith.examples.draws import Int64, UInt64, below, fraction, hash_counters

_MASK_UNTIL, _RANDOM_UNTIL = 0.8, 0.9
_DRAW_CHOICE, _DRAW_TREATMENT, _DRAW_REPLACEMENT = 0, 1 << 16, 2 << 16


def budgets(maskable_counts: Int64, share: float) -> Int64:
    """How many tokens are masked of so many that may be: rounded half up, at least 1 of at least 1."""
    rounded = np.floor(maskable_counts * share + 0.5).astype(np.int64)
    return np.asarray(np.minimum(np.maximum(rounded, 1), maskable_counts))


def mask_tokens(
    input_ids: Int64,
    maskable: npt.NDArray[np.bool_],
    keys: UInt64,
    *,
    share: float,
    mask_id: int,
    replacements: Int64,
) -> tuple[Int64, npt.NDArray[np.bool_]]:
    """Hide tokens; returns the new ids and which were chosen, both (batch, seq).

    `maskable` (batch, seq) is False for special tokens and padding; `keys` (batch,) is one key per example;
    `replacements` are the ids that may stand in for a token.
    """
    positions = np.arange(input_ids.shape[1], dtype=np.uint64)
    bits = hash_counters(keys[:, None], positions + np.uint64(_DRAW_CHOICE))  # (batch, seq)
    # The position in the low bits makes all values of a row different, so that the budget is met exactly.
    bits = np.where(maskable, (bits >> np.uint64(17) << np.uint64(16)) | positions, np.uint64(0xFFFF_FFFF_FFFF_FFFF))
    budget = budgets(maskable.sum(axis=1), share)
    last = np.take_along_axis(np.sort(bits, axis=1), np.maximum(budget - 1, 0)[:, None], axis=1)
    chosen = maskable & (bits <= last)

    treatment = fraction(hash_counters(keys[:, None], positions + np.uint64(_DRAW_TREATMENT)))
    drawn = below(hash_counters(keys[:, None], positions + np.uint64(_DRAW_REPLACEMENT)), np.array(len(replacements)))
    hidden = np.where(chosen & (treatment < _MASK_UNTIL), mask_id, input_ids)
    hidden = np.where(chosen & (treatment >= _MASK_UNTIL) & (treatment < _RANDOM_UNTIL), replacements[drawn], hidden)
    return hidden, chosen
