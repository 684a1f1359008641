"""torch.compile where it can run and pays; eager with one line that says so where it cannot."""

import shutil
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

Function = Callable[[Any], Mapping[str, Tensor]]


def compiled(
    function: Function, mode: Literal["auto", "on", "off"], *, long_enough: bool, say: Callable[[str], None]
) -> tuple[Function, str]:
    """`function` compiled or as it is, and a note that says which and why.

    "auto" compiles where a C++ compiler is found and the run is `long_enough` to pay for it. If compilation fails at
    the first call, `say` gets one line and the function goes on eager.
    """
    if mode == "off":
        return function, "eager"
    if mode == "auto" and not long_enough:
        return function, "eager: too short a run to pay for compilation"
    if not has_compiler():
        return function, "eager: no C++ compiler was found, so torch.compile cannot run"
    return _EagerOnFailure(function, say), "torch.compile"


def has_compiler() -> bool:
    """True where torch.compile finds the C++ compiler it needs for a CPU."""
    return any(shutil.which(name) for name in ("g++", "c++", "clang++", "cl"))


class _EagerOnFailure:
    """Calls the compiled function; the first call that fails to compile makes it eager for good."""

    def __init__(self, function: Function, say: Callable[[str], None]):
        self._eager = function
        self._function: Function = torch.compile(function)
        self._say = say
        self._has_run = False

    def __call__(self, batch: Any) -> Mapping[str, Tensor]:
        if self._has_run:
            return self._function(batch)
        try:
            result = self._function(batch)
        except Exception as error:  # whatever compiler, linker or backend raised: eager tells whether the code is wrong
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self._say(f"torch.compile failed, going on eager: {reason[:200]}")
            self._function = self._eager
            result = self._eager(batch)
        self._has_run = True
        return result
