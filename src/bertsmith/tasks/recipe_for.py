"""A recipe for somebody's own table, with a comment where a choice is to be looked at."""

import json
from pathlib import Path

from bertsmith.tasks.base import Columns
from bertsmith.tasks.guess import Guess
from bertsmith.tasks.survey import Survey

_BASELINES = {
    "classify": ("majority", "linear"),
    "multilabel": ("majority", "linear"),
    "regress": ("mean", "linear"),
    "choose": ("majority", "overlap"),
    "tag": ("dictionary", "linear"),
}
_KEYS = {
    "header": "header",
    "text": "text_column",
    "pair": "pair_column",
    "question": "question_column",
    "choices": "choice_columns",
    "label": "label_column",
    "labels": "label_columns",
    "label_separator": "label_separator",
}
"""Fields of `Columns` -> keys of a recipe."""
FEW_ROWS = 2_000
_GENERIC = ("train", "dev", "test", "data")
"""File names that say nothing; the folder's is put before them."""


def recipe_for(file: Path, found: Guess, looked: Survey, *, model: str) -> str:
    """TOML that `bertsmith finetune` takes as it is."""
    name = f"{file.parent.name}-{file.stem}" if file.stem in _GENERIC and file.parent.name else file.stem
    counted = "tokens" if looked.are_counted else "tokens, by an estimate"
    lines = [
        f"# A recipe for {file.name}, {looked.rows:,} rows, made by looking at it: check what it says.",
        f"name = {_toml(name)}",
        "seed = 42",
        "",
        "[finetune]",
        *(f"# {reason[0].upper()}{reason[1:]}." for reason in found.reasons),
        f"task = {_toml(found.task)}",
        f"model = {_toml(model)}  # a directory, a run of yours, or a hub name",
        f"train = {_toml(str(file))}",
        "validation_share = 0.1  # split off to choose the best checkpoint; or: validation = FILE",
        *_column_lines(found.columns),
    ]
    if looked.contradicting:
        lines.append(f"# {looked.contradicting:,} texts stand in the table with different labels; scores end below 1.")
    lines += [
        f"max_length = {looked.lengths.advised}  # holds all but {looked.lengths.cut_share:.1%} of the rows: 95 % have "
        f"at most {looked.lengths.places['95 %']:,} {counted}",
        "batch_size = 32",
        f"epochs = {4 if looked.rows < FEW_ROWS else 3}",
        "learning_rate = 2e-5  # for models of bert-base's size; small ones want 5e-5 to 3e-4",
    ]
    if looked.is_lopsided and found.task in ("classify", "multilabel"):
        most, least = looked.labels[0], looked.labels[-1]
        lines.append(f"# {most.name!r} has {most.count:,} rows and {least.name!r} {least.count:,}; try:")
        lines.append('# class_weights = "balanced"')
    if looked.rows < FEW_ROWS:
        lines.append("# Few rows are soon learned by heart; try, each by itself:")
        lines += ["# stop_after = 2", "# r_drop = 1.0", '# adversarial = "fgm"']
    if found.task in _BASELINES:
        lines.append(f"baselines = {_toml(list(_BASELINES[found.task]))}  # simple models on the same rows")
    lines += [
        "",
        "# Rows that no choice was made by give an honest score:",
        "# [finetune.test]",
        '# test = "FILE"',
        "",
    ]
    return "\n".join(lines)


def _column_lines(columns: Columns) -> list[str]:
    """Those that are not as usual, and always text and label of a table with columns of its own."""
    usual, lines = Columns(), []
    for field, key in _KEYS.items():
        value = getattr(columns, field)
        if value != getattr(usual, field):
            lines.append(f"{key} = {_toml(list(value) if isinstance(value, tuple) else value)}")
    return lines


def _toml(value: object) -> str:
    """A text, number, truth value or list of them; JSON writes these as TOML does."""
    return json.dumps(value, ensure_ascii=False)
