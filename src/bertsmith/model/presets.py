"""Sizes by name: the five miniatures of "Well-Read Students Learn Better" (Turc et al., 2019, arXiv:1908.08962) and
the two of the BERT paper (Devlin et al., 2018, arXiv:1810.04805). Attention heads are 64 wide in all of them."""

from collections.abc import Mapping
from typing import Any

from bertsmith.errors import UsageError
from bertsmith.model.config import BertConfig, override

PRESETS: dict[str, tuple[int, int]] = {  # name -> (layers, hidden size)
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
    "large": (24, 1024),
}


def preset(name: str, overrides: Mapping[str, Any] | None = None) -> BertConfig:
    """The config of a named size, with `overrides` (fields of `BertConfig`) on top.

    Raises `UsageError` for an unknown size or field.

    >>> preset("mini", {"vocab_size": 8192}).hidden_size
    256
    """
    if name not in PRESETS:
        raise UsageError(f"unknown model size {name!r}; use one of {', '.join(PRESETS)}")
    num_layers, hidden_size = PRESETS[name]
    config = BertConfig(
        hidden_size=hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 64,
        intermediate_size=4 * hidden_size,
    )
    return override(config, overrides or {})
