"""Wrong input to fine-tuning: one clear sentence with file and line, and nothing half-written."""

from pathlib import Path
from typing import Any

import pytest

import bertsmith
from bertsmith.errors import BertsmithError, CheckpointError, DataError, UsageError
from bertsmith.model.heads import BertForSequenceClassification
from bertsmith.tasks.evaluate import evaluate
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.predict import Predictor, predict
from finetune_case import CPU, GOOD, POSITIONS, quiet, recipe, text_rows, tiny_config, write_tiny_model, write_tsv

MODEL_FILE = "model.safetensors"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "base")


def refused(tmp_path: Path, base: Path, kind: type[BertsmithError], message: str, **settings: Any) -> None:
    """The error is of `kind`, says `message`, and no run is left behind."""
    files = {"train": str(write_tsv(tmp_path / "train.tsv", text_rows(20))), "model": str(base)}
    with pytest.raises(kind, match=message) as caught:
        finetune(recipe(**files | settings), tmp_path / "run", console=quiet(), runtime=CPU)
    assert caught.type is kind
    assert not (tmp_path / "run").exists()


def table(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_tokenizer_that_does_not_fit_the_checkpoint(tmp_path: Path, base: Path):
    other = write_tiny_model(tmp_path / "other", words=(*GOOD, *(f"word{number}" for number in range(50))))
    for file in other.iterdir():
        if file.name not in (MODEL_FILE, "config.json"):
            (base / file.name).write_bytes(file.read_bytes())
    refused(tmp_path, base, CheckpointError, "base: the tokenizer has 58 entries, the model 25 embeddings")


def test_a_missing_tokenizer(tmp_path: Path, base: Path):
    (base / "tokenizer.json").unlink()
    (base / "vocab.txt").unlink()
    refused(tmp_path, base, CheckpointError, "neither tokenizer.json nor vocab.txt")


def test_a_label_in_a_test_file_that_training_does_not_have(tmp_path: Path, base: Path):
    test = table(tmp_path / "test.tsv", "text\tlabel\nthe day\tgood\nthe day\tmiddling\n")
    refused(tmp_path, base, DataError, r"test\.tsv:3: unknown label 'middling'.*bad, good", test={"test": test})


def test_a_label_in_a_validation_file_that_training_does_not_have(tmp_path: Path, base: Path):
    file = table(tmp_path / "v.tsv", "text\tlabel\nthe day\tBAD\n")
    refused(tmp_path, base, DataError, r"v\.tsv:2: unknown label 'BAD'", validation=file)


def test_a_label_that_was_not_declared(tmp_path: Path, base: Path):
    refused(tmp_path, base, DataError, r"train\.tsv:\d+: unknown label 'bad'", labels=["good", "ugly"])


def test_one_class(tmp_path: Path, base: Path):
    file = table(tmp_path / "one.tsv", "text\tlabel\n" + "the day\tgood\n" * 9)
    refused(tmp_path, base, DataError, r"one\.tsv: 9 rows with only the label 'good'", train=file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("text\tlabel\n", "no rows"),
        ("text\tkind\nthe day\tgood\n", "label"),
        ("text\tlabel\nthe day\tgood\nthe day\n", r"bad\.tsv:3"),
    ],
)
@pytest.mark.parametrize("key", ["train", "test"])
def test_broken_tables(tmp_path: Path, base: Path, key: str, text: str, message: str):
    file = table(tmp_path / "bad.tsv", text)
    refused(tmp_path, base, DataError, message, **{key: file if key == "train" else {"test": file}})


def test_a_missing_file(tmp_path: Path, base: Path):
    refused(tmp_path, base, DataError, "absent.tsv", train="absent.tsv")


def test_a_file_that_is_not_utf_8(tmp_path: Path, base: Path):
    file = tmp_path / "latin.tsv"
    file.write_bytes(b"text\tlabel\ncaf\xe9\tgood\n")
    refused(tmp_path, base, DataError, r"latin\.tsv:2.*UTF-8", train=str(file))


def test_more_tokens_than_positions(tmp_path: Path, base: Path):
    refused(tmp_path, base, UsageError, f"max_length = 64, but the model .* has {POSITIONS} positions", max_length=64)


def test_a_metric_of_another_task(tmp_path: Path, base: Path):
    refused(tmp_path, base, UsageError, "finetune.metric = 'f1'; task 'classify' here has: accuracy", metric="f1")


def test_a_missing_model(tmp_path: Path, base: Path):
    refused(tmp_path, base, CheckpointError, "does not exist", model=str(tmp_path / "nowhere"))


def test_a_checkpoint_without_encoder_weights(tmp_path: Path, base: Path):
    config = tiny_config(25)
    BertForSequenceClassification(config.replace(num_hidden_layers=1)).save_pretrained(tmp_path / "short")
    (base / MODEL_FILE).write_bytes((tmp_path / "short" / MODEL_FILE).read_bytes())
    refused(tmp_path, base, CheckpointError, "encoder's weights are missing")


def test_a_torn_checkpoint(tmp_path: Path, base: Path):
    whole = (base / MODEL_FILE).read_bytes()
    (base / MODEL_FILE).write_bytes(whole[: len(whole) // 2])
    refused(tmp_path, base, CheckpointError, "damaged")


def test_a_pickle_in_place_of_safetensors(tmp_path: Path, base: Path):
    (base / MODEL_FILE).rename(base / "pytorch_model.bin")
    refused(tmp_path, base, CheckpointError, "only as a pickle")


def test_a_recipe_without_the_section(tmp_path: Path, base: Path):
    bare = recipe().model_copy(update={"finetune": None})
    with pytest.raises(UsageError, match=r"has no \[finetune\] section"):
        finetune(bare, tmp_path / "run", console=quiet(), runtime=CPU)


def test_evaluate_and_predict_name_file_and_line(tmp_path: Path, base: Path):
    finetune(recipe(epochs=1), tmp_path / "run", model=base, train=text_rows(20), console=quiet(), runtime=CPU)
    predictor = Predictor.load(tmp_path / "run", runtime=CPU)
    with pytest.raises(DataError, match=r"t\.tsv:2: unknown label 'fine'.*the model knows: bad, good"):
        evaluate(predictor, table(tmp_path / "t.tsv", "text\tlabel\nthe day\tfine\n"))
    with pytest.raises(DataError, match=r"u\.csv.*sentence"):
        list(predict(predictor, table(tmp_path / "u.csv", "sentence,label\nthe day,good\n")))
    with pytest.raises(DataError, match=r"empty\.txt.*empty"):
        list(predict(predictor, table(tmp_path / "empty.txt", "")))
    with pytest.raises(DataError, match=r"nowhere\.txt"):
        list(predict(predictor, tmp_path / "nowhere.txt"))


def test_a_refused_command_leaves_no_folder(tmp_path: Path, base: Path) -> None:
    """Columns are looked at after the recipe was written; what an earlier run left stays."""
    rows = str(write_tsv(tmp_path / "train.tsv", text_rows(20)))
    wrong = recipe(train=rows, model=str(base), label_column="nosuch")
    with pytest.raises(DataError, match="nosuch"):
        bertsmith.finetune(wrong, runs=tmp_path / "runs", console=quiet())
    assert not (tmp_path / "runs" / "tiny").exists()
    kept = tmp_path / "runs" / "tiny" / "recipe.toml"
    kept.parent.mkdir()
    kept.write_text("name = 'tiny'\n")
    with pytest.raises(DataError, match="nosuch"):
        bertsmith.finetune(wrong, runs=tmp_path / "runs", console=quiet())
    assert kept.is_file()
