"""The language model: learning, scoring texts, writing on, drawn or not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import bertsmith
from bertsmith.cli import app
from bertsmith.errors import CheckpointError, UsageError
from bertsmith.model.language import BertLMHeadModel
from bertsmith.tasks.base import Columns
from bertsmith.tasks.continuation import Sampling, TextGenerator, generate
from bertsmith.tasks.evaluate import evaluate
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.generate import Generate
from bertsmith.tasks.predict import Predictor, predict
from bertsmith.tokenizer.encode import Tokenizer
from finetune_case import CPU, POSITIONS, quiet, recipe, tiny_config, write_tiny_model

TEXTS = ["tom is awful today .", "paris is so kind and bright .", "rome was very lovely .", "it was the gloomy day ."]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    folder = tmp_path_factory.mktemp("learned") / "run"
    given: dict[str, Any] = {"train": TEXTS * 20, "validation": TEXTS, "console": quiet(), "runtime": CPU}
    finetune(recipe(task="language-model", epochs=15), folder, model=base, **given)
    return folder


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory, base: Path) -> TextGenerator:
    """Of no opinion: it goes on for long, and each draw matters."""
    folder, tokenizer = tmp_path_factory.mktemp("random"), Tokenizer.load(base)
    torch.manual_seed(1)
    model = BertLMHeadModel(tiny_config(tokenizer.vocab_size, initializer_range=0.3))
    with torch.no_grad():
        model.decoder_bias[tokenizer.sep_id] = -50.0
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return TextGenerator.load(folder, runtime=CPU)


def test_every_token_has_the_next_for_a_target(base: Path) -> None:
    task, tokenizer = Generate(), Tokenizer.load(base)
    rows = task.read(["the day was so kind", "paris"], Columns(), require_labels=True)
    features = task.encode(rows, tokenizer, labels=task.own_labels, max_length=4)
    ids = tokenizer.encode_ids(["the day was so kind"])[0]
    paris = tokenizer.encode_ids(["paris"])[0]
    cls, sep = tokenizer.cls_id, tokenizer.sep_id
    parts = np.split(features.tokens.values, features.tokens.starts[1:-1])
    assert [part.tolist() for part in parts] == [[cls, *ids[:3]], [cls, ids[4]], [cls, *paris]]
    assert features.targets is not None
    assert features.targets.tolist() == [*ids, sep, *paris, sep]
    assert features.row_of_target.tolist() == [0] * 6 + [1] * 2


def test_learned_and_scored(learned: Path, base: Path) -> None:
    found = evaluate(learned, TEXTS, runtime=CPU)
    assert found.scores["accuracy"] > 0.8, "all but how a text begins"
    assert found.scores["perplexity"] == pytest.approx(np.exp(found.scores["loss"]))
    assert found.loss == pytest.approx(found.scores["loss"], rel=1e-5)
    words = sum(record["tokens"] for record in found.records)
    assert words == sum(len(ids) + 1 for ids in Tokenizer.load(base).encode_ids(TEXTS))
    for row in found.table:
        assert row.low <= row.score <= row.high


def test_a_text_s_likelihood_does_not_hang_on_its_company(learned: Path) -> None:
    predictor = bertsmith.load(learned, runtime=CPU)
    assert isinstance(predictor, Predictor)
    together = predictor.predict([TEXTS[1], "kind", "bright paris and is so ."])
    (alone,) = predictor.predict([TEXTS[1]])
    assert together[0].loss == pytest.approx(alone.loss, rel=1e-5)
    assert together[0].perplexity < 3 < together[2].perplexity
    records = list(predict(learned, ["kind"], runtime=CPU))
    assert records[0]["tokens"] == 2, "itself, and the end"


def test_greedy_text(learned: Path) -> None:
    found = generate(learned, "Paris is", runtime=CPU)
    assert (found.text, found.whole, found.is_ended) == ("so kind and bright.", "Paris is so kind and bright.", True)
    short = generate(learned, "Paris is", max_new_tokens=2, runtime=CPU)
    assert (short.text, short.is_ended) == ("so kind", False)


def test_draws_are_a_function_of_seed_and_text(random_model: TextGenerator) -> None:
    def ids(prompt: str, **settings: Any) -> tuple[int, ...]:
        sampling = Sampling(**{"temperature": 1.0, "seed": 1} | settings)
        return random_model.generate(prompt, max_new_tokens=12, sampling=sampling).ids

    first = ids("the day")
    assert len(first) == 12
    torch.rand(5)
    assert ids("the day") == first
    assert ids("the day", seed=2) != first
    assert random_model.generate("the day", max_new_tokens=5, sampling=Sampling(1.0, seed=1)).ids == first[:5]
    greedy = random_model.generate("the day", max_new_tokens=12).ids
    assert ids("the day", top_k=1) == greedy
    assert ids("the day", top_p=1e-9) == greedy
    assert len({ids("the day", seed=seed) for seed in range(8)}) == 8


def test_draws_have_the_probabilities_that_they_should() -> None:
    sampling = Sampling(temperature=0.9, top_k=4)
    logits = np.array([0.5, 2.0, -1.0, 1.0, 0.0, -3.0], dtype=np.float32)
    draws = (np.arange(20_000) + 0.5) / 20_000
    found = np.bincount([sampling.choose(logits, draw) for draw in draws], minlength=6) / len(draws)
    np.testing.assert_allclose(found, sampling.probabilities(logits), atol=1e-4)
    assert sampling.choose(logits, np.nextafter(1.0, 0.0)) == 4, "never one that is not drawn from"
    assert Sampling(temperature=1e-310).choose(logits, 0.999) == 1


def test_it_stops_where_the_positions_end(random_model: TextGenerator) -> None:
    prompt = " ".join(["day"] * (POSITIONS - 3))
    found = random_model.generate(prompt, max_new_tokens=50)
    assert (len(found.ids), found.is_ended) == (3, False)
    full = random_model.generate(" ".join(["day"] * (POSITIONS - 1)), max_new_tokens=50)
    assert len(full.ids) == 1
    with pytest.raises(UsageError, match=f"the text has {POSITIONS + 1} tokens.*{POSITIONS} positions"):
        random_model.generate(" ".join(["day"] * POSITIONS))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature = -1.0"),
        ({"temperature": float("nan")}, "temperature = nan"),
        ({"top_k": 3}, "give a temperature above 0 too"),
        ({"top_p": 0.5}, "give a temperature above 0 too"),
        ({"temperature": 1.0, "top_k": 0}, "top_k = 0; give at least 1"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p = 0.0; give more than 0"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p = 1.5; give more than 0"),
    ],
)
def test_settings_that_could_not_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Sampling(**settings)


def test_a_model_that_reads_both_ways_does_not_write(base: Path) -> None:
    with pytest.raises(CheckpointError, match=r"reads both ways \(is_decoder is not true.*task = 'language-model'"):
        TextGenerator.load(base)


@pytest.mark.parametrize("max_new_tokens", [0, -1])
def test_nothing_to_write(random_model: TextGenerator, max_new_tokens: int) -> None:
    with pytest.raises(UsageError, match="give at least 1"):
        random_model.generate("the", max_new_tokens=max_new_tokens)


def test_the_command(learned: Path) -> None:
    found = CliRunner().invoke(app, ["generate", str(learned), "Paris is", "rome"], catch_exceptions=False)
    assert found.stdout == "Paris is so kind and bright.\nrome was very lovely.\n"
    drawn = ["generate", str(learned), "paris", "--temperature", "2", "--top-k", "9", "--seed", "3", "--json"]
    one, other = (CliRunner().invoke(app, drawn, catch_exceptions=False).stdout for _ in range(2))
    assert one == other
    assert '"is_ended"' in one
    predicted = CliRunner().invoke(app, ["predict", str(learned), "tom is awful today ."], catch_exceptions=False)
    assert predicted.stdout.endswith("  tom is awful today .\n")
    assert float(predicted.stdout.split()[0]) < 3


def test_chinese_is_joined_without_spaces(tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "base", words=tuple("今天很好明坏。"))
    given: dict[str, Any] = {"train": ["今天很好。", "明天很坏。"] * 20, "console": quiet(), "runtime": CPU}
    finetune(recipe(task="language-model", epochs=12), tmp_path / "run", model=base, **given)
    assert generate(tmp_path / "run", "明天", runtime=CPU).whole == "明天很坏。"
