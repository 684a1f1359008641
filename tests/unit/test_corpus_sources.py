import gzip
import json
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertsmith.config import Source
from bertsmith.corpus.python_docs import package_versions, read_python_docs
from bertsmith.corpus.sources import plan_chunks, source_inputs
from bertsmith.errors import DataError
from corpus_case import documents_of, read, source_of, write


def test_byte_order_mark_line_ends_and_gzip(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\n\r\ntwo\r\nthree")
    assert [document.text for document in read(path)] == ["one", "two\nthree"]
    packed = write(tmp_path / "a.txt.gz", gzip.compress(b"one\n\ntwo\n"))
    assert [document.text for document in read(packed)] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "settings", "message"),
    [
        ("a.txt", b"fine\n\xff\xfe bad\n", {}, r"a\.txt:2: not UTF-8 \(byte 0xff\)"),
        ("a.txt", "utf-16".encode("utf-16"), {}, r"a\.txt:1: not UTF-8"),
        ("a.txt", b"", {}, r"a\.txt: the file is empty"),
        ("a.txt.gz", b"not gzip", {}, r"a\.txt\.gz:1: cannot be read"),
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', {"kind": "jsonl"}, r"a\.jsonl:2: not a JSON object"),
        ("a.jsonl", b'{"title": "x"}\n', {"kind": "jsonl"}, r"a\.jsonl:1: no field 'text' \(fields here: title\)"),
        ("a.jsonl", b'["text"]\n', {"kind": "jsonl"}, r"a\.jsonl:1: no field 'text'"),
        ("a.jsonl", b'{"text": 3}\n', {"kind": "jsonl"}, r"a\.jsonl:1: field 'text' holds int, not text"),
    ],
)
def test_unreadable_files_name_file_and_line(
    tmp_path: Path, name: str, content: bytes, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / name, content), **settings)


def test_truncated_gzip(tmp_path: Path) -> None:
    whole = gzip.compress("\n".join(map(str, range(50_000))).encode())
    with pytest.raises(DataError, match=r"a\.gz:\d+: cannot be read"):
        read(write(tmp_path / "a.gz", whole[: len(whole) // 2]))


def test_paths_are_looked_up_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.txt", "text")
    monkeypatch.setenv("BERTSMITH_DATA", str(tmp_path))
    source = Source(kind="text", paths=("a.txt",))
    assert [document.id for document in documents_of(source)] == ["a.txt#1"]
    assert list(source_inputs(source)) == ["a.txt"]


def test_a_source_without_paths() -> None:
    with pytest.raises(DataError, match="names no files"):
        list(documents_of(Source(kind="text")))


def test_a_folder_of_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.txt", "a.txt", "deep/c.txt", ".hidden"):
        write(tmp_path / name, name)
    everything = source_of(tmp_path)
    assert list(source_inputs(everything)) == ["a.txt", "b.txt", "deep/c.txt"]
    assert [document.id for document in documents_of(everything)] == ["a.txt#1", "b.txt#1", "deep/c.txt#1"]


TEXTS = st.lists(
    st.sampled_from(["a", "bc .", "é", "天黑", "😀", " ", "\r\n", "\n", "\n\n", "\n \t\n", "\r", "\u2028", "\ufeff"]),
    max_size=40,
).map("".join)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sources") / "a.txt"


def assert_chunks_hold_what_the_file_holds(source: Source, chunk_bytes: int) -> None:
    whole_counts: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    whole = list(documents_of(source, whole_counts))
    parts = list(documents_of(source, counts, chunk_bytes=chunk_bytes))
    assert [(document.text, document.sentences) for document in parts] == [
        (document.text, document.sentences) for document in whole
    ]
    ids = [document.id for document in parts]
    assert len(set(ids)) == len(ids)
    assert ids == [document.id for document in documents_of(source, chunk_bytes=chunk_bytes)]
    assert counts == whole_counts


@settings(max_examples=300)
@given(
    content=TEXTS,
    layout=st.sampled_from(["sentences", "paragraphs", "file"]),
    unwrap=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-8", "gb18030", "utf-16"]),
    chunk_bytes=st.integers(1, 60),
)
def test_text_in_chunks_is_the_text_as_a_whole(
    file: Path, content: str, layout: str, unwrap: bool, encoding: str, chunk_bytes: int
) -> None:
    path = write(file, (content or "x").encode(encoding))
    assert_chunks_hold_what_the_file_holds(
        source_of(path, layout=layout, unwrap=unwrap, encoding=encoding), chunk_bytes
    )


@settings(max_examples=200)
@given(
    rows=st.lists(TEXTS, min_size=1, max_size=6),
    blank=st.sampled_from(["", "\n", "\r\n \n"]),
    end=st.sampled_from(["", "\n"]),
    chunk_bytes=st.integers(1, 200),
)
def test_json_lines_in_chunks_are_the_file_as_a_whole(
    file: Path, rows: list[str], blank: str, end: str, chunk_bytes: int
) -> None:
    content = f"\n{blank}".join(json.dumps({"text": row}, ensure_ascii=False) for row in rows) + end
    source = source_of(write(file, content), kind="jsonl")
    assert [document.text for document in documents_of(source)] == rows
    assert_chunks_hold_what_the_file_holds(source, chunk_bytes)


@given(
    content=st.lists(st.sampled_from([b"ab", b"\xff", b"\0", "天".encode(), b"\n", b"\n\n", b"x" * 20]), max_size=30),
    layout=st.sampled_from(["sentences", "paragraphs"]),
    on_error=st.sampled_from(["skip", "replace"]),
    chunk_bytes=st.integers(1, 60),
    max_document_bytes=st.integers(5, 60),
)
def test_what_is_left_out_does_not_depend_on_chunks(
    file: Path, content: list[bytes], layout: str, on_error: str, chunk_bytes: int, max_document_bytes: int
) -> None:
    source = source_of(
        write(file, b"".join(content) or b"x"), layout=layout, on_error=on_error, max_document_bytes=max_document_bytes
    )
    whole = [document.text for document in documents_of(source)]
    assert [document.text for document in documents_of(source, chunk_bytes=chunk_bytes)] == whole


def test_small_files_share_a_chunk_and_large_ones_are_cut(tmp_path: Path) -> None:
    sizes = {"a.txt": 10, "b.txt": 10, "c.txt": 250, "d.txt": 100, "e.txt": 10, "f.txt": 95}
    for name, size in sizes.items():
        write(tmp_path / name, "x\n" * (size // 2))
    chunks = plan_chunks(source_of(tmp_path), chunk_bytes=100)
    assert [[(part.file.name, part.start, part.end) for part in chunk.parts] for chunk in chunks] == [
        [("a.txt", 0, None), ("b.txt", 0, None)],
        [("c.txt", 0, 100)],
        [("c.txt", 100, None)],
        [("d.txt", 0, None)],
        [("e.txt", 0, None)],
        [("f.txt", 0, None)],
    ]


def test_empty_files_among_others_are_counted(tmp_path: Path) -> None:
    for name, content in {"a.txt": "one", "b.txt": "", "c.txt": "two"}.items():
        write(tmp_path / name, content)
    write(tmp_path / "d.txt.gz", gzip.compress(b""))
    counts: Counter[str] = Counter()
    assert [document.text for document in documents_of(source_of(tmp_path), counts)] == ["one", "two"]
    assert counts == {"empty file": 2}


@pytest.fixture
def made_up_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "made_up_package"
    for name, content in {
        "__init__.py": '"""The package is about nothing at all."""\nraise SystemExit("was imported")\n',
        "b.py": '"""The module b is the second of them."""\n',
        "sub/a.py": '"""The module b is the second of them.\n\nThe module a is in a folder."""\n',
        "bad.py": "def (",
        "tests/test_a.py": '"""The tests are of no use here."""\n',
        "test_b.py": '"""The tests are of no use here."""\n',
        "empty.py": "x = 1\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "no-library").mkdir()
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / "no-library"))
    return "made_up_package"


def test_python_docs(made_up_package: str) -> None:
    dropped: Counter[str] = Counter()
    documents = list(read_python_docs([made_up_package], dropped, workers=1))
    assert [(document.id, document.text, document.source) for document in documents] == [
        ("made_up_package/__init__", "The package is about nothing at all.", "made_up_package"),
        ("made_up_package/b", "The module b is the second of them.", "made_up_package"),
        ("made_up_package/sub.a", "The module a is in a folder.", "made_up_package"),
    ]
    assert dropped == {"module does not parse": 1, "repeated paragraph of python-docs": 1}
    assert "made_up_package" not in sys.modules


def test_python_docs_of_a_missing_package() -> None:
    with pytest.raises(DataError, match="'no_such_package' is not installed"):
        package_versions(["no_such_package"])
    with pytest.raises(DataError, match=r"'os\.path' is not installed"):
        list(read_python_docs(["os.path"], Counter(), workers=1))
