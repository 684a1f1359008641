import gzip
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bertsmith.config import Source
from bertsmith.corpus.document import RawDocument
from bertsmith.corpus.files import find_files, local_files
from bertsmith.corpus.python_docs import package_versions, read_python_docs
from bertsmith.corpus.sources import CHUNK_BYTES, plan_chunks, read_chunk, source_inputs
from bertsmith.corpus.texts import unwrap
from bertsmith.errors import DataError


def read(path: Path, **settings: object) -> list[RawDocument]:
    return list(documents_of(Source.model_validate({"kind": "text", "paths": (str(path),), **settings})))


def documents_of(
    source: Source, counts: Counter[str] | None = None, *, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[RawDocument]:
    counts = Counter() if counts is None else counts
    for chunk in plan_chunks(source, chunk_bytes=chunk_bytes):
        yield from read_chunk(chunk, counts)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def test_layouts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one .\ntwo .\n\n \nthree\nfour\n")
    sentences = read(path, layout="sentences")
    assert [document.sentences for document in sentences] == [("one .", "two ."), ("three", "four")]
    assert [document.text for document in read(path, layout="paragraphs")] == ["one .\ntwo .", "three\nfour"]
    assert [document.text for document in read(path, layout="paragraphs", unwrap=True)] == ["one . two .", "three four"]
    assert [document.text for document in read(path, layout="file")] == ["one .\ntwo .\n\n \nthree\nfour"]
    assert [document.text for document in read(path, layout="file", unwrap=True)] == ["one . two .\n\nthree four"]
    assert [document.id for document in sentences] == ["a.txt#1", "a.txt#5"]


def test_byte_order_mark_line_ends_and_gzip(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\n\r\ntwo\r\nthree")
    assert [document.text for document in read(path)] == ["one", "two\nthree"]
    packed = write(tmp_path / "a.txt.gz", gzip.compress(b"one\n\ntwo\n"))
    assert [document.text for document in read(packed)] == ["one", "two"]


def test_unwrap_joins_chinese_without_spaces() -> None:
    assert unwrap(["天黑了，", "他走了", "", "one", " two "]) == ["天黑了，他走了", "one two"]


def test_jsonl_with_a_dotted_field(tmp_path: Path) -> None:
    rows = [{"a": {"text": "one\u2028two"}}, {"a": {"text": "three\nfour"}}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    found = read(path, kind="jsonl", text_field="a.text")
    assert [(document.id, document.text) for document in found] == [
        ("a.jsonl#1", "one\u2028two"),
        ("a.jsonl#2", "three\nfour"),
    ]
    assert read(path, kind="jsonl", text_field="a.text", unwrap=True)[1].text == "three four"


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


def test_find_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.txt", "a.txt", "deep/c.txt", ".hidden"):
        write(tmp_path / name, name)
    names = [path.relative_to(tmp_path).as_posix() for path in local_files(["*.txt"], [tmp_path])]
    assert names == ["a.txt", "b.txt"]
    assert len(find_files([str(tmp_path), str(tmp_path / "a.txt")])) == 3
    everything = Source(kind="text", paths=(str(tmp_path),))
    assert list(source_inputs(everything)) == ["a.txt", "b.txt", "deep/c.txt"]
    assert local_files([str(tmp_path / "**/c.txt")]) == [tmp_path / "deep/c.txt"]
    with pytest.raises(DataError, match=r"'missing\.txt' matches no file; looked in .*" + tmp_path.name):
        find_files(["missing.txt"], [tmp_path])


def test_paths_are_looked_up_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.txt", "text")
    monkeypatch.setenv("BERTSMITH_DATA", str(tmp_path))
    source = Source(kind="text", paths=("a.txt",))
    assert [document.id for document in documents_of(source)] == ["a.txt#1"]
    assert list(source_inputs(source)) == ["a.txt"]


def test_a_source_without_paths() -> None:
    with pytest.raises(DataError, match="names no files"):
        list(documents_of(Source(kind="text")))


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
