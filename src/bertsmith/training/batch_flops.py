"""FLOPs of a micro-batch."""

from collections.abc import Callable
from typing import Any

from bertsmith.model.config import BertConfig
from bertsmith.model.flops import forward_flops, train_flops

_POOLED = ("nsp", "sop", "label")


def flops_of(config: BertConfig) -> Callable[[Any], float]:
    """What counts a micro-batch's FLOPs, forward and backward, from its `counts`, `num_tokens` and number of rows.

    Examples of a batch are about equally long, so each counts as their mean. Agreement reads the text once more,
    without a backward pass.
    """

    def flops(batch: Any) -> float:
        counts, tokens = batch.counts, batch.num_tokens
        length = tokens / max(len(batch.input_ids), 1)
        pooled = sum(counts.get(name, 0) for name in _POOLED)
        found = train_flops(config, tokens=tokens, length=length, masks=counts.get("mlm", 0), pooled=pooled)
        if "agreement" in counts:
            found += forward_flops(config, tokens=tokens, length=length)
        return found

    return flops
