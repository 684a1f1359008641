"""`bertsmith predict`: answers to texts, to a file, or to lines as they come in."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import bertsmith
from bertsmith.commands.options import ModelName, NoHeader, PairColumn, TextColumn, columns_from
from bertsmith.errors import UsageError
from bertsmith.progress import rows_shown

FROM_INPUT = ["-"]


def predict(
    model: ModelName,
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="Texts; - reads them, or JSON objects, line by line from standard input; or give --file."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="A .txt file with a text a line, or a table: .tsv, .csv, .jsonl, CoNLL.")
    ] = None,
    pair: Annotated[
        str | None, typer.Option(help="The second text, of a model that reads pairs; the first is the one TEXT.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write JSON Lines here instead of printing.")] = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    no_header: NoHeader = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON Lines; those of a file or input always are.")
    ] = False,
) -> None:
    """Answer texts with a fine-tuned model: a label, or one for each word; words for [MASK]s; how likely a text is.

    Example: bertsmith predict runs/quickstart/finetune "Call reshape before fit."
    """
    from bertsmith.artifact import output_to
    from bertsmith.tasks.line_stream import predict_lines
    from bertsmith.tasks.predict import Predictor, write_predictions

    if bool(texts) == (file is not None):
        raise UsageError("predict takes texts or --file FILE, one of them")
    if pair is not None and (len(texts or []) != 1 or texts == FROM_INPUT):
        raise UsageError("--pair is the second text to one TEXT; for many pairs give --file and --pair-column")
    predictor = Predictor.load(model)
    if pair is not None and not predictor.task.takes_pairs:
        raise UsageError(f"{model} takes {predictor.task.expected}; leave --pair out")
    columns = replace(predictor.columns, label_names=None)
    columns = columns_from(columns, text_column, None, pair_column, no_header, None)
    is_table = texts == FROM_INPUT or file is not None
    with rows_shown("predict", _aside(speaks=out is None)) as report:
        if texts == FROM_INPUT:
            records: Iterator[dict[str, Any]] = predict_lines(predictor, sys.stdin.fileno(), columns=columns)
            if out is not None:
                records = _counted(records, report)
        else:
            plain = file is None or file.suffix.lower() == ".txt"
            given: Any = file or [(text, pair) if pair is not None else text for text in texts or []]
            records = bertsmith.predict(predictor, given, columns=None if plain else columns, on_rows=report)
        if out is not None:
            with output_to(out):
                write_predictions(out, records)
        else:
            for record in records:
                typer.echo(json.dumps(record, ensure_ascii=False) if as_json or is_table else _in_words(record))
    if out is not None:
        typer.echo(out)


def _aside(*, speaks: bool) -> Console:
    """Where progress is shown: standard error, unless answers run down the same terminal."""
    return Console(stderr=True, soft_wrap=True, quiet=speaks and sys.stdout.isatty())


def _counted(records: Iterator[dict[str, Any]], report: Any) -> Iterator[dict[str, Any]]:
    for number, record in enumerate(records, start=1):
        report(number, 0)
        yield record


def _in_words(record: Mapping[str, Any]) -> str:
    """One answer as a person reads it: what it is, how sure the model is, and what it was asked."""
    from bertsmith.tasks.fill import in_words

    if "words" in record:
        return " ".join(
            word if tag == "O" else f"{word}/{tag}"
            for word, tag in zip(record["words"], record["predictions"], strict=True)
        )
    text = " | ".join(str(record[key]) for key in ("question", "text", "pair") if key in record)
    if "blanks" in record:
        return "\n    ".join([record["filled"], *(in_words(list(one["guesses"].items())) for one in record["blanks"])])
    if "perplexity" in record:
        return f"{record['perplexity']:.4g}  {text}"
    if "vector" in record:
        return f"{' '.join(f'{x:.3f}' for x in record['vector'][:4])} ... ({len(record['vector'])})  {text}"
    if "predictions" in record:
        sure = (f"{label} {record['probabilities'][label]:.0%}" for label in record["predictions"])
        return f"{', '.join(sure) or 'none'}  {text}"
    if "choices" in record:
        return f"{record['choice']}  {record['probabilities'][record['prediction']]:.0%}  {text}"
    if "probability" in record:
        return f"{record['prediction'] or 'no answer'}  {record['probability']:.0%}  {text}"
    if "probabilities" in record:
        return f"{record['prediction']}  {record['probabilities'][record['prediction']]:.0%}  {text}"
    return f"{record['prediction']:.4g}  {text}"
