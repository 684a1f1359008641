"""Model directories: the forms found in the wild, what is fresh or surplus, and files that are wrong."""

import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import torch
from torch import Tensor

from bertsmith.errors import CheckpointError, UsageError
from bertsmith.model import (
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
    preset,
    read_card,
    resolve_model_dir,
    write_card,
)

TINY = preset("tiny", {"vocab_size": 40, "num_hidden_layers": 1})
IDS = torch.tensor([[2, 5, 7, 3]])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A directory written by `BertForPreTraining.save_pretrained`, with all weights away from their fresh values."""
    model = BertForPreTraining(TINY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def rewrite(directory: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    path = directory / "model.safetensors"
    safetensors.torch.save_file(change(dict(safetensors.torch.load_file(path))), path, metadata={"format": "pt"})


def answers(directory: Path) -> Tensor:
    return BertForPreTraining.from_pretrained(directory)(IDS).prediction_logits


# ----- forms found in the wild


def test_saved_and_loaded_is_the_same(saved: Path, tmp_path: Path) -> None:
    model = BertForPreTraining.from_pretrained(saved)
    assert str(model.load_report) == ""
    assert not model.training
    model.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()
    assert (tmp_path / "again" / "config.json").read_bytes() == (saved / "config.json").read_bytes()
    facts = json.loads((saved / "config.json").read_text())
    assert facts["model_type"] == "bert"
    assert facts["architectures"] == ["BertForPreTraining"]
    assert facts["torch_dtype"] == "float32"


WILD: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "gamma and beta": lambda tensors: {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    },
    "no bert. prefix": lambda tensors: {name.removeprefix("bert."): tensor for name, tensor in tensors.items()},
    "tied decoder present": lambda tensors: (
        tensors | {"cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"].clone()}
    ),
    "decoder.bias beside bias": lambda tensors: (
        tensors | {"cls.predictions.decoder.bias": tensors["cls.predictions.bias"].clone()}
    ),
    "decoder.bias alone": lambda tensors: {
        name.replace("predictions.bias", "predictions.decoder.bias"): tensor for name, tensor in tensors.items()
    },
    "position_ids": lambda tensors: tensors | {"bert.embeddings.position_ids": torch.arange(512)[None]},
    "float64": lambda tensors: {name: tensor.double() for name, tensor in tensors.items()},
}


@pytest.mark.parametrize("form", WILD)
def test_other_forms_give_the_same_answers(form: str, saved: Path) -> None:
    expected = answers(saved)
    rewrite(saved, WILD[form])
    model = BertForPreTraining.from_pretrained(saved)
    assert str(model.load_report) == ""
    assert model.config.tie_word_embeddings
    assert model.decoder_weight.dtype == torch.float32
    assert torch.equal(model(IDS).prediction_logits, expected)


def test_a_stored_decoder_of_its_own_is_not_tied(saved: Path) -> None:
    own = torch.randn(40, 128)
    rewrite(saved, lambda tensors: tensors | {"cls.predictions.decoder.weight": own})
    model = BertForPreTraining.from_pretrained(saved)
    assert not model.config.tie_word_embeddings
    assert torch.equal(model.decoder_weight, own)


def test_shards(saved: Path) -> None:
    expected = answers(saved)
    tensors = safetensors.torch.load_file(saved / "model.safetensors")
    (saved / "model.safetensors").unlink()
    halves = (dict(list(tensors.items())[:9]), dict(list(tensors.items())[9:]))
    weight_map = {}
    for number, half in enumerate(halves, start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        safetensors.torch.save_file(half, saved / file)
        weight_map |= dict.fromkeys(half, file)
    index = saved / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert torch.equal(answers(saved), expected)
    (saved / "model-00002-of-00002.safetensors").rename(saved.parent / "elsewhere.safetensors")
    with pytest.raises(CheckpointError, match=r"names model-00002-of-00002\.safetensors, which is missing"):
        answers(saved)
    index.write_text(json.dumps({"weight_map": {"x": "../elsewhere.safetensors"}}))
    with pytest.raises(CheckpointError, match="is not a file of this directory"):
        answers(saved)
    index.write_text(json.dumps({"weight_map": []}))
    with pytest.raises(CheckpointError, match="no weight_map"):
        answers(saved)


# ----- fresh, surplus, missing, of another shape


def test_a_missing_head_is_fresh_and_a_surplus_one_ignored_and_both_are_named(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="bertsmith.model"):
        model = BertForSequenceClassification.from_pretrained(saved, num_labels=5)
    report = model.load_report
    assert report is not None
    assert report.missing == ("classifier.weight", "classifier.bias")
    assert "cls.seq_relationship.weight" in report.unexpected
    assert "not in the checkpoint, so drawn at random: classifier.weight, classifier.bias; in it" in caplog.text
    assert "; in it, and not used: cls.predictions.bias" in caplog.text
    assert model.classifier.weight.shape == (5, 128)
    assert 0 < model.classifier.weight.abs().max() <= 0.04
    assert (model.classifier.bias == 0).all()


def test_a_head_of_another_size_is_fresh_and_named(tmp_path: Path) -> None:
    trained = BertForSequenceClassification(TINY.with_labels(("no", "yes", "maybe")))
    trained.save_pretrained(tmp_path / "three")
    same = BertForSequenceClassification.from_pretrained(tmp_path / "three")
    assert same.config.labels == ("no", "yes", "maybe")
    assert torch.equal(same.classifier.weight, trained.classifier.weight)
    other = BertForSequenceClassification.from_pretrained(tmp_path / "three", labels=["a", "b"])
    assert other.load_report is not None
    assert other.load_report.mismatched == ("classifier.weight", "classifier.bias")
    assert other.load_report.fresh == other.load_report.mismatched
    assert other.config.labels == ("a", "b")
    assert BertForQuestionAnswering.from_pretrained(tmp_path / "three").config.num_labels == 2
    with pytest.raises(UsageError, match="num_labels = 3, but 2 labels"):
        BertForSequenceClassification.from_pretrained(tmp_path / "three", num_labels=3, labels=["a", "b"])


def test_a_missing_pooler_is_fresh(tmp_path: Path) -> None:
    BertForMaskedLM(TINY).save_pretrained(tmp_path / "lm")
    report = BertModel.from_pretrained(tmp_path / "lm").load_report
    assert report is not None
    assert report.missing == ("pooler.dense.weight", "pooler.dense.bias")


def test_fresh_heads_are_those_of_the_seed(saved: Path) -> None:
    heads = []
    for _ in range(2):
        torch.manual_seed(3)
        heads.append(BertForSequenceClassification.from_pretrained(saved).classifier.weight)
    assert torch.equal(*heads)


def test_a_missing_encoder_weight_is_an_error(saved: Path) -> None:
    name = "bert.encoder.layer.0.intermediate.dense.bias"
    rewrite(saved, lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name})
    with pytest.raises(CheckpointError, match=r"1 of the encoder's weights are missing \(encoder.layer.0.intermediate"):
        answers(saved)


def test_an_encoder_weight_of_another_shape_is_an_error_with_both_shapes(saved: Path) -> None:
    name = "bert.embeddings.word_embeddings.weight"
    rewrite(saved, lambda tensors: tensors | {name: torch.randn(39, 128)})
    with pytest.raises(CheckpointError, match=r"embeddings.weight has shape \(39, 128\).* asks for \(40, 128\)"):
        answers(saved)


def test_a_quantized_weight_is_an_error(saved: Path) -> None:
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    rewrite(saved, lambda tensors: tensors | {name: torch.zeros(512, 128, dtype=torch.int8)})
    with pytest.raises(CheckpointError, match=r"stored as torch.int8"):
        answers(saved)


def test_the_same_weight_twice_is_an_error(saved: Path) -> None:
    name = "embeddings.word_embeddings.weight"
    rewrite(saved, lambda tensors: tensors | {name: torch.randn(40, 128)})
    with pytest.raises(CheckpointError, match="stored twice"):
        answers(saved)


# ----- wrong files


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "huge header"])
def test_a_damaged_file_is_one_sentence(damage: str, saved: Path) -> None:
    path = saved / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(
        {
            "truncated": whole[: len(whole) // 2],
            "garbage": b"this is not a safetensors file",
            "empty": b"",
            "huge header": (2**62).to_bytes(8, "little") + whole[8:],
        }[damage]
    )
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or no safetensors file") as caught:
        answers(saved)
    assert "\n" not in str(caught.value)


class Evil:
    """Touches a file when unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def test_a_pickle_is_read_only_when_asked_for_and_runs_no_code(saved: Path) -> None:
    expected = answers(saved)
    tensors = safetensors.torch.load_file(saved / "model.safetensors")
    (saved / "model.safetensors").unlink()
    torch.save(tensors, saved / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"only as a pickle .*--allow-pickle"):
        BertForPreTraining.from_pretrained(saved)
    allowed = BertForPreTraining.from_pretrained(saved, allow_pickle=True)
    assert torch.equal(allowed(IDS).prediction_logits, expected)
    mark = saved / "code-was-run"
    for write in (lambda: torch.save(Evil(mark), saved / "pytorch_model.bin"), lambda: _plain_pickle(saved, mark)):
        write()
        with pytest.raises(CheckpointError, match="damaged or no plain table of tensors"):
            BertForPreTraining.from_pretrained(saved, allow_pickle=True)
        assert not mark.exists()
    torch.save(tensors | {"epoch": 3}, saved / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="no plain table of weight name -> tensor"):
        BertForPreTraining.from_pretrained(saved, allow_pickle=True)


def _plain_pickle(directory: Path, mark: Path) -> None:
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(mark), protocol=2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no readable JSON"),
        ("[1]", "no JSON object"),
        ("\xff", "no readable JSON"),
        ('{"vocab_size": 0}', "vocab"),
    ],
)
def test_a_wrong_config_is_one_sentence(text: str, message: str, saved: Path) -> None:
    (saved / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=f"config.json.*{message}"):
        answers(saved)


def test_a_directory_without_weights(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds no weights; expected model\.safetensors"):
        answers(saved)


# ----- names


def test_a_run_means_its_model(saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "x" / "finetune"
    BertModel(TINY).save_pretrained(run / "model")
    assert resolve_model_dir(run) == run / "model"
    assert resolve_model_dir(str(run / "best")) == run / "model"
    with pytest.raises(CheckpointError, match="keeps no last/ model"):
        resolve_model_dir(run / "last")
    BertModel(TINY).save_pretrained(run / "last")
    assert resolve_model_dir(run / "last") == run / "last"
    assert resolve_model_dir(saved) == saved
    with pytest.raises(CheckpointError, match=r"holds no model.*did you mean .*finetune\?"):
        resolve_model_dir(run.parent)
    with pytest.raises(CheckpointError, match=r"holds no model.*hub name"):
        resolve_model_dir(tmp_path)
    with pytest.raises(CheckpointError, match="is a file"):
        resolve_model_dir(saved / "config.json")
    for missing in (tmp_path / "nowhere", Path("./nowhere"), Path("runs/x/y")):
        with pytest.raises(CheckpointError, match="does not exist"):
            resolve_model_dir(str(missing) if missing.is_absolute() else f"./{missing}")


def test_hub_names_fetch_only_the_files_needed(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []

    def snapshot(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert BertModel.from_pretrained("someone/bert").config.vocab_size == 40
    resolve_model_dir("bert-base-uncased", allow_pickle=True)
    (first, plain), (second, with_pickle) = asked
    assert (first, second) == ("someone/bert", "bert-base-uncased")
    assert not [pattern for pattern in plain if ".bin" in pattern]
    assert "pytorch_model.bin" in with_pickle


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(name: str, *, allow_patterns: list[str]) -> str:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(CheckpointError, match=r"'bert-base-uncased' is no directory here .*\(no route\)") as caught:
        resolve_model_dir("bert-base-uncased")
    assert "\n" not in str(caught.value)


# ----- writing


def test_saving_beside_other_files_leaves_them(saved: Path) -> None:
    (saved / "vocab.txt").write_text("[PAD]\n")
    BertModel(TINY).save_pretrained(saved)
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors", "vocab.txt"]
    assert BertModel.from_pretrained(saved).load_report is not None


def test_a_failed_save_leaves_what_was_there(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = answers(saved)

    def full_disk(tensors: object, path: Path, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full_disk)
    for target in (saved, tmp_path / "new"):
        with pytest.raises(OSError, match="No space left"):
            BertForPreTraining(TINY).save_pretrained(target)
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    assert torch.equal(answers(saved), expected)


def test_saving_onto_a_file_is_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="is a file"):
        BertModel(TINY).save_pretrained(saved / "config.json")


def test_the_card(saved: Path) -> None:
    assert read_card(saved) == {}
    write_card(saved, {"task": "classify", "labels": ["no", "是"]})
    assert read_card(saved) == {"task": "classify", "labels": ["no", "是"]}
    (saved / "bertsmith.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"bertsmith\.json is no readable JSON"):
        read_card(saved)
