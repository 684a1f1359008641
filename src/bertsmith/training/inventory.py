"""Every tensor of a network that training knows: its shape, whether it decays or is frozen, and sums over parts."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from bertsmith.training.groups import undecayed_names

DECAYS, NO_DECAY, FROZEN = "decay", "no decay", "frozen"
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.")


@dataclass(frozen=True)
class Entry:
    """One tensor; what is tied stands there once, under its first name."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    group: str
    """"decay", "no decay" or "frozen"."""

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def part(self) -> str:
        """ "embeddings", "layer 0", ..., or "head", which is all that is on top."""
        if found := _LAYER.search(self.name):
            return f"layer {found[1]}"
        return "embeddings" if "embeddings." in self.name else "head"


def inventory(model: nn.Module) -> list[Entry]:
    """All parameters, in the network's order. A network on the device "meta" will do, which takes no memory."""
    undecayed = undecayed_names(model)
    return [
        Entry(
            name=name,
            shape=tuple(parameter.shape),
            dtype=str(parameter.dtype).removeprefix("torch."),
            group=FROZEN if not parameter.requires_grad else NO_DECAY if name in undecayed else DECAYS,
        )
        for name, parameter in model.named_parameters()
    ]


def sizes(entries: Iterable[Entry]) -> dict[str, int]:
    """Numbers in all of them, in those that train, and in each part: embeddings, one layer (all are equal), head."""
    entries = list(entries)
    trained = sum(entry.size for entry in entries if entry.group != FROZEN)
    parts = {part: sum(e.size for e in entries if e.part == part) for part in ("embeddings", "layer 0", "head")}
    return {
        "all": sum(entry.size for entry in entries),
        "trained": trained,
        "embeddings": parts["embeddings"],
        "layer": parts["layer 0"],
        "head": parts["head"],
    }
