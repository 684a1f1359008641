"""Arrays in files, with errors that say what happened.

`np.save` and `tofile` raise an `OSError` without a number where the disk is full, so that nobody could be told so.
"""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt


def save_array(path: Path, array: npt.NDArray[Any]) -> None:
    """A `.npy` file (format 1.0), for `np.load`; raises the system's own `OSError`."""
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        append_array(file, array)


def append_array(file: BinaryIO, array: npt.NDArray[Any]) -> None:
    """The numbers alone, in memory's order."""
    if array.size:
        file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
