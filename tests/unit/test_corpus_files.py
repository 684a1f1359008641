import bz2
import functools
import gzip
import lzma
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from bertsmith.corpus.files import UNREADABLE, SourceFile, find_files, local_files
from bertsmith.errors import DataError
from corpus_case import read, texts, write

CONTENT = "\n".join(f"line {number} 天" for number in range(20_000)).encode()
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": functools.partial(pa.compress, codec="zstd", asbytes=True),
}


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]


@pytest.fixture(autouse=True)
def nowhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current folder: patterns are looked up there first."""
    monkeypatch.chdir(tmp_path_factory.mktemp("nowhere"))


def content_of(file: SourceFile) -> bytes:
    with file.open_content() as content:
        return content.read()


def names(*patterns: str, root: Path) -> list[str]:
    return [file.name for file in find_files(patterns, [root])]


def make_tree(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        write(root / path, path)


def test_patterns_below_a_root(tmp_path: Path) -> None:
    make_tree(tmp_path, "b.txt", "a.txt", "deep/c.txt", "deep/er/d.txt", ".hidden", ".git/x.txt", "deep/.y/z.txt")
    assert names("*.txt", root=tmp_path) == ["a.txt", "b.txt"]
    assert names("**/*.txt", root=tmp_path) == ["a.txt", "b.txt", "deep/c.txt", "deep/er/d.txt"]
    assert names("deep", root=tmp_path) == ["deep/c.txt", "deep/er/d.txt"]
    assert names("b.txt", "*.txt", root=tmp_path) == ["b.txt", "a.txt"]
    assert names("[ab].txt", "?.txt", root=tmp_path) == ["a.txt", "b.txt"]
    assert names(".git/*.txt", root=tmp_path) == [".git/x.txt"]
    assert names(".hidden", root=tmp_path) == [".hidden"]


def test_absolute_patterns_are_named_below_their_common_folder(tmp_path: Path) -> None:
    make_tree(tmp_path, "x/a.txt", "x/y/b.txt", "x/.z/c.txt")
    assert names(f"{tmp_path}/x", root=tmp_path) == ["a.txt", "y/b.txt"]
    assert names(f"{tmp_path}/x/**/*.txt", root=tmp_path) == ["a.txt", "y/b.txt"]
    assert names(f"{tmp_path}/x/y/b.txt", root=tmp_path) == ["b.txt"]


def test_the_current_folder_comes_before_the_data_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path, "here/a.txt", "data/a.txt", "data/b.txt")
    monkeypatch.chdir(tmp_path / "here")
    assert [str(path) for path in local_files(["a.txt", "b.txt"], [tmp_path / "data"])] == [
        "a.txt",
        str(tmp_path / "data" / "b.txt"),
    ]


def test_two_files_never_have_one_name(tmp_path: Path) -> None:
    make_tree(tmp_path, "a.txt", "other/a.txt", "third/a.txt")
    found = find_files(["a.txt", f"{tmp_path}/other/a.txt"], [tmp_path])
    assert [file.name for file in found] == ["a.txt", "a.txt~2"]
    assert [content_of(file) for file in found] == [b"a.txt", b"other/a.txt"]


def test_a_hidden_folder_above_the_pattern_is_no_matter(tmp_path: Path) -> None:
    make_tree(tmp_path, ".cache/[x]/a.txt", ".cache/[x]/.b.txt")
    assert names(".cache/[[]x]/*.txt", root=tmp_path) == [".cache/[x]/a.txt"]
    assert names(f"{tmp_path}/.cache", root=tmp_path) == ["a.txt"]
    assert names("*.txt", root=tmp_path / ".cache" / "[x]") == ["a.txt"]
    assert names("**/.*.txt", root=tmp_path / ".cache") == ["[x]/.b.txt"]


def test_a_name_that_looks_like_a_glob(tmp_path: Path) -> None:
    make_tree(tmp_path, "[a].txt", "a.txt")
    assert names("[a].txt", root=tmp_path) == ["[a].txt"]
    assert names("[[]a].txt", root=tmp_path) == ["[a].txt"]


def test_a_pattern_that_matches_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for pattern in ("missing.txt", "*.txt", "empty", f"{tmp_path}/missing/*.txt"):
        with pytest.raises(DataError, match=r"matches no file; looked in .*" + tmp_path.name):
            find_files([pattern], [tmp_path])


def test_urls(memory: fsspec.AbstractFileSystem) -> None:
    for name in ("/bucket/x/a.txt", "/bucket/x/deep/b.txt", "/bucket/x/.hidden/c.txt"):
        memory.pipe(name, name.encode())
    assert names("memory://bucket/x/a.txt", root=Path()) == ["a.txt"]
    found = find_files(["memory://bucket/x"])
    assert [(file.path, file.name, file.size) for file in found] == [
        ("memory:///bucket/x/a.txt", "a.txt", 15),
        ("memory:///bucket/x/deep/b.txt", "deep/b.txt", 20),
    ]
    assert names("memory://bucket/**/*.txt", root=Path()) == ["a.txt", "deep/b.txt"]
    assert names("memory://bucket/x/.hidden/*", root=Path()) == ["c.txt"]
    assert texts("memory://bucket/x/deep/b.txt") == ["/bucket/x/deep/b.txt"]
    with pytest.raises(DataError, match=r"'memory://bucket/y/\*' matches no file"):
        find_files(["memory://bucket/y/*"])


def test_a_url_of_an_unknown_kind() -> None:
    with pytest.raises(DataError, match=r"'nosuch://a/b' cannot be read: Protocol not known: nosuch"):
        find_files(["nosuch://a/b"])


def test_digests_follow_the_content(tmp_path: Path, memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe("/a.txt", b"one")
    here = find_files([str(write(tmp_path / "a.txt", "one"))])[0].digest()
    assert find_files(["memory://a.txt"])[0].digest() == here
    memory.pipe("/a.txt", b"two")
    assert find_files(["memory://a.txt"])[0].digest() != here


@pytest.mark.parametrize("ending", PACKERS)
def test_compressed_files(tmp_path: Path, memory: fsspec.AbstractFileSystem, ending: str) -> None:
    packed = PACKERS[ending](CONTENT)
    file = find_files([str(write(tmp_path / f"a.TXT{ending.upper()}", packed))])[0]
    assert (file.compression, file.suffix, file.size) == (ending, ".txt", len(packed))
    assert content_of(file) == CONTENT
    memory.pipe(f"/a.txt{ending}", packed)
    assert content_of(find_files([f"memory://a.txt{ending}"])[0]) == CONTENT


@pytest.mark.parametrize("ending", PACKERS)
def test_members_one_after_another_are_read_as_one(tmp_path: Path, ending: str) -> None:
    pack = PACKERS[ending]
    path = write(tmp_path / f"a{ending}", pack(b"one\n") + pack(b"") + pack(b"two\n"))
    assert content_of(find_files([str(path)])[0]) == b"one\ntwo\n"


@pytest.mark.parametrize("ending", PACKERS)
@pytest.mark.parametrize("left", [0.0, 0.5, 1.0])
def test_torn_files_are_never_read_as_shorter_ones(tmp_path: Path, ending: str, left: float) -> None:
    packed = PACKERS[ending](CONTENT)
    torn = packed[: max(3, min(int(len(packed) * left), len(packed) - 1))]
    path = write(tmp_path / f"a.txt{ending}", torn)
    with pytest.raises(UNREADABLE):
        content_of(find_files([str(path)])[0])
    with pytest.raises(DataError, match=rf"a\.txt{ending}:\d+: cannot be read: "):
        read(path)


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz"])  # the zstd of these tests carries no checksum
def test_a_damaged_file(tmp_path: Path, ending: str) -> None:
    packed = bytearray(PACKERS[ending](os.urandom(100_000).hex().encode()))
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(DataError, match="cannot be read"):
        read(write(tmp_path / f"a.txt{ending}", bytes(packed)))


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one")
    file = find_files([str(path)])[0]
    path.unlink()
    with pytest.raises(OSError, match="No such file"):
        content_of(file)


class Handler(BaseHTTPRequestHandler):
    """A web server with two files, one of which is never sent whole, and one whose length it does not tell."""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        body = CONTENT if self.path.startswith(("/whole.txt", "/torn.txt", "/unknown.txt")) else None
        if body is None:
            self.send_error(404)
            return
        first, last = 0, len(body) - 1
        wanted = self.headers.get("Range", "")
        if wanted:
            first, _, stop = wanted.removeprefix("bytes=").partition("-")  # type: ignore[assignment]
            first, last = int(first), min(int(stop or last), last)
        self.send_response(206 if wanted else 200)
        if not self.path.startswith("/unknown.txt"):
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}")
            self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        if with_body:
            sent = body[first : last + 1]
            self.wfile.write(sent[: len(sent) // 2] if self.path == "/torn.txt" else sent)


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_files_of_a_web_server(server: str) -> None:
    file = find_files([f"{server}/whole.txt?download=1"])[0]
    assert content_of(file) == CONTENT
    expected = CONTENT.decode().split("\n")
    assert texts(f"{server}/whole.txt", layout="sentences", max_document_bytes=10**6) == ["\n".join(expected)]
    with pytest.raises(DataError, match=r"'.*/nothing\.txt' matches no file|cannot be listed: FileNotFoundError"):
        find_files([f"{server}/nothing.txt"])


def test_a_server_that_breaks_off(server: str) -> None:
    with pytest.raises(DataError, match=r"torn\.txt:\d+: cannot be read: "):
        read(f"{server}/torn.txt")


def test_a_server_that_does_not_say_how_large_a_file_is(server: str) -> None:
    with pytest.raises(DataError, match=r"unknown\.txt': its server does not say how large it is"):
        find_files([f"{server}/unknown.txt"])
