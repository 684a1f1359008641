"""A model with new words: each new row is the mean of the old pieces' rows, and nothing else changes."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

from bertsmith.cli import app
from bertsmith.errors import CheckpointError, UsageError
from bertsmith.model import BertForMaskedLM, BertForPreTraining, BertForSequenceClassification, BertModel
from bertsmith.model.extend import model_or_tokenizer_dir, save_extended
from bertsmith.model.vocabulary import with_new_tokens
from bertsmith.model.weights import write_card
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.tokenizer.extend import extend_vocabulary
from finetune_case import tiny_config, write_tiny_model

WORDS = "word_embeddings.weight"


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model", words=("card", "##io", "##gram", "day", "[unused0]"))


def tensors_of(directory: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(directory / "model.safetensors")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("network", [BertModel, BertForMaskedLM, BertForPreTraining, BertForSequenceClassification])
def test_rows_are_means(model_dir: Path, tmp_path: Path, network: type[BertForMaskedLM], tied: bool) -> None:
    config = tiny_config(10).replace(tie_word_embeddings=tied)
    model = network(config)
    for name, parameter in model.named_parameters():
        if name.endswith("predictions.bias"):
            torch.nn.init.normal_(parameter)
    model.save_pretrained(model_dir)
    extended = extend_vocabulary(Tokenizer.load(model_dir), ["cardio", "cardiogram", "dayio"])
    save_extended(model_dir, extended, tmp_path / "out")
    old, new = tensors_of(model_dir), tensors_of(tmp_path / "out")
    assert old.keys() == new.keys()
    grown = {name for name in old if old[name].shape != new[name].shape}
    wanted = {WORDS}
    if network in (BertForMaskedLM, BertForPreTraining):
        wanted |= {"predictions.bias"} if tied else {"predictions.bias", "decoder.weight", "decoder.bias"}
    assert {".".join(name.split(".")[-2:]) for name in grown} == wanted
    for name, tensor in old.items():
        assert torch.equal(new[name][: len(tensor)], tensor), name
        assert new[name].dtype == tensor.dtype
    for name in grown:
        assert len(new[name]) == 13
        for token, pieces in (("cardio", [5, 6]), ("cardiogram", [5, 6, 7]), ("dayio", [8, 6])):
            mean = old[name][pieces].double().mean(dim=0).to(old[name].dtype)
            assert torch.equal(new[name][extended.added[token]], mean)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 13
    again = network.from_pretrained(tmp_path / "out")
    assert str(again.load_report) == ""
    assert again.config.tie_word_embeddings == tied
    ids = torch.tensor([[2, 5, 8, 3]])
    before, after = network.from_pretrained(model_dir)(ids), again(ids)
    for name in ("last_hidden_state", "logits"):
        if isinstance(found := getattr(before, name, None), torch.Tensor):
            torch.testing.assert_close(getattr(after, name)[..., : found.shape[-1]], found, rtol=0, atol=1e-6)


def test_dtype_and_unknown_weights_are_kept() -> None:
    tensors = {"bert.embeddings.word_embeddings.weight": torch.randn(4, 3).bfloat16(), "head.weight": torch.randn(4, 3)}
    grown = with_new_tokens(tensors, {4: [1, 2], 5: [3]})
    assert grown["head.weight"] is tensors["head.weight"]
    old, new = tensors["bert.embeddings.word_embeddings.weight"], grown["bert.embeddings.word_embeddings.weight"]
    assert new.dtype == torch.bfloat16
    assert torch.equal(new[5], old[3])
    assert torch.equal(new[4], ((old[1].double() + old[2].double()) / 2).bfloat16())
    assert with_new_tokens(tensors, {}) == tensors


def test_padded_embeddings_are_filled_before_they_grow() -> None:
    """Published checkpoints may have more rows than their tokenizer has entries."""
    tensors = {"embeddings.word_embeddings.weight": torch.randn(8, 3)}
    grown = with_new_tokens(tensors, {5: [1, 2]})["embeddings.word_embeddings.weight"]
    assert grown.shape == (8, 3)
    assert torch.equal(grown[6:], tensors["embeddings.word_embeddings.weight"][6:])
    assert not torch.equal(grown[5], tensors["embeddings.word_embeddings.weight"][5])


def test_unused_slots_and_the_card(model_dir: Path, tmp_path: Path) -> None:
    write_card(model_dir, {"task": "classify"})
    extended = extend_vocabulary(Tokenizer.load(model_dir), ["cardio"], use_unused=True)
    save_extended(model_dir, extended, tmp_path / "out")
    old, new = (
        tensors_of(directory)["bert.embeddings.word_embeddings.weight"] for directory in (model_dir, tmp_path / "out")
    )
    assert old.shape == new.shape
    assert torch.equal(new[9], old[[5, 6]].double().mean(dim=0).float())
    assert (tmp_path / "out" / "bertsmith.json").read_bytes() == (model_dir / "bertsmith.json").read_bytes()


def test_nothing_is_left_where_it_fails(model_dir: Path, tmp_path: Path) -> None:
    extended = extend_vocabulary(Tokenizer.load(model_dir), ["cardio"])
    with pytest.raises(UsageError, match="exists already; give --out a name that is free"):
        save_extended(model_dir, extended, model_dir)
    (model_dir / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="is damaged"):
        save_extended(model_dir, extended, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_is_meant(model_dir: Path, tmp_path: Path) -> None:
    assert model_or_tokenizer_dir(model_dir) == (model_dir, True)
    assert model_or_tokenizer_dir(tmp_path) == (model_dir, True)
    Tokenizer.load(model_dir).save(tmp_path / "run" / "tokenizer")
    assert model_or_tokenizer_dir(tmp_path / "run") == (tmp_path / "run" / "tokenizer", False)
    assert model_or_tokenizer_dir(tmp_path / "run" / "tokenizer") == (tmp_path / "run" / "tokenizer", False)
    with pytest.raises(CheckpointError, match="does not exist"):
        model_or_tokenizer_dir(tmp_path / "no" / "such" / "place")


def invoke(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["tokenizer", "extend", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_verb_with_a_list(model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("\ufeffCardio\n\nday\n", encoding="utf-8")
    shown = invoke(model_dir, "--words", tmp_path / "words.txt", "--out", tmp_path / "out")
    assert "1 in the vocabulary already: day" in shown
    assert "1 new words: 10 entries become 11; old ids stay" in shown
    assert BertModel.from_pretrained(tmp_path / "out").config.vocab_size == 11
    assert Tokenizer.load(tmp_path / "out").encode_ids(["cardio"]) == [[10]]


def test_the_verb_proposes(model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("cardio day. " * 9 + "cardiogram " * 5 + "cardgram " * 4, encoding="utf-8")
    arguments = (model_dir, "--text", tmp_path / "text.txt", "--propose", "2")
    shown = invoke(*arguments)
    assert "nothing is written without --out DIR" in shown
    assert [line.split()[:3] for line in shown.splitlines()[1:3]] == [["cardiogram", "5", "10"], ["cardio", "9", "9"]]
    told = json.loads(invoke(*arguments, "--out", tmp_path / "out", "--json"))
    assert told["added"] == {"cardiogram": 10, "cardio": 11}
    assert told["proposals"][0]["pieces"] == ["card", "##io", "##gram"]
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_the_verb_with_a_tokenizer_alone(model_dir: Path, tmp_path: Path) -> None:
    Tokenizer.load(model_dir).save(tmp_path / "alone")
    (tmp_path / "words.txt").write_text("cardio\n", encoding="utf-8")
    assert "(tokenizer)" in invoke(tmp_path / "alone", "--words", tmp_path / "words.txt", "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_list_and_a_text_are_too_much(model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("cardio\n", encoding="utf-8")
    with pytest.raises(UsageError, match="--words brings the words itself"):
        invoke(model_dir, "--words", tmp_path / "words.txt", "--text", tmp_path / "words.txt")
    (tmp_path / "words.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(Exception, match="holds no words; write one a line"):
        invoke(model_dir, "--words", tmp_path / "words.txt")
