"""`bertsmith examples ...`"""

from __future__ import annotations

import unicodedata
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
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

if TYPE_CHECKING:
    from bertsmith.examples.look import Counts, Example, Piece

app = typer.Typer(help="Documents and vocabulary to examples: build them, and look at them.", no_args_is_help=True)

_COUNTED = 1000
_STYLES = {"mask": "bold red", "random": "bold magenta", "kept": "bold green"}
_LEGEND = (
    ("[MASK=word]", _STYLES["mask"]),
    " hidden   ",
    ("[other=word]", _STYLES["random"]),
    " behind a random token   ",
    ("[word=word]", _STYLES["kept"]),
    " left as it is, to be guessed all the same",
)
_CLOSING = frozenset(",.;:!?)]}%'’”")


@app.command()
def build(
    recipe: RecipePath,
    overrides: Overrides = None,
    runs: RunsFolder = Path("runs"),
    engine: EngineName = None,
    ray_address: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Run a recipe up to its examples stage, into runs/NAME/examples.

    Example: bertsmith examples build recipes/english.toml
    """
    run_recipe(
        recipe,
        overrides,
        runs=runs,
        until="examples",
        as_json=as_json,
        engine=engine,
        ray_address=ray_address,
    )


@app.command()
def show(
    run: Annotated[Path, typer.Argument(help="A run, such as runs/NAME, or its examples folder.")],
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="Examples to show.")] = 3,
    epoch: Annotated[int, typer.Option(min=0, help="Each epoch has other pairs, masks and another order.")] = 0,
    split: Annotated[Literal["train", "validation"], typer.Option(help="Which split.")] = "train",
    mask_by: Annotated[
        Literal["token", "word", "span"] | None, typer.Option(help="Instead of what the recipe says.")
    ] = None,
    pairs: Annotated[
        Literal["nsp", "sop", "none"] | None, typer.Option(help="Instead of what the recipe says.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show examples as training gets them, with what is hidden in them; and count masks and labels over a thousand.

    Example: bertsmith examples show runs/english --number 2 --mask-by word
    """
    from bertsmith.examples.look import count, look, open_examples

    data = open_examples(run, split=split, mask_by=mask_by, pairs=pairs)
    first, size = epoch * data.num_examples, data.num_examples
    found = look(data, range(first, first + min(number, size)))
    counts = count(data, range(first, first + min(_COUNTED, size)))
    if as_json:
        print_json({"examples": [asdict(example) for example in found], "counts": asdict(counts)})
        return
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(Text.assemble(*_LEGEND))
    for example in found:
        _print_example(console, example)
    _print_counts(console, counts)


def _print_example(console: Console, example: Example) -> None:
    size = len(example.a) + len(example.b)
    label = "" if example.label is None else f", {example.label}"
    same = " (from the same document)" if example.same_document else ""
    head = f"example {example.id}{label}{same}: {example.num_hidden} of {size} tokens to guess"
    console.print()
    console.print(Text(head, style="bold"))
    for name, pieces in (("A", example.a), ("B", example.b)):
        if pieces:
            console.print(Text.assemble((f"  {name} ", "bold"), _in_words(pieces)))


def _in_words(pieces: tuple[Piece, ...]) -> Text:
    """Pieces joined as people write: no space inside words, between Chinese characters, before a full stop."""
    text = Text()
    before = ""
    for piece in pieces:
        shown = "MASK" if piece.how == "mask" else piece.text.removeprefix("##")
        truth = piece.hidden or piece.text
        joins = truth.startswith("##") or truth in _CLOSING or (_is_wide(truth) and _is_wide(before))
        text.append("" if joins or not before else " ")
        if piece.how is None:
            text.append(shown)
        else:
            text.append(f"[{shown}={truth.removeprefix('##')}]", style=_STYLES[piece.how])
        before = truth
    return text


def _is_wide(token: str) -> bool:
    return unicodedata.east_asian_width(token.removeprefix("##")[:1] or " ") in "WF"


def _print_counts(console: Console, counts: Counts) -> None:
    rows = {
        "tokens to guess": f"{counts.hidden_share:.1%} of {counts.tokens:,}",
        "furthest from its share": f"an example by {counts.furthest_in_words:.2f} words",
        "examples with nothing to guess": f"{counts.nothing_hidden:,}",
        "words hidden only in part": f"{counts.words_hidden_in_part:.1%}",
        "behind": ", ".join(f"{name} {share:.1%}" for name, share in counts.how.items()),
        "pairs": ", ".join(f"{name} {share:.1%}" for name, share in counts.labels.items()) or "none",
        "less than half as long as allowed": f"{counts.shorter_than_half:.1%}",
    }
    console.print()
    console.print(Text(f"{counts.examples:,} examples of this epoch", style="bold"))
    width = max(map(len, rows))
    for name, value in rows.items():
        console.print(f"  {name:<{width}}  {value}")
