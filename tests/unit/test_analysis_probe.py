"""Probes find what is there and not what is not; neighbours are cosines; the command tells both."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bertsmith.analysis.probe import neighbours, probe_layers
from bertsmith.artifact import write_text
from bertsmith.cli import app
from bertsmith.errors import DataError, UsageError
from bertsmith.model import BertModel
from bertsmith.tokenizer.encode import Tokenizer
from finetune_case import BAD, GOOD, tagged_rows, text_rows, write_tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


def table(path: Path, rows: list[tuple[str, str]]) -> Path:
    write_text(path, "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    return path


def conll(path: Path, count: int) -> Path:
    sentences = ["\n".join(f"{word} {tag}" for word, tag in zip(*row, strict=True)) for row in tagged_rows(count)]
    write_text(path, "\n\n".join(sentences) + "\n")
    return path


def test_words_that_tell_the_class_are_found_in_every_layer(base: Path, tmp_path: Path) -> None:
    found = probe_layers(base, table(tmp_path / "rows.tsv", text_rows(300, seed=1)))
    assert [one.layer for one in found.layers] == [0, 1, 2]
    assert found.words > 0.9
    assert all(one.accuracy > found.majority + 0.1 for one in found.layers[:1])
    assert all(one.low <= one.accuracy <= one.high for one in found.layers)
    assert (found.task, found.trained_on + found.scored_on) == ("classify", 300)
    assert found.layers[0].selectivity is None


def test_labels_by_chance_are_not_found(base: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = [(text, str(draw.choice(["bad", "good"]))) for text, _ in text_rows(400, seed=2)]
    found = probe_layers(base, table(tmp_path / "rows.tsv", rows))
    assert all(one.low < 0.6 for one in found.layers)


def test_tags_have_a_control_task(base: Path, tmp_path: Path) -> None:
    found = probe_layers(base, conll(tmp_path / "tags.conll", 80))
    assert found.task == "tag"
    assert found.words > 0.95  # the word alone tells the tag
    assert all(one.control is not None and 0 <= one.control <= 1 for one in found.layers)
    again = probe_layers(base, tmp_path / "tags.conll", task_name="tag")
    assert again == found


def test_neighbours_are_cosines_of_the_word_table(base: Path) -> None:
    found = neighbours(base, "lovely", top=3)
    weight = BertModel.from_pretrained(base).embeddings.word_embeddings.weight.detach()
    tokenizer = Tokenizer.load(base)
    own = weight[tokenizer.token_id("lovely")]
    wanted = {
        word: float(torch.cosine_similarity(own, weight[tokenizer.token_id(word)], dim=0))
        for word in (
            *GOOD[1:],
            *BAD,
            "the",
            "day",
            "was",
            "so",
            "and",
            "very",
            "today",
            "it",
            "is",
            "paris",
            "rome",
            ".",
        )
    }
    wanted |= {
        piece: float(torch.cosine_similarity(own, weight[tokenizer.token_id(piece)], dim=0))
        for piece in ("tom", "##orrow")
    }
    best = sorted(wanted, key=lambda word: -wanted[word])[:3]
    assert [name for name, _ in found.nearest] == best
    assert found.nearest[0][1] == pytest.approx(wanted[best[0]], abs=1e-6)
    several = neighbours(base, "tomorrow")
    assert several.pieces == ("tom", "##orrow")


def test_a_word_that_is_unknown(base: Path) -> None:
    with pytest.raises(UsageError, match="'zyx' has no pieces in the vocabulary"):
        neighbours(base, "zyx")


def test_files_that_say_too_little(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has 5 rows; a probe needs 20 or more"):
        probe_layers(base, table(tmp_path / "few.tsv", text_rows(5, seed=8)))
    with pytest.raises(DataError, match="label"):
        probe_layers(base, table(tmp_path / "one.tsv", [(text, "same") for text, _ in text_rows(40)]))


def test_the_command(base: Path, tmp_path: Path) -> None:
    rows = table(tmp_path / "rows.tsv", text_rows(60, seed=1))
    command = ["probe", str(base), str(rows), "--neighbours", "lovely", "--ask", "the [MASK] was lovely"]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    assert "most frequent label" in said.output
    assert "layer 2" in said.output
    assert said.output.startswith("lovely: ")
    found = json.loads(CliRunner().invoke(app, [*command, "--json"]).output)
    assert len(found["layers"]["layers"]) == 3
    assert found["asked"][0]["text"] == "the [MASK] was lovely"
    nothing = CliRunner().invoke(app, ["probe", str(base)])
    assert "give one of them" in str(nothing.exception)
