"""Looking at examples: what is shown is what training gets; the command prints it with and without colour."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bertsmith.cli import app
from bertsmith.errors import ArtifactError
from bertsmith.examples.look import Example, count, look, open_examples
from bertsmith.tokenizer.encode import Tokenizer
from examples_case import build_all


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("look")
    build_all(folder)
    return folder


def show(run: Path, *arguments: str, **environment: str) -> str:
    """What the command prints at a wide terminal."""
    result = CliRunner().invoke(app, ["examples", "show", str(run), *arguments], env={"COLUMNS": "400", **environment})
    assert result.exit_code == 0, result.output
    return result.stdout


def pieces_of(example: Example) -> list[str]:
    return [piece.hidden or piece.text for piece in (*example.a, *example.b)]


def test_what_is_shown_is_what_training_gets(run: Path) -> None:
    data = open_examples(run, mask_by="word")
    batch = data.at(range(40))
    examples = look(data, range(40))
    tokenizer = Tokenizer.load(run / "tokenizer")
    assert tuple(example.id for example in examples) == batch.example_ids
    assert sum(example.num_hidden for example in examples) == batch.counts["mlm"]
    for row, example in enumerate(examples):
        ids = batch.input_ids[row][batch.attention_mask[row] == 1].tolist()
        text = [piece.text for piece in (*example.a, *example.b)]
        shown = tokenizer.tokens([number for number in ids if number not in (tokenizer.cls_id, tokenizer.sep_id)])
        assert text == shown
        assert len(example.a) == int(((batch.token_type_ids[row] == 0) & (batch.attention_mask[row] == 1)).sum()) - 2
        label = int(batch.next_sentence_label[row])
        assert example.label == {0: "follows", 1: "random", -100: None}[label]
        assert bool(example.b) == (example.label is not None)
        for piece in (*example.a, *example.b):
            assert (piece.hidden is None) == (piece.how is None)
            assert (piece.how == "mask") == (piece.text == "[MASK]")
            assert piece.how != "kept" or piece.text == piece.hidden


def test_sentence_order_is_seen(run: Path) -> None:
    """The two parts of a swapped pair, put back in order, are the span that `pairs="none"` shows whole."""
    whole = {example.id: pieces_of(example) for example in look(open_examples(run, pairs="none"), range(60))}
    found = look(open_examples(run, pairs="sop"), range(60))
    assert {example.label for example in found} >= {"in order", "swapped"}
    for example in found:
        first, second = (example.b, example.a) if example.label == "swapped" else (example.a, example.b)
        assert [piece.hidden or piece.text for piece in (*first, *second)] == whole[example.id]


@pytest.mark.parametrize("mask_by", ["token", "word", "span"])
def test_counts(run: Path, mask_by: str) -> None:
    data = open_examples(run, mask_by=mask_by)  # type: ignore[arg-type]
    counts = count(data, range(data.num_examples))
    assert counts.examples == data.num_examples
    assert counts.nothing_hidden == 0
    assert 0.12 < counts.hidden_share < 0.17
    assert counts.furthest_in_words <= 1
    assert (counts.words_hidden_in_part == 0) == (mask_by != "token")
    assert abs(counts.how["mask"] - 0.8) < 0.06
    assert abs(counts.labels["random"] - 0.5) < 0.15
    assert sum(counts.how.values()) == pytest.approx(1, abs=1e-3)


def test_the_recipe_of_the_run_is_followed(run: Path, tmp_path: Path) -> None:
    for name in ("examples", "tokenizer"):
        (tmp_path / name).symlink_to(run / name)
    recipe = (
        'name = "x"\nseed = 3\n[corpus]\n[tokenizer]\n[examples]\nmax_length = 64\n'
        '[pretrain]\nmax_steps = 1\nmask_by = "span"\nmask_share = 0.3\nobjectives = ["mlm", "sop"]\n'
    )
    (tmp_path / "recipe.toml").write_text(recipe)
    data = open_examples(tmp_path)
    assert (data.seed, data.pair_objective, data.mask_share) == (3, "sop", 0.3)
    assert abs(count(data, range(data.num_examples)).hidden_share - 0.3) < 0.02
    assert open_examples(tmp_path / "examples", pairs="none").objectives == ("mlm",)


def test_without_a_tokenizer(run: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(run / "examples")
    with pytest.raises(ArtifactError, match="has no tokenizer beside it"):
        open_examples(tmp_path)
    with pytest.raises(ArtifactError, match="holds no finished examples"):
        open_examples(tmp_path / "nowhere")


def test_the_command_prints_plain_text_where_there_are_no_colours(run: Path) -> None:
    plain = show(run, "--number", "4", "--mask-by", "word")
    assert "\x1b" not in plain
    (first, *_) = look(open_examples(run, mask_by="word"), range(4))
    assert f"example {first.id}, {first.label}" in plain
    assert plain.count("[MASK=") > 4
    assert "examples with nothing to guess     0" in plain
    assert show(run, "--number", "4", "--mask-by", "word", FORCE_COLOR="1", NO_COLOR="1").count("\x1b[31m") == 0
    coloured = show(run, "--number", "4", "--mask-by", "word", FORCE_COLOR="1", TERM="xterm-256color")
    assert "\x1b[1;31m[MASK=" in coloured


def test_the_command_for_programs_and_another_epoch(run: Path) -> None:
    one, two = (json.loads(show(run, "--json", "--epoch", epoch, "--number", "2")) for epoch in ("0", "1"))
    assert len(one["examples"]) == 2
    assert one["examples"] != two["examples"]
    assert one["counts"]["nothing_hidden"] == 0
    assert {"text", "hidden", "how"} == one["examples"][0]["a"][0].keys()
