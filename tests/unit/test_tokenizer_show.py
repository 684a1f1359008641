"""`bertsmith tokenizer show`: original, piece and id of each piece."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bertsmith.cli import app
from bertsmith.errors import CheckpointError
from bertsmith.tokenizer.encode import SPECIAL_TOKENS, Tokenizer, make_backend

VOCABULARY = [*SPECIAL_TOKENS, "play", "##ing", "天", "[", "bold", "]"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a tokenizer."""
    backend = make_backend({token: number for number, token in enumerate(VOCABULARY)}, lowercase=True)
    Tokenizer(backend).save(tmp_path / "run" / "tokenizer")
    return tmp_path / "run"


def show(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["tokenizer", "show", *arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.mark.parametrize("inside", ["", "tokenizer"])
def test_a_table(run: Path, inside: str) -> None:
    shown = show("PLAYing [bold]天 ☃", "--tokenizer", str(run / inside))
    lines = [line.split() for line in shown.splitlines()]
    assert lines[:5] == [
        ["original", "piece", "id"],
        ["[CLS]", "2"],
        ["PLAY", "play", "5"],
        ["ing", "##ing", "6"],
        ["[", "[", "8"],
    ]
    assert lines[7] == ["天", "天", "7"]
    assert lines[8] == ["☃", "[UNK]", "1"]
    assert " ".join(lines[-1]) == "7 pieces of 6 words, 1 unknown, and [CLS] and [SEP]"


def test_json(run: Path) -> None:
    shown = json.loads(show("天", "--tokenizer", str(run), "--json"))
    assert shown["text"] == "天"
    assert shown["pieces"][1] == {"original": "天", "piece": "天", "id": 7}


def test_no_tokenizer() -> None:
    with pytest.raises(CheckpointError, match="no such directory"):
        show("a", "--tokenizer", "/no/such/folder")
