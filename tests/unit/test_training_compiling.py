"""When the step is compiled, and what happens where that fails."""

import pytest
import torch

from bertsmith.training import compiling
from bertsmith.training.compiling import COMPILED, compiled


def double(x: int) -> int:
    return 2 * x


def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling.shutil, "which", lambda _: None)


def test_off_and_too_short_leave_the_function_as_it_is() -> None:
    for mode, long_enough in (("off", True), ("auto", False)):
        function, note = compiled(double, mode, long_enough=long_enough, say=pytest.fail)  # type: ignore[arg-type]
        assert function is double
        assert note.startswith("eager")


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_without_a_compiler_it_is_eager_and_says_why(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_compiler(monkeypatch)
    function, note = compiled(double, mode, long_enough=True, say=pytest.fail)  # type: ignore[arg-type]
    assert function is double
    assert "C++ compiler" in note


@pytest.mark.parametrize(("mode", "long_enough"), [("on", False), ("auto", True)])
def test_with_a_compiler_it_is_compiled(mode: str, long_enough: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch, "compile", lambda function: lambda x: function(x) + 100)
    function, note = compiled(double, mode, long_enough=long_enough, say=pytest.fail)  # type: ignore[arg-type]
    assert note == COMPILED
    assert function(1) == 102


def test_a_failing_compilation_goes_on_eager_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> object:
        raise RuntimeError("g++: fatal error\nand much more")

    monkeypatch.setattr(compiling.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch, "compile", lambda function: broken)
    said: list[str] = []
    function, _ = compiled(double, "on", long_enough=True, say=said.append)
    assert [function(1), function(2)] == [2, 4]
    assert said == ["torch.compile failed, going on eager: g++: fatal error"]


def test_an_error_of_the_function_itself_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(_: int) -> int:
        raise ValueError("wrong shape")

    monkeypatch.setattr(compiling.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch, "compile", lambda function: function)
    function, _ = compiled(wrong, "on", long_enough=True, say=lambda _: None)
    with pytest.raises(ValueError, match="wrong shape"):
        function(1)
