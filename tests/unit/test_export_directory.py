"""A Hugging Face directory is written, read again and compared; what it cannot hold is refused, with nothing left."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from bertsmith.cli import app
from bertsmith.errors import BertsmithError, UsageError
from bertsmith.export import directory as export_module
from bertsmith.export.directory import export_directory
from bertsmith.model.config import INT8, BertConfig
from bertsmith.model.heads import BertForSequenceClassification
from bertsmith.model.weights import read_card, read_tensors, write_card
from bertsmith.tasks.own_rows import MADE_FROM
from bertsmith.tasks.predict import Predictor
from bertsmith.tokenizer.encode import Tokenizer
from finetune_case import tiny_config, write_run, write_tiny_model

TEXTS = ["the day was lovely", "so awful and very mean today", "kind"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), train=80, epochs=2)


def test_it_is_compared_on_the_runs_own_rows(run: Path, tmp_path: Path) -> None:
    found = export_directory(run, tmp_path / "out", texts=TEXTS)
    assert found.checked.difference == 0
    assert (found.checked.rows, found.checked.texts) == (40, 3)
    assert found.checked.before == found.checked.after is not None
    assert read_card(tmp_path / "out")["exported"]["checked"]["rows"] == 40
    for one, other in zip(*(Predictor.load(name).predict(TEXTS) for name in (run, tmp_path / "out")), strict=True):
        assert one == other


def test_it_says_nothing_of_the_machine(run: Path, tmp_path: Path) -> None:
    card, config = read_card(run / "model"), json.loads((run / "model" / "config.json").read_text())
    base = tmp_path / "model"
    base.mkdir()
    for file in (run / "model").iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    here = str(tmp_path / "names.txt")
    paths = {MADE_FROM: str(run), "columns": card["columns"] | {"label_names": here}}
    write_card(base, card | paths | {"compressed": {"metric": "accuracy", "from": str(run)}})
    (base / "config.json").write_text(json.dumps(config | {"_name_or_path": str(run)}))
    export_directory(base, tmp_path / "out")
    for file in (tmp_path / "out").iterdir():
        assert str(tmp_path.parent).encode() not in file.read_bytes(), file.name


def test_others_cut_texts_where_it_learned_to(run: Path, tmp_path: Path) -> None:
    export_directory(run, tmp_path / "out")
    assert Tokenizer.load(tmp_path / "out").model_max_length == 16


def spoil_weights(draft: Path, network: Any) -> None:
    with torch.no_grad():
        network.classifier.bias += 0.001
    network.save_pretrained(draft)
    with torch.no_grad():
        network.classifier.bias -= 0.001


def spoil_words(draft: Path, network: Any) -> None:
    """Two words have changed places in the vocabulary."""
    path = draft / "tokenizer.json"
    found = json.loads(path.read_text())
    words = found["model"]["vocab"]
    words["lovely"], words["mean"] = words["mean"], words["lovely"]
    path.write_text(json.dumps(found))


@pytest.mark.parametrize("spoil", [spoil_weights, spoil_words])
def test_one_that_answers_otherwise_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any
) -> None:
    write = export_module._write

    def wrong(source: Any, draft: Path) -> None:
        write(source, draft)
        spoil(draft, source.network)

    monkeypatch.setattr(export_module, "_write", wrong)
    with pytest.raises(BertsmithError, match="answers otherwise than the model that it was written from"):
        export_directory(run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def saved(folder: Path, **changes: Any) -> Path:
    base = write_tiny_model(folder)
    config: BertConfig = tiny_config(Tokenizer.load(base).vocab_size, **changes)
    BertForSequenceClassification(config).save_pretrained(base)
    return base


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"layer_heads": (2, 1)}, "its layers have 2, 1 attention heads, and a Hugging Face config has one number"),
        ({"head_pooling": "mean"}, "a head with pooling or layers of its own, which transformers has no class for"),
        ({"head_layers": 1}, "a head with pooling or layers of its own"),
    ],
)
def test_what_transformers_cannot_hold_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    base = saved(tmp_path / "base", **changes)
    with pytest.raises(UsageError, match=reason):
        export_directory(base, tmp_path / "out", task="classify")
    assert not (tmp_path / "out").exists()


def test_bfloat16_stays_so_and_is_compared_in_float32(tmp_path: Path) -> None:
    base = saved(tmp_path / "base")
    half = BertForSequenceClassification.from_pretrained(base).bfloat16()
    half.save_pretrained(base)
    write_card(base, {"task": "classify", "precision": "bfloat16"})
    for task, layout in ((None, "hf"), ("embed", "sentence-transformers")):
        found = export_directory(base, tmp_path / layout, task=task, layout=layout, texts=TEXTS)  # type: ignore[arg-type]
        assert found.checked.difference < 1e-6
        assert {str(tensor.dtype) for tensor in read_tensors(tmp_path / layout).values()} == {"torch.bfloat16"}


def test_eight_bits_are_refused(tmp_path: Path) -> None:
    base = saved(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": INT8}}))
    with pytest.raises(UsageError, match="has layers of 8 bits, which only bertsmith reads; give the model"):
        export_directory(base, tmp_path / "out", task="classify")


def test_sentence_transformers_are_models_of_vectors(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no model of task embed"):
        export_directory(run, tmp_path / "out", layout="sentence-transformers")
    found = export_directory(run, tmp_path / "out", layout="sentence-transformers", task="embed", texts=TEXTS)
    assert (found.checked.texts, found.checked.rows) == (3, 0)
    (tmp_path / "out" / "bertsmith.json").unlink()
    theirs = Predictor.load(tmp_path / "out")
    assert theirs.task.name == "embed"
    assert theirs.max_length == 16


def test_a_pretrained_model_without_a_task(tmp_path: Path) -> None:
    found = export_directory(write_tiny_model(tmp_path / "base"), tmp_path / "out")
    assert found.checked.difference == 0
    assert "exported" in read_card(tmp_path / "out")


def test_the_command(run: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["export", "hf", str(run), "--out", str(tmp_path / "out")])
    assert said.exit_code == 0, said.output
    assert "checked: largest difference 0.0e+00; macro_f1" in said.output
    (tmp_path / "texts.txt").write_text("the day\nso kind\n")
    command = ["export", "sentence-transformers", str(run), "--task", "embed", "--out", str(tmp_path / "vectors")]
    said = CliRunner().invoke(app, [*command, "--texts", str(tmp_path / "texts.txt"), "--json"])
    assert said.exit_code == 0, said.output
    assert json.loads(said.output)["checked"]["texts"] == 2
