"""What this machine's matrix products can do at best: what a training step's arithmetic is compared with."""

import functools
import time

import torch

from bertsmith.runtime import Runtime

_SIZE = {"cpu": 2048, "cuda": 8192}
_SECONDS = 0.5
_LEAST, _MOST = 3, 50


def matmul_peak(runtime: Runtime) -> float:
    """FLOP/s of a large square product in the training's dtype: the best of those that fit into half a second.

    Measured once in a process, on as many threads as training has. A machine that is busy with other things shows
    less; a share above 1 says that it was.
    """
    return _measured(runtime.device, runtime.dtype, runtime.threads)


@functools.cache
def _measured(device: torch.device, dtype: torch.dtype, _threads: int) -> float:
    size = _SIZE.get(device.type, 4096)
    with torch.no_grad():
        a, b, out = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(3))
        torch.mm(a, b, out=out)
        _wait(device)
        seconds: list[float] = []
        while len(seconds) < _LEAST or (sum(seconds) < _SECONDS and len(seconds) < _MOST):
            started = time.perf_counter()
            torch.mm(a, b, out=out)
            _wait(device)
            seconds.append(time.perf_counter() - started)
    return 2.0 * size**3 / min(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
