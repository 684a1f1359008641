"""Labelled data is read alike from every kind of source."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertsmith.errors import DataError
from bertsmith.tasks.records import find_data_file
from bertsmith.tasks.rows import TaggedRow, TextRow
from bertsmith.tasks.tables import (
    check_labels,
    class_names,
    read_label_names,
    read_text_rows,
)
from bertsmith.tasks.tag_tables import read_tagged_rows

RECORDS = [{"text": 'a "quoted" text', "label": "yes"}, {"text": "文本，二", "label": "no"}]
ROWS = [('a "quoted" text', "yes"), ("文本，二", "no")]


def pairs(rows: list[TextRow]) -> list[tuple[str, str | None]]:
    return [(row.text, row.label) for row in rows]


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_every_source_gives_the_same_rows(tmp_path: Path) -> None:
    frame = pd.DataFrame(RECORDS)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_parquet(tmp_path / "rows.parquet")
    frame.to_json(tmp_path / "rows.jsonl", orient="records", lines=True, force_ascii=False)
    tsv = write(tmp_path / "rows.tsv", "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in ROWS))
    sources: list[object] = [
        frame,
        pa.Table.from_pandas(frame),
        RECORDS,
        ROWS,
        [list(row) for row in ROWS],
        tsv,
        str(tsv),
    ]
    sources += [tmp_path / f"rows.{kind}" for kind in ("csv", "parquet", "jsonl")]
    for source in sources:
        assert pairs(read_text_rows(source)) == ROWS


def test_lines_count_from_1_through_headers_blank_lines_and_quoted_line_breaks(tmp_path: Path) -> None:
    csv = write(tmp_path / "rows.csv", 'text,label\n"one\nstill one",a\n\ntwo,b\nthree,a')
    assert [(row.text, row.line) for row in read_text_rows(csv)] == [("one\nstill one", 2), ("two", 5), ("three", 6)]
    tsv = write(tmp_path / "rows.tsv", "one\ta\n\ntwo\tb\n")
    rows = read_text_rows(tsv, text_column=0, label_column=1, header=False)
    assert [(row.text, row.line) for row in rows] == [("one", 1), ("two", 3)]
    assert [row.line for row in read_text_rows(RECORDS)] == [1, 2]


def test_tsv_is_raw_and_lines_end_only_at_line_feeds(tmp_path: Path) -> None:
    text = '"a\u2028b\x85c\x0cd" said \'e'
    path = write(tmp_path / "rows.tsv", f"\ufefflabel\ttext\r\n1\t{text}\r\n0\tb\r\n")
    assert pairs(read_text_rows(path)) == [(text, "1"), ("b", "0")]


def test_columns_by_number_work_without_a_header_in_every_kind() -> None:
    frame = pd.DataFrame([["x", "yes", "a text"], ["x", "no", "b"]])
    expected = [("a text", "yes"), ("b", "no")]
    tuples = [("x", "yes", "a text"), ("x", "no", "b")]
    for source in (frame, pa.table({"u": ["x"] * 2, "v": ["yes", "no"], "w": ["a text", "b"]}), tuples):
        assert pairs(read_text_rows(source, text_column=2, label_column=1, header=False)) == expected


@pytest.mark.parametrize(
    ("value", "label"), [(3, "3"), (3.0, "3"), (True, "true"), (" x ", "x"), ("0", "0"), ("中文", "中文")]
)
def test_labels_are_text(value: object, label: str) -> None:
    assert read_text_rows([{"text": "t", "label": value}])[0].label == label


def test_labels_of_a_frame_with_a_hole_stay_whole_numbers() -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "label": [1, None]})
    assert [row.label for row in read_text_rows(frame, require_labels=False)] == ["1", None]


def test_label_names_turn_ids_into_names_in_the_files_order(tmp_path: Path) -> None:
    names = write(tmp_path / "class.txt", "sports\r\nfinance\n\n")
    assert read_label_names(names) == ("sports", "finance")
    rows = read_text_rows([("a", 1), ("b", "0")], label_names=names)
    assert [row.label for row in rows] == ["finance", "sports"]
    assert class_names(rows, declared=read_label_names(names)) == ("sports", "finance")


def test_without_required_labels_a_table_may_have_none(tmp_path: Path) -> None:
    path = write(tmp_path / "texts.tsv", "text\nabc\n \n")
    assert pairs(read_text_rows(path, require_labels=False)) == [("abc", None), (" ", None)]
    assert pairs(read_text_rows(["abc"], require_labels=False)) == [("abc", None)]
    assert read_tagged_rows([["a", "b"]], require_labels=False) == [TaggedRow(("a", "b"), None, 1)]
    plain = write(tmp_path / "words.conll", "a\nb\n\nc\n")
    assert [row.words for row in read_tagged_rows(plain, require_labels=False)] == [("a", "b"), ("c",)]


def test_conll_with_tabs_spaces_crlf_docstart_bom_and_spaces_on_blank_lines(tmp_path: Path) -> None:
    expected = [(("EU", "rejects"), ("B-ORG", "O")), (("Lamb", "中"), ("B-X", "I-X"))]
    spaces = "-DOCSTART- -X- O O\n\nEU NNP I-NP B-ORG\nrejects VBZ I-VP O\n\nLamb NNP I-NP B-X\n中 NNP I-NP I-X"
    tabs = "\ufeffEU\tB-ORG\r\nrejects\tO\r\n\t\r\n\r\nLamb\tB-X\r\n中\tI-X\r\n\r\n"
    for name, text in (("a.conll", spaces), ("b.txt", tabs)):
        rows = read_tagged_rows(write(tmp_path / name, text))
        assert [(row.words, row.labels) for row in rows] == expected
    assert [row.line for row in rows] == [1, 5]


def test_tagged_tables_give_the_same_rows(tmp_path: Path) -> None:
    records = [{"words": ["a", "b"], "labels": ["O", "X"]}, {"words": ["c"], "labels": ["X"]}]
    expected = [TaggedRow(("a", "b"), ("O", "X"), 1), TaggedRow(("c",), ("X",), 2)]
    frame = pd.DataFrame(records)
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "rows.parquet")
    frame.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    tuples = [(row["words"], row["labels"]) for row in records]
    for source in (
        frame,
        pa.Table.from_pylist(records),
        records,
        tuples,
        tmp_path / "rows.parquet",
        tmp_path / "rows.jsonl",
    ):
        assert read_tagged_rows(source) == expected


def test_tagged_ids_become_names(tmp_path: Path) -> None:
    names = write(tmp_path / "tags.txt", "O\nB-X\n")
    source = [{"tokens": ["a", "b"], "ner_tags": [1, 0]}]
    rows = read_tagged_rows(source, words_column="tokens", labels_column="ner_tags", label_names=names)
    assert rows[0].labels == ("B-X", "O")


def test_class_names_are_sorted_and_whole_numbers_by_value() -> None:
    rows = [TextRow("t", label, 1) for label in ("10", "9", "b", "a")]
    assert class_names(rows) == ("9", "10", "a", "b")
    assert class_names([TaggedRow(("a", "b"), ("O", "B-X"), 1)]) == ("B-X", "O")


def test_unknown_labels_are_named_with_their_line(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.conll", "a\tO\nb\tX\n\nc\tO\nd\tY\n")
    rows = read_tagged_rows(path)
    check_labels(rows, ("O", "X", "Y"))
    with pytest.raises(DataError, match=r"rows\.conll:5: unknown label 'Y'.*O, X"):
        check_labels(rows, ("O", "X"), where=path)


def test_files_are_looked_up_in_the_data_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data/cola").mkdir(parents=True)
    write(tmp_path / "data/cola/dev.tsv", "text\tlabel\na\t1\n")
    monkeypatch.setenv("BERTSMITH_DATA", str(tmp_path / "data"))
    assert find_data_file("cola/dev.tsv") == tmp_path / "data/cola/dev.tsv"
    assert len(read_text_rows("cola/dev.tsv")) == 1
    with pytest.raises(DataError, match="does not exist"):
        find_data_file(tmp_path / "cola/dev.tsv")


@pytest.mark.data
def test_public_files_are_read_whole(shared_data: Path) -> None:
    for name, count in (("in_domain_train", 8551), ("in_domain_dev", 527), ("out_of_domain_dev", 516)):
        path = shared_data / f"cola/{name}.tsv"
        rows = read_text_rows(path, text_column=3, label_column=1, header=False)
        assert len(rows) == count
        assert class_names(rows) == ("0", "1")
    names = shared_data / "thucnews/class.txt"
    path = shared_data / "thucnews/test.txt"
    rows = read_text_rows(path, text_column=0, label_column=1, header=False, label_names=names)
    assert len(rows) == 10_000
    assert set(class_names(rows)) == set(read_label_names(names))
    for name, count in (("train", 3394), ("dev", 1009), ("test", 1287)):
        tagged = read_tagged_rows(shared_data / f"wnut17/{name}.conll")
        assert len(tagged) == count
        assert all(len(row.words) == len(row.labels or ()) for row in tagged)
        assert len(class_names(tagged)) == 13


def test_all_wrong_rows_are_told_of_at_once(tmp_path: Path) -> None:
    """The first in full, the next nine by their lines, and how many more."""
    rows = "".join(f"text {line},{'' if line % 2 else 'x'}\n" for line in range(2, 40))
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + rows, encoding="utf-8")
    expected = (
        r"rows.csv:3: the label is missing; remove the row or fill it in "
        r"\(wrong rows besides: 5, 7, 9, 11, 13, 15, 17, 19, 21 and 9 more\)"
    )
    with pytest.raises(DataError, match=expected):
        read_text_rows(path)
    unknown = [TextRow("a", label, line) for line, label in enumerate("xyzxyy", start=1)]
    with pytest.raises(
        DataError,
        match=r"row 2: unknown label 'y'; the model knows: x, z; .* labels \(wrong rows besides: 5, 6\)",
    ):
        check_labels(unknown, ("x", "z"))
