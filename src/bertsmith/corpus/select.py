"""Which prepared documents are taken: no duplicates, by mixing weight, up to a number, each in its split."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bertsmith.artifact import Piece
from bertsmith.config import CorpusConfig
from bertsmith.corpus.dedup import find_duplicates
from bertsmith.corpus.finish import (
    LEFT_BY_WEIGHT,
    PAST_THE_LAST,
    REASONS,
    SPLITS,
    TAKEN,
    FinishTask,
)
from bertsmith.corpus.sources import Chunk

_TRAIN = SPLITS.index("train")


@dataclass
class Selection:
    """For each chunk what becomes of its documents; some bytes a document."""

    fates: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    copies: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    splits: list[npt.NDArray[np.uint8]] = field(default_factory=list)

    @property
    def num_taken(self) -> int:
        return sum(int((fates == TAKEN).sum()) for fates in self.fates)

    @property
    def dropped(self) -> Counter[str]:
        """Documents that are not taken, by reason."""
        found: Counter[str] = Counter()
        for fates in self.fates:
            for fate, number in enumerate(np.bincount(fates, minlength=len(REASONS) + 1)):
                if fate != TAKEN and number:
                    found[REASONS[fate]] += int(number)
        return found

    def tasks(self, pieces: Sequence[Piece], out: Path, rejects: Path | None) -> Iterator[FinishTask]:
        """What is left to do for each chunk; parts are numbered through the corpus, empty ones left out."""
        number = 0
        for piece, fates, copies, splits in zip(pieces, self.fates, self.copies, self.splits, strict=True):
            part_rows = piece.counts["parts"]
            reasons = None if rejects is None else piece.path / "not-taken.jsonl"
            yield FinishTask(piece.path, part_rows, fates, copies, splits, out, number, reasons)
            borders = np.cumsum([0, *part_rows])
            number += sum(bool(copies[a:b].any()) for a, b in pairwise(borders))


def select(config: CorpusConfig, chunks: Sequence[Chunk], pieces: Sequence[Piece], work: Path) -> Selection:
    """Decide for every document; `chunks` and `pieces` belong together, in the order of the corpus."""
    selection = Selection()
    left = config.max_documents
    for chunk, piece, fates in zip(chunks, pieces, _duplicates(config, pieces, work), strict=True):
        facts = np.load(piece.path / "facts.npy")
        splits = _splits_of(facts["draw"], config)
        copies = _copies(facts["draw"], splits, chunk.source.weight)
        fates = np.where((fates == TAKEN) & (copies == 0), LEFT_BY_WEIGHT, fates).astype(np.uint8)
        if left is not None:
            fates[np.flatnonzero(fates == TAKEN)[left:]] = PAST_THE_LAST
            left -= int((fates == TAKEN).sum())
        selection.fates.append(fates)
        selection.copies.append(np.where(fates == TAKEN, copies, 0).astype(np.uint8))
        selection.splits.append(splits)
    _fill_empty_splits(selection, config, pieces)
    return selection


def _duplicates(config: CorpusConfig, pieces: Sequence[Piece], work: Path) -> Iterator[npt.NDArray[np.uint8]]:
    near = config.dedup.near
    if not config.deduplicate and near is None:
        return (np.zeros(piece.counts["documents"], dtype=np.uint8) for piece in pieces)
    signatures = None if near is None else [piece.path / "near.npy" for piece in pieces]
    exact = [piece.path / "exact.npy" for piece in pieces]
    return find_duplicates(exact, signatures, threshold=near or 1.0, work=work / "spill")


def _splits_of(draws: npt.NDArray[np.uint64], config: CorpusConfig) -> npt.NDArray[np.uint8]:
    """`split_of` for many draws."""
    places = draws / 2.0**64
    validation = places < config.validation_share
    test = ~validation & (places < config.validation_share + config.test_share)
    return np.select([validation, test], [SPLITS.index("validation"), SPLITS.index("test")], _TRAIN).astype(np.uint8)


def _copies(draws: npt.NDArray[np.uint64], splits: npt.NDArray[np.uint8], weight: float) -> npt.NDArray[np.uint8]:
    """How often each document is written: `weight` times on average where it is trained on, else once."""
    with np.errstate(over="ignore"):
        fractions = ((draws * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(11)) * 2.0**-53
    return np.where(splits == _TRAIN, np.floor(weight + fractions), 1).astype(np.uint8)


def _fill_empty_splits(selection: Selection, config: CorpusConfig, pieces: Sequence[Piece]) -> None:
    """A small corpus in which no document fell into a wanted split gives it one: those of the lowest draws."""
    shares = {SPLITS.index("validation"): config.validation_share, SPLITS.index("test"): config.test_share}
    taken = Counter[int]()
    for fates, splits in zip(selection.fates, selection.splits, strict=True):
        taken.update(splits[fates == TAKEN].tolist())
    missing = [index for index, share in shares.items() if share > 0 and not taken[index]]
    if not missing or taken[_TRAIN] < 2:
        return
    lowest: list[tuple[int, int, int]] = []
    for number, piece in enumerate(pieces):
        draws = np.load(piece.path / "facts.npy")["draw"]
        rows = np.flatnonzero((selection.fates[number] == TAKEN) & (selection.splits[number] == _TRAIN))
        lowest += [(int(draws[row]), number, int(row)) for row in rows[np.argsort(draws[rows], kind="stable")[:2]]]
    for index, (_, number, row) in zip(missing, sorted(lowest)[: taken[_TRAIN] - 1], strict=False):
        selection.splits[number][row] = index
        selection.copies[number][row] = 1
