"""torch.compile where it can run and pays; eager with one line that says so where it cannot."""

import shutil
from collections.abc import Callable
from typing import Generic, Literal, ParamSpec, TypeVar

import torch

Inputs = ParamSpec("Inputs")
Output = TypeVar("Output")

COMPILED = "torch.compile"


def compiled(
    function: Callable[Inputs, Output],
    mode: Literal["auto", "on", "off"],
    *,
    long_enough: bool,
    say: Callable[[str], None],
) -> tuple[Callable[Inputs, Output], str]:
    """`function` compiled or as it is, and a note that says which and why; `COMPILED` where it is compiled.

    "auto" compiles where a C++ compiler is found and the run is `long_enough` to pay for it. If compilation fails at
    the first call, `say` gets one line and the function goes on eager.
    """
    if mode == "off":
        return function, "eager"
    if mode == "auto" and not long_enough:
        return function, "eager: too short a run to pay for torch.compile"
    if not has_compiler():
        return function, "eager: torch.compile needs a C++ compiler, such as g++, and found none"
    return _EagerOnFailure(function, say), COMPILED


def has_compiler() -> bool:
    """True where torch.compile finds the C++ compiler it needs for a CPU."""
    return any(shutil.which(name) for name in ("g++", "c++", "clang++", "cl"))


class _EagerOnFailure(Generic[Inputs, Output]):
    """Calls the compiled function; a first call that fails to compile makes it eager for good."""

    def __init__(self, function: Callable[Inputs, Output], say: Callable[[str], None]):
        self._eager = function
        self._function: Callable[Inputs, Output] = torch.compile(function)
        self._say = say
        self._has_run = False

    def __call__(self, *args: Inputs.args, **kwargs: Inputs.kwargs) -> Output:
        if self._has_run:
            return self._function(*args, **kwargs)
        try:
            result = self._function(*args, **kwargs)
        except Exception as error:  # whatever compiler or backend raised; if the code is wrong, eager raises it again
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self._say(f"torch.compile failed, going on eager: {reason[:200]}")
            self._function = self._eager
            result = self._eager(*args, **kwargs)
        self._has_run = True
        return result
