"""Fields of a line of predictions-SPLIT.jsonl, read back; `KeyError` or `ValueError` for what was not written so."""

import math
from collections.abc import Mapping
from typing import Any

from bertsmith.tasks.rows import LabelT, TextRow


def recorded_text(record: Mapping[str, Any], label: LabelT) -> TextRow[LabelT]:
    """The row that `texts.record_text` wrote."""
    pair = None if record.get("pair") is None else text_in(record, "pair")
    return TextRow(text_in(record, "text"), label, line_in(record), pair)


def line_in(record: Mapping[str, Any]) -> int:
    return int(number_in(record, "line")) if "line" in record else 0


def text_in(record: Mapping[str, Any], key: str) -> str:
    return _text(record[key], key)


def texts_in(record: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return tuple(_text(part, key) for part in _listed(record[key], key))


def number_in(record: Mapping[str, Any], key: str) -> float:
    return _number(record[key], key)


def numbers_in(record: Mapping[str, Any], key: str) -> tuple[float, ...]:
    return tuple(_number(part, key) for part in _listed(record[key], key))


def probabilities_in(record: Mapping[str, Any]) -> dict[str, float]:
    """Label -> probability; empty where none is told."""
    found = record.get("probabilities", {})
    if not isinstance(found, Mapping):
        raise ValueError(f"probabilities is {type(found).__name__}; expected an object of label and number")
    return {str(label): _number(share, "probabilities") for label, share in found.items()}


def _listed(value: object, key: str) -> list[object]:
    if not isinstance(value, list):
        raise ValueError(f"{key} is {type(value).__name__}; expected a list")
    return value


def _text(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{key} is {type(value).__name__}; expected text")
    return value


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
        raise ValueError(f"{key} is {str(value)[:40]}; expected a finite number")
    return float(value)
