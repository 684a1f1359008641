"""`bertsmith evaluate`: what a fine-tuned model is worth on labelled rows."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import bertsmith
from bertsmith.commands.options import (
    AsJson,
    LabelColumn,
    LabelNames,
    ModelName,
    NoHeader,
    PairColumn,
    TextColumn,
    column_from,
    columns_from,
    print_json,
)


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
