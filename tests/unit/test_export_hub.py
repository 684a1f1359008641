"""A model is pushed to a server that speaks as the hub does, and read back from it; what it refuses is one sentence."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from typer.testing import CliRunner

from bertsmith.cli import app
from bertsmith.errors import BertsmithError, UsageError
from bertsmith.export.directory import export_directory
from bertsmith.export.hub import push
from bertsmith.model.heads import BertForSequenceClassification
from bertsmith.model.weights import write_card
from bertsmith.tasks.predict import Predictor
from bertsmith.tokenizer.encode import Tokenizer
from finetune_case import tiny_config, write_tiny_model
from hub_case import Models, Repo, running_hub

TEXTS = ["the day was lovely", "so awful"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_model(tmp_path_factory.mktemp("models") / "moods")
    torch.manual_seed(1)
    BertForSequenceClassification(tiny_config(Tokenizer.load(folder).vocab_size)).save_pretrained(folder)
    write_card(folder, {"task": "classify"})
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Models]:
    """Where the hub client looks; the token is where it usually is."""
    models = Models()
    with running_hub({}, models=models) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", models.token)
        yield models


def test_what_was_pushed_is_read_back(model: Path, hub: Models) -> None:
    sent = push(model, "moods", private=True, languages=["en"], licence="apache-2.0")
    assert sent.name == "ada/moods"
    assert hub.repos["ada/moods"].private
    assert {name: len(content) for name, content in hub.repos["ada/moods"].files.items()} == sent.files
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json", "bertsmith.json"} <= sent.files.keys()
    assert b"license: apache-2.0" in hub.repos["ada/moods"].files["README.md"]
    theirs = BertForSequenceClassification.from_pretrained("ada/moods").state_dict()
    for name, tensor in BertForSequenceClassification.from_pretrained(model).state_dict().items():
        assert torch.equal(theirs[name], tensor)
    assert Predictor.load("ada/moods").predict(TEXTS) == Predictor.load(model).predict(TEXTS)


def test_an_exported_directory_goes_as_it_is(model: Path, hub: Models, tmp_path: Path) -> None:
    export_directory(model, tmp_path / "out", layout="sentence-transformers", task="embed")
    push(tmp_path / "out", "bob/vectors")
    found = hub.repos["bob/vectors"].files
    wanted = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes() for path in (tmp_path / "out").rglob("*.*")
    }
    assert found == wanted
    assert "1_Pooling/config.json" in found


def test_a_dry_run_sends_nothing(model: Path, hub: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    said = CliRunner().invoke(app, ["push", str(model), "ada/moods", "--dry-run"])
    assert said.exit_code == 0, said.output
    assert "model.safetensors" in said.output
    assert "/ada/moods; nothing was sent" in said.output
    assert hub.repos == {}


def test_the_command(model: Path, hub: Models) -> None:
    said = CliRunner().invoke(app, ["push", str(model), "ada/moods", "--json"])
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["commit"].startswith("c0ffee")
    assert hub.token not in said.output


def test_a_public_repository_gets_nothing_private(model: Path, hub: Models) -> None:
    hub.repos["ada/moods"] = Repo(private=False)
    with pytest.raises(UsageError, match="is there already, and public, and --private was asked for: nothing was sent"):
        push(model, "ada/moods", private=True)
    assert hub.repos["ada/moods"].files == {}
    push(model, "ada/moods")
    assert hub.repos["ada/moods"].files


@pytest.mark.parametrize(
    ("token", "may_write", "reason"),
    [
        ("hf_other", True, "401: the token is missing or no longer valid; type hf auth login"),
        ("hf_secret", False, "403: the token may not write there"),
    ],
)
def test_refusals_are_a_sentence_without_the_token(
    model: Path, hub: Models, monkeypatch: pytest.MonkeyPatch, token: str, may_write: bool, reason: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    hub.may_write = may_write
    with pytest.raises(BertsmithError, match=f"^ada/moods could not be pushed to http://127.*: {reason}") as caught:
        push(model, "ada/moods")
    assert token not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there(model: Path, hub: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BertsmithError, match=r"could not be pushed to http://127\.0\.0\.1:9: .*check the network"):
        push(model, "ada/moods")


@pytest.mark.parametrize("name", ["", "a/b/c", "ada/", "--x", "ada/a b"])
def test_names(model: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is no name for a repository; give OWNER/NAME"):
        push(model, name, dry_run=True)
