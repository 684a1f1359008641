"""The command line tells OpenMP to let idle threads sleep, before torch loads it, unless the user said otherwise."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
from bertsmith.cli import main
assert "torch" not in sys.modules, "OpenMP reads its settings when torch is loaded"
sys.argv = ["bertsmith", "--help"]
try:
    main()
except SystemExit:
    pass
print(os.environ.get("GOMP_SPINCOUNT"), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("said", "expected"), [({}, "0"), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")]
)
def test_idle_threads_sleep_unless_the_user_says_otherwise(said: dict[str, str], expected: str) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=clean | said,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert found.stderr.split() == [expected]
