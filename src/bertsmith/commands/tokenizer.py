"""`bertsmith tokenizer ...`"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import bertsmith
from bertsmith.artifact import open_artifact
from bertsmith.commands.options import (
    AllowPickle,
    AsJson,
    EngineName,
    Overrides,
    RayAddress,
    RecipePath,
    RunsFolder,
    console_for,
    print_json,
    run_recipe,
)
from bertsmith.config import Source
from bertsmith.corpus.build import KIND
from bertsmith.corpus.look import corpus_dir
from bertsmith.corpus.sources import KIND_BY_SUFFIX, plan_chunks, read_chunk
from bertsmith.engine import Engine
from bertsmith.errors import DataError, UsageError
from bertsmith.tokenizer.count import WordCounts, count_corpus, count_words, splitter_of
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.tokenizer.extend import MIN_COUNT, Extended, Proposal, extend_vocabulary, propose_words
from bertsmith.tokenizer.report import VocabularyReport, report_on_words, unknown_warning

app = typer.Typer(help="Documents to vocabulary: train one, look at it, add words.", no_args_is_help=True)

TextFiles = Annotated[
    list[str] | None,
    typer.Option("--text", metavar="FILE", help="Text, .jsonl, .csv or .parquet; may be given again."),
]
CorpusOption = Annotated[Path | None, typer.Option("--corpus", help="A corpus, or the run that has one.")]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Processes that count words; 0: one a processor.")]
_MOST_SHOWN = 30


@app.command()
def train(
    recipe: RecipePath,
    overrides: Overrides = None,
    runs: RunsFolder = Path("runs"),
    engine: EngineName = None,
    ray_address: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Run a recipe up to its tokenizer stage, into runs/NAME/tokenizer.

    Example: bertsmith tokenizer train recipes/english.toml
    """
    run_recipe(
        recipe,
        overrides,
        runs=runs,
        until="tokenizer",
        as_json=as_json,
        engine=engine,
        ray_address=ray_address,
    )


@app.command()
def report(
    tokenizer: Annotated[str, typer.Argument(help="A tokenizer, a model, the run that has one, or a hub name.")],
    text: TextFiles = None,
    corpus: CorpusOption = None,
    split: Annotated[str, typer.Option(help="Documents of the corpus: validation is text held out.")] = "validation",
    beside: Annotated[str | None, typer.Option(help="Another vocabulary, to compare with.")] = None,
    workers: Workers = 1,
    as_json: AsJson = False,
) -> None:
    """Measure how a vocabulary fits a text: pieces a word, [UNK] rate, coverage, longest pieces.

    Example: bertsmith tokenizer report runs/english --corpus runs/english --beside bert-base-uncased
    """
    reports = {}
    for name in dict.fromkeys([tokenizer, *([beside] if beside else [])]):
        vocabulary = _load(name)
        counts = _count(vocabulary, text, corpus, split, Engine(workers))
        reports[name] = report_on_words(vocabulary, counts)
    if as_json:
        print_json({name: found.to_dict() for name, found in reports.items()})
    else:
        _print_reports(Console(soft_wrap=True, highlight=False), reports)


@app.command()
def extend(
    model: Annotated[str, typer.Argument(help="A model, a tokenizer, the run that has one, or a hub name.")],
    words: Annotated[Path | None, typer.Option(help="File with a new word a line.")] = None,
    text: TextFiles = None,
    corpus: CorpusOption = None,
    propose: Annotated[
        int, typer.Option(metavar="N", min=1, help="Without --words: take the N words of the text that save most.")
    ] = 1000,
    min_count: Annotated[int, typer.Option(min=1, help="Propose no word seen less often.")] = MIN_COUNT,
    use_unused: Annotated[bool, typer.Option("--use-unused", help="Fill [unusedN] before adding ids.")] = False,
    out: Annotated[Path | None, typer.Option(help="Directory to write; without it, words are only shown.")] = None,
    allow_pickle: AllowPickle = False,
    workers: Workers = 1,
    as_json: AsJson = False,
) -> None:
    """Add words to a vocabulary, and to the model that has it: embeddings start as the mean of the old pieces'.

    Example: bertsmith tokenizer extend bert-base-uncased --corpus runs/clinic --propose 500 --out clinic-bert
    """
    from bertsmith.model.extend import model_or_tokenizer_dir, save_extended  # PyTorch is slow to import

    directory, has_model = model_or_tokenizer_dir(model)
    old = Tokenizer.load(directory)
    console = console_for(as_json)
    proposals: list[Proposal] = []
    if words is None:
        counts = _count(old, text, corpus, "train", Engine(workers))
        proposals = propose_words(old, counts.words, propose, min_count=min_count)
    elif text or corpus:
        raise UsageError("--words brings the words itself; leave out --text and --corpus, or --words")
    given = _read_words(words) if words else [proposal.word for proposal in proposals]
    extended = extend_vocabulary(old, given, use_unused=use_unused)
    if out is not None and extended.added:
        save_extended(directory, extended, out, allow_pickle=allow_pickle)
    if as_json:
        print_json({"added": extended.added, "known": extended.known, "proposals": [asdict(p) for p in proposals]})
    else:
        _print_proposals(console, proposals)
        _print_extended(console, old, extended, out, has_model)


def _load(name: str) -> Tokenizer:
    return Tokenizer.load(_tokenizer_dir(name))


def _tokenizer_dir(name: str) -> str:
    """`name`, or the tokenizer of the run that it is."""
    inside = Path(name) / "tokenizer"
    return str(inside) if inside.is_dir() else name


def _count(
    tokenizer: Tokenizer, files: list[str] | None, corpus: Path | None, split: str, engine: Engine
) -> WordCounts:
    """Words of the files, or of one split of the corpus, as the tokenizer makes them."""
    if bool(files) == bool(corpus):
        raise UsageError("give the text to look at: --text FILE (once or more) or --corpus DIR")
    splitter = splitter_of(tokenizer.backend)
    if files:
        counts = count_words((line for text in _texts(files) for line in text.split("\n")), splitter)
    else:
        assert corpus is not None
        folder = open_artifact(corpus_dir(corpus), KIND, verify=False).path
        counts = count_corpus(folder, split, splitter, engine=engine)
    if not counts.total:
        where, hint = (", ".join(files), "give a text") if files else (corpus, f"--split takes others than {split!r}")
        raise DataError(f"holds no words; {hint}", path=where)
    return counts


def _texts(files: list[str]) -> Iterator[str]:
    for file in files:
        kind = next((KIND_BY_SUFFIX[suffix] for suffix in Path(file).suffixes if suffix in KIND_BY_SUFFIX), "text")
        for chunk in plan_chunks(Source.model_validate({"kind": kind, "paths": (file,)})):
            for document in read_chunk(chunk, WordCounts().words):
                yield document.text


def _read_words(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read as UTF-8 text, a word a line ({error})", path=path) from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise DataError("holds no words; write one a line", path=path)
    return found


def _print_reports(console: Console, reports: dict[str, VocabularyReport]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in reports:
        table.add_column(name, justify="right", overflow="fold")
    found = list(reports.values())
    rows = {
        "entries": [f"{one.vocab_size:,}" for one in found],
        "entries the text uses": [f"{one.entries_used:,}" for one in found],
        "words": [f"{one.words:,}" for one in found],
        "single Chinese characters": [f"{one.han_words / one.words:.1%}" for one in found],
        "fertility (pieces a word, without those)": [f"{one.fertility:.3f}" for one in found],
        "characters a piece": [f"{one.characters_per_piece:.2f}" for one in found],
        "words that are one piece": [f"{one.whole_share:.1%}" for one in found],
        "[UNK] rate (words)": [f"{one.unknown_share:.3%}" for one in found],
        "coverage (characters)": [f"{one.coverage:.3%}" for one in found],
        "longest pieces": [", ".join(token for token, _ in one.longest[:4]) for one in found],
        "commonest [UNK]": [", ".join(word for word, _ in one.commonest_unknown[:6]) for one in found],
    }
    for title, cells in rows.items():
        table.add_row(title, *cells)
    console.print(table, markup=False)
    for name, one in reports.items():
        if warning := unknown_warning(one.unknown_share, name):
            console.print(f"\nWarning: {warning}", markup=False)


def _print_proposals(console: Console, proposals: list[Proposal]) -> None:
    if not proposals:
        return
    table = Table(box=None, pad_edge=False)
    for title, justify in (("word", "left"), ("seen", "right"), ("tokens saved", "right"), ("pieces now", "left")):
        table.add_column(title, justify="right" if justify == "right" else "left", overflow="fold")
    for one in proposals[:_MOST_SHOWN]:
        table.add_row(one.word, f"{one.count:,}", f"{one.saved:,}", " ".join(one.pieces).replace("[", "\\["))
    console.print(table)
    if len(proposals) > _MOST_SHOWN:
        console.print(f"and {len(proposals) - _MOST_SHOWN:,} more")
    console.print()


def _print_extended(console: Console, old: Tokenizer, extended: Extended, out: Path | None, has_model: bool) -> None:
    if extended.known:
        known = ", ".join(extended.known[:6]) + (", ..." if len(extended.known) > 6 else "")
        console.print(f"{len(extended.known):,} in the vocabulary already: {known}", markup=False)
    if not extended.added:
        console.print("no new words: nothing to write")
        return
    size = extended.tokenizer.vocab_size
    console.print(f"{len(extended.added):,} new words: {old.vocab_size:,} entries become {size:,}; old ids stay")
    if out is None:
        console.print("nothing is written without --out DIR")
        return
    console.print(f"written: {out} ({'model and tokenizer' if has_model else 'tokenizer'})", markup=False)
    if has_model:
        console.print(
            f"Next: let the new words learn what they mean: a recipe with tokenizer.path and pretrain.init {out}",
            markup=False,
        )


@app.command()
def show(
    text: Annotated[str, typer.Argument(help="What to encode.")],
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", "-t", help="A run, a tokenizer or model directory, or a hub name.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show the pieces of a text: the part that each stands for, its spelling in the vocabulary, its id.

    Example: bertsmith tokenizer show "Unbelievably good!" --tokenizer runs/english
    """
    loaded = bertsmith.BertTokenizer.load(_tokenizer_dir(tokenizer))
    encoding = loaded(text, return_offsets_mapping=True)
    tokens = loaded.convert_ids_to_tokens(encoding.input_ids)
    rows = [
        (text[start:end], token, number)
        for (start, end), token, number in zip(encoding.offset_mapping, tokens, encoding.input_ids, strict=True)
    ]
    if as_json:
        names = ("original", "piece", "id")
        print_json({"text": text, "pieces": [dict(zip(names, row, strict=True)) for row in rows]})
        return
    table = Table("original", "piece", box=None, pad_edge=False)
    table.add_column("id", justify="right")
    for original, piece, number in rows:
        table.add_row(Text(original), Text(piece), str(number))
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    num_words = sum(not token.startswith("##") for token in tokens) - 2
    num_unknown = encoding.input_ids.count(loaded.unk_id)
    console.print(f"{len(rows) - 2:,} pieces of {num_words:,} words, {num_unknown:,} unknown, and [CLS] and [SEP]")
