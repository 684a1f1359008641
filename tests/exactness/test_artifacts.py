"""Promise 6: artifacts are byte-identical for any number of workers, for repeated runs and for other processes."""

import hashlib
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from bertsmith.artifact import open_artifact
from bertsmith.config import CorpusConfig, Source, TokenizerConfig
from bertsmith.corpus.build import build_corpus
from bertsmith.engine import Engine
from bertsmith.tokenizer.count import count_corpus
from bertsmith.tokenizer.train import train_tokenizer
from examples_case import build_all, corpus_config, made_up_text

STAGES = ("corpus", "tokenizer", "examples")


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of each file but run.json, which tells seconds and machine."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


def test_any_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "library"
    library.mkdir()
    for number in range(100):
        repeated = "The same words are in all of them." * (number % 7 == 0)
        content = "def (" if number % 10 == 3 else f'"""The module is the one of number {number}.\n\n{repeated}"""'
        (library / f"module_{number}.py").write_text(content)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(library))
    config = CorpusConfig(sources=(Source(kind="python-docs"),), min_characters=10, validation_share=0.2)
    one, *others = (build_corpus(config, tmp_path / f"{n}", environment={}, engine=Engine(n)) for n in (1, 2, 5))
    assert one.counts["documents"] == 90
    assert one.counts["dropped"]["module does not parse"] == 10
    for other in others:
        assert hashes(one.path) == hashes(other.path)
        assert one.digest == other.digest


@pytest.mark.parametrize("most_words", [None, 100])
def test_a_vocabulary_of_any_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_words: int | None
) -> None:
    """Words are counted part by part, and the rarest dropped where there are too many: by whom makes no difference."""
    monkeypatch.setattr("bertsmith.corpus.sources.CHUNK_BYTES", 6000)
    (tmp_path / "text.txt").write_text(made_up_text() + "天地玄黄。Ünïcödé\n", encoding="utf-8")
    corpus = build_corpus(corpus_config(tmp_path / "text.txt"), tmp_path / "corpus", environment={}).path
    assert len(list(corpus.glob("part-*.parquet"))) > 7
    if most_words:
        fewer = partial(count_corpus, most_words=most_words)
        monkeypatch.setattr("bertsmith.tokenizer.train.count_corpus", fewer)
    config = TokenizerConfig(vocab_size=250)
    one, *others = (
        train_tokenizer(config, corpus, tmp_path / f"{n}", environment={}, engine=Engine(n)) for n in (1, 2, 7)
    )
    assert ("words_dropped_as_rare" in one.counts) == (most_words is not None)
    for other in others:
        assert hashes(one.path) == hashes(other.path)
        assert one.digest == other.digest


def test_repeated_runs_and_threads(tmp_path: Path) -> None:
    """The whole chain in processes with other hash seeds and thread counts."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from examples_case import build_all\n"
        "build_all(Path(sys.argv[2]))"
    )
    folder = tmp_path / "chain"
    build_all(folder)
    found = [{stage: hashes(folder / stage) for stage in STAGES}]
    for seed, threads in (("1", "1"), ("2", "3")):
        subprocess.run(
            [sys.executable, "-c", script, str(Path(__file__).parents[1]), str(folder)],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
        )
        found.append({stage: hashes(folder / stage) for stage in STAGES})
    assert found[0] == found[1] == found[2]
    assert len(found[0]["examples"]) == 5  # of each split a block and the index, and the manifest


def test_another_place_gives_the_same_files(tmp_path: Path) -> None:
    """Only the manifests differ, since they name the paths of the sources."""
    build_all(tmp_path / "here")
    build_all(tmp_path / "there" / "deeper")
    for stage in STAGES:
        here, there = hashes(tmp_path / "here" / stage), hashes(tmp_path / "there" / "deeper" / stage)
        here.pop("manifest.json"), there.pop("manifest.json")
        assert here == there


def test_a_change_of_text_changes_the_digests_down_the_chain(tmp_path: Path) -> None:
    build_all(tmp_path)
    before = {stage: open_artifact(tmp_path / stage, stage).digest for stage in STAGES}
    build_all(tmp_path, text=made_up_text(seed=4))
    after = {stage: open_artifact(tmp_path / stage, stage) for stage in STAGES}
    assert all(after[stage].digest != before[stage] for stage in STAGES)
    assert after["tokenizer"].inputs == {"corpus": after["corpus"].digest}
    assert after["examples"].inputs == {stage: after[stage].digest for stage in ("corpus", "tokenizer")}
