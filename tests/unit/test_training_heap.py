"""Memory that is freed while training stays with the process, and goes back to the system afterwards."""

import os
import platform
import subprocess
import sys

import pytest

from bertsmith.training.heap import freed_memory_kept

SCRIPT = """
from pathlib import Path
from bertsmith.training.heap import freed_memory_kept

def resident_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024

before = resident_mb()
with freed_memory_kept():
    bytearray(200 << 20)
    print(round(resident_mb() - before))
print(round(resident_mb() - before))
bytearray(200 << 20)
print(round(resident_mb() - before))
"""


def grown_mb(**environment: str) -> list[int]:
    """Of a process, by the end of a first use of 200 MB, after the context, and after a second use."""
    usual = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC", "GLIBC"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=usual | environment, check=True, capture_output=True, text=True, timeout=60
    )
    return [int(line) for line in done.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, whose malloc it tells what to do")
def test_kept_inside_and_given_back_outside() -> None:
    inside, after, second = grown_mb()
    assert inside >= 200
    assert max(after, second) < 50


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, whose malloc it tells what to do")
def test_what_the_environment_says_stays() -> None:
    assert max(grown_mb(MALLOC_TRIM_THRESHOLD_="131072")) < 50


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    with freed_memory_kept():
        pass


def test_an_error_inside_comes_out() -> None:
    with pytest.raises(ZeroDivisionError), freed_memory_kept():
        raise ZeroDivisionError
