"""FLOPs of a micro-batch."""

from collections.abc import Callable
from typing import Any

from bertsmith.model.config import BertConfig
from bertsmith.model.flops import forward_flops, train_flops

_POOLED = ("nsp", "sop", "label")
_WORDS = ("mlm", "masked-word", "language-model")
_READ_AGAIN = {"r_drop", "adversarial"}


def flops_of(config: BertConfig) -> Callable[[Any], float]:
    """What counts a micro-batch's FLOPs, forward and backward, from its `counts`, `num_tokens` and number of rows.

    Examples of a batch are about equally long, so each counts as their mean. R-Drop and an adversarial step read the
    text once more; finding the direction of that step, and steps of pgd after the first, do not count. Agreement and
    distillation read the text once more, without a backward pass.
    """

    def flops(batch: Any) -> float:
        counts, tokens = batch.counts, batch.num_tokens
        length = tokens / max(len(batch.input_ids), 1)
        pooled = sum(counts.get(name, 0) for name in _POOLED)
        masks = sum(counts.get(name, 0) for name in _WORDS)
        found = train_flops(config, tokens=tokens, length=length, masks=masks, pooled=pooled)
        again = train_flops(config, tokens=tokens, length=length, masks=0, pooled=0)
        found += again * len(counts.keys() & _READ_AGAIN)
        if counts.keys() & {"agreement", "distill"}:
            found += forward_flops(config, tokens=tokens, length=length)
        return found

    return flops
