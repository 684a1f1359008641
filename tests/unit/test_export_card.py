"""A model card says what a run's files say, in the hub's own form, and of the rest that it is not known."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from bertsmith.cli import app
from bertsmith.export.card import model_card
from bertsmith.export.card_sections import said
from bertsmith.export.directory import export_directory
from bertsmith.model.weights import read_card, write_card
from bertsmith.tasks.finetune import finetune
from finetune_case import CPU, quiet, recipe, text_rows, write_tiny_model, write_tsv

ODD = "b<b>|`d`"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose labels are markup, on two test splits with baselines."""
    folder = tmp_path_factory.mktemp("run")
    base = write_tiny_model(folder / "base")
    tables = {}
    for seed, name in enumerate(("train", "validation", "test", "other"), 3):
        rows = [(text, ODD if label == "bad" else label) for text, label in text_rows(60, seed=seed)]
        tables[name] = str(write_tsv(folder / f"{name}.tsv", rows))
    config = recipe(
        model=str(base),
        train=tables["train"],
        validation=tables["validation"],
        test={"test": tables["test"], "other": tables["other"]},
        baselines=["majority"],
        epochs=2,
    )
    finetune(config, folder / "run", console=quiet(), runtime=CPU)
    return folder / "run"


def test_the_front_matter_is_the_hubs(run: Path) -> None:
    card = ModelCard(model_card(run, languages=["en"], licence="apache-2.0"))
    data = card.data.to_dict()
    assert data["pipeline_tag"] == "text-classification"
    assert (data["language"], data["license"], data["library_name"]) == (["en"], "apache-2.0", "transformers")
    table = json.loads((run / "scores.json").read_text())
    wanted = [line for line in table["table"] if line["name"] == table["name"]]
    assert card.data.eval_results is not None
    for found, line in zip(card.data.eval_results, wanted, strict=True):
        assert (found.dataset_name, found.metric_type) == (line["split"], line["metric"])
        assert found.metric_value == pytest.approx(line["score"], abs=1e-6)
        assert found.metric_args == pytest.approx({"low": line["low"], "high": line["high"], "rows": 60}, abs=1e-6)
        assert f"{line['low']:.4f} to {line['high']:.4f}" in str(found.metric_name)


def test_it_says_what_the_files_say(run: Path) -> None:
    text = model_card(run)
    state = json.loads((run / "state.json").read_text())
    assert state["made_from"]["rows"] in text
    assert state["made_from"]["model"]["model.safetensors"] in text
    assert all(digest in text for digest in state["scored_on"]["test"].values())
    assert "| baseline: majority | test |" in text
    assert "- Train: 60 rows (train.tsv)" in text
    assert "Reads 16 tokens" in text
    assert "Calibration error (ECE) on other:" in text
    assert "Tested on other, test alone" in text
    assert "Labels of the training rows: " in text
    assert "Its language is not stated" in text
    assert "No licence is stated" in text
    assert "epochs = 2, batch_size = 8, learning_rate = 0.01" in text.replace("Epochs", "epochs")


def test_text_from_data_is_text(run: Path) -> None:
    text = model_card(run)
    assert ODD not in text
    assert r"b&lt;b&gt;\|\`d\`" in text
    assert said("a_b *c*\n# d_") == r"a_b \*c\* \# d\_"


def test_it_names_no_folder_of_this_machine(run: Path) -> None:
    assert str(run.parent) not in model_card(run)


def test_what_is_not_known_says_so(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "model", tmp_path / "alone")
    text = model_card(tmp_path / "alone")
    assert text.count("Not known: no file of the model says it") == 4
    assert "Tested on nothing that a file tells of" in text
    assert ModelCard(text).data.eval_results is None
    assert "# alone\n" in text


def test_a_smaller_model_has_its_own_scores(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "model", tmp_path / "model")
    one: dict[str, Any] = {"score": 0.5, "low": 0.25, "high": 0.75, "rows": 60}
    told = {"metric": "accuracy", "before": one, "after": one | {"score": 0.375}}
    write_card(tmp_path / "model", read_card(tmp_path / "model") | {"compressed": told})
    text = model_card(tmp_path)
    assert "- before: 0.5000 (95 % interval 0.2500 to 0.7500, 60 rows)" in text
    assert "- after, this model: 0.3750" in text


def test_an_export_has_it(run: Path, tmp_path: Path) -> None:
    export_directory(run, tmp_path / "out", languages=["en"])
    assert (tmp_path / "out" / "README.md").read_text() == model_card(run, languages=["en"])
    said = CliRunner().invoke(app, ["card", str(run), "--language", "en"])
    assert said.output == model_card(run, languages=["en"])
    said = CliRunner().invoke(app, ["card", str(run), "--name", "moods", "--out", str(tmp_path / "card.md")])
    assert said.exit_code == 0
    assert 'ask = pipeline("text-classification", "moods")' in (tmp_path / "card.md").read_text()
