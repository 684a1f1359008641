"""Errors for people.

    BertsmithError            exit code 1: the work could not be done
    ├── DataError             a file of text or labels is not what it should be (names file and line)
    ├── CheckpointError       a model or tokenizer directory does not fit
    ├── ArtifactError         a stage's directory is missing, torn or of another format
    ├── MissingExtraError     an optional dependency is not installed
    └── UsageError            exit code 2: the request itself is wrong
        └── RecipeError       a recipe has an unknown key or a value out of bounds
    Stopped                   not a failure: a signal arrived, the state was saved (exit code 130 or 143)

Each message is one sentence or two: what was given, what is allowed, what to do.
"""

import signal
from pathlib import Path
from typing import Self


class BertsmithError(Exception):
    """The work could not be done; the message is shown as it stands, without a traceback."""

    exit_code = 1


class DataError(BertsmithError):
    """Text or labels that cannot be used; `line` counts from 1."""

    def __init__(self, message: str, *, path: str | Path | None = None, line: int | None = None):
        place = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(place + message)
        self.line = line


class CheckpointError(BertsmithError):
    """A checkpoint, model or tokenizer directory that does not fit what was asked of it."""


class ArtifactError(BertsmithError):
    """A stage's directory that is missing, torn or of another format."""


class MissingExtraError(BertsmithError):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, feature: str, extra: str):
        super().__init__(f'{feature} needs an optional dependency: pip install "bertsmith[{extra}]"')
        self._given = (feature, extra)

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        """So that it arrives from another process."""
        return type(self), self._given


class UsageError(BertsmithError):
    """The request itself is wrong."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe has an unknown key, or a value out of bounds."""


class Stopped(Exception):  # noqa: N818  (not an error: the work is saved)
    """Work was stopped by a signal after its state was saved; `resume_command` goes on from there."""

    def __init__(self, signal_number: int, resume_command: str):
        self.signal_number = signal_number
        self.resume_command = resume_command
        self.exit_code = 128 + signal_number
        super().__init__(f"stopped by {signal.Signals(signal_number).name}; to go on: {resume_command}")
