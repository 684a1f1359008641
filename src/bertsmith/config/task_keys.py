"""Which tasks take which keys of [finetune], and which keys change something only beside another one.

A key that is not named here is of all tasks, or of those whose reader says why it is not. One that would change nothing
is refused: whoever writes it expects something of it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

_WHOLE_TEXTS = ("classify", "multilabel", "regress")
TASKS_THAT_LEARN_ON = ("classify", "multilabel", "regress", "choose", "tag", "answer")
_LABELLED = (*TASKS_THAT_LEARN_ON, "next-sentence")
_WITH_HEAD = (*_LABELLED, "masked-word", "language-model")

TASKS_WITH: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("label_smoothing", "focal_gamma", "class_weights"), ("classify", "multilabel", "tag", "next-sentence")
    ),
    **dict.fromkeys(("windows", "max_windows", "head_layers", "head_activation"), _WHOLE_TEXTS),
    **dict.fromkeys(("loss", "temperature", "margin", "score_range", "negative_column"), ("embed",)),
    **dict.fromkeys(("r_drop", "adversarial", "head_learning_rate"), _WITH_HEAD),
    **dict.fromkeys(("mask_share", "mask_by"), ("masked-word",)),
    **dict.fromkeys(("label_columns", "label_separator"), ("multilabel",)),
    "pooling": (*_WHOLE_TEXTS, "embed"),
    "classifier_dropout": (*_WHOLE_TEXTS, "choose", "tag"),
    "label_column": (*_LABELLED, "embed"),
    "question_column": ("choose", "answer"),
    "choice_columns": ("choose",),
    "stride": (*_WHOLE_TEXTS, "answer"),
    "no_answer": ("answer",),
    "code_words": ("tag",),
    "calibrate": tuple(task for task in _LABELLED if task != "regress"),
    "augment": (*_WHOLE_TEXTS, "tag"),
    "learn_on": TASKS_THAT_LEARN_ON,
    "distill": _WITH_HEAD,
}
"""Key -> tasks that take it."""

NEEDED_BY: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    "max_windows": ("windows", ("mean", "max")),
    "temperature": ("loss", ("in-batch",)),
    "margin": ("loss", ("margin",)),
    "score_range": ("loss", ("cosine",)),
    "adversarial_epsilon": ("adversarial", ("fgm", "pgd")),
    "adversarial_steps": ("adversarial", ("pgd",)),
    "adversarial_step_size": ("adversarial", ("pgd",)),
}
"""Key -> the key beside which it changes something, and that one's values."""

_SECTIONS = ("code_words", "augment", "learn_on", "distill")


def refuse_idle(given: Iterable[str], settings: Mapping[str, Any]) -> None:
    """Raise `ValueError` for the first key that changes nothing; given: those that are not as by default."""
    task = settings["task"]
    for key in given:
        if task not in (tasks := TASKS_WITH.get(key, (task,))):
            name = f"[finetune.{key}]" if key in _SECTIONS else key
            raise ValueError(f"task = {task!r} takes no {name}; that is of {', '.join(tasks)}")
        if key in NEEDED_BY and settings[NEEDED_BY[key][0]] not in NEEDED_BY[key][1]:
            other, values = NEEDED_BY[key]
            told = " or ".join(map(repr, values))
            raise ValueError(f"{key} is of use only with {other} = {told}; set that, or leave {key} out")
