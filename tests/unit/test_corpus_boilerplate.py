from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertsmith.corpus import boilerplate
from bertsmith.corpus.boilerplate import common_lines, count_lines, line_hashes, without_lines
from bertsmith.corpus.heavy import HeavyLines, describe

MENU = "Home | About us | Contact | Imprint"
FOOTER = "版权所有，未经许可不得转载。"


def chunk_files(folder: Path, chunks: list[list[str]]) -> list[Path]:
    paths = []
    for number, documents in enumerate(chunks):
        paths.append(folder / f"{number}.npy")
        np.save(paths[-1], count_lines([line_hashes(document) for document in documents]))
    return paths


def test_lines_of_many_documents_are_found_and_left_out(tmp_path: Path) -> None:
    documents = [f"{MENU}\nStory number {number}, told at length.\n{MENU}\n{FOOTER}\nshort" for number in range(5)]
    files = chunk_files(tmp_path, [documents[:3], [], documents[3:4], [*documents[4:], FOOTER]])
    assert common_lines(files, min_documents=6).tolist() == line_hashes(FOOTER).tolist()
    common = common_lines(files, min_documents=5)
    assert common.tolist() == line_hashes(f"{MENU}\n{FOOTER}").tolist()
    assert without_lines(documents[2], common) == ("Story number 2, told at length.\nshort", 3)
    assert without_lines("nothing of it\nshort", common) == ("nothing of it\nshort", 0)
    assert without_lines(documents[2], np.empty(0, np.uint64)) == (documents[2], 0)
    assert not len(common_lines([], min_documents=2))


@settings(deadline=None)
@given(
    chunks=st.lists(st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=6), max_size=4), least=st.integers(1, 6)
)
def test_a_merge_in_parts_counts_as_one_count(
    chunks: list[list[list[int]]], least: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    texts = [["\n".join(f"line {number} which is long enough" for number in one) for one in chunk] for chunk in chunks]
    files = chunk_files(tmp_path_factory.mktemp("lines"), texts)
    documents = [set(one) for chunk in chunks for one in chunk]
    expected = [number for number in range(10) if sum(number in document for document in documents) >= least]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boilerplate, "_ROWS_IN_MEMORY", 3)
        found = common_lines(files, min_documents=least)
    assert found.tolist() == sorted(
        hashed for number in expected for hashed in line_hashes(f"line {number} which is long enough").tolist()
    )


def test_a_heavy_line_is_called_out_in_words() -> None:
    heavy = HeavyLines()
    for number in range(100):
        heavy.add(f"Story number {number:03d}.\nAll rights reserved.")
    line, share = heavy.share()
    assert (line, round(share, 3)) == ("All rights reserved.", 0.541)
    assert describe(heavy, kept=100, dropped={"too short": 3}) == [
        "the line 'All rights reserved.' makes up 54% of the corpus; "
        "corpus.clean.boilerplate_documents leaves out what stands in many documents"
    ]


def test_a_long_line_that_stands_once_is_not_called_out() -> None:
    heavy = HeavyLines()
    heavy.add("x" * 100_000)
    assert heavy.share() == ("", 0.0)
    assert describe(heavy, kept=1, dropped={}) == []
    assert HeavyLines().share() == ("", 0.0)


def test_a_reason_that_drops_most_is_called_out() -> None:
    assert describe(HeavyLines(), kept=100, dropped={"too short": 900, "another script": 50}) == [
        "900 of 1,050 documents (86%) were dropped: too short"
    ]


@given(st.lists(st.lists(st.integers(0, 30), max_size=60), min_size=1, max_size=5))
def test_summaries_merge_within_their_bound(chunks: list[list[int]]) -> None:
    merged = HeavyLines(capacity=4)
    for chunk in chunks:
        one = HeavyLines(capacity=4)
        for number in chunk:
            one.add(f"line {number:02d}")
        merged.merge(one)
    numbers = [number for chunk in chunks for number in chunk]
    assert merged.total == 7 * len(numbers)
    assert len(merged.weights) <= 4
    line, share = merged.share()
    if line:
        true = numbers.count(int(line[5:])) / len(numbers)
        assert true - 1 / 5 <= share <= true
    most = max(map(numbers.count, numbers), default=0)
    if most > len(numbers) / 5 + 1:
        assert line
