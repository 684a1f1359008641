"""Tasks on processes: results in order, errors as they are, dead workers replaced."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bertsmith.engine import Engine
from bertsmith.errors import BertsmithError, DataError
from engine_case import die, die_once, double, itself, refuse_three, refuse_unsendably


def slower_first(number: int) -> tuple[int, int]:
    time.sleep(0.2 if number == 0 else 0)
    return number, os.getpid()


def test_results_in_order_from_other_processes() -> None:
    results = list(Engine(2).map(slower_first, range(6)))
    assert [number for number, _ in results] == list(range(6))
    assert os.getpid() not in {process for _, process in results}


def test_one_worker_is_this_process() -> None:
    assert {process for _, process in Engine(1).map(slower_first, [1, 2])} == {os.getpid()}


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_arrive_as_they_are(workers: int) -> None:
    results = Engine(workers).map(refuse_three, range(9))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match=r"numbers.txt:3: is three"):
        next(results)


def test_a_task_whose_process_died_is_run_again(tmp_path: Path) -> None:
    tasks = [tmp_path / name for name in "abcd"]
    assert list(Engine(2).map(die_once, tasks)) == list("abcd")


def test_several_processes_die_at_the_same_time(tmp_path: Path) -> None:
    tasks = [tmp_path / str(number) for number in range(12)]
    with Engine(4) as engine:
        assert list(engine.map(die_once, tasks)) == [str(number) for number in range(12)]
        assert list(engine.map(die_once, tasks)) == [str(number) for number in range(12)]


def test_maps_may_be_used_alternately() -> None:
    with Engine(2) as engine:
        assert list(zip(engine.map(double, range(9)), engine.map(double, range(9)), strict=True)) == [
            (2 * number, 2 * number) for number in range(9)
        ]


def test_large_tasks_with_large_answers() -> None:
    """More than a pipe takes: neither side may wait for the other to read."""
    tasks = [bytes([number]) * 3_000_000 for number in range(8)]
    assert list(Engine(2).map(itself, tasks)) == tasks


def test_an_error_that_cannot_be_sent() -> None:
    with pytest.raises(RuntimeError, match="two arguments of its own"):
        list(Engine(2).map(refuse_unsendably, range(3)))


def test_a_task_that_kills_its_process_each_time() -> None:
    with pytest.raises(BertsmithError, match="died 4 times, most likely out of memory"):
        list(Engine(2).map(die, range(4)))


def test_nobody_is_left_when_the_results_are_not_wanted() -> None:
    results = Engine(2).map(slower_first, range(50))
    _, process = next(results)
    results.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("a worker is still there")


def test_processes_are_kept_between_maps_where_that_is_asked_for() -> None:
    with Engine(2) as engine:
        first = {process for _, process in engine.map(slower_first, range(4))}
        second = {process for _, process in engine.map(slower_first, range(4))}
        assert first & second
        assert len(first | second) <= 2
    with pytest.raises(ProcessLookupError):
        os.kill(first.pop(), 0)


@pytest.mark.parametrize("name", ["long " * 40, "not there"])
def test_without_a_place_for_its_socket_workers_are_started_another_way(tmp_path: Path, name: str) -> None:
    """A socket's path may have about a hundred characters."""
    folder = tmp_path / name
    if name != "not there":
        folder.mkdir()
    script = "from bertsmith.engine import Engine; print(list(Engine(2).map(abs, [-1, -2, -3])))"
    environment = {**os.environ, "TMPDIR": str(folder)}
    found = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert (found.stdout, found.stderr) == ("[1, 2, 3]\n", "")


def test_a_script_without_a_guard_is_not_begun_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from bertsmith.engine import Engine\nprint('begins')\nprint(list(Engine(2).map(abs, [-1, -2, -3])))\n"
    )
    found = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout == "begins\n[1, 2, 3]\n"
