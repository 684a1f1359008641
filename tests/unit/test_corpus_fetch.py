"""Downloads against a server on this machine: what is checked, what is tried again, what is said when it fails."""

import hashlib
import http.server
import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bertsmith.config import Recipe, parse_recipe
from bertsmith.corpus import fetch as fetch_module
from bertsmith.corpus.fetch import fetch
from bertsmith.errors import BertsmithError, DataError, RecipeError

TEXT = b"Kim saw Sandy.\n" * 100


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def recipe_with(**download: object) -> Recipe:
    return parse_recipe({"name": "test", "data": {"downloads": [{"licence": "CC0", **download}]}})


@dataclass
class Server:
    """Files by path; `faults` are taken off the front, one a request."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetch_module, "PAUSES_SECONDS", (0.01, 0.02))
    monkeypatch.setattr(fetch_module, "TIMEOUT_SECONDS", 0.5)
    state = Server("")
    release = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append(self.path)
            fault = state.faults.pop(0) if state.faults else ""
            data = state.files.get(self.path)
            if fault == "silence":
                release.wait(5)
            elif fault.isdigit():
                self.send_error(int(fault))
            elif data is None:
                self.send_error(404)
            else:
                self.send_response(200)
                if fault != "no-length":
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if fault == "torn" else data)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        state.url = f"http://127.0.0.1:{listening.server_address[1]}"
        threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield state
        release.set()
        listening.shutdown()


def test_a_file_is_downloaded_checked_and_not_downloaded_again(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["/a.txt"] = TEXT
    recipe = recipe_with(url=f"{server.url}/a.txt", sha256=sha256(TEXT).upper(), path="deep/b.txt", licence="CC BY 4.0")
    assert fetch(recipe, tmp_path) == [tmp_path / "deep/b.txt"]
    assert (tmp_path / "deep/b.txt").read_bytes() == TEXT
    assert "CC BY 4.0" in capsys.readouterr().err
    assert fetch(recipe, tmp_path) == [tmp_path / "deep/b.txt"]
    assert server.requests == ["/a.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["deep"]


def test_the_name_is_the_last_part_of_the_address_where_no_path_is_given(server: Server, tmp_path: Path) -> None:
    server.files["/x/a.txt?raw=1"] = TEXT
    assert fetch(recipe_with(url=f"{server.url}/x/a.txt?raw=1", sha256=sha256(TEXT)), tmp_path) == [tmp_path / "a.txt"]


def test_wrong_digest_leaves_nothing_and_names_address_and_both_digests(server: Server, tmp_path: Path) -> None:
    server.files["/a.txt"] = TEXT
    with pytest.raises(DataError) as caught:
        fetch(recipe_with(url=f"{server.url}/a.txt", sha256="0" * 64), tmp_path)
    assert all(part in str(caught.value) for part in (f"{server.url}/a.txt", "0" * 64, sha256(TEXT)))
    assert list(tmp_path.iterdir()) == []
    assert len(server.requests) == 1


def test_a_web_page_in_place_of_the_file_is_named_as_such(server: Server, tmp_path: Path) -> None:
    server.files["/a.txt"] = b"\n<!DOCTYPE html><title>Sign in</title>"
    with pytest.raises(DataError, match="a web page, not the file"):
        fetch(recipe_with(url=f"{server.url}/a.txt", sha256="0" * 64), tmp_path)


@pytest.mark.parametrize("fault", ["500", "503", "429", "torn", "silence"])
def test_passing_faults_are_tried_again(server: Server, tmp_path: Path, fault: str) -> None:
    server.files["/a.txt"] = TEXT
    server.faults = [fault, fault]
    (path,) = fetch(recipe_with(url=f"{server.url}/a.txt", sha256=sha256(TEXT)), tmp_path)
    assert path.read_bytes() == TEXT
    assert len(server.requests) == 3


def test_after_three_tries_the_fault_is_told(server: Server, tmp_path: Path) -> None:
    server.faults = ["503"] * 4
    with pytest.raises(BertsmithError, match=r"3 tries \(the server answered 503"):
        fetch(recipe_with(url=f"{server.url}/a.txt", sha256="0" * 64), tmp_path)
    assert len(server.requests) == 3


def test_not_found_is_told_at_once(server: Server, tmp_path: Path) -> None:
    with pytest.raises(BertsmithError, match=r"404 Not Found; the file may have moved"):
        fetch(recipe_with(url=f"{server.url}/a.txt", sha256="0" * 64), tmp_path)
    assert len(server.requests) == 1


def test_refused_connection(server: Server, tmp_path: Path) -> None:
    with pytest.raises(BertsmithError, match=r"no connection: .*refused"):
        fetch(recipe_with(url="http://127.0.0.1:1/a.txt", sha256="0" * 64), tmp_path)


def test_missing_local_file(server: Server, tmp_path: Path) -> None:
    with pytest.raises(BertsmithError, match="cannot be read"):
        fetch(recipe_with(url=(tmp_path / "none.txt").as_uri(), sha256="0" * 64), tmp_path / "data")


def test_local_address(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT)
    (path,) = fetch(recipe_with(url=(tmp_path / "a.txt").as_uri(), sha256=sha256(TEXT)), tmp_path / "data")
    assert path.read_bytes() == TEXT


@pytest.mark.parametrize("fault", ["", "no-length"])
def test_too_large_is_refused_whether_or_not_the_server_says_so(server: Server, tmp_path: Path, fault: str) -> None:
    server.files["/a.txt"] = TEXT
    server.faults = [fault]
    with pytest.raises(DataError, match="more than 1,000 bytes"):
        fetch(recipe_with(url=f"{server.url}/a.txt", sha256=sha256(TEXT), max_bytes=1000), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_members_of_a_zip_go_where_the_recipe_says(server: Server, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("public/raw/a.tsv", TEXT)
        archive.writestr("public/raw/b.tsv", b"b")
        archive.writestr("public/README", b"not asked for")
    server.files["/c.zip"] = packed.getvalue()
    recipe = recipe_with(
        url=f"{server.url}/c.zip",
        members={"public/raw/a.tsv": "cola/a.tsv", "public/raw/b.tsv": "cola/b.tsv"},
        member_sha256={"cola/a.tsv": sha256(TEXT), "cola/b.tsv": sha256(b"b")},
    )
    assert fetch(recipe, tmp_path) == [tmp_path / "cola/a.tsv", tmp_path / "cola/b.tsv"]
    assert sorted(p.name for p in (tmp_path / "cola").iterdir()) == ["a.tsv", "b.tsv"]
    fetch(recipe, tmp_path)
    assert len(server.requests) == 1
    (tmp_path / "cola/b.tsv").unlink()
    fetch(recipe, tmp_path)
    assert (tmp_path / "cola/b.tsv").read_bytes() == b"b"


def test_a_file_of_ones_own_is_not_overwritten(server: Server, tmp_path: Path) -> None:
    server.files["/a.txt"] = TEXT
    (tmp_path / "a.txt").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"a\.txt: is here with sha256 .* rename or remove it"):
        fetch(recipe_with(url=f"{server.url}/a.txt", sha256=sha256(TEXT)), tmp_path)
    assert (tmp_path / "a.txt").read_bytes() == b"mine"
    assert server.requests == []


def test_nor_where_another_member_is_missing(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("a", b"a")
        archive.writestr("b", b"b")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/b").write_bytes(b"mine")
    recipe = recipe_with(
        url=(tmp_path / "c.zip").as_uri(),
        members={"a": "a", "b": "b"},
        member_sha256={"a": sha256(b"a"), "b": sha256(b"b")},
    )
    with pytest.raises(DataError, match="rename or remove it"):
        fetch(recipe, tmp_path / "data")
    assert (tmp_path / "data/b").read_bytes() == b"mine"


@pytest.mark.parametrize("path", ["../a.txt", "/etc/a.txt", "x/../../a.txt", "..\\a.txt"])
def test_a_recipe_cannot_write_outside_the_data_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(RecipeError, match="must be relative"):
        fetch(recipe_with(url="https://example.org/a.txt", sha256="0" * 64, path=path), tmp_path)


@pytest.mark.parametrize(
    ("download", "message"),
    [
        ({"url": "https://example.org/a.txt"}, "no digest; add sha256"),
        ({"url": "https://example.org/a.zip", "members": {"a": "a"}}, "no digest; add sha256"),
        ({"url": "ftp://example.org/a.txt", "sha256": "0" * 64}, "must begin with https://"),
        ({"url": "https://e.org/a.zip", "sha256": "0", "members": {"a": "c", "b": "c"}}, "the same path"),
        ({"url": "https://e.org/a.zip", "members": {"a": "c"}, "member_sha256": {"d": "0"}}, "names 'd'"),
    ],
)
def test_downloads_that_cannot_be_checked_are_refused(
    tmp_path: Path, download: dict[str, object], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        fetch(recipe_with(**download), tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BertsmithError, match="cannot be written"):
        fetch(recipe_with(url=(tmp_path / "a.txt").as_uri(), sha256=sha256(TEXT)), tmp_path / "file")


def test_drafts_of_a_killed_fetch_are_removed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT)
    left = tmp_path / "data" / ".fetch.draft-999999999"
    left.mkdir(parents=True)
    fetch(recipe_with(url=(tmp_path / "a.txt").as_uri(), sha256=sha256(TEXT)), tmp_path / "data")
    assert not left.exists()


def test_no_downloads_is_no_work(tmp_path: Path) -> None:
    assert fetch(parse_recipe({"name": "test"}), tmp_path / "data") == []
    assert not (tmp_path / "data").exists()
