"""Ray and the local pool write the same bytes, also when a machine of the cluster is lost on the way."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bertsmith.artifact import work_folder
from bertsmith.config import CorpusConfig, ExamplesConfig, Source, TokenizerConfig
from bertsmith.corpus.build import build_corpus
from bertsmith.engine import Engine
from bertsmith.examples.shards import build_examples
from bertsmith.ray_engine import RayEngine
from bertsmith.tokenizer.train import train_tokenizer
from examples_case import made_up_text

FILES = 12


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusConfig:
    """Sources enough that each machine gets some of them."""
    folder = tmp_path_factory.mktemp("texts")
    sources = []
    for number in range(FILES):
        path = folder / f"{number}.txt"
        path.write_text(made_up_text(documents=40, seed=number), encoding="utf-8")
        sources.append(Source(kind="text", paths=(str(path),), layout="sentences"))
    return CorpusConfig(sources=tuple(sources), validation_share=0.2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without processors and two machines of one each, as processes on loopback."""
    pytest.importorskip("ray", reason='Ray is not installed: pip install "bertsmith[ray]"')
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 << 20, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
        try:
            found.machines = [found.add_node(num_cpus=1, object_store_memory=80 << 20) for _ in range(2)]
            found.wait_for_nodes()
            yield found
        finally:
            found.shutdown()


def build(config: CorpusConfig, out: Path, engine: Engine) -> dict[str, bytes]:
    """The files of the artifact but run.json, which tells the time."""
    build_corpus(config, out, environment={}, engine=engine)
    assert [path.name for path in out.parent.iterdir()] == [out.name], "something is left behind"
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.name != "run.json"}


def test_vocabulary_and_examples_on_a_cluster(cluster: Any, corpus: CorpusConfig, tmp_path: Path) -> None:
    built = tmp_path / "corpus"
    build_corpus(corpus, built, environment={})
    expected = vocabulary_and_examples(built, tmp_path / "local", Engine(1))
    with RayEngine(address=cluster.address) as engine:
        assert vocabulary_and_examples(built, tmp_path / "ray", engine) == expected


def vocabulary_and_examples(corpus: Path, out: Path, engine: Engine) -> dict[str, bytes]:
    """Every file of both artifacts but run.json."""
    tokenizer, examples = out / "tokenizer", out / "examples"
    train_tokenizer(TokenizerConfig(vocab_size=300), corpus, tokenizer, environment={}, engine=engine)
    build_examples(ExamplesConfig(max_length=64), corpus, tokenizer, examples, seed=1, environment={}, engine=engine)
    files = [path for folder in (tokenizer, examples) for path in sorted(folder.iterdir()) if path.name != "run.json"]
    assert len(files) > 6
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in files}


def test_two_machines_of_which_one_is_lost_half_way(cluster: Any, corpus: CorpusConfig, tmp_path: Path) -> None:
    expected = build(corpus, tmp_path / "local" / "corpus", Engine(1))
    assert len(expected) == FILES + 1
    with RayEngine(address=cluster.address) as engine:
        assert build(corpus, tmp_path / "both" / "corpus", engine) == expected
        out = tmp_path / "one" / "corpus"
        killer = threading.Thread(target=_kill_half_way, args=(_another_machine(cluster), work_folder(out)))
        killer.start()
        assert build(corpus, out, engine) == expected
        killer.join()


def _another_machine(cluster: Any) -> Any:
    """One of the two that is not the one through which this process speaks to the cluster."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    return next(machine for machine in cluster.machines if machine.node_id != here)


def _kill_half_way(machine: Any, work: Path) -> None:
    """SIGKILL of a machine's raylet, with which its workers go, when the first pieces are there."""
    while not work.is_dir() or not [piece for piece in work.iterdir() if not piece.name.startswith(".")]:
        time.sleep(0.002)
    for process in machine.all_processes["raylet"]:
        os.kill(process.process.pid, signal.SIGKILL)
