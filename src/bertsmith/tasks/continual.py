"""Learning on: a fine-tuned model gets new rows, new labels or a new task, and is to keep what it knows.

    the same task    the head keeps what it says of the old labels, which come first, and gets a row for each new one,
                     in their order; old and new rows are one table
    another task     a head of its own on the same encoder (also where `new_head` says so); the old head stays as it
                     is, and reads what the encoder has become

What holds on to the old task is in `memory`; what became of it is measured here, after training.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from torch import nn

from bertsmith.config import FinetuneConfig, LearnOnConfig
from bertsmith.config.task_keys import TASKS_THAT_LEARN_ON
from bertsmith.errors import UsageError
from bertsmith.model.pretrained import Pretrained
from bertsmith.model.weights import read_card
from bertsmith.runtime import Runtime
from bertsmith.tasks.base import Task
from bertsmith.tasks.evaluate import score_rows
from bertsmith.tasks.features import Features
from bertsmith.tasks.partition import held_out
from bertsmith.tasks.predict import Predictor
from bertsmith.tasks.replay import replay_buffer
from bertsmith.tasks.splits import Splits, read_labelled, rows_digest

_CANNOT_DISTILL = ("choose", "answer")


@dataclass(frozen=True)
class OldTask:
    """A fine-tuned model, as it was before training goes on, and rows of what it learned."""

    predictor: Predictor
    config: LearnOnConfig
    rows: Sequence[Any]
    """Of the old files."""
    replayed: Sequence[Any]
    """Those of them that are learned again."""
    test: Mapping[str, Sequence[Any]]
    is_separate: bool
    """Whether the new rows get a head of their own."""

    @classmethod
    def load(
        cls, directory: Path, config: FinetuneConfig, settings: LearnOnConfig, *, seed: int, runtime: Runtime
    ) -> Self:
        """Raises `CheckpointError` for a model without a trained head, `DataError` for old rows with labels that it
        does not know, `UsageError` for what cannot be done.
        """
        predictor = Predictor.load(directory, runtime=runtime)
        if predictor.task.name not in TASKS_THAT_LEARN_ON:
            allowed = ", ".join(TASKS_THAT_LEARN_ON)
            raise UsageError(f"{directory} is of task {predictor.task.name!r}; [finetune.learn_on] is of {allowed}")
        is_separate = settings.new_head or predictor.task.name != config.task
        if is_separate:
            if settings.distill and predictor.task.name in _CANNOT_DISTILL:
                raise UsageError(
                    f"learn_on.distill: a model of task {predictor.task.name!r} has nothing to say to rows of another"
                )
        else:
            _check_same_head(predictor, config)
        columns, labels = predictor.columns, predictor.labels
        rows = read_labelled(predictor.task, settings.old, columns, labels) if settings.old else []
        return cls(
            predictor=predictor,
            config=settings,
            rows=rows,
            replayed=replay_buffer(rows, settings.replay, settings.replay_by, seed=seed) if settings.replay else [],
            test={name: read_labelled(predictor.task, file, columns, labels) for name, file in settings.test.items()},
            is_separate=is_separate,
        )

    @property
    def task(self) -> Task[Any, Any]:
        return self.predictor.task

    @property
    def metric(self) -> str:
        """The one that the old model was chosen by."""
        return str(read_card(self.predictor.directory).get("metric") or self.task.default_metric)

    @property
    def known_labels(self) -> tuple[str, ...]:
        """Labels that the new rows' come after; none where their head is another one."""
        return self.predictor.labels if self.task.outputs_are_classes and not self.is_separate else ()

    def digest(self) -> str:
        """Hash of the old rows, on which the weights depend."""
        return rows_digest(self.predictor.labels, self.rows)

    def test_digests(self) -> dict[str, str]:
        return {name: rows_digest((), rows) for name, rows in self.test.items()}

    def in_words(self, labels: Sequence[str]) -> str:
        """What is gone on from, for a person."""
        known = self.known_labels
        fresh = [label for label in labels if label not in known]
        if self.is_separate:
            head = "a head of its own for the new rows"
        elif not self.task.outputs_are_classes:
            head = "the same head"
        else:
            head = f"labels {', '.join(known)}" + (f" and, new, {', '.join(fresh)}" if fresh else ", none new")
        replay = f"; {len(self.replayed):,} of {len(self.rows):,} old rows replayed" if self.replayed else ""
        return f"learn on   {self.predictor.directory}, task {self.task.name!r}: {head}{replay}"

    def joined(self, splits: Splits, share: float | None, *, seed: int) -> Splits:
        """With the buffer among the rows of the same head, `share` of it for validation, so that the best weights are
        chosen by old rows too.
        """
        if self.is_separate or not self.replayed:
            return splits
        rows = list(enumerate(self.replayed))
        can_be_parted = len({number if row.group is None else row.group for number, row in rows}) > 1
        held = set(held_out(self.replayed, share, seed)) if share is not None and can_be_parted else set()
        train = [*splits.train, *(row for number, row in rows if number not in held)]
        validation = [*splits.validation, *(row for number, row in rows if number in held)]
        return replace(splits, train=train, validation=validation)

    def head_on(self, model: Pretrained) -> Pretrained:
        """The old head, which does not train, on the encoder of `model`, which is shared. A pooler is the old one where
        the model has none.
        """
        found = copy.deepcopy(self.predictor.model)
        for child in found.children():
            child.requires_grad_(False)
        old, new = found.get_submodule("bert"), model.get_submodule("bert")
        for name, part in new.named_children():
            if isinstance(getattr(old, name, None), nn.Module):
                setattr(old, name, part)
        return found

    def encode(self, rows: Sequence[Any]) -> Features:
        """As the old model reads them, with their labels."""
        return self.predictor.encode(rows, labelled=True)


@dataclass(frozen=True)
class Kept:
    """A line of the table of forgetting."""

    task: str
    """"old" or "new"."""
    split: str
    metric: str
    rows: int
    before: float
    after: float
    forgetting: float
    """By how much the score is worse than before: before - after, or after - before where smaller is better. Its
    negative, averaged over old tasks, is the backward transfer of Lopez-Paz and Ranzato 2017 (arXiv:1706.08840)."""


def measure(
    old: OldTask, start: Predictor, best: Predictor, test: Mapping[str, Sequence[Any]], metric: str
) -> list[Kept]:
    """A line for each table of old and of new rows: by the old model and, for the new rows, by the model from which
    training began; and by the best weights.
    """
    after = replace(old.predictor, model=old.head_on(best.model)) if old.is_separate else best
    lines = []
    for kind, name, before, now, tables in (
        ("old", old.metric, old.predictor, after, old.test),
        ("new", metric, start, best, test),
    ):
        sign = -1 if name in best.task.smaller_is_better | old.task.smaller_is_better else 1
        for split, rows in tables.items():
            was, became = score_of(before, rows, name), score_of(now, rows, name)
            lines.append(Kept(kind, split, name, len(rows), was, became, sign * (was - became)))
    return lines


def score_of(predictor: Predictor, rows: Sequence[Any], metric: str) -> float:
    """One score of a model on labelled rows."""
    return score_rows(predictor, rows).scores[metric]


def forgetting_record(lines: Sequence[Kept]) -> dict[str, Any]:
    """`learned_on` of scores.json."""
    old = [line.forgetting for line in lines if line.task == "old"]
    return {"table": [asdict(line) for line in lines], "backward_transfer": -sum(old) / len(old) if old else None}


def told(lines: Sequence[Kept]) -> list[str]:
    """The table of forgetting as lines."""
    if not lines:
        return []
    found = [f"{'':<11}{'split':<16} {'metric':<12} {'before':>8} {'after':>8} {'forgetting':>11}"]
    for line in lines:
        forgotten = f"{line.forgetting:>+11.4f}" if line.task == "old" else ""
        scores = f"{line.before:>8.4f} {line.after:>8.4f} {forgotten}"
        found.append(f"{line.task:<10} {line.split:<16} {line.metric:<12} {scores}".rstrip())
    return found


def _check_same_head(predictor: Predictor, config: FinetuneConfig) -> None:
    if config.labels and config.labels[: len(predictor.labels)] != predictor.labels:
        raise UsageError(
            f"labels = {list(config.labels)}, but the old model's come first: {', '.join(predictor.labels)}; "
            "leave labels out, or set learn_on.new_head = true"
        )
    head = predictor.model.config
    asked = {"pooling": head.head_pooling, "head_layers": head.head_layers, "head_activation": head.head_act}
    for key, has in asked.items():
        if getattr(config, key) not in (None, has):
            raise UsageError(
                f"{key} = {getattr(config, key)!r}, but the old head has {has!r}, and another one would know nothing; "
                f"leave {key} out, or set learn_on.new_head = true"
            )
    is_pairs = config.pair_column is not None
    if predictor.reads_pairs is not None and predictor.reads_pairs != is_pairs:
        was, now = ("pairs of texts", "single texts") if predictor.reads_pairs else ("single texts", "pairs of texts")
        raise UsageError(f"{predictor.directory} reads {was} and the new rows are {now}; set learn_on.new_head = true")
