"""`bertsmith probe`: what the layers of a model know."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bertsmith.commands.options import (
    AsJson,
    LabelColumn,
    LabelNames,
    ModelName,
    NoHeader,
    PairColumn,
    TextColumn,
    columns_from,
    print_json,
)
from bertsmith.errors import UsageError

if TYPE_CHECKING:
    from bertsmith.analysis.probe import Probing

_WIDTH = 40


def probe(
    model: ModelName,
    file: Annotated[
        Path | None, typer.Argument(help="Labelled rows: texts with a class (.tsv, .csv, .jsonl) or tags (CoNLL).")
    ] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    pair_column: PairColumn = None,
    no_header: NoHeader = None,
    label_names: LabelNames = None,
    neighbours: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="Tell what is nearest to a word in the word table.")
    ] = None,
    ask: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Tell what the model puts in the place of [MASK].")
    ] = None,
    task: Annotated[
        Literal["classify", "tag"] | None, typer.Option(help="What the file holds. Default: by its ending.")
    ] = None,
    max_rows: Annotated[int, typer.Option(min=20, help="Rows to draw from the file.")] = 2000,
    max_length: Annotated[int, typer.Option(min=8, help="Tokens read of a text.")] = 128,
    seed: Annotated[int, typer.Option(help="Of the rows drawn and held out.")] = 42,
    as_json: AsJson = False,
) -> None:
    """Tell what can be read off each layer, what is near a word, and what is guessed at [MASK].

    Example: bertsmith probe runs/english/pretrain wnut17/dev.conll --neighbours london --ask "she [MASK] home."
    """
    if file is None and not neighbours and not ask:
        raise UsageError("probe takes a labelled file, --neighbours WORD or --ask TEXT; give one of them")
    from bertsmith.analysis import probe as room
    from bertsmith.tasks.base import Columns
    from bertsmith.tasks.fill import MaskFiller, in_words

    found: dict[str, Any] = {}
    if neighbours:
        found["neighbours"] = [room.neighbours(model, word) for word in neighbours]
    if ask:
        filler = MaskFiller.load(model)
        found["asked"] = [(text, filler.predict(text)) for text in ask]
    if file is not None:
        columns = columns_from(Columns(), text_column, label_column, pair_column, no_header, label_names)
        found["layers"] = room.probe_layers(
            model, file, columns=columns, task_name=task, max_rows=max_rows, max_length=max_length, seed=seed
        )
    if as_json:
        print_json(
            {
                "neighbours": [asdict(one) for one in found.get("neighbours", [])],
                "asked": [{"text": text, "predictions": answers} for text, answers in found.get("asked", [])],
                "layers": asdict(found["layers"]) if "layers" in found else None,
            }
        )
        return
    for one in found.get("neighbours", []):
        pieces = "" if len(one.pieces) == 1 else f" ({' '.join(one.pieces)}, their mean)"
        typer.echo(f"{one.word}{pieces}: " + "  ".join(f"{name} {cosine:.2f}" for name, cosine in one.nearest))
    for text, answers in found.get("asked", []):
        typer.echo(f"{text}\n    {in_words(answers)}")
    if "layers" in found:
        for line in _chart(found["layers"]):
            typer.echo(line)


def _chart(found: Probing) -> Iterator[str]:
    """Accuracy by layer, as bars from the most frequent label's to 1."""
    what = "words" if found.task == "tag" else "rows"
    counts = f"{found.trained_on:,} {what} to learn from, {found.scored_on:,} held out"
    yield f"{found.file}: {len(found.labels)} labels; {counts}"
    yield f"most frequent label   {found.majority:.3f}"
    yield f"{'word alone' if found.task == 'tag' else 'linear, on words':<21} {found.words:.3f}"
    best = max(one.accuracy for one in found.layers)
    without = found.majority if math.isnan(found.words) else max(found.majority, found.words)
    for one in found.layers:
        name = "embeddings" if one.layer == 0 else f"layer {one.layer}"
        room = max(1e-9, 1 - min(found.majority, *(layer.accuracy for layer in found.layers)))
        bar = "█" * round(_WIDTH * (1 - (1 - one.accuracy) / room))
        selective = "" if one.selectivity is None else f"  selectivity {one.selectivity:+.3f}"
        star = " *" if one.accuracy == best and one.low > without else ""
        yield f"{name:<12} {one.accuracy:.3f} ({one.low:.3f} to {one.high:.3f}){selective}  {bar}{star}"
    if best <= without:
        yield "no layer tells more than that"
