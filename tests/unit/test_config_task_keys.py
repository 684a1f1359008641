"""Every key of [finetune] by every task: it is taken, or refused with the tasks that take it."""

import re
from typing import Any

import pytest

from bertsmith.config import FinetuneConfig, parse_recipe
from bertsmith.config.task_keys import NEEDED_BY, TASKS_WITH
from bertsmith.errors import RecipeError
from bertsmith.tasks.predict import TASKS

OTHER_VALUES: dict[str, Any] = {
    "label_smoothing": 0.1,
    "focal_gamma": 2.0,
    "class_weights": "balanced",
    "windows": "mean",
    "max_windows": 3,
    "head_layers": 1,
    "head_activation": "tanh",
    "loss": "margin",
    "temperature": 0.1,
    "margin": 0.2,
    "score_range": [1, 5],
    "negative_column": "other",
    "r_drop": 1.0,
    "adversarial": "pgd",
    "adversarial_epsilon": 2.0,
    "adversarial_steps": 2,
    "adversarial_step_size": 0.1,
    "head_learning_rate": 1e-3,
    "mask_share": 0.3,
    "mask_by": "word",
    "label_columns": ["a", "b"],
    "label_separator": ";",
    "pooling": "mean",
    "classifier_dropout": 0.3,
    "label_column": "kind",
    "question_column": "asked",
    "choice_columns": ["a", "b"],
    "stride": 16,
    "no_answer": True,
    "code_words": {},
    "calibrate": True,
    "augment": {},
    "learn_on": {},
    "distill": {"teacher": "t"},
}
"""Another value than by default, of each key that not every task takes."""
BESIDE: dict[str, dict[str, Any]] = {
    "max_windows": {"windows": "mean"},
    "stride": {"windows": "mean"},
    "margin": {"loss": "margin"},
    "score_range": {"loss": "cosine"},
}
"""What a key needs to change something."""


def parsed(**settings: Any) -> FinetuneConfig:
    found = parse_recipe({"name": "mine", "corpus": {"sources": []}, "finetune": {"model": "m", **settings}}).finetune
    assert found is not None
    return found


@pytest.mark.parametrize("key", sorted(TASKS_WITH))
def test_a_key_is_of_the_tasks_that_take_it_and_refused_by_all_others(key: str) -> None:
    for task in TASKS:
        beside = {} if (key, task) == ("stride", "answer") else BESIDE.get(key, {})
        if task in TASKS_WITH[key]:
            assert getattr(parsed(task=task, **beside, **{key: OTHER_VALUES[key]}), key) is not None
        else:
            told = rf"task = '{task}' takes no \[?(finetune\.)?{key}\]?; that is of {', '.join(TASKS_WITH[key])}"
            with pytest.raises(RecipeError, match=told):
                parsed(task=task, **{key: OTHER_VALUES[key]})


@pytest.mark.parametrize("key", sorted(NEEDED_BY))
def test_a_key_without_the_one_beside_which_it_counts_is_refused(key: str) -> None:
    other, values = NEEDED_BY[key]
    task = TASKS_WITH.get(key, ("classify",))[0]
    without = {} if other != "loss" else {"loss": "in-batch" if values != ("in-batch",) else "cosine"}
    with pytest.raises(RecipeError, match=f"{key} is of use only with {other} = '{values[0]}'"):
        parsed(task=task, **without, **{key: OTHER_VALUES[key]})
    assert parsed(task=task, **{other: values[0], key: OTHER_VALUES[key]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stride": 16}, "stride is of use only with windows, or for task = 'answer'"),
        ({"head_layers": 0, "head_activation": "tanh"}, "head_activation follows hidden layers, and head_layers = 0"),
        ({"adversarial": "fgm", "adversarial_steps": 2}, "adversarial_steps is of use only with adversarial = 'pgd'"),
    ],
)
def test_other_keys_that_would_change_nothing(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parsed(**settings)


def test_the_help_of_a_key_names_the_tasks_that_the_table_has() -> None:
    """`embed: ...` or `choose, answer: ...`: what is said to be of some tasks is refused by the others."""
    for key, field in FinetuneConfig.model_fields.items():
        before, colon, _ = (field.description or "").partition(":")
        named = tuple(name for name in re.split(r", | and ", before) if name in TASKS)
        if colon and named:
            assert set(named) <= set(TASKS_WITH.get(key, ())), key
            assert key == "stride" or set(TASKS_WITH[key]) <= {*named, "embed"}, key
