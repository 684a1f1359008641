import csv
import io
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.corpus.sources import plan_chunks
from bertsmith.errors import DataError
from corpus_case import documents_of, read, source_of, texts, write


def test_csv_quotes_line_ends_and_a_mark(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", '\ufeffid,text\r\n1,"one, ""two""\r\nthree"\r\n\r\n2,four\r\n')
    found = read(path, kind="csv")
    assert [(document.id, document.text) for document in found] == [
        ("a.csv#3", 'one, "two"\nthree'),
        ("a.csv#5", "four"),
    ]
    assert texts(path, kind="csv", unwrap=True)[0] == 'one, "two" three'


@pytest.mark.parametrize(
    ("name", "content", "settings"),
    [
        ("a.tsv", "id\ttext\n1\tone, two\n", {}),
        ("a.csv", "id;text\n1;one, two\n", {"delimiter": ";"}),
        ("a.tsv", "1\tone, two\n", {"header": False, "text_field": "1"}),
        ("a.csv", 'id, text \n1,"one, two"\n', {}),
        ("a.csv", 'id,text\n1,"one, two"', {}),
    ],
)
def test_csv_layouts(tmp_path: Path, name: str, content: str, settings: dict[str, object]) -> None:
    assert texts(write(tmp_path / name, content), kind="csv", **settings) == ["one, two"]


CELLS = st.text(st.sampled_from("ab天😀\"',\t\n "), max_size=8)


@given(rows=st.lists(st.tuples(CELLS, CELLS), max_size=6), delimiter=st.sampled_from([",", "\t", ";"]))
def test_csv_gives_back_what_python_wrote(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str
) -> None:
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter=delimiter)
    writer.writerows([("id", "text"), *rows])
    path = write(tmp_path_factory.getbasetemp() / "a.csv", written.getvalue())
    assert texts(path, kind="csv", delimiter=delimiter) == [text for _, text in rows]


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (
            "id,body\n1,x\n",
            {},
            r"a\.csv:1: cannot be read as CSV: no column 'text' \(columns: id, body\); set text_field",
        ),
        ("id,text\n1,x\n2\n", {}, r"a\.csv:3: .*the row has 1 columns, none for 'text'"),
        ('id,text\n1,"x\n2,y\n', {}, r"a\.csv:3: cannot be read as CSV: unexpected end of data"),
        ('id,text\n1,"x"y\n', {}, r"a\.csv:2: cannot be read as CSV: ',' expected after '\"'"),
        ("1,x\n", {"header": False}, r"text_field 'text' must be a column's number from 0, since header = false"),
        ("id,text\n1,x\n2,\xe9\n".encode("latin-1"), {}, r"a\.csv:3: not UTF-8 \(byte 0xe9\) at byte offset 14;"),
        (
            'id,text\n1,"' + "x\n" * 600 + '"',
            {"max_document_bytes": 1000},
            r"a\.csv:\d+: .* field larger than field limit",
        ),
    ],
)
def test_csv_that_cannot_be_used(
    tmp_path: Path, content: str | bytes, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / "a.csv", content), kind="csv", **settings)


def test_csv_rows_that_are_left_out_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"id,text\n1,x\n2\n3,\xff\n4," + b"x" * 99 + b"\n5,y\n")
    counts: Counter[str] = Counter()
    assert texts(path, counts, kind="csv", on_error="skip", max_document_bytes=50) == ["x", "y"]
    assert counts == {
        "record that cannot be used": 1,
        "line that is not in its encoding": 1,
        "line too long": 1,
    }


def test_csv_with_a_header_alone(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.csv", "id,text\n"), kind="csv") == []


def write_parquet(path: Path, columns: dict[str, object], *, row_group_size: int = 1000) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_columns_of_text(tmp_path: Path, kind: pa.DataType) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": pa.array(["one", None, "天"]).cast(kind), "n": [1, 2, 3]})
    counts: Counter[str] = Counter()
    found = read(path, counts, kind="parquet")
    assert [(document.id, document.text) for document in found] == [("a.parquet#1", "one"), ("a.parquet#3", "天")]
    assert counts == {"record without text": 1}


@given(st.lists(st.text(max_size=20), max_size=30), st.integers(1, 9), st.integers(1, 400))
def test_parquet_in_parts_is_parquet_as_a_whole(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], row_group_size: int, chunk_bytes: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "a.parquet"
    write_parquet(path, {"text": pa.array(rows, pa.string())}, row_group_size=row_group_size)
    source = source_of(path, kind="parquet")
    found = list(documents_of(source, chunk_bytes=chunk_bytes))
    assert [document.text for document in found] == rows
    assert len({document.id for document in found}) == len(rows)


def test_parquet_is_cut_between_row_groups(tmp_path: Path) -> None:
    rows = [os.urandom(500).hex() for _ in range(100)]
    path = write_parquet(tmp_path / "a.parquet", {"text": rows}, row_group_size=10)
    chunks = plan_chunks(source_of(path, kind="parquet"), chunk_bytes=25_000)
    assert [(chunk.parts[0].start, chunk.parts[0].end) for chunk in chunks] == [
        (0, 2),
        (2, 4),
        (4, 6),
        (6, 8),
        (8, None),
    ]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": [1, 2]}, r"column 'text' holds int64, not text; set text_field"),
        ({"text": [b"a", b"b"]}, r"column 'text' holds binary, not text"),
        ({"text": [["a"], ["b"]]}, r"column 'text' holds list<.*>, not text"),
        ({"body": ["a"], "id": [1]}, r"no column 'text' \(columns: body, id\); set text_field"),
    ],
)
def test_parquet_columns_of_the_wrong_kind(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=rf"a\.parquet: {message}"):
        read(write_parquet(tmp_path / "a.parquet", columns), kind="parquet")


@pytest.mark.parametrize("left", [0.0001, 0.5, 0.99])
def test_torn_parquet(tmp_path: Path, left: float) -> None:
    whole = write_parquet(tmp_path / "a.parquet", {"text": [os.urandom(50).hex() for _ in range(1000)]}).read_bytes()
    path = write(tmp_path / "a.parquet", whole[: int(len(whole) * left) or 1])
    with pytest.raises(DataError, match=r"a\.parquet: is no Parquet file, or a torn one"):
        read(path, kind="parquet")


def test_parquet_with_damaged_pages(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": [os.urandom(50).hex() for _ in range(3000)]})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = b"\xff" * 2000
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read at row [\d,]+ of row group \d or after it"):
        read(path, kind="parquet")


def test_parquet_text_that_is_no_utf_8(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(pa.string(), 2, pa.array([b"fine", b"\xff"]).buffers())
    path = write_parquet(tmp_path / "a.parquet", {"text": bad})
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read at row 1 of row group 0 or after it: .*utf-8"):
        read(path, kind="parquet")


def test_parquet_rows_that_are_too_long_are_counted(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": ["x" * 100, "y" * 101, "天" * 34]})
    counts: Counter[str] = Counter()
    assert texts(path, counts, kind="parquet", max_document_bytes=100) == ["x" * 100]
    assert counts == {"document too long": 2}
