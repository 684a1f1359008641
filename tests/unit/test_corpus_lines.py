import io
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertsmith.corpus import lines as lines_module
from bertsmith.corpus.files import FilePart, find_files
from bertsmith.corpus.lines import LineReader
from bertsmith.errors import DataError, UsageError
from corpus_case import write

PIECES = st.sampled_from(["a", "bc", "é", "天", "😀", " ", "\r", "\n", "\n", "\u2028", "\x0b", "\x85", "\ufeff"])
"""Of these only the line feed ends a line."""
CONTENTS = st.lists(PIECES, max_size=40).map("".join)


def lines_of(path: Path, counts: Counter[str] | None = None, **settings: object) -> list[str]:
    part = FilePart(find_files([str(path)])[0])
    reader = LineReader(**settings)  # type: ignore[arg-type]
    return [line for _, line in reader.lines(part, Counter() if counts is None else counts)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lines") / "a.txt"


@settings(max_examples=200)
@given(content=CONTENTS, block_bytes=st.integers(1, 12), encoding=st.sampled_from(["utf-8", "utf-16", "utf-32-be"]))
def test_lines_are_those_of_python_whatever_the_blocks(
    file: Path, content: str, block_bytes: int, encoding: str
) -> None:
    write(file, content.encode(encoding))
    expected = [line.rstrip("\r\n") for line in io.StringIO(content, newline="\n")]
    expected[:1] = [line.removeprefix("\ufeff") for line in expected[:1]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "_BLOCK_BYTES", block_bytes)
        counts: Counter[str] = Counter()
        assert lines_of(file, counts, encoding=encoding) == expected
    assert counts == ({} if content else {"empty file": 1})


@settings(max_examples=200)
@given(content=CONTENTS, borders=st.sets(st.integers(1, 60), max_size=4), max_bytes=st.integers(1, 60))
def test_ranges_part_the_lines_between_them(file: Path, content: str, borders: set[int], max_bytes: int) -> None:
    data = write(file, content).read_bytes()
    whole = FilePart(find_files([str(file)])[0])
    reader = LineReader(max_bytes=max_bytes)
    expected = [line.decode().removeprefix("\ufeff" if not n else "") for n, line in enumerate(data.split(b"\n"))]
    lengths = [len(line) for line in data.split(b"\n")]
    if not lengths[-1]:
        expected.pop(), lengths.pop()
    found: list[str] = []
    counts: Counter[str] = Counter()
    cuts = sorted(border for border in borders if border < len(data))
    for start, end in zip([0, *cuts], [*cuts, None], strict=True):
        part_counts: Counter[str] = Counter()
        for number, line in reader.lines(FilePart(whole.file, start, end), part_counts):
            if number < 0:
                break
            found.append(line)
    assert found == [line.rstrip("\r") for line, length in zip(expected, lengths, strict=True) if length <= max_bytes]
    list(reader.lines(whole, counts))
    assert counts["line too long"] == sum(length > max_bytes for length in lengths)


def test_a_bad_byte_is_refused_with_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"fine\n" * 300_000 + "caf\u00e9 ".encode() + b"\xe9!\nfine\n")
    with pytest.raises(DataError) as caught:
        lines_of(path)
    assert str(caught.value) == (
        f"{path}:300001: not UTF-8 (byte 0xe9) at byte offset 1,500,006; set encoding, or on_error = 'skip' or "
        "'replace', or convert it: iconv -f LATIN1 -t UTF-8"
    )


def test_a_bad_byte_in_a_later_range_has_the_same_place(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"fine\n" * 100 + b"\xe9!\n")
    file = find_files([str(path)])[0]
    with pytest.raises(DataError, match=r"a\.txt:101: .* at byte offset 500;"):
        list(LineReader().lines(FilePart(file, 203, None), Counter()))


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16", "utf-16-be", "hz", "shift_jis", "cp037"])
@pytest.mark.parametrize("on_error", ["strict", "skip", "replace"])
def test_encodings(tmp_path: Path, encoding: str, on_error: str) -> None:
    content = "one\ntwo , three\n\nfour"
    content += {"gb18030": "天黑\n㐀😀", "hz": "天黑\n他", "shift_jis": "天黒\nソ表"}.get(encoding, "")
    counts: Counter[str] = Counter()
    path = write(tmp_path / "a.txt", content.encode(encoding))
    assert lines_of(path, counts, encoding=encoding, on_error=on_error) == content.split("\n")
    assert not counts


def test_gb18030_in_ranges_and_with_a_torn_character(tmp_path: Path) -> None:
    content = "天黑了\n他走了\n".encode("gb18030")
    path = write(tmp_path / "a.txt", content + b"\x81\n" + content)
    counts: Counter[str] = Counter()
    found = lines_of(path, counts, encoding="gb18030", on_error="skip")
    assert found == ["天黑了", "他走了", "天黑了", "他走了"]
    assert counts == {"line that is not in its encoding": 1}
    with pytest.raises(DataError, match=r"a\.txt:3: not GB18030 \(byte 0x81\) at byte offset 14;"):
        lines_of(path, encoding="gb18030")


@pytest.mark.parametrize(
    ("encoding", "bad"),
    [("utf-8", b"b\xff\xffc"), ("utf-16-le", b"b\0\0\xd8\0\xd8c\0"), ("utf-16-be", b"\0b\xdc\0\xdc\0\0c")],
)
def test_skip_and_replace_are_counted(tmp_path: Path, encoding: str, bad: bytes) -> None:
    path = write(tmp_path / "a.txt", "a\n".encode(encoding) + bad + "\nd\n".encode(encoding))
    counts: Counter[str] = Counter()
    assert lines_of(path, counts, encoding=encoding, on_error="skip") == ["a", "d"]
    assert counts == {"line that is not in its encoding": 1}
    counts = Counter()
    assert lines_of(path, counts, encoding=encoding, on_error="replace") == ["a", "b\ufffd\ufffdc", "d"]
    assert counts == {"line with replaced bytes": 1}
    place = {"utf-8": r"byte 0xff\) at byte offset 3;", "utf-16-le": r"at byte offset 6;"}.get(encoding, "offset 6;")
    with pytest.raises(DataError, match=rf"a\.txt:2: not {encoding.upper()} \(.*{place}"):
        lines_of(path, encoding=encoding)


def test_a_nul_is_no_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"one\ntwo\0three\nfour\n")
    with pytest.raises(DataError, match=r"a\.txt:2: not UTF-8 \(byte 0x00\) at byte offset 7; if it is UTF-16 set"):
        lines_of(path)
    counts: Counter[str] = Counter()
    assert lines_of(path, counts, on_error="skip") == ["one", "four"]
    assert counts == {"line that is not in its encoding": 1}
    assert lines_of(path, on_error="replace") == ["one", "two\ufffdthree", "four"]
    wide = write(tmp_path / "b.txt", "one\ntwo\0three\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"b\.txt:2: a NUL, which no text holds"):
        lines_of(wide, encoding="utf-16")
    assert lines_of(wide, encoding="utf-16", on_error="replace") == ["one", "two\ufffdthree"]


@pytest.mark.parametrize(("encoding", "named"), [("utf-16", "utf-16"), ("utf-32", "utf-32")])
def test_a_file_with_a_mark_says_which_encoding_it_is_in(tmp_path: Path, encoding: str, named: str) -> None:
    path = write(tmp_path / "a.txt", "one\n天\n".encode(encoding))
    with pytest.raises(DataError, match=rf"it begins with the mark of {named}: set encoding = '{named}'"):
        lines_of(path)
    assert lines_of(path, encoding=named) == ["one", "天"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "UTF8"])
def test_the_mark_of_utf_8_is_left_off_at_the_start_alone(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.txt", "\ufeffone\n\ufefftwo\n")
    assert lines_of(path, encoding=encoding) == ["one", "\ufefftwo"]


def test_utf_16_cut_in_the_middle_of_a_character(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\ntwo".encode("utf-16")[:-1])
    with pytest.raises(DataError, match=r"a\.txt:2: not UTF-16 \(byte 0x6f\) at byte offset 14;"):
        lines_of(path, encoding="utf-16")


@pytest.mark.parametrize("encoding", ["utf-9", "base64", "rot13"])
def test_an_unknown_encoding(encoding: str) -> None:
    with pytest.raises(UsageError, match=f"encoding '{encoding}' is unknown; use 'utf-8', 'gb18030'"):
        LineReader(encoding)


@pytest.mark.parametrize(
    ("encoding", "is_wide"), [("utf-8", False), ("gb18030", False), ("latin-1", False), ("UTF16", True), ("hz", True)]
)
def test_which_encodings_can_be_cut_between_lines(encoding: str, is_wide: bool) -> None:
    assert LineReader(encoding).is_wide is is_wide


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_line_that_is_too_long_is_left_out_and_counted(tmp_path: Path, encoding: str) -> None:
    lengths = (99, 100, 101, 3_000_000, 5, 102)
    path = write(tmp_path / "a.txt", "\n".join("x" * length for length in lengths).encode(encoding))
    counts: Counter[str] = Counter()
    found = lines_of(path, counts, encoding=encoding, max_bytes=100)
    assert [len(line) for line in found] == [99, 100, 5]
    assert counts == {"line too long": 3}
