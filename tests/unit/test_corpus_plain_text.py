from collections import Counter
from pathlib import Path

import pytest

from bertsmith.corpus.texts import unwrap
from corpus_case import documents_of, read, source_of, texts, write


def test_layouts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one .\ntwo .\n\n \nthree\nfour\n")
    sentences = read(path, layout="sentences")
    assert [document.sentences for document in sentences] == [("one .", "two ."), ("three", "four")]
    assert [document.text for document in read(path, layout="paragraphs")] == ["one .\ntwo .", "three\nfour"]
    assert [document.text for document in read(path, layout="paragraphs", unwrap=True)] == ["one . two .", "three four"]
    assert [document.text for document in read(path, layout="file")] == ["one .\ntwo .\n\n \nthree\nfour"]
    assert [document.text for document in read(path, layout="file", unwrap=True)] == ["one . two .\n\nthree four"]
    assert [document.id for document in sentences] == ["a.txt#1", "a.txt#5"]
    assert [document.id for document in read(path, layout="file")] == ["a.txt"]
    assert [document.source for document in sentences] == ["a.txt", "a.txt"]


def test_unwrap_joins_chinese_without_spaces() -> None:
    assert unwrap(["天黑了，", "他走了", "", "one", " two "]) == ["天黑了，他走了", "one two"]


def test_a_line_separator_of_unicode_is_no_end_of_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\u2028two\x85three\x0bfour\n\u2028\nfive\n")
    assert [document.sentences for document in read(path, layout="sentences")] == [
        ("one\u2028two\x85three\x0bfour",),
        ("five",),
    ]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_line_ends(tmp_path: Path, ends: str) -> None:
    path = write(tmp_path / "a.txt", ends.join(["\ufeffone", "", "two", "three"]))
    assert texts(path) == ["one", "two\nthree"]


@pytest.mark.parametrize("layout", ["sentences", "paragraphs", "file"])
def test_a_document_that_is_too_long_is_counted_not_cut(tmp_path: Path, layout: str) -> None:
    counts: Counter[str] = Counter()
    fits, long = "天" * 33 + "\nx", "天" * 33 + "\nxy"
    write(tmp_path / "a.txt", fits)
    write(tmp_path / "b.txt", long)
    assert texts(tmp_path, counts, layout=layout, max_document_bytes=101) == [fits]
    assert counts == {"document too long": 1}


def test_a_document_without_end_is_not_held_in_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one two three\n" * 100_000 + "\nfour\n")
    counts: Counter[str] = Counter()
    source = source_of(path, max_document_bytes=1000)
    assert [document.text for document in documents_of(source, counts, chunk_bytes=10_000)] == ["four"]
    assert counts == {"document too long": 1}


def test_a_line_that_is_left_out_is_counted_and_the_rest_stays(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"one\n\xff\ntwo\n" + b"x" * 50 + b"\nthree\n")
    counts: Counter[str] = Counter()
    assert texts(path, counts, on_error="skip", max_document_bytes=40) == ["one\ntwo\nthree"]
    assert counts == {"line that is not in its encoding": 1, "line too long": 1}
