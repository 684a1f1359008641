"""What a vocabulary makes of a text, counted by hand."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bertsmith.cli import app
from bertsmith.corpus.build import build_corpus, read_documents
from bertsmith.engine import Engine
from bertsmith.tokenizer.encode import SPECIAL_TOKENS, Tokenizer, make_backend
from bertsmith.tokenizer.report import report_on_corpus, report_on_texts, unknown_warning
from examples_case import corpus_config, made_up_text

TOKENS = (*SPECIAL_TOKENS, "low", "##er", "##est", "new", "天", ".", "n", "##e", "##w")


def tokenizer_of(*tokens: str) -> Tokenizer:
    return Tokenizer(make_backend({token: number for number, token in enumerate(tokens)}, lowercase=True))


def test_counts_and_shares() -> None:
    report = report_on_texts(tokenizer_of(*TOKENS), ["Lower, low newer.", "天地 LOWEST " + "x" * 101])
    # lower , low newer . 天 地 lowest xxx...
    assert (report.words, report.han_words, report.unknown) == (9, 2, 3)
    assert report.pieces == 2 + 1 + 1 + 2 + 1 + 1 + 1 + 2 + 1
    assert report.fertility == (12 - 2) / 7
    assert report.unknown_share == 3 / 9
    assert report.whole_share == 3 / 9
    assert report.characters == 5 + 1 + 3 + 5 + 1 + 2 + 6 + 101
    assert report.coverage == (5 + 3 + 5 + 1 + 1 + 6) / 124
    assert report.characters_per_piece == 124 / 12
    assert report.entries_used == 6
    assert report.longest[:3] == (("low", 3), ("est", 1), ("new", 1))
    assert report.commonest_unknown == ((",", 1), ("地", 1))


def test_pieces_are_those_of_encoding(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(made_up_text(), encoding="utf-8")
    corpus = build_corpus(corpus_config(tmp_path / "text.txt"), tmp_path / "corpus", environment={}).path
    tokenizer = tokenizer_of(*SPECIAL_TOKENS, *"bkltmrsdvpn.", *(f"##{letter}" for letter in "aeiourkhnpx"), "##min")
    for split in ("train", "validation"):
        sentences = [sentence for document in read_documents(corpus, split) for sentence in document.sentences]
        ids = tokenizer.encode_flat(sentences)[0]
        report = report_on_corpus(tokenizer, corpus, split, engine=Engine(1))
        assert report.pieces == len(ids)
        assert report.unknown == int((ids == tokenizer.unk_id).sum())
        assert report.unknown


def test_a_text_without_words() -> None:
    report = report_on_texts(tokenizer_of(*TOKENS), ["", " \n"])
    assert (report.fertility, report.unknown_share, report.coverage, report.characters_per_piece) == (
        1.0,
        0.0,
        1.0,
        0.0,
    )


def test_called_out_above_five_percent() -> None:
    assert unknown_warning(0.05, "x") == ""
    assert unknown_warning(0.051, "x").startswith("5.1% of the words are [UNK]")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(made_up_text(), encoding="utf-8")
    build_corpus(corpus_config(tmp_path / "text.txt"), tmp_path / "run" / "corpus", environment={})
    tokenizer_of(*TOKENS).save(tmp_path / "run" / "tokenizer")
    tokenizer_of(*TOKENS, "newest").save(tmp_path / "other")
    (tmp_path / "held.txt").write_text("lowest newest\n天地\n", encoding="utf-8")
    return tmp_path


def test_the_verb(folders: Path) -> None:
    run, other, text = (str(folders / name) for name in ("run", "other", "held.txt"))
    shown = CliRunner().invoke(app, ["tokenizer", "report", run, "--text", text, "--beside", other])
    assert shown.exit_code == 0, shown.output
    assert "25.000%" in shown.output
    assert "Warning: 25.0% of the words are [UNK]" in shown.output
    found = CliRunner().invoke(app, ["tokenizer", "report", run, "--text", text, "--beside", other, "--json"])
    told = json.loads(found.stdout)
    assert (told[run]["fertility"], told[other]["fertility"]) == (2.0, 1.5)
    assert told[other]["vocab_size"] == len(TOKENS) + 1


def test_held_out_text_is_the_default(folders: Path) -> None:
    run = str(folders / "run")
    told = {}
    for split in ("validation", "train"):
        arguments = ["tokenizer", "report", run, "--corpus", run, "--json", "--split", split]
        told[split] = json.loads(CliRunner().invoke(app, arguments).stdout)[run]["words"]
    default = json.loads(CliRunner().invoke(app, ["tokenizer", "report", run, "--corpus", run, "--json"]).stdout)
    assert default[run]["words"] == told["validation"] < told["train"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give the text to look at: --text FILE"),
        (["--text", "held.txt", "--corpus", "run"], "give the text to look at: --text FILE"),
        (["--corpus", "other"], "other holds no finished corpus"),
        (["--corpus", "run", "--split", "test"], "run: holds no words; --split takes others than 'test'"),
    ],
)
def test_wrong_requests(folders: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(folders)
    result = CliRunner().invoke(app, ["tokenizer", "report", "run", *arguments])
    assert message in str(result.exception)
