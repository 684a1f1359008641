"""`bertsmith corpus build`, stopped by force at any moment and begun again: the same bytes, and nothing done twice."""

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bertsmith.artifact import make_piece, work_folder
from bertsmith.config import CorpusConfig, Source
from bertsmith.corpus import prepare
from bertsmith.corpus.build import build_corpus
from bertsmith.engine import Engine
from bertsmith.errors import ArtifactError
from examples_case import made_up_text

CHUNKS = 6
Facts = dict[str, bytes]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for number in range(CHUNKS):
        (folder / f"{number}.txt").write_text(made_up_text(documents=150, seed=number), encoding="utf-8")
    return folder


def config_of(texts: Path) -> CorpusConfig:
    sources = (Source(kind="text", paths=(str(texts / f"{n}.txt"),), layout="sentences") for n in range(CHUNKS))
    return CorpusConfig(sources=tuple(sources), validation_share=0.2)


def files_of(corpus: Path) -> Facts:
    """The artifact but run.json, which tells the time; nothing else may lie beside it."""
    left = [path.name for path in corpus.parent.iterdir() if path.name.startswith(f".{corpus.name}")]
    assert not left, "something is left behind"
    return {path.name: path.read_bytes() for path in sorted(corpus.iterdir()) if path.name != "run.json"}


@pytest.fixture(scope="module")
def expected(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """Never stopped, in one process."""
    out = tmp_path_factory.mktemp("straight") / "corpus"
    build_corpus(config_of(texts), out, environment={})
    return files_of(out)


# ---- the command, killed ----


@pytest.fixture
def command(texts: Path, tmp_path: Path) -> list[str]:
    """`bertsmith corpus build` on two processes, in tmp_path."""
    sources = ",\n".join(
        f'  {{ kind = "text", paths = ["{texts}/{number}.txt"], layout = "sentences" }}' for number in range(CHUNKS)
    )
    (tmp_path / "recipe.toml").write_text(
        f'name = "mine"\n[runtime]\nworkers = 2\n[corpus]\nvalidation_share = 0.2\nsources = [\n{sources}\n]\n'
    )
    return [sys.executable, "-m", "bertsmith", "corpus", "build", "recipe.toml"]


def pieces(tmp_path: Path) -> dict[str, int]:
    """Whole pieces that wait, and when each was made."""
    work = work_folder(tmp_path / "runs" / "mine" / "corpus")
    found = work.iterdir() if work.is_dir() else ()
    seen = {}
    for path in found:
        if not path.name.startswith("."):
            with contextlib.suppress(FileNotFoundError):  # the stage has just ended
                seen[path.name] = path.stat().st_mtime_ns
    return seen


def workers_of(process: int) -> list[int]:
    """Processes whose parent is this one."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process:
            found.append(int(entry.parent.name))
    return found


def is_gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for(what: Callable[[], object], process: "subprocess.Popen[str]", *, seconds: float = 60) -> None:
    """Until `what` is so, or the process has ended."""
    deadline = time.monotonic() + seconds
    while not what() and process.poll() is None:
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("whole_pieces", "sign"),
    [(0, signal.SIGKILL), (1, signal.SIGKILL), (3, signal.SIGKILL), (2, signal.SIGTERM)],
)
def test_stopped_and_begun_again(
    command: list[str], tmp_path: Path, expected: Facts, whole_pieces: int, sign: signal.Signals
) -> None:
    work = work_folder(tmp_path / "runs" / "mine" / "corpus")
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: work.is_dir() and len(pieces(tmp_path)) >= whole_pieces, process)
    workers = workers_of(process.pid)
    process.send_signal(sign)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == (-sign if sign == signal.SIGKILL else 128 + sign)
    if sign == signal.SIGTERM:
        assert "stopped by SIGTERM; to go on: bertsmith corpus build recipe.toml" in said
    deadline = time.monotonic() + 20
    while not all(map(is_gone, workers)):
        assert time.monotonic() < deadline, "a worker outlived the command"
        time.sleep(0.05)
    assert not (tmp_path / "runs" / "mine" / "corpus").exists(), "it was to be stopped half-way"
    done = pieces(tmp_path)
    assert len(done) >= whole_pieces
    again = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    seen = [pieces(tmp_path)]
    wait_for(lambda: seen.append(pieces(tmp_path)) or len(seen[-1]) == CHUNKS, again)
    assert again.wait(timeout=60) == 0
    kept = max(seen, key=len)  # the moment may have passed between two looks
    assert {name: kept[name] for name in done} == done, "what was done is not made again"
    assert files_of(tmp_path / "runs" / "mine" / "corpus") == expected


# ---- disks, and what they tear ----


def test_any_number_of_workers(texts: Path, tmp_path: Path, expected: Facts) -> None:
    for workers in (2, 7):
        out = tmp_path / str(workers) / "corpus"
        build_corpus(config_of(texts), out, environment={}, engine=Engine(workers))
        assert files_of(out) == expected


def test_only_what_is_missing_or_torn_is_made(
    texts: Path, tmp_path: Path, expected: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, made = tmp_path / "corpus", []
    real = prepare._prepare

    def counted(task: prepare.PrepareTask, folder: Path) -> dict[str, object]:
        made.append(task.key)
        if len(made) == 5:
            raise KeyboardInterrupt
        return real(task, folder)

    monkeypatch.setattr(prepare, "_prepare", counted)
    with pytest.raises(KeyboardInterrupt):
        build_corpus(config_of(texts), out, environment={})
    torn = work_folder(out) / made[1] / "rows-000.parquet"
    torn.write_bytes(torn.read_bytes()[:-7])
    (work_folder(out) / made[2] / "piece.json").write_bytes(b'{"counts":')
    before = len(made)
    build_corpus(config_of(texts), out, environment={})
    assert made[before:] == [made[1], made[2], made[4], *made[-1:]]
    assert files_of(out) == expected


def test_a_full_disk_is_one_sentence_and_leaves_nothing_that_looks_finished(command: list[str], tmp_path: Path) -> None:
    """No file may grow past some kilobytes: as on a disk that is full, a write fails in the middle."""

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, preexec_fn=small_files, timeout=100)
    assert found.returncode == 1
    assert "Traceback" not in found.stderr
    assert found.stderr.startswith("bertsmith: error: ")
    assert "cannot be written (File too large); make room, then give the same command again" in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs" / "mine" / "corpus").exists()
    assert not pieces(tmp_path)


def test_a_piece_that_could_not_be_written_has_no_name(tmp_path: Path) -> None:
    def make(folder: Path) -> dict[str, int]:
        (folder / "rows.bin").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ArtifactError, match=r"work: cannot be written \(No space left .*; make room, then"):
        make_piece(tmp_path / "work", "key", make)
    assert list((tmp_path / "work").iterdir()) == []
