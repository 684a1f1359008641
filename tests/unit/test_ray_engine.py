"""Tasks on Ray: results in order, errors as they are, lost workers replaced, nothing left running."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bertsmith.commands.options import read_recipe
from bertsmith.config import RuntimeConfig
from bertsmith.engine import Engine
from bertsmith.errors import BertsmithError, DataError, MissingExtraError, UsageError
from bertsmith.ray_engine import RayEngine, engine_for
from engine_case import die, die_once, double, refuse_three, slower_first, where


@pytest.fixture(scope="module")
def engine() -> Iterator[RayEngine]:
    """A cluster of this machine alone, of two workers."""
    pytest.importorskip("ray", reason='Ray is not installed: pip install "bertsmith[ray]"')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # so that its workers find the tasks of the tests
        with RayEngine(2) as engine:
            yield engine


def test_results_in_order(engine: RayEngine) -> None:
    assert list(engine.map(slower_first, range(9))) == list(range(9))
    assert list(engine.map(double, [])) == []


def test_errors_arrive_as_they_are(engine: RayEngine) -> None:
    results = engine.map(refuse_three, range(9))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match=r"^numbers.txt:3: is three$"):
        next(results)


def test_relative_paths_are_meant_from_where_the_command_was_typed(
    engine: RayEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(engine.map(where, [0, 1])) == [str(tmp_path)] * 2


def test_a_task_whose_process_died_is_run_again(engine: RayEngine, tmp_path: Path) -> None:
    tasks = [tmp_path / name for name in "abc"]
    assert list(engine.map(die_once, tasks)) == list("abc")


def test_a_task_that_kills_its_process_each_time(engine: RayEngine) -> None:
    with pytest.raises(BertsmithError, match=r"Ray lost a task .*\(WorkerCrashedError\).* run the same command again"):
        list(engine.map(die, [1]))


def test_stopped_it_ends_its_tasks_and_says_how_to_go_on(tmp_path: Path) -> None:
    """SIGTERM comes through to us, not to Ray, and no task is left."""
    pytest.importorskip("ray", reason='Ray is not installed: pip install "bertsmith[ray]"')
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, sys; from pathlib import Path\n"
        "from bertsmith.errors import Stopped; from bertsmith.ray_engine import RayEngine\n"
        "from engine_case import note_and_wait\n"
        "def stop(number, frame): raise Stopped(number, 'this command')\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "try: list(RayEngine(1).map(note_and_wait, [Path(sys.argv[1])]))\n"
        "except Stopped as stopped: sys.exit(stopped.exit_code)\n"
    )
    notes = tmp_path / "notes"
    notes.mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, script, notes], env=environment)
    try:
        deadline = time.monotonic() + 60
        while not list(notes.iterdir()):
            assert process.poll() is None
            assert time.monotonic() < deadline, "the task never began"
            time.sleep(0.05)
        (worker,) = (int(note.name) for note in notes.iterdir())
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 128 + signal.SIGTERM
    finally:
        process.kill()
    while Path(f"/proc/{worker}").exists():
        assert time.monotonic() < deadline, "the task is still running"
        time.sleep(0.05)


def test_no_cluster_at_that_address() -> None:
    pytest.importorskip("ray", reason='Ray is not installed: pip install "bertsmith[ray]"')
    with pytest.raises(UsageError, match=r"no Ray cluster answers at nowhere .*`ray start --head`"):
        list(RayEngine(address="nowhere").map(double, [1]))


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r'engine = \'ray\' needs .* "bertsmith\[ray\]"'):
        engine_for(RuntimeConfig(engine="ray"))


def test_the_engine_that_the_recipe_asks_for() -> None:
    assert type(engine_for(RuntimeConfig(workers=3))) is Engine
    assert engine_for(RuntimeConfig(workers=3)).workers == 3
    with pytest.raises(UsageError, match="only with engine = 'ray'"):
        engine_for(RuntimeConfig(ray_address="auto"))


def test_options_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('name = "mine"\n[runtime]\nworkers = 3\n')
    runtime = read_recipe(tmp_path / "recipe.toml", None, engine="ray", ray_address="10.0.0.1:6379").runtime
    assert (runtime.engine, runtime.ray_address, runtime.workers) == ("ray", "10.0.0.1:6379", 3)
    assert read_recipe(tmp_path / "recipe.toml", None).runtime == RuntimeConfig(workers=3)
