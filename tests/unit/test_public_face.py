"""What `import bertsmith` promises: few names, sorted, importable, typed, explained; and nothing heavy until used."""

import inspect
import subprocess
import sys
import tomllib
import typing
from pathlib import Path

import pytest
from torch import nn

import bertsmith
import bertsmith.model

ROOT = Path(__file__).parents[2]
NINE = (
    "BertModel",
    "BertForPreTraining",
    "BertForMaskedLM",
    "BertLMHeadModel",
    "BertForNextSentencePrediction",
    "BertForSequenceClassification",
    "BertForMultipleChoice",
    "BertForTokenClassification",
    "BertForQuestionAnswering",
)
"""The field's class names."""


def test_the_face_has_the_verbs_of_the_command_line() -> None:
    assert {"run", "pretrain", "finetune", "evaluate", "predict", "fill_mask", "load"} <= set(bertsmith.__all__)
    assert {"load_recipe", "Recipe", "write_report"} <= set(bertsmith.__all__)


@pytest.mark.parametrize("module", [bertsmith, bertsmith.model], ids=lambda module: module.__name__)
def test_all_is_sorted_and_importable(module: typing.Any) -> None:
    assert list(module.__all__) == sorted(set(module.__all__))
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("name", bertsmith.__all__)
def test_public_names_are_explained_and_typed(name: str) -> None:
    found = getattr(bertsmith, name)
    assert found.__doc__, f"bertsmith.{name} has no docstring"
    if inspect.isfunction(found):
        hints = typing.get_type_hints(found)
        assert hints.keys() == {*inspect.signature(found).parameters, "return"}, f"bertsmith.{name} is not typed"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"bertsmith.*nothing"):
        bertsmith.nothing  # noqa: B018


@pytest.mark.parametrize("name", NINE)
def test_the_nine_classes(name: str) -> None:
    found = getattr(bertsmith.model, name)
    assert name in bertsmith.model.__all__
    assert issubclass(found, nn.Module)
    assert found.__name__ == name
    for method in ("from_pretrained", "save_pretrained", "resize_token_embeddings", "forward"):
        assert callable(getattr(found, method))


def test_the_import_is_cheap() -> None:
    code = "import bertsmith, sys; print(bertsmith.__version__); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or "torch is imported with the package"
    assert done.stdout.strip() == bertsmith.__version__


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == bertsmith.__version__


def test_types_are_shipped() -> None:
    assert (Path(bertsmith.__file__).parent / "py.typed").exists()
