"""`bertsmith index` and `bertsmith ask`: one's own notes, searched by meaning and read by a QA model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bertsmith.commands.options import AsJson, print_json

if TYPE_CHECKING:
    from bertsmith.serve.retrieve import Reply


def index(
    files: Annotated[list[str], typer.Argument(help="Files, folders or globs: text, .jsonl, .csv, .parquet.")],
    model: Annotated[str, typer.Option(help="An embedding model: a run, a directory or a hub name.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the index.")],
    passage_tokens: Annotated[
        int | None, typer.Option(min=8, help="The longest passage. Default: 200, or what the model reads.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Cut files into passages and embed them, for ask.

    Example: bertsmith index notes/*.md --model runs/vectors/finetune --out notes-index
    """
    from bertsmith.serve.retrieve import build_index

    found = build_index(files, out, model=model, passage_tokens=passage_tokens)
    if as_json:
        print_json({"index": str(out), "digest": found.digest, "counts": found.counts})
        return
    typer.echo(f"{out}: {found.counts['passages']:,} passages of {found.counts['documents']:,} documents")
    typer.echo(f'next: bertsmith ask {out} "..." --model QA-MODEL')


def ask(
    index: Annotated[Path, typer.Argument(help="Folder of an index.")],
    questions: Annotated[list[str], typer.Argument(help="Questions.")],
    model: Annotated[
        str | None, typer.Option(help="A model of task answer, which marks the answer. Default: passages alone.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Passages to find and read.")] = 5,
    embed_model: Annotated[
        str | None, typer.Option(help="Where the model that made the index is now, if it was moved.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find the passages that answer a question, mark the answer, and name the source.

    Example: bertsmith ask notes-index "When is the rent due?" --model runs/xquad/finetune
    """
    from bertsmith.serve.retrieve import Index, reader_of

    reader = None if model is None else reader_of(model)
    found = Index.open(index, model=embed_model).ask(questions, reader, top=top)
    if as_json:
        both = zip(questions, found, strict=True)
        print_json([{"question": question, "answers": [asdict(one) for one in some]} for question, some in both])
        return
    for question, some in zip(questions, found, strict=True):
        typer.echo(question)
        for line in _lines(some):
            typer.echo(line)


def _lines(replies: list[Reply]) -> list[str]:
    if not replies:
        return ["    no answer in what was found"]
    lines = []
    for one in replies:
        passage = " ".join(one.found.passage.text.split())
        told = f"similarity {one.found.similarity:.3f}"
        if one.probability is not None:
            told = f"{one.probability:.0%}, {told}"
            lines.append(f"    {one.text}  ({told}; {one.found.passage.place})")
        lines.append(f"        {passage[:300]}" if one.probability is not None else f"    {passage[:300]}")
        if one.probability is None:
            lines.append(f"        ({told}; {one.found.passage.place})")
    return lines
