"""`bertsmith fill-mask`, `generate` and `extract-features`: what a model says of texts that have no labels."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

import bertsmith
from bertsmith.commands.options import AsJson, ModelName, print_json
from bertsmith.errors import UsageError


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
