"""What this machine's matrix products can do at best: what a training step's arithmetic is compared with."""

import functools
import time
from collections.abc import Callable

import torch

from bertsmith.runtime import Runtime

_SMALLEST = 256
_LARGEST = {"cpu": 2048, "cuda": 8192}
_SECONDS = 0.5
_SECONDS_A_PRODUCT = 0.1
_LEAST, _MOST = 3, 50


def matmul_peak(runtime: Runtime) -> float:
    """FLOP/s of a large square product in the training's dtype: the best of those that fit into half a second.

    Large is what takes at most a tenth of a second: a processor without instructions for bfloat16 or float16 needs
    half a minute for what it does in a twentieth of a second in float32. Measured once in a process, on as many
    threads as training has. A machine that is busy with other things shows less; a share above 1 says that it was.
    """
    return _measured(runtime.device, runtime.dtype, runtime.threads)


@functools.cache
def _measured(device: torch.device, dtype: torch.dtype, _threads: int) -> float:
    largest = _LARGEST.get(device.type, 4096)
    size = _SMALLEST
    once = _product(size, device, dtype)
    while size < largest and 8 * once() <= _SECONDS_A_PRODUCT:  # twice the size is eight times the work
        size *= 2
        once = _product(size, device, dtype)
    seconds: list[float] = []
    while len(seconds) < _LEAST or (sum(seconds) < _SECONDS and len(seconds) < _MOST):
        seconds.append(once())
    return 2.0 * size**3 / min(seconds)


def _product(size: int, device: torch.device, dtype: torch.dtype) -> Callable[[], float]:
    """What multiplies two matrices of `size` x `size` and returns the seconds it took; it has been called once."""
    a, b, out = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(3))

    @torch.no_grad()
    def once() -> float:
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        _wait(device)
        return time.perf_counter() - started

    once()
    return once


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
