"""Wrong tables: each gets one sentence with file and line, what was expected and what to do."""

from pathlib import Path

import pandas as pd
import pytest

from bertsmith.errors import DataError
from bertsmith.tasks.rows import TextRow
from bertsmith.tasks.tables import class_names, read_label_names, read_text_rows
from bertsmith.tasks.tag_tables import read_tagged_rows

BAD_TABLES = {
    "empty file": ("a.tsv", b"", r"a\.tsv: the file is empty; expected"),
    "only white space": ("a.csv", b"\n \n", r"a\.csv: the file is empty; expected"),
    "only a header": ("a.tsv", b"text\tlabel\n", r"a\.tsv: only a header and no rows \(header = false, or --no-header"),
    "latin-1": ("a.tsv", "text\tlabel\nok\t1\ncafé au lait\t0\n".encode("latin-1"), r"a\.tsv:3: byte 0xe9 .*LATIN1"),
    "gb18030": ("a.jsonl", '{"text": "中文", "label": "体育"}\n'.encode("gb18030"), r"a\.jsonl:1: byte .*GB18030"),
    "utf-16": ("a.csv", "text,label\na,b\n".encode("utf-16"), r"a\.csv:1: byte 0xff .*UTF-16"),
    "missing column": ("a.tsv", b"texts\tlabel\na\tb\n", r"a\.tsv:1: no column 'text' \(did you mean 'texts'\?\)"),
    "column twice": ("a.csv", b"text,text,label\na,a,b\n", r"a\.csv:1: the header names column 'text' twice"),
    "short row": ("a.tsv", b"text\tlabel\na\tb\nc\n", r"a\.tsv:3: 1 tab-separated fields, but line 1 has 2"),
    "long row": ("a.csv", b"text,label\na,b\nc,d,e\n", r"a\.csv:3: 3 comma-separated fields, but line 1 has 2"),
    "open quote": ("a.csv", b'text,label\n"a,b\nc,d\n', r"a\.csv:2: not valid CSV: .*quotes"),
    "bad JSON": ("a.jsonl", b'{"text": "a", "label": 1}\n{"text": "a"\n', r"a\.jsonl:2: not valid JSON: .*one object"),
    "not an object": ("a.jsonl", b'["a", 1]\n', r"a\.jsonl:1: expected a JSON object, found list"),
    "missing field": ("a.jsonl", b'{"text": "a", "lable": 1}\n', r"a\.jsonl:1: no field 'label' \(did you mean 'lable"),
    "missing label": ("a.tsv", b"text\tlabel\na\tx\nb\t\n", r"a\.tsv:3: the label is missing"),
    "null label": ("a.jsonl", b'{"text": "a", "label": null}\n', r"a\.jsonl:1: the label is missing"),
    "NaN label": ("a.jsonl", b'{"text": "a", "label": NaN}\n', r"a\.jsonl:1: the label is missing"),
    "measure as label": ("a.jsonl", b'{"text": "a", "label": 0.5}\n', r"a\.jsonl:1: label 0\.5 is a measure"),
    "list as label": ("a.jsonl", b'{"text": "a", "label": ["x"]}\n', r"a\.jsonl:1: the label is list"),
    "empty text": ("a.tsv", b"text\tlabel\n \tx\n", r"a\.tsv:2: the text in column 'text' is empty"),
    "number as text": ("a.jsonl", b'{"text": 3, "label": "x"}\n', r"a\.jsonl:1: the text in column 'text' is int '3'"),
    "header twice": (
        "a.csv",
        b"text,label\na,x\ntext,label\nb,y\n",
        r"a\.csv:3: the header of line 1 again; remove it",
    ),
    "several short rows": ("a.tsv", b"text\tlabel\na\nb\tx\nc\nd\te\tf\n", r"a\.tsv:2: 1 .*besides: 4, 5\)"),
    "several bad lines": ("a.jsonl", b'{"text"\n{}\n3\n', r"a\.jsonl:1: not valid JSON.*\(wrong rows besides: 3\)"),
    "several missing fields": (
        "a.jsonl",
        b'{"text": "a"}\n{"text": "b", "label": 1}\n{"text": "c"}\n',
        r"a\.jsonl:1: no field 'label'; fields: text \(wrong rows besides: 3\)",
    ),
    "torn gzip": ("a.tsv.gz", b"\x1f\x8b\x08torn", r"a\.tsv\.gz: cannot be read: "),
    "unknown kind": ("a.xlsx", b"PK", r"a\.xlsx: unknown kind of file '\.xlsx'; use one of: \.tsv"),
    "not Parquet": ("a.parquet", b"PAR0", r"a\.parquet: not a readable Parquet file"),
}

BAD_CONLL = {
    "empty file": (b"", r"a\.conll: the file is empty"),
    "no sentences": (b"-DOCSTART- -X- O O\n\n", r"a\.conll: no sentences"),
    "no labels": (b"word\nword\n", r"a\.conll:1: one column; expected a word, a tab or space, and its label"),
    "other width": (b"a\tO\nb\tX\tO\n", r"a\.conll:2: 3 columns, but line 1 has 2"),
    "no word": (b"a\tO\n\tO\n", r"a\.conll:2: the word is empty"),
    "empty label": (b"a\tO\nb\t\n", r"a\.conll:2: the label is missing"),
    "several": (b"a\tO\nb\n\nc\tX\tY\nd\tO\n\te\n", r"a\.conll:2: 1 columns.*\(wrong rows besides: 4, 6\)"),
    "not UTF-8": (b"a\tO\n\n\xff\tO\n", r"a\.conll:3: byte 0xff is not UTF-8"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_table(case: str, tmp_path: Path) -> None:
    name, content, message = BAD_TABLES[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_text_rows(tmp_path / name)


@pytest.mark.parametrize("case", BAD_CONLL)
def test_bad_conll(case: str, tmp_path: Path) -> None:
    content, message = BAD_CONLL[case]
    (tmp_path / "a.conll").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_tagged_rows(tmp_path / "a.conll")


def test_missing_file_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTSMITH_DATA", str(tmp_path))
    with pytest.raises(DataError, match=rf"file no/rows\.tsv does not exist \(looked at no/rows\.tsv, {tmp_path}/no/"):
        read_text_rows("no/rows.tsv")
    with pytest.raises(DataError, match="is a folder; give a file"):
        read_text_rows(tmp_path)


def test_names_without_a_header_and_numbers_out_of_range(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("a\tx\nb\ty\n")
    with pytest.raises(DataError, match=r"column 'text' is a name, but without a header columns are numbers from 0"):
        read_text_rows(path, header=False)
    with pytest.raises(DataError, match=r"a\.tsv:1: no column 3 in a row of 2; columns are counted from 0"):
        read_text_rows(path, header=False, text_column=3, label_column=1)


def test_one_class_only(tmp_path: Path) -> None:
    rows = [TextRow("a", "x", 1), TextRow("b", "x", 2)]
    with pytest.raises(
        DataError, match=r"rows\.tsv: 2 rows with only the label 'x'; a model needs at least two classes"
    ):
        class_names(rows, where="rows.tsv")
    with pytest.raises(DataError, match="at least two classes"):
        class_names(rows, declared=("x", "y"))


def test_measures_in_a_text_file_are_no_classes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,3\nb,3.5\nc,4\nd,1.25\n")
    rows = read_text_rows(path)
    message = r"a\.csv:3: label 3\.5 is a measure, not a class; use task = \"regress\".*\(wrong rows besides: 5\)"
    with pytest.raises(DataError, match=message):
        class_names(rows, where=path)
    assert class_names(rows, declared=("1.25", "3", "3.5", "4")) == ("1.25", "3", "3.5", "4")
    whole = [TextRow("a", "1.0", 1), TextRow("b", "2.0", 2)]
    assert class_names(whole) == ("1.0", "2.0")


def test_label_that_was_not_declared() -> None:
    rows = [TextRow("a", "x", 4), TextRow("b", "z", 9)]
    with pytest.raises(DataError, match=r"rows\.tsv:9: unknown label 'z'; the model knows: x, y"):
        class_names(rows, declared=("x", "y"), where="rows.tsv")


@pytest.mark.parametrize("label", ["2", "-1", "one"])
def test_label_id_outside_the_names(label: str, tmp_path: Path) -> None:
    (tmp_path / "class.txt").write_text("x\ny\n")
    (tmp_path / "a.tsv").write_text(f"text\tlabel\na\t0\nb\t{label}\n")
    with pytest.raises(DataError, match=rf"a\.tsv:3: unknown label '{label}'; expected a number from 0 to 1"):
        read_text_rows(tmp_path / "a.tsv", label_names=tmp_path / "class.txt")


@pytest.mark.parametrize(
    ("content", "message"), [("x\nx\n", r":2: name 'x' appears twice"), ("x\n\ny", r":2: an empty")]
)
def test_bad_label_names(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "class.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        read_label_names(tmp_path / "class.txt")


def test_bad_tables_in_memory() -> None:
    for source, message in (
        ([], "list of rows is empty"),
        (pd.DataFrame({"text": [], "label": []}), "no rows"),
        (pd.DataFrame({"text": ["a"], "lab": [1]}), "no column 'label'"),
        (pd.DataFrame({"text": ["a", "b"], "label": ["x", None]}), "row 2: the label is missing"),
        (pd.DataFrame({"text": ["a", "b"], "label": ["x", 1]}), "column 'label' mixes kinds of values"),
        ([("a",)], "row 1: no field 'label'"),
        ([3], "row 1: int is not a row"),
        ({"text": ["a"]}, "cannot read rows from dict"),
    ):
        with pytest.raises(DataError, match=message):
            read_text_rows(source)
    for source, message in (
        ([(["a", "b"], ["O"])], "row 1: 2 words but 1 labels"),
        ([{"words": "a b", "labels": ["O"]}], "row 1: column 'words' is str 'a b'; expected a list of words"),
        ([{"words": ["a"], "labels": "O"}], "row 1: column 'labels' is str 'O'; expected a list of labels"),
        ([{"words": [], "labels": []}], "row 1: column 'words' is list"),
    ):
        with pytest.raises(DataError, match=message):
            read_tagged_rows(source)
