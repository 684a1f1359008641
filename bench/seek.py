"""From the middle of an epoch of ten million examples: how long until the first batch is there.

    seek    ours: a pure function of the step; opens the artifact anew and draws the update's batch
    skip    the peer's way: a random sampler over `datasets`, whose first batches of indices are drawn and passed over

The examples are one block of made-up text under many names (links), so that ten million of them need little disk. The
peer reads a table of ready examples of the same number and length, mapped too; `skip_first_batches` of `accelerate` is
what `Trainer` resumes with. Both are timed in this process after a first, short use.

    python bench/seek.py --quick
"""

import argparse
import itertools
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import torch
from measure import arguments, machine
from torch.utils.data import BatchSampler, RandomSampler

from bertsmith.artifact import write_artifact
from bertsmith.config import CorpusConfig, ExamplesConfig, Source, TokenizerConfig
from bertsmith.corpus.build import build_corpus
from bertsmith.examples.batches import PretrainData
from bertsmith.examples.blocks import Index, block_path, index_path, read_index, write_columns
from bertsmith.examples.shards import KIND, build_examples
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.tokenizer.train import train_tokenizer

EXAMPLES, BATCH, LENGTH = 10_000_000, 32, 128


def one_block(folder: Path) -> None:
    """Some megabytes of made-up English as corpus, tokenizer and examples."""
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(5000)]
    with (folder / "text.txt").open("w", encoding="utf-8") as file:
        for _ in range(6000):
            file.writelines(" ".join(draw.choices(words, k=12)).capitalize() + ".\n" for _ in range(25))
            file.write("\n")
    source = Source(kind="text", paths=(str(folder / "text.txt"),), layout="sentences")
    build_corpus(CorpusConfig(sources=(source,), validation_share=0.02), folder / "corpus", environment={})
    train_tokenizer(TokenizerConfig(vocab_size=6000), folder / "corpus", folder / "tokenizer", environment={})
    config = ExamplesConfig(max_length=LENGTH)
    build_examples(config, folder / "corpus", folder / "tokenizer", folder / "one", seed=1, environment={})


def many_blocks(one: Path, out: Path) -> int:
    """An artifact whose training blocks are all the first block of `one`; returns the number of examples."""
    index = read_index(one, "train")
    copies = -(-EXAMPLES // int(index.spans[0]))
    manifest = json.loads((one / "manifest.json").read_bytes())
    with write_artifact(out, kind=KIND, config=manifest["config"], inputs=manifest["inputs"], environment={}) as draft:
        for number in range(copies):
            os.link(block_path(one, "train", 0), block_path(draft.path, "train", number))
        repeated = {name: np.repeat(getattr(index, name)[:1], copies) for name in Index.__dataclass_fields__}
        write_columns(index_path(draft.path, "train"), repeated)
        draft.counts.update(manifest["counts"])
    return copies * int(index.spans[0])


def ours(folder: Path, num_examples: int) -> Callable[[], None]:
    tokenizer = Tokenizer.load(folder / "tokenizer")

    def work() -> None:
        data = PretrainData(folder / "many", split="train", tokenizer=tokenizer, seed=1)
        assert data.num_examples == num_examples
        (batch,) = data.batch(num_examples // BATCH // 2, BATCH, BATCH)
        assert len(batch.input_ids) == BATCH

    return work


def peer(num_examples: int) -> Callable[[], None]:
    row = pa.array(np.arange(LENGTH, dtype=np.int32))
    ids = pa.FixedSizeListArray.from_arrays(pa.concat_arrays([row] * 1000), LENGTH)
    table = pa.table({"input_ids": pa.chunked_array([ids] * (num_examples // 1000))})
    dataset = datasets.Dataset(table).with_format("torch")

    def work() -> None:
        sampler = RandomSampler(dataset, generator=torch.Generator().manual_seed(1))
        batches = iter(BatchSampler(sampler, BATCH, drop_last=False))
        rest = itertools.islice(batches, num_examples // BATCH // 2, None)
        batch = dataset[next(rest)]
        assert len(batch["input_ids"]) == BATCH

    return work


def seconds_of(work: Callable[[], None], rounds: int) -> list[float]:
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return found


def emit(name: str, seconds: list[float], options: argparse.Namespace, **facts: object) -> None:
    row = {
        "name": name,
        "seconds": round(statistics.median(seconds), 4),
        "min": round(min(seconds), 4),
        "max": round(max(seconds), 4),
        "rounds": len(seconds),
        **facts,
    }
    print(json.dumps(row), flush=True)
    if options.out is not None:
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row | machine()) + "\n")


def main() -> None:
    options = arguments(__doc__ or "")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one_block(folder)
        num_examples = many_blocks(folder / "one", folder / "many")
        rounds = 5 if options.quick else 20
        if options.only in (None, "seek"):
            emit("seek", seconds_of(ours(folder, num_examples), rounds), options, examples=num_examples)
        if options.only in (None, "skip"):
            emit("skip", seconds_of(peer(num_examples), 2 if options.quick else 5), options, examples=num_examples)


if __name__ == "__main__":
    main()
