"""`bertsmith corpus ...`"""

import re
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bertsmith.commands.options import (
    AsJson,
    EngineName,
    Overrides,
    RayAddress,
    RecipePath,
    RunsFolder,
    print_json,
    run_recipe,
)
from bertsmith.corpus.document import Document
from bertsmith.corpus.look import CorpusStats, corpus_stats, find_documents

app = typer.Typer(help="Text to documents: build a corpus, and look at it.", no_args_is_help=True)

CorpusPath = Annotated[Path, typer.Argument(help="A corpus, such as runs/NAME/corpus, or the run that has it.")]
_MOST_ROWS = 12
_BAR_WIDTH = 40


@app.command()
def build(
    recipe: RecipePath,
    overrides: Overrides = None,
    runs: RunsFolder = Path("runs"),
    keep_rejects: Annotated[
        bool, typer.Option("--keep-rejects", help="Write what is left out, with the reason, to NAME/rejects.jsonl.")
    ] = False,
    engine: EngineName = None,
    ray_address: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Run a recipe up to its corpus stage, into runs/NAME/corpus.

    Example: bertsmith corpus build recipes/english.toml --keep-rejects
    """
    run_recipe(
        recipe,
        overrides,
        runs=runs,
        until="corpus",
        as_json=as_json,
        engine=engine,
        ray_address=ray_address,
        keep_rejects=keep_rejects,
    )


@app.command()
def stats(corpus: CorpusPath, as_json: AsJson = False) -> None:
    """Count what is in a corpus, and what was left out and why.

    Example: bertsmith corpus stats runs/english
    """
    found = corpus_stats(corpus)
    if as_json:
        print_json(asdict(found) | {"duplicates": found.duplicates})
    else:
        _print_stats(Console(soft_wrap=True, highlight=False), found)


@app.command()
def show(
    corpus: CorpusPath,
    grep: Annotated[str | None, typer.Option(help="Only documents in which this regular expression is found.")] = None,
    split: Annotated[str | None, typer.Option(help="Only documents of this split.")] = None,
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="Documents to show.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Show documents: all sentences, or those in which a pattern is found.

    Example: bertsmith corpus show runs/english --grep "[Ww]hale" --number 2
    """
    documents = islice(find_documents(corpus, grep=grep, split=split), number)
    if as_json:
        print_json([asdict(document) for document in documents])
        return
    console = Console(soft_wrap=True, highlight=False)
    shown = 0
    for shown, document in enumerate(documents, start=1):  # noqa: B007
        _print_document(console, document, grep)
    if not shown:
        console.print("no document is like that")


def _print_stats(console: Console, found: CorpusStats) -> None:
    splits = ", ".join(f"{number:,} {split}" for split, number in found.splits.items())
    console.print(
        f"{found.documents:,} documents ({splits}), {found.sentences:,} sentences, {found.characters:,} characters"
    )
    largest = max(found.lengths.values(), default=1)
    _print_table(
        console,
        "documents by length in characters",
        {name: (number, "█" * round(_BAR_WIDTH * number / largest)) for name, number in found.lengths.items()},
    )
    _print_table(console, f"left out ({found.duplicates:,} of them duplicates)", found.dropped)
    _print_table(console, "changed by cleaning", found.cleaned)
    _print_table(
        console,
        "sources, documents and characters",
        {name: (counts["documents"], f"{counts['characters']:,}") for name, counts in found.sources.items()},
    )


def _print_table(console: Console, title: str, rows: dict[str, int] | dict[str, tuple[int, str]]) -> None:
    if not rows:
        return
    table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right")
    table.add_column()
    for name, value in islice(rows.items(), _MOST_ROWS):
        number, note = value if isinstance(value, tuple) else (value, "")
        table.add_row(name, f"{number:,}", note)
    console.print()
    console.print(table)
    if len(rows) > _MOST_ROWS:
        console.print(f"and {len(rows) - _MOST_ROWS:,} more")


def _print_document(console: Console, document: Document, grep: str | None) -> None:
    console.print(Text(f"{document.id}  ({document.split}, {len(document.sentences):,} sentences)", style="bold"))
    for sentence in document.sentences:
        if grep is None or re.search(grep, sentence):
            line = Text(f"    {sentence}")
            if grep is not None:
                line.highlight_regex(grep, "reverse")
            console.print(line)
