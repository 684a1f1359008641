import errno
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bertsmith.corpus.arrays import save_array

FACTS = np.dtype([("characters", np.int64), ("draw", np.uint64)])


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.uint64).reshape(-1, 2),
        np.zeros((0, 3), dtype=np.uint32),
        np.array([(1, 2), (3, 4)], dtype=FACTS),
        np.zeros(0, dtype=FACTS),
        np.arange(10)[::2],
    ],
)
def test_what_is_saved_is_loaded(tmp_path: Path, array: np.ndarray) -> None:
    save_array(tmp_path / "a.npy", array)
    found = np.load(tmp_path / "a.npy")
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert np.array_equal(found, array)


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    script = (
        "import numpy as np; from pathlib import Path; from bertsmith.corpus.arrays import save_array\n"
        f"try: save_array(Path({str(tmp_path / 'a.npy')!r}), np.zeros(100_000))\n"
        "except OSError as error: print(error.errno)"
    )

    def with_little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, preexec_fn=with_little_room, check=True
    )
    assert ran.stdout.split() == [str(errno.EFBIG)], ran.stderr
