"""Building examples, stopped half-way: what is done is kept, the rest is done, and the artifact is the same."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bertsmith.artifact import work_folder
from bertsmith.config import CorpusConfig, ExamplesConfig, Source, TokenizerConfig
from bertsmith.corpus.build import build_corpus
from bertsmith.engine import Engine
from bertsmith.examples import shards
from bertsmith.examples.shards import build_examples
from bertsmith.tokenizer.train import train_tokenizer
from examples_case import made_up_text

PARTS = 5


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of some parts and its vocabulary."""
    folder = tmp_path_factory.mktemp("made")
    for number in range(PARTS):
        (folder / f"{number}.txt").write_text(made_up_text(documents=20, seed=number), encoding="utf-8")
    sources = tuple(
        Source(kind="text", paths=(str(folder / f"{number}.txt"),), layout="sentences") for number in range(PARTS)
    )
    build_corpus(CorpusConfig(sources=sources, validation_share=0.2), folder / "corpus", environment={})
    train_tokenizer(TokenizerConfig(vocab_size=300), folder / "corpus", folder / "tokenizer", environment={})
    assert len(list((folder / "corpus").glob("part-*"))) == PARTS
    return folder


def build(made: Path, out: Path, **settings: Any) -> dict[str, bytes]:
    """The files of the artifact but run.json, which tells the time."""
    build_examples(ExamplesConfig(), made / "corpus", made / "tokenizer", out, seed=1, environment={}, **settings)
    assert not list(out.parent.glob(f".{out.name}*")), "something is left behind"
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.name != "run.json"}


def test_any_number_of_workers(made: Path, tmp_path: Path) -> None:
    one, *others = (build(made, tmp_path / str(workers), engine=Engine(workers)) for workers in (1, 2, 7))
    assert sum(name.startswith("train-") for name in one) == PARTS
    assert others == [one, one]


def test_stopped_after_some_parts_it_goes_on(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = build(made, tmp_path / "straight")
    encode, calls = shards._encode, []

    def counted(parquet: Path, split: str, tokenizer: Any) -> Any:
        calls.append(parquet.name)
        if len(calls) == 6:  # two splits a part: in the middle of the third
            raise KeyboardInterrupt
        return encode(parquet, split, tokenizer)

    monkeypatch.setattr(shards, "_encode", counted)
    with pytest.raises(KeyboardInterrupt):
        build(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert len(list(work_folder(tmp_path / "out").iterdir())) == 2
    assert build(made, tmp_path / "out") == expected
    assert calls[6:] == [f"part-{part:05d}.parquet" for part in (2, 3, 4) for _ in range(2)]


def test_stopped_while_the_artifact_is_put_together(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every block is there, the manifest is not: nothing is encoded a second time."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    expected = build(made, tmp_path / "straight")
    with monkeypatch.context() as patch:
        patch.setattr("bertsmith.artifact.file_sha256", stop)
        with pytest.raises(KeyboardInterrupt):
            build(made, tmp_path / "out")
    monkeypatch.setattr(shards, "_encode", stop)
    assert build(made, tmp_path / "out") == expected


def test_pieces_of_other_settings_are_not_taken_up(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> Iterator[None]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shards, "_gather", stop)
        with pytest.raises(KeyboardInterrupt):
            build_examples(
                ExamplesConfig(max_length=32),
                *(made / "corpus", made / "tokenizer", tmp_path / "out"),
                seed=1,
                environment={},
            )
    assert build(made, tmp_path / "out") == build(made, tmp_path / "straight")


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_begun_again(made: Path, tmp_path: Path, workers: int) -> None:
    """kill -9 of the process, at some moment: the next one ends with the same bytes."""
    expected = build(made, tmp_path / "straight")
    script = (
        "import sys; from pathlib import Path\n"
        "from bertsmith.config import ExamplesConfig; from bertsmith.engine import Engine\n"
        "from bertsmith.examples.shards import build_examples\n"
        "if __name__ == '__main__':\n"
        "    made, out = map(Path, sys.argv[1:3])\n"
        "    build_examples(ExamplesConfig(), made / 'corpus', made / 'tokenizer', out, seed=1, environment={},\n"
        "                   engine=Engine(int(sys.argv[3])))\n"
    )
    (tmp_path / "build.py").write_text(script)
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, str(tmp_path / "build.py"), str(made), str(out), str(workers)])
    work = work_folder(out)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None and not any(map(_is_whole, _entries(work))):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert build(made, out) == expected


def _entries(work: Path) -> list[Path]:
    return list(work.iterdir()) if work.is_dir() else []


def _is_whole(piece: Path) -> bool:
    return not piece.name.startswith(".")
