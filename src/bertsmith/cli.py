"""The command line: one table, verb -> function.

Errors for people are one line on stderr and an exit code (1 failed, 2 wrong usage, 130 or 143 stopped by a signal after
saving); anything else is a defect of ours and shows its traceback. PyTorch takes a second or two to import, so what
needs it is imported by the verbs that do.
"""

import os
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

import bertsmith
from bertsmith.commands import compare, corpus, data, examples, plan, predict, tokenizer
from bertsmith.commands.folds import cross_validate
from bertsmith.commands.options import (
    AllowPickle,
    AsJson,
    EngineName,
    LabelColumn,
    LabelNames,
    ModelName,
    NoHeader,
    Overrides,
    PairColumn,
    RayAddress,
    RecipePath,
    RunsFolder,
    TextColumn,
    column_from,
    columns_from,
    console_for,
    print_json,
    read_recipe,
    run_recipe,
    same_command,
)
from bertsmith.config import STAGES, load_recipe
from bertsmith.errors import BertsmithError, Stopped, UsageError
from bertsmith.openmp import wait_asleep

if TYPE_CHECKING:
    pass

app = typer.Typer(
    name="bertsmith",
    help="Raw text in, a BERT of your own out: trained, understood, made small, and served.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(corpus.app, name="corpus")
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(examples.app, name="examples")
app.add_typer(data.app, name="data")
app.command("plan")(plan.plan)
app.command("predict")(predict.predict)
app.command("init")(data.init)
app.command("compare")(compare.compare)


@app.command()
def run(
    recipe: RecipePath,
    overrides: Overrides = None,
    runs: RunsFolder = Path("runs"),
    until: Annotated[str | None, typer.Option(help=f"Stop after this stage: {', '.join(STAGES)}.")] = None,
    engine: EngineName = None,
    ray_address: RayAddress = None,
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
) -> None:
    """Run all stages of a recipe, skipping those that are done.

    Example: bertsmith run recipes/quickstart.toml
    """
    run_recipe(
        recipe,
        overrides,
        runs=runs,
        until=until,
        as_json=as_json,
        engine=engine,
        ray_address=ray_address,
        allow_pickle=allow_pickle,
    )


@app.command()
def pretrain(
    recipe: RecipePath,
    overrides: Overrides = None,
    runs: RunsFolder = Path("runs"),
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe up to the pre-trained model.

    Example: bertsmith pretrain recipes/english.toml --set pretrain.budget_minutes=10
    """
    result = bertsmith.pretrain(
        read_recipe(recipe, overrides, allow_pickle), runs=runs, console=console_for(as_json), command=same_command()
    )
    if as_json:
        print_json(result.to_dict())


@app.command()
def finetune(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe in TOML; or give --benchmark.")] = None,
    overrides: Overrides = None,
    folds: Annotated[
        int | None, typer.Option(min=2, help="Cross-validate: so many models, each scored on rows it has not seen.")
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(metavar="glue/NAME", help="A task of GLUE instead of a recipe, such as glue/cola.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="What to start from; goes before the recipe's.")] = None,
    data: Annotated[Path, typer.Option(help="Folder with the benchmark's own folders, such as CoLA/.")] = Path("glue"),
    refit: Annotated[
        bool, typer.Option("--refit", help="Train once more on training and validation rows at the end.")
    ] = False,
    runs: RunsFolder = Path("runs"),
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a checkpoint on labelled rows and score it.

    Example: bertsmith finetune recipes/cola.toml --model bert-base-uncased

    Example: bertsmith finetune --benchmark glue/mrpc --model bert-base-uncased --data glue
    """
    if (recipe is None) == (benchmark is None):
        raise UsageError("finetune takes a recipe or --benchmark glue/NAME, one of them")
    said = [*(overrides or []), *(["finetune.refit=true"] if refit else [])]
    console = console_for(as_json)
    if recipe is None:
        from bertsmith.commands.benchmark import finetune_benchmark
        from bertsmith.tasks.glue import find_benchmark

        if model is None or folds is not None:
            raise UsageError("--benchmark needs --model (a model directory, a run or a hub name), and takes no --folds")
        found = find_benchmark(str(benchmark), data)
        said += ["runtime.allow_pickle=true"] if allow_pickle else []
        result = finetune_benchmark(found, found.recipe(model, said), runs=runs, console=console)
    else:
        said += [f"finetune.model={model}"] if model is not None else []
        chosen = read_recipe(recipe, said, allow_pickle)
        if folds is not None:
            cross_validate(chosen, folds, runs=runs, as_json=as_json)
            return
        result = bertsmith.finetune(chosen, runs=runs, console=console, command=same_command())
    if as_json:
        print_json(result.to_dict())


@app.command()
def search(
    recipe: RecipePath,
    overrides: Overrides = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid", metavar="KEY=[VALUES]", help="A key of [finetune] and its values; default: the paper's."
        ),
    ] = None,
    no_grid: Annotated[bool, typer.Option("--no-grid", help="The recipe as it is, with each seed.")] = False,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each combination.")] = 1,
    space: Annotated[
        list[str] | None,
        typer.Option(
            "--space",
            metavar="KEY=...",
            help="A key of [finetune] with log(LOW, HIGH), range(LOW, HIGH) or [VALUES]: settings are proposed.",
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Settings to try of a space; default: 30, around the paper's.")
    ] = None,
    prune: Annotated[bool, typer.Option(help="End hopeless trials of a space early.")] = True,
    runs: RunsFolder = Path("runs"),
    allow_pickle: AllowPickle = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune with many settings, choose by validation score, and score the best on the test files.

    Example: bertsmith search recipes/cola.toml --grid "learning_rate=[5e-5, 1e-4]" --grid "epochs=[3, 4]" --seeds 3

    Example: bertsmith search recipes/cola.toml --space "learning_rate=log(1e-5, 2e-4)" --trials 20
    """
    from bertsmith.tasks.guided_search import guided_search
    from bertsmith.tasks.search import grid_of
    from bertsmith.tasks.search import search as run_search
    from bertsmith.tasks.search_space import space_of

    if (space or trials) and (grid or seeds > 1):
        raise UsageError(
            "--space and --trials propose settings, --grid and --seeds go through all: give the one or the other "
            "(such as a grid of the best settings alone, with several seeds)"
        )
    chosen = read_recipe(recipe, overrides, allow_pickle)
    if no_grid and (grid or space or trials):
        raise UsageError("--no-grid is for seeds alone; leave it out, or --grid, --space and --trials")
    folder, console = runs / f"{chosen.name}-search", console_for(as_json)
    if space or trials:
        wanted = space_of(space) if space else None
        found = guided_search(chosen, folder, space=wanted, trials=trials or 30, prunes=prune, console=console)
    else:
        tried = {} if no_grid else grid_of(grid) if grid else None
        found = run_search(chosen, folder, grid=tried, seeds=seeds, console=console)
    if as_json:
        print_json(
            {
                "metric": found.metric,
                "standings": [asdict(one) for one in found.standings],
                "scores": found.final.scores,
            }
        )
        return
    for one in found.standings:
        settings = "  ".join(f"{key} = {value}" for key, value in one.settings.items()) or "as it is"
        typer.echo(f"{one.mean:.4f} ± {one.deviation:.4f} (best {one.best:.4f}, {one.seeds} seeds)  {settings}")
    for split, scores in found.final.scores.items():
        typer.echo(f"{split}: {found.metric} {scores[found.metric]:.4f}, by the first of these")
    typer.echo(f"model: {found.final.run_dir}")


@app.command()
def evaluate(
    model: ModelName,
    data: Annotated[Path, typer.Argument(help="Labelled rows: .tsv, .csv, .jsonl or CoNLL.")],
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    pair_column: PairColumn = None,
    no_header: NoHeader = None,
    label_names: LabelNames = None,
    expect: Annotated[
        list[str] | None, typer.Option(metavar="METRIC>=SCORE", help="Exit with 1 where a score is not so good.")
    ] = None,
    slices: Annotated[
        list[str] | None, typer.Option("--slice", metavar="COLUMN", help="Score the rows of each of its values too.")
    ] = None,
    mistakes: Annotated[int, typer.Option(min=0, help="How many of the most confident mistakes to print.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Score a fine-tuned model on labelled rows, with 95 % intervals, also by length, label and --slice; processes
    under torchrun share the rows.

    Example: bertsmith evaluate runs/cola/finetune in_domain_dev.tsv --no-header --text-column 3 --label-column 1
    """
    from bertsmith.analysis.mistakes import surest_mistakes
    from bertsmith.commands.evaluation_tables import evaluation_lines
    from bertsmith.tasks.expect import expectation
    from bertsmith.tasks.predict import Predictor
    from bertsmith.training.distributed import joined

    predictor = Predictor.load(model)
    columns = columns_from(predictor.columns, text_column, label_column, pair_column, no_header, label_names)
    wanted = [expectation(text, predictor.task.metrics) for text in expect or []]
    sliced = [column_from(name, header=columns.header) for name in slices or []]
    with joined(predictor.runtime) as ranks:
        result = bertsmith.evaluate(predictor, data, columns=columns, name=model, slice_columns=sliced, ranks=ranks)
    if not ranks.is_first:
        return
    if as_json:
        print_json(
            {
                "model": model,
                "loss": result.loss,
                "table": [asdict(row) for row in result.table],
                "slices": [asdict(row) for row in result.slices],
                "calibration": None if result.calibration is None else asdict(result.calibration),
                "mistakes": [asdict(one) for one in surest_mistakes(result.predictions, mistakes)],
            }
        )
    else:
        for row in result.table:
            typer.echo(f"{row.metric:<18} {row.score:.4f}  ({row.low:.4f} to {row.high:.4f})  {row.rows:,} rows")
        for line in evaluation_lines(result, num_mistakes=mistakes):
            typer.echo(line)
    for one in wanted:
        one.check(result.scores)


@app.command("fill-mask")
def fill_mask(
    model: ModelName,
    texts: Annotated[list[str], typer.Argument(help="Texts with [MASK] in them.")],
    top: Annotated[int, typer.Option(min=1, help="Words to name for each [MASK].")] = 5,
    as_json: AsJson = False,
) -> None:
    """Name the likeliest words for each [MASK].

    Example: bertsmith fill-mask runs/quickstart/pretrain "returns the [MASK] of the array."
    """
    from bertsmith.tasks.fill import MaskFiller, in_words

    filler = MaskFiller.load(model)
    answers = [(text, filler.predict(text, top=top)) for text in texts]
    if as_json:
        print_json([{"text": text, "predictions": found} for text, found in answers])
        return
    for text, found in answers:
        typer.echo(f"{text}\n    {in_words(found)}")


@app.command()
def generate(
    model: ModelName,
    texts: Annotated[list[str], typer.Argument(help="How texts begin.")],
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The most tokens to write for each.")] = 50,
    temperature: Annotated[
        float,
        typer.Option(min=0.0, help="0: always the likeliest token. Above: drawn, from a flatter choice if higher."),
    ] = 0.0,
    top_k: Annotated[int | None, typer.Option(min=1, help="Draw from so many of the likeliest.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest that together have this share.")] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 42,
    as_json: AsJson = False,
) -> None:
    """Continue texts with a model that was fine-tuned as a language model.

    Example: bertsmith generate runs/reviews/finetune "the film is" --temperature 0.8 --top-p 0.9 --seed 1
    """
    from bertsmith.tasks.continuation import Sampling, TextGenerator

    sampling = Sampling(temperature, top_k, top_p, seed)
    generator = TextGenerator.load(model)
    found = [generator.generate(text, max_new_tokens=max_new_tokens, sampling=sampling) for text in texts]
    if as_json:
        print_json([asdict(one) for one in found])
        return
    for one in found:
        typer.echo(one.whole)


@app.command("extract-features")
def extract_features(
    model: ModelName,
    file: Annotated[
        Path, typer.Argument(help="A .txt file with a text a line, or a table: .tsv, .csv, .jsonl, .parquet.")
    ],
    out: Annotated[Path, typer.Option(help="Where to write: .parquet, or .npy (a row a text).")],
    pooling: Annotated[
        Literal["mean", "cls", "pooler", "tokens"], typer.Option(help="One vector a text, or one for each token.")
    ] = "mean",
    layers: Annotated[str, typer.Option(help="Layers, side by side: 0 is the embeddings, -1 the highest.")] = "-1",
    max_length: Annotated[
        int | None, typer.Option(min=3, help="Tokens read of a text; default: all positions.")
    ] = None,
    text_column: Annotated[str, typer.Option(help="Column with the text, of a table.")] = "text",
) -> None:
    """Write the vectors that a model has of texts.

    Example: bertsmith extract-features runs/english/pretrain texts.txt --out vectors.npy --layers -1,-2,-3,-4
    """
    from bertsmith.tasks.records import find_data_file, numbered_lines, read_text
    from bertsmith.tasks.tables import read_text_rows

    try:
        numbers = [int(layer) for layer in layers.split(",")]
    except ValueError as error:
        raise UsageError(f"--layers {layers}: give whole numbers with commas between them, such as -1,-2") from error
    if file.suffix.lower() == ".txt":
        texts = [text for _, text in numbered_lines(read_text(find_data_file(file))) if text.strip()]
    else:
        texts = [row.text for row in read_text_rows(file, text_column=text_column, require_labels=False)]
    typer.echo(bertsmith.extract_features(model, texts, out, pooling=pooling, layers=numbers, max_length=max_length))


@app.command()
def fetch(
    recipe: RecipePath,
    into: Annotated[Path, typer.Option(help="Data folder to download into.")] = Path("data"),
) -> None:
    """Download and unpack the public data that a recipe names, checked by digest.

    Example: bertsmith fetch recipes/cola.toml
    """
    from bertsmith.corpus.fetch import fetch as fetch_downloads

    for path in fetch_downloads(load_recipe(recipe), into):
        typer.echo(path)


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(help="A run: runs/NAME, or one stage of it.")],
    out: Annotated[Path | None, typer.Option(help="Where to write; default: report.html in the run.")] = None,
) -> None:
    """Write the HTML report of a run, finished or not.

    Example: bertsmith report runs/quickstart
    """
    typer.echo(bertsmith.write_report(run_folder, out))


def main() -> None:
    """Entry point of the `bertsmith` command."""
    wait_asleep()
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, _stop)
    try:
        app()
    except Stopped as stopped:
        sys.stderr.write(f"bertsmith: {stopped}\n")
        _leave(stopped.exit_code)
    except BertsmithError as error:
        _complain(f"error: {error}", error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains as it leaves
        sys.exit(1)


def _stop(signal_number: int, _frame: FrameType | None) -> NoReturn:
    """Outside training loops, which save first: unwind, so that half-written stages are removed."""
    raise Stopped(signal_number, same_command())


def _leave(exit_code: int) -> NoReturn:
    """End the process, without waiting for threads that still compile: what is worth keeping is saved."""
    threads = (thread for thread in threading.enumerate() if thread is not threading.main_thread())
    if any(not thread.daemon for thread in threads):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    sys.exit(exit_code)


def _complain(message: str, exit_code: int) -> NoReturn:
    sys.stderr.write(f"bertsmith: {message}\n")
    sys.exit(exit_code)
