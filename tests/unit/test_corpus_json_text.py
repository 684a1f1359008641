import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.corpus.json_text import texts_at
from bertsmith.errors import DataError
from corpus_case import documents_of, read, source_of, texts, write

LONE = '{"text": "a\\ud83d b"}'
"""Half of a smiley, as programs write it that cut strings between two code units."""


def test_json_lines_with_a_dotted_field(tmp_path: Path) -> None:
    rows = [{"a": {"text": "one\u2028two"}}, {"a": {"text": "three\nfour"}}]
    path = write(
        tmp_path / "a.jsonl", "\ufeff" + "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n"
    )
    found = read(path, kind="jsonl", text_field="a.text")
    assert [(document.id, document.text) for document in found] == [
        ("a.jsonl#1", "one\u2028two"),
        ("a.jsonl#2", "three\nfour"),
    ]
    assert read(path, kind="jsonl", text_field="a.text", unwrap=True)[1].text == "three four"


@pytest.mark.parametrize(
    ("value", "field", "found"),
    [
        ({"a": "x"}, "a", ["x"]),
        ({"a": {"b": {"c": "x"}}}, "a.b.c", ["x"]),
        ({"a": ["x", "y"]}, "a", ["x", "y"]),
        ({"a": [{"b": "x"}, {"b": ["y", "z"]}]}, "a.b", ["x", "y", "z"]),
        ({"a": []}, "a", []),
        ({"a": None}, "a", [None]),
    ],
)
def test_field_paths(value: Any, field: str, found: list[str]) -> None:
    assert list(texts_at(value, field)) == found


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"b": "x", "c": "y"}, r"no field 'a\.text' \(fields here: b, c\); set text_field"),
        ({"a": "x"}, r"no field 'text' \(fields here: none, it is str\)"),
        (["x"], r"no field 'a\.text' \(fields here: none, it is list\)"),
        ({"a": [{"text": "x"}, {}]}, r"no field 'text' \(fields here: \)"),
    ],
)
def test_field_paths_that_lead_nowhere(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(texts_at(value, "a.text"))


def test_several_texts_of_an_object_have_ids_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": ["one", "two"]}\n{"text": []}\n{"text": ["three"]}\n')
    found = read(path, kind="jsonl")
    assert [(document.id, document.text) for document in found] == [
        ("a.jsonl#1", "one"),
        ("a.jsonl#1.2", "two"),
        ("a.jsonl#3", "three"),
    ]


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_nulls_are_counted(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "a", '{"text": null}\n' if kind == "jsonl" else '[{"text": null}]')
    counts: Counter[str] = Counter()
    assert read(path, counts, kind=kind) == []
    assert counts == {"record without text": 1}


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_half_of_a_surrogate_pair(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "a", LONE if kind == "jsonl" else f"[{LONE}]")
    with pytest.raises(DataError, match=r"field 'text' holds half of a surrogate pair, no character; set on_error"):
        read(path, kind=kind)
    counts: Counter[str] = Counter()
    assert texts(path, counts, kind=kind, on_error="skip") == []
    assert texts(path, counts, kind=kind, on_error="replace") == ["a\ufffd b"]
    assert counts == {"record with what is no character": 1, "record with replaced characters": 1}


def test_json_whole_pairs_of_surrogates_are_one_character(tmp_path: Path) -> None:
    assert texts(write(tmp_path / "a.jsonl", '{"text": "\\ud83d\\ude00"}'), kind="jsonl") == ["😀"]


@pytest.mark.parametrize("wrong", ['["text"]', '"text"', "{", '{"text": 3}', '{"title": "x"}', "NaNs", "[" * 100_000])
def test_lines_that_cannot_be_used(tmp_path: Path, wrong: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "x"}\n\n' + wrong + '\n{"text": "y"}\n')
    for on_error in ("strict", "replace"):
        with pytest.raises(
            DataError, match=r"a\.jsonl:3: (not a JSON object a line|no field 'text'|field 'text' holds int)"
        ):
            read(path, kind="jsonl", on_error=on_error)
    counts: Counter[str] = Counter()
    assert texts(path, counts, kind="jsonl", on_error="skip") == ["x", "y"]
    assert counts == {"record that cannot be used": 1}


def test_the_line_is_named_in_a_later_range_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "x"}\n' * 99 + "{\n")
    with pytest.raises(DataError, match=r"a\.jsonl:100: not a JSON object a line"):
        list(documents_of(source_of(path, kind="jsonl"), chunk_bytes=50))


VALUES = st.lists(st.fixed_dictionaries({"text": st.text(st.sampled_from('ab天😀"\\[]{},\n'), max_size=8)}), max_size=8)


@given(values=VALUES, indent=st.sampled_from([None, 1]), ascii=st.booleans(), block_bytes=st.integers(1, 9))
def test_arrays_are_read_element_by_element(
    tmp_path_factory: pytest.TempPathFactory, values: Any, indent: int | None, ascii: bool, block_bytes: int
) -> None:
    path = write(tmp_path_factory.getbasetemp() / "a.json", json.dumps(values, indent=indent, ensure_ascii=ascii))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bertsmith.corpus.lines._BLOCK_BYTES", block_bytes)
        found = read(path, kind="json")
    assert [document.text for document in found] == [value["text"] for value in values]
    assert [document.id for document in found] == [f"a.json#{n}" for n in range(1, len(values) + 1)]


def test_one_object_that_holds_them_all(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '\ufeff {"data": [{"paragraphs": [{"context": "one"}, {"context": "two"}]}]}')
    assert texts(path, kind="json", text_field="data.paragraphs.context") == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "x"}, {"text": ', r"element 2: not JSON, or torn"),
        ('[{"text": "x"}', r"element 1: not JSON, or torn \(the array has no end\)"),
        ('[{"text": "x"} oops]', r"element 2: not JSON, or torn \(Expecting value"),
        ('[{"text": "x"}] [{"text": "y"}]', r"element 2: the array ends and more follows"),
        ('{"text": "x"}\n{"text": "y"}\n', r"element 1: not JSON, or torn \(Extra data.*use kind = 'jsonl'"),
        ('{"text": ', r"element 1: not JSON, or torn"),
        ("no JSON at all", r"element 1: not JSON, or torn"),
        ('[{"text": "x"}, 7]', r"element 2: no field 'text' \(fields here: none, it is int\)"),
        ("[" * 100_000, r"element 1: "),
        ('[{"text": "' + "x" * 2000 + '"}, {"text": "y"}]', None),
        ('{"text": "' + "x" * 2000 + '"}', r"element 1: one object of more than max_document_bytes = 1,000"),
    ],
)
def test_json_that_cannot_be_used(tmp_path: Path, content: str, message: str | None) -> None:
    path = write(tmp_path / "a.json", content)
    counts: Counter[str] = Counter()
    if message is None:
        assert texts(path, counts, kind="json", max_document_bytes=1000) == ["y"]
        assert counts == {"document too long": 1}
        return
    with pytest.raises(DataError, match=rf"a\.json: {message}"):
        read(path, kind="json", max_document_bytes=1000)


def test_elements_that_cannot_be_used_may_be_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[{"text": "x"}, 7, {"title": "z"}, {"text": "y"}]')
    counts: Counter[str] = Counter()
    assert texts(path, counts, kind="json", on_error="skip") == ["x", "y"]
    assert counts == {"record that cannot be used": 2}


def test_json_in_another_encoding(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[{"text": "天黑"},\n {"text": "他"}]'.encode("gb18030"))
    assert texts(path, kind="json", encoding="gb18030") == ["天黑", "他"]
    with pytest.raises(DataError, match=r"a\.json:1: not UTF-8 \(byte 0xcc\) at byte offset 11;"):
        read(path, kind="json")
    bad = write(tmp_path / "b.json", b'[{"text": "x"},\n {"text": "y\xff"}, {"text": "z"}]')
    counts: Counter[str] = Counter()
    assert texts(bad, counts, kind="json", on_error="skip") == ["x", "z"]
    assert texts(bad, counts, kind="json", on_error="replace") == ["x", "y\ufffd", "z"]
    assert counts == {"record with what is no character": 1, "record with replaced characters": 1}
    with pytest.raises(DataError, match=r"b\.json:2: not UTF-8 \(byte 0xff\) at byte offset 28;"):
        read(bad, kind="json")
