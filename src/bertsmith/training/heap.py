"""Memory of tensors on a CPU, kept by the process while it trains."""

import contextlib
import ctypes
import os
import platform
from collections.abc import Callable, Iterator
from typing import cast

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_NEVER_TRIM, _NO_MAPPINGS = -1, 0
# What glibc comes to by itself in a process that has freed a tensor of 32 MB or more.
_USUAL_MMAP_THRESHOLD, _USUAL_TRIM_THRESHOLD, _USUAL_MAPPINGS = 32 << 20, 64 << 20, 65536
_SAID_BY_THE_USER = ("GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let what is freed be used again by the next step, instead of going back to the system in between.

    glibc gives a large tensor pages of its own, which the system takes back when it is freed, and has to find and fill
    with zeros when the next step asks for as much again: up to a sixth of a training step. Within this context they
    stay with the process, which grows to what a step needs at its widest and no more; afterwards they go back. Where
    the environment says what malloc shall do, or malloc is not glibc's, nothing is changed.
    """
    mallopt, trim = _mallopt(), _function("malloc_trim")
    if mallopt is None or trim is None:
        yield
        return
    mallopt(_M_MMAP_MAX, _NO_MAPPINGS)
    mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM)
    try:
        yield
    finally:
        mallopt(_M_MMAP_MAX, _USUAL_MAPPINGS)
        mallopt(_M_MMAP_THRESHOLD, _USUAL_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, _USUAL_TRIM_THRESHOLD)
        trim(0)


def _mallopt() -> Callable[[int, int], int] | None:
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _SAID_BY_THE_USER):
        return None
    return _function("mallopt")


def _function(name: str) -> Callable[..., int] | None:
    """Of the C library that this process runs with."""
    with contextlib.suppress(OSError, AttributeError):
        return cast("Callable[..., int]", getattr(ctypes.CDLL(None), name))
    return None
