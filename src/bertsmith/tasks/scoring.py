"""What a finished fine-tuning is worth: its best weights and the recipe's simple models on every test split."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bertsmith.artifact import write_json
from bertsmith.errors import ArtifactError
from bertsmith.model.pretrained import Pretrained
from bertsmith.model.weights import read_card, write_card
from bertsmith.tasks.base import Task
from bertsmith.tasks.baselines import BASELINES
from bertsmith.tasks.evaluate import ScoreRow, score_outputs, score_table
from bertsmith.tasks.features import Features, Floats
from bertsmith.tasks.predict import write_predictions
from bertsmith.tasks.refit import Refit
from bertsmith.tasks.splits import Splits


@dataclass(frozen=True)
class Scores:
    """scores.json."""

    metric: str
    """By which the best checkpoint was chosen."""
    name: str
    """What the table calls the model."""
    table: tuple[ScoreRow, ...]
    """The model and the simple ones, on each split, by each metric."""
    refit: Refit | None = None
    """How the model was trained on validation rows too."""
    learned_on: Mapping[str, Any] | None = None
    """What became of an old task (`continual.forgetting_record`), where the model learned on."""

    def of_model(self) -> dict[str, dict[str, float]]:
        """Split -> metric -> score of the model itself."""
        scores: dict[str, dict[str, float]] = {}
        for row in self.table:
            if row.name == self.name:
                scores.setdefault(row.split, {})[row.metric] = row.score
        return scores

    def called(self, name: str) -> "Scores":
        """The same with another name for the model."""
        table = tuple(replace(row, name=name) if row.name == self.name else row for row in self.table)
        return replace(self, name=name, table=table)

    def write(self, path: Path) -> None:
        write_json(path, {name: value for name, value in asdict(self).items() if value is not None})

    @classmethod
    def read(cls, path: Path) -> "Scores":
        """Raises `ArtifactError` where the file is none, saying what to remove."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            refit = Refit(**found["refit"]) if "refit" in found else None
            table = tuple(ScoreRow(**line) for line in found["table"])
            return cls(found["metric"], found["name"], table, refit, found.get("learned_on"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path} cannot be read ({error}); remove {path.parent}") from error


@dataclass(frozen=True)
class Scorer:
    """One fine-tuning's test rows, and how its model is scored on them."""

    task: Task[Any, Any]
    splits: Splits
    metric: str
    name: str
    baselines: tuple[str, ...]
    """Simple models that are scored on the same rows."""
    seed: int
    encode: Callable[[Sequence[Any], str], Features]
    """Of rows and the name of their split."""
    outputs: Callable[[Pretrained, Features], Floats]
    refit: Refit | None = None
    """How the model was trained on validation rows too, which are then no measure of it."""

    def score(self, model: Pretrained, folder: Path, *, training_seconds: float) -> Scores:
        """Score on every test split; writes predictions-SPLIT.jsonl and scores.json into `folder`, and the scores into
        the card of `folder`/model.
        """
        lines: list[ScoreRow] = []
        for split, rows in self._tests().items():
            for name, answers, seconds in self._simple_answers(rows):
                lines += self._table(rows, answers, name=name, split=split, seconds=seconds)
            started = time.monotonic()
            features = self.encode(rows, split)
            scored = score_outputs(self.task, rows, features, self.outputs(model, features), self.splits.labels)
            seconds = training_seconds + time.monotonic() - started
            note = "" if self.refit is None else self.refit.note
            lines += self._table(rows, scored.answers, name=self.name, split=split, seconds=seconds, note=note)
            pairs = enumerate(zip(rows, scored.answers, strict=True))
            records = (self.task.record(number, row, answer) for number, (row, answer) in pairs)
            write_predictions(folder / f"predictions-{split}.jsonl", records)
        scores = Scores(self.metric, self.name, tuple(lines), self.refit)
        card = read_card(folder / "model")
        write_card(folder / "model", card | {"scores": card["scores"] | scores.of_model()})
        scores.write(folder / "scores.json")
        return scores

    def _tests(self) -> Mapping[str, Sequence[Any]]:
        return self.splits.test or ({} if self.refit else {"validation": self.splits.validation})

    def _table(
        self, rows: Sequence[Any], answers: Sequence[Any], *, name: str, split: str, seconds: float, note: str = ""
    ) -> tuple[ScoreRow, ...]:
        labels, seed = self.splits.labels, self.seed
        told = {"name": name, "split": split, "note": note}
        return score_table(self.task, rows, answers, labels, seconds=seconds, seed=seed, **told)

    def _simple_answers(self, rows: Sequence[Any]) -> Iterator[tuple[str, list[Any], float]]:
        """Name, answers and seconds of the simple models; a BERT from random weights is a run of its own."""
        for name, learn in BASELINES[self.task.name].items():
            if name in self.baselines:
                started = time.monotonic()
                predictions = learn(self.splits.train, self.splits.validation, self.metric)(rows)
                answers = [self.task.answer_of(row, found) for row, found in zip(rows, predictions, strict=True)]
                yield name, answers, time.monotonic() - started
