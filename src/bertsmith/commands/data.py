"""`bertsmith data show`, `data augment` and `init`: a table of one's own, looked at, enlarged, and a recipe for it."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bertsmith.artifact import write_text
from bertsmith.commands.options import AsJson, console_for, print_json
from bertsmith.errors import UsageError
from bertsmith.progress import rows_shown

if TYPE_CHECKING:
    from bertsmith.tasks.base import Task
    from bertsmith.tasks.epoch_time import EpochTime
    from bertsmith.tasks.guess import Guess
    from bertsmith.tasks.survey import Survey

app = typer.Typer(help="Look at labelled rows, and make more of them.", no_args_is_help=True)

DataFile = Annotated[Path, typer.Argument(help="Labelled rows: .tsv, .csv, .jsonl, .parquet, CoNLL, SQuAD's JSON.")]
ModelOrNone = Annotated[
    str | None, typer.Option("--model", help="Count tokens as this model's tokenizer does; default: estimate them.")
]


@app.command()
def show(file: DataFile, model: ModelOrNone = None, as_json: AsJson = False) -> None:
    """Rows, labels with their shares, lengths, repeated rows, samples; the columns are guessed.

    Example: bertsmith data show tickets.csv --model bert-base-uncased
    """
    from bertsmith.tasks.lengths import in_words

    found, looked, rows = _look(file, model)
    predicted = None if model is None else _predicted(found, looked, rows, model)
    if as_json:
        about = {"file": str(file), "task": found.task, "columns": found.columns.to_card()}
        print_json(about | asdict(looked) | {"epoch": None if predicted is None else asdict(predicted)})
        return
    typer.echo(f"file       {file}: looks like task = {found.task!r}")
    for reason in found.reasons:
        typer.echo(f"           {reason}")
    typer.echo(f"rows       {looked.rows:,}")
    for label in looked.labels:
        examples = f"  e.g. {label.examples[0]}" if label.examples else ""
        typer.echo(f"label      {label.name:<20} {label.count:>8,} {label.share:>6.1%}{examples}")
    counted = "counted" if looked.are_counted else "estimated; --model counts them"
    typer.echo(f"tokens     {in_words(looked.lengths)} ({counted})")
    typer.echo(f"advised    max_length = {looked.lengths.advised} cuts {looked.lengths.cut_share:.1%} of the rows")
    if predicted is not None:
        typer.echo(f"an epoch   {predicted}")
    typer.echo(f"repeated   {looked.repeated:,} rows; {looked.contradicting:,} texts with different labels")
    for sample in looked.samples:
        typer.echo(f"row        {sample}")


@app.command()
def augment(
    file: DataFile,
    out: Annotated[Path, typer.Option(help="Where to write: .jsonl, .csv, or .conll for tagged words.")],
    method: Annotated[
        list[str] | None, typer.Option(help="swap, delete, insert, replace; several in turn. Default: the first three.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Share of a row's words that a copy changes.")] = 0.1,
    copies: Annotated[int, typer.Option(help="Copies of each row.")] = 1,
    model: Annotated[str | None, typer.Option(help="replace: a pre-trained model that proposes words.")] = None,
    seed: Annotated[int, typer.Option(help="Of all random choices.")] = 42,
) -> None:
    """Write the rows and changed copies of them, with the row that each came from; the columns are guessed.

    Example: bertsmith data augment tickets.csv --out more.csv --method swap --method delete
    """
    from bertsmith.artifact import output_to
    from bertsmith.config import parse_recipe
    from bertsmith.tasks.augment import copies_of, told
    from bertsmith.tasks.guess import guess
    from bertsmith.tasks.write_rows import check_suffix, write_copies

    given = {"methods": method or None, "rate": rate, "copies": copies, "model": model}
    section = {key: value for key, value in given.items() if value is not None}
    recipe = parse_recipe({"name": "augment", "finetune": {"model": "", "augment": section}}, where="data augment")
    assert recipe.finetune is not None
    settings = recipe.finetune.augment
    assert settings is not None
    guessed = guess(file)
    task = _task(guessed)
    rows = task.read(file, guessed.columns, require_labels=True)
    if task.name in ("choose", "answer"):
        raise UsageError(f"{file} looks like task = {task.name!r}; only texts, pairs and tagged words are augmented")
    check_suffix(out, tagged=task.name == "tag")
    with output_to(out):
        with rows_shown("augment", console_for(as_json=False)) as report:
            found = list(copies_of(rows, settings, seed=seed, progress=report))
        write_copies(out, rows, found, guessed.columns)
    for line in told(rows, found):
        typer.echo(line)
    typer.echo(f"wrote {out}")


def init(
    file: DataFile,
    out: Annotated[Path | None, typer.Option(help="Where to write; default: NAME.toml here.")] = None,
    model: Annotated[str | None, typer.Option(help="Model to fine-tune; default: by the language.")] = None,
) -> None:
    """Look at a table of your own and write a commented recipe for it.

    Example: bertsmith init tickets.csv
    """
    from bertsmith.tasks.recipe_for import recipe_for
    from bertsmith.tasks.texts import mostly_chinese

    found, looked, _ = _look(file, model)
    chinese = mostly_chinese(looked.samples)
    path = out or Path(f"{file.stem}.toml")
    if path.exists():
        raise UsageError(f"{path} exists already; give another name: --out OTHER.toml")
    chosen = model or ("bert-base-chinese" if chinese else "bert-base-uncased")
    write_text(path, recipe_for(file, found, looked, model=chosen))
    typer.echo(f"wrote {path}: task = {found.task!r}; read it, then: bertsmith finetune {path}")


def _look(file: Path, model: str | None) -> tuple["Guess", "Survey", list[Any]]:
    """The guess, the survey, and the rows."""
    from bertsmith.model.weights import read_config, resolve_model_dir
    from bertsmith.tasks.guess import guess
    from bertsmith.tasks.lengths import LONGEST
    from bertsmith.tasks.survey import survey
    from bertsmith.tokenizer.encode import Tokenizer

    found = guess(file)
    rows = _task(found).read(file, found.columns, require_labels=True)
    if model is None:
        return found, survey(_task(found), rows), rows
    directory = resolve_model_dir(model)
    positions = min(LONGEST, read_config(directory).max_position_embeddings)
    return found, survey(_task(found), rows, tokenizer=Tokenizer.load(directory), positions=positions), rows


def _predicted(found: "Guess", looked: "Survey", rows: list[Any], model: str) -> "EpochTime | None":
    from bertsmith.model.weights import resolve_model_dir
    from bertsmith.runtime import detect
    from bertsmith.tasks.epoch_time import predict_for

    length = looked.lengths.advised
    return predict_for(_task(found), rows, resolve_model_dir(model), max_length=length, runtime=detect())


def _task(found: "Guess") -> "Task[Any, Any]":
    from bertsmith.tasks.predict import TASKS

    return TASKS[found.task].with_options(**({"no_answer": True} if found.task == "answer" else {}))
