"""Heads chosen by a recipe or given as a class, from fine-tuning to prediction; dropout of each part."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bertsmith
from bertsmith.config import parse_recipe
from bertsmith.errors import CheckpointError, RecipeError, UsageError
from bertsmith.model.config import BertConfig
from bertsmith.model.weights import read_config
from bertsmith.tasks import finetune as room
from bertsmith.tasks.finetune import FinetuneResult, finetune
from bertsmith.tasks.predict import TASKS, Predictor
from bertsmith.tasks.starting_model import StartingPoint
from bertsmith.training.groups import parameter_groups
from finetune_case import CPU, multilabel_rows, quiet, recipe, text_rows, write_tiny_model


class Weighted(nn.Module):
    """Sum over tokens by a learned vector."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.query = nn.Parameter(torch.zeros(config.hidden_size))
        self.out = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        shares = (hidden @ self.query).masked_fill(attention_mask == 0, -1e9).softmax(-1)
        scores: Tensor = self.out((shares[:, :, None] * hidden).sum(1))
        return scores


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's speed is not measured."""
    monkeypatch.setattr(room, "matmul_peak", lambda runtime: 1e9)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


def run(base: Path, folder: Path, head: type[nn.Module] | None = None, **settings: Any) -> FinetuneResult:
    tables: dict[str, Any] = {"train": text_rows(120, seed=1), "test": {"new": text_rows(40, seed=2)}}
    return finetune(recipe(**settings), folder, model=base, head=head, console=quiet(), runtime=CPU, **tables)


def test_a_recipe_chooses_pooling_and_depth_and_the_model_answers_with_them(base: Path, tmp_path: Path) -> None:
    result = run(base, tmp_path / "run", pooling="mean", head_layers=1, head_learning_rate=0.02, epochs=4)
    assert result.scores["new"]["accuracy"] > 0.9
    config = read_config(tmp_path / "run" / "model")
    assert (config.head_pooling, config.head_layers, config.head_act) == ("mean", 1, "gelu")
    model = Predictor.load(tmp_path / "run", runtime=CPU)
    assert [answer.label for answer in model.predict(["so lovely", "so gloomy"])] == ["good", "bad"]


def test_a_model_s_head_is_gone_on_from_unless_the_recipe_says_otherwise(base: Path, tmp_path: Path) -> None:
    run(base, tmp_path / "first", pooling="max", epochs=1)
    first = Predictor.load(tmp_path / "first", runtime=CPU).model
    config = recipe().finetune
    assert config is not None
    start = StartingPoint(tmp_path / "first" / "model", False, "random", 42)
    again = start.model(TASKS["classify"], ("bad", "good"), config)
    assert torch.equal(again.head.classifier.weight, first.head.classifier.weight)
    swapped = start.model(TASKS["classify"], ("good", "bad"), config)
    assert not torch.equal(swapped.head.classifier.weight, first.head.classifier.weight)
    tagger = start.model(TASKS["tag"], ("B-PLACE", "O"), config)
    assert tagger.config.has_plain_head


def test_a_head_of_one_s_own(base: Path, tmp_path: Path) -> None:
    made = {"name": "own", "finetune": {"model": str(base), "epochs": 4, "batch_size": 8, "learning_rate": 0.01}}
    settings = {"max_length": 16, "head_learning_rate": 0.02, "compile": "off"}
    given = parse_recipe({**made, "finetune": {**made["finetune"], **settings}})  # type: ignore[dict-item]
    rows, test = text_rows(120, seed=1), {"new": text_rows(40, seed=2)}
    result = bertsmith.finetune(given, train=rows, test=test, head=Weighted, runs=tmp_path, console=quiet())
    assert result.finetuned is not None
    assert result.finetuned.scores["new"]["accuracy"] > 0.9
    folder = result.finetuned.run_dir
    model = bertsmith.load(folder, head=Weighted)
    assert isinstance(model, Predictor)
    assert [answer.label for answer in model.predict(["so lovely", "so gloomy"])] == ["good", "bad"]
    assert model.model.head.query.abs().sum() > 0
    with pytest.raises(CheckpointError, match="give its class: head=Weighted"):
        bertsmith.load(folder)
    assert json.loads((folder / "state.json").read_text())["made_from"]["head"]["name"] == "Weighted"


def test_another_head_begins_anew(base: Path, tmp_path: Path) -> None:
    run(base, tmp_path, Weighted, epochs=1)

    class Other(Weighted):
        pass

    stamp = (tmp_path / "metrics.jsonl").read_text()
    run(base, tmp_path, Weighted, epochs=1)
    assert (tmp_path / "metrics.jsonl").read_text() == stamp
    run(base, tmp_path, Other, epochs=1)
    assert (tmp_path / "metrics.jsonl").read_text() != stamp
    assert read_config(tmp_path / "model").own_head == "Other"


def test_every_task_of_whole_texts_takes_a_head(base: Path, tmp_path: Path) -> None:
    rows: dict[str, Any] = {
        "multilabel": multilabel_rows(60, seed=1),
        "regress": [(text, float(label == "good")) for text, label in text_rows(60, seed=1)],
    }
    for task, train in rows.items():
        result = finetune(
            recipe(task=task, epochs=1),
            tmp_path / task,
            model=base,
            head=Weighted,
            train=train,
            console=quiet(),
            runtime=CPU,
        )
        loaded = Predictor.load(result.run_dir, head=Weighted, runtime=CPU)
        assert len(loaded.predict(["so lovely"])) == 1


def test_the_head_s_learning_rate_is_that_of_every_layer_in_it(base: Path) -> None:
    config = recipe(pooling="cls", head_layers=2).finetune
    assert config is not None
    model = StartingPoint(base, False, "random", 42).model(TASKS["classify"], ("bad", "good"), config)
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, weight_decay=0.1, head_factor=5.0)
    fast = {named[id(p)] for group in groups if group["lr_factor"] == 5.0 for p in group["params"]}
    assert fast == {name for name in named.values() if name.startswith("head.")}
    assert len(fast) == 6


@pytest.mark.parametrize("key", ["pooling", "head_layers", "head_activation"])
def test_what_a_task_or_a_head_of_one_s_own_does_not_have_is_refused(base: Path, tmp_path: Path, key: str) -> None:
    value: Any = {"pooling": "mean", "head_layers": 1, "head_activation": "tanh"}[key]
    with pytest.raises(RecipeError, match=rf"task = 'tag' takes no {key}; that is of classify, multilabel, regress"):
        recipe(task="tag", **{key: value})
    with pytest.raises(UsageError, match=rf"finetune\.{key} is of the built-in heads; leave it out beside head = Wei"):
        run(base, tmp_path, Weighted, **{key: value})
    with pytest.raises(UsageError, match=r"task = 'tag' takes no head \(Weighted\)"):
        finetune(recipe(task="tag"), tmp_path, model=base, head=Weighted, train=[], console=quiet())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({}, (0.1, 0.1, None)),
        ({"dropout": 0.3}, (0.3, 0.3, None)),
        ({"dropout": 0.3, "attention_dropout": 0.0}, (0.3, 0.0, None)),
        ({"hidden_dropout": 0.2, "classifier_dropout": 0.5}, (0.2, 0.1, 0.5)),
    ],
)
def test_dropout_of_each_part(base: Path, settings: dict[str, float], rates: tuple[float | None, ...]) -> None:
    config = recipe(**settings).finetune
    assert config is not None
    model = StartingPoint(base, False, "random", 42).model(TASKS["classify"], ("bad", "good"), config)
    found = model.config
    assert (found.hidden_dropout_prob, found.attention_probs_dropout_prob, found.classifier_dropout) == rates
    assert model.dropout.p == (rates[0] if rates[2] is None else rates[2])
