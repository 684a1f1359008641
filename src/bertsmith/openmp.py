"""How threads wait for work: PyTorch's on a CPU are OpenMP's, which must be told before it is loaded."""

import os

_SAID_BY_THE_USER = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def wait_asleep() -> None:
    """Let a thread that has nothing to do sleep, not spin, unless the environment says how it shall wait.

    By itself it spins for milliseconds after each product, and takes the processor from whoever it waits for: beside
    other processes training becomes many times slower. Call this before the first import of torch.
    """
    if not any(name in os.environ for name in _SAID_BY_THE_USER):
        os.environ["GOMP_SPINCOUNT"] = "0"
