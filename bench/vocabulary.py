"""Text to a WordPiece vocabulary of 30,522: ours (words counted, pairs merged) against the trainer of `tokenizers`.

    once      the plain text files of corpus/en
    fivefold  the same text five times: five times the words, none of them new

One thread on each side, both lowercase and split as BERT does. The trainer gets the alphabet in a fixed order, so that
its ties are decided as ours are: where the two do not learn the very same pieces, no figure is given.

    python bench/vocabulary.py --quick
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import tokenizers
from measure import arguments, compare, emit
from tokenizers import models, trainers

from bertsmith.corpus.files import local_files
from bertsmith.tokenizer.count import bert_splitter, count_words
from bertsmith.tokenizer.merges import learn_merges

SIZE, MIN_COUNT = 30_522, 2
TIMES = {"once": 1, "fivefold": 5}


def lines(files: Sequence[Path], times: int) -> Iterator[str]:
    for _ in range(times):
        for file in files:
            with file.open(encoding="utf-8", errors="replace") as text:
                yield from text


def alphabet_of(files: Sequence[Path]) -> list[str]:
    words = count_words(lines(files, 1), bert_splitter(lowercase=True)).words
    characters = sorted({character for word in words for character in word})
    return [*characters, *(f"##{one}" for one in sorted({one for word in words for one in word[1:]}))]


def ours(files: Sequence[Path], times: int, alphabet: list[str], found: set[str]) -> Callable[[], float]:
    def work() -> float:
        words = count_words(lines(files, times), bert_splitter(lowercase=True)).words
        found.update(learn_merges(words, alphabet, size=SIZE, min_count=MIN_COUNT))
        return times * megabytes(files)

    return work


def peer(files: Sequence[Path], times: int, alphabet: list[str], found: set[str]) -> Callable[[], float]:
    def work() -> float:
        learner = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        like = bert_splitter(lowercase=True)
        learner.normalizer, learner.pre_tokenizer = like.normalizer, like.pre_tokenizer
        learner.train_from_iterator(
            lines(files, times),
            trainers.WordPieceTrainer(
                vocab_size=SIZE, min_frequency=MIN_COUNT, special_tokens=alphabet, show_progress=False
            ),
        )
        found.update(learner.get_vocab().keys() - set(alphabet))
        return times * megabytes(files)

    return work


def megabytes(files: Sequence[Path]) -> float:
    return sum(file.stat().st_size for file in files) / 1e6


def main() -> None:
    options = arguments(__doc__ or "")
    os.environ["RAYON_NUM_THREADS"] = "1"  # read when the library first makes threads, which is later
    files = local_files(("corpus/en/*.txt",))
    alphabet = alphabet_of(files)
    for name, times in TIMES.items():
        if options.only not in (None, name):
            continue
        mine: set[str] = set()
        theirs: set[str] = set()
        our_work, peer_work = ours(files, times, alphabet, mine), peer(files, times, alphabet, theirs)
        row = compare(name, our_work, peer_work, rounds=1 if options.quick else 3, unit="MB/s")
        if mine != theirs:
            raise SystemExit(f"{len(mine ^ theirs)} pieces differ; the figures mean nothing")
        emit(row, options, megabytes=round(times * megabytes(files), 1), pieces=len(mine))


if __name__ == "__main__":
    main()
