"""Text as it should not be, through the whole corpus stage: refused with its place, or counted in the manifest."""

import gzip
import json
import re
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertsmith.artifact import Artifact
from bertsmith.config import CorpusConfig, Source
from bertsmith.corpus.build import build_corpus, read_documents
from bertsmith.errors import BertsmithError, DataError
from corpus_case import write
from postgres_case import PASSWORD, Postgres

GOOD = "This is a good line, long enough to be kept.\n"
OTHER = "And this is another one, that is as good as it.\n"

PEAK = """
import os, sys, threading
from collections import Counter
from bertsmith.config import Source
from bertsmith.corpus.sources import plan_chunks, read_chunk

def rss_anon():
    return int(next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1]) * 1024

before = peak = rss_anon()
done = threading.Event()

def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, rss_anon())

watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
counts = Counter()
source = Source(kind=sys.argv[1], paths=(sys.argv[2],), encoding=sys.argv[3])
found = sum(1 for chunk in plan_chunks(source) for document in read_chunk(chunk, counts))
done.set()
watcher.join()
print(found, (peak - before) / 1e6, dict(counts))
"""


BUILD = """
import sys
from pathlib import Path
from bertsmith.config import CorpusConfig
from bertsmith.corpus.build import build_corpus
from bertsmith.errors import BertsmithError

try:
    build_corpus(CorpusConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2]), environment={})
except BertsmithError as error:
    print(f"{type(error).__name__}: {error}")
"""


def build(folder: Path, name: str, content: str | bytes, **settings: Any) -> Artifact:
    write(folder / name, content)
    source = {"kind": "text", "paths": [str(folder / name)], **settings}
    return build_source(folder, source)


def build_source(folder: Path, source: Mapping[str, Any]) -> Artifact:
    config = CorpusConfig.model_validate({"sources": [source], "validation_share": 0, "min_characters": 5})
    return build_corpus(config, folder / "corpus", environment={})


def texts(folder: Path) -> list[str]:
    return [document.text for document in read_documents(folder / "corpus")]


def mixed(encoding: str, bad: bytes) -> bytes:
    return f"{GOOD}\n".encode(encoding) + bad + f"\n\n{OTHER}".encode(encoding)


REFUSED: dict[str, tuple[str, str | bytes, dict[str, Any], str]] = {
    "bad UTF-8": ("a.txt", mixed("utf-8", b"caf\xe9"), {}, r"a\.txt:3: not UTF-8 \(byte 0xe9\) at byte offset 49;"),
    "bad GB18030": (
        "a.txt",
        mixed("gb18030", "天黑".encode("gb18030") + b"\xff"),
        {"encoding": "gb18030"},
        r"a\.txt:3: not GB18030 \(byte 0xff\) at byte offset 50;",
    ),
    "GB18030 taken for UTF-8": ("a.txt", "天黑了他走了".encode("gb18030"), {}, r"a\.txt:1: not UTF-8 \(byte 0xcc\)"),
    "UTF-16 taken for UTF-8": ("a.txt", GOOD.encode("utf-16"), {}, r"mark of utf-16: set encoding = 'utf-16'"),
    "UTF-16 without a mark": (
        "a.txt",
        GOOD.encode("utf-16-le"),
        {},
        r"\(byte 0x00\) at byte offset 1; if it is UTF-16",
    ),
    "NUL": ("a.txt", mixed("utf-8", b"a\0b"), {}, r"a\.txt:3: not UTF-8 \(byte 0x00\) at byte offset 47;"),
    "lone surrogate": (
        "a.jsonl",
        '{"text": "a \\ud83d b"}',
        {"kind": "jsonl"},
        r"a\.jsonl:1: field 'text' holds half of a surrogate pair",
    ),
    "lone surrogate in UTF-8 bytes": (
        "a.txt",
        b"a \xed\xa0\xbd b",
        {},
        r"a\.txt:1: not UTF-8 \(byte 0xed\) at byte offset 2;",
    ),
    "empty file": ("a.txt", "", {}, r"a\.txt: the file is empty"),
    "truncated gzip": (
        "a.txt.gz",
        gzip.compress(GOOD.encode())[:-9],
        {},
        r"a\.txt\.gz:\d+: cannot be read: Compressed file",
    ),
    "no object": (
        "a.jsonl",
        '{"text": "x"}\n[1]\n',
        {"kind": "jsonl"},
        r"a\.jsonl:2: no field 'text' \(.* it is list\)",
    ),
    "no JSON": ("a.jsonl", '{"text": "x"}\nx\n', {"kind": "jsonl"}, r"a\.jsonl:2: not a JSON object a line"),
    "missing field": (
        "a.jsonl",
        '{"body": "x"}\n',
        {"kind": "jsonl"},
        r"a\.jsonl:1: no field 'text' \(fields here: body\)",
    ),
    "missing column": ("a.csv", "a,b\n1,2\n", {"kind": "csv"}, r"a\.csv:1: .*no column 'text' \(columns: a, b\)"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_with_its_place(tmp_path: Path, what: str) -> None:
    name, content, settings, message = REFUSED[what]
    with pytest.raises(BertsmithError, match=message):
        build(tmp_path, name, content, **settings)
    assert not (tmp_path / "corpus").exists()


COUNTED: dict[str, tuple[str, str | bytes, dict[str, Any], int, dict[str, int]]] = {
    "skip": ("a.txt", mixed("utf-8", b"bad caf\xe9"), {"on_error": "skip"}, 2, {"line that is not in its encoding": 1}),
    "replace": ("a.txt", mixed("utf-8", b"bad caf\xe9"), {"on_error": "replace"}, 3, {"line with replaced bytes": 1}),
    "skip NUL": ("a.txt", mixed("utf-8", b"a\0b"), {"on_error": "skip"}, 2, {"line that is not in its encoding": 1}),
    "skip UTF-16": (
        "a.txt",
        mixed("utf-16-le", b"a\0\0\xd8b\0").replace(b"\n\n", b"\n\0\n\0"),
        {"on_error": "skip", "encoding": "utf-16-le"},
        2,
        {"line that is not in its encoding": 1},
    ),
    "long line": ("a.txt", f"{GOOD}\n{'x' * 5000}\n\n{OTHER}", {"max_document_bytes": 1000}, 2, {"line too long": 1}),
    "long document": (
        "a.txt",
        f"{GOOD}\n{GOOD * 50}\n{OTHER}",
        {"max_document_bytes": 1000},
        2,
        {"document too long": 1},
    ),
    "long JSON line": (
        "a.jsonl",
        json.dumps({"text": "x" * 5000}) + "\n" + json.dumps({"text": GOOD}),
        {"kind": "jsonl", "max_document_bytes": 1000},
        1,
        {"line too long": 1},
    ),
    "records": (
        "a.jsonl",
        f'[]\n{{"text": 1}}\n{{"text": null}}\nx\n{json.dumps({"text": GOOD})}\n',
        {"kind": "jsonl", "on_error": "skip"},
        1,
        {"record that cannot be used": 3, "record without text": 1},
    ),
    "surrogates": (
        "a.jsonl",
        f'{{"text": "a \\udc00 b and more"}}\n{json.dumps({"text": GOOD})}\n',
        {"kind": "jsonl", "on_error": "replace"},
        2,
        {"record with replaced characters": 1},
    ),
}


@pytest.mark.parametrize("what", COUNTED)
def test_counted_in_the_manifest(tmp_path: Path, what: str) -> None:
    name, content, settings, documents, counted = COUNTED[what]
    artifact = build(tmp_path, name, content, **settings)
    assert artifact.counts["documents"] == documents
    assert artifact.counts["dropped"] == counted


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("utf-8", "\ufeff" + GOOD),
        ("utf-8", GOOD.replace("\n", "\r\n")),
        ("utf-16", GOOD),
        ("gb18030", GOOD),
        ("utf-8", GOOD.strip()),
    ],
)
def test_marks_encodings_and_line_ends_are_no_matter(tmp_path: Path, encoding: str, content: str) -> None:
    build(tmp_path, "a.txt", content.encode(encoding), encoding=encoding)
    assert texts(tmp_path) == [GOOD.strip()]


def test_line_separators_of_unicode_stay_in_their_document(tmp_path: Path) -> None:
    build(tmp_path, "a.txt", "one and two\u2028three and four\n")
    assert texts(tmp_path) == ["one and two\nthree and four"]


def test_parquet_columns_of_the_wrong_type(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: column 'text' holds int64, not text"):
        build_source(tmp_path, {"kind": "parquet", "paths": [str(tmp_path / "a.parquet")]})


@pytest.mark.skipif(sys.platform != "linux", reason="the limit stands in for a full disk on Linux alone")
def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    """A limit on the size of files stands in for it: one sentence, nothing under the final name; then it goes on."""
    write(tmp_path / "a.txt", "\n\n".join(f"document {number}, all of its own" for number in range(20_000)))
    config = CorpusConfig(sources=(Source(kind="text", paths=(str(tmp_path / "a.txt"),)),), min_characters=5)
    out = tmp_path / "corpus"

    def with_little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    command = [sys.executable, "-c", BUILD, config.model_dump_json(), str(out)]
    ran = subprocess.run(command, capture_output=True, text=True, preexec_fn=with_little_room)
    assert re.search(
        r"^ArtifactError: .*cannot be written \(File too large\); make room, then give the same command again",
        ran.stdout,
    ), ran.stderr
    assert not out.exists()
    assert build_corpus(config, out, environment={}).counts["documents"] == 20_000


def test_a_query_that_fails_half_way_leaves_no_corpus_and_no_password(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTS_PASSWORD", PASSWORD)
    source = {"kind": "sql", "url": f"postgresql://guarded:${{TEXTS_PASSWORD}}@127.0.0.1:{postgres.port}/tests"}
    query = "SELECT 'a document, number ' || (1000 / (1500 - i)) || ' ' || i FROM generate_series(1, {}) AS i"
    with pytest.raises(DataError, match=r"the query failed at one of rows 1,401 to 1,600: division by zero") as caught:
        build_source(tmp_path, source | {"query": query.format(3000)})
    assert PASSWORD not in str(caught.value)
    assert not (tmp_path / "corpus").exists()
    assert build_source(tmp_path, source | {"query": query.format(1499)}).counts["documents"] == 1499
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"guarded:***@" in content or b"TEXTS_PASSWORD" in content for content in written)
    assert not any(PASSWORD.encode() in content for content in written)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("kind", "encoding"), [("text", "utf-8"), ("text", "utf-16"), ("jsonl", "utf-8"), ("csv", "utf-8")]
)
def test_a_line_of_100_mb_takes_little_memory(tmp_path: Path, kind: str, encoding: str) -> None:
    path = tmp_path / "a.txt"
    text = {"text": "{}\n\n{}\n", "jsonl": '{{"text": "{}"}}\n{{"text": "{}"}}\n', "csv": "text\n{}\n{}\n"}[kind]
    path.write_text(text.format("x" * 100_000_000, "good"), encoding=encoding)
    ran = subprocess.run(
        [sys.executable, "-c", PEAK, kind, str(path), encoding], capture_output=True, text=True, check=True
    )
    documents, peak_mb, counts = ran.stdout.split(maxsplit=2)
    assert documents == "1"
    assert counts.strip() == "{'line too long': 1}"
    assert float(peak_mb) < 100, f"{peak_mb} MB for a line of 100 MB, of which 16 MB may be held"
    path.unlink()
