"""What a finished fine-tuning is worth: its best weights and the recipe's simple models on every test split."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bertsmith.artifact import write_json
from bertsmith.errors import ArtifactError
from bertsmith.model.pretrained import Pretrained
from bertsmith.model.weights import read_card, write_card
from bertsmith.tasks.base import Task
from bertsmith.tasks.baselines import BASELINES
from bertsmith.tasks.calibration import calibration, fit_temperature
from bertsmith.tasks.evaluate import ScoreRow, score_outputs, score_table
from bertsmith.tasks.features import Features, Floats
from bertsmith.tasks.occlusion import driving_words
from bertsmith.tasks.predict import write_predictions
from bertsmith.tasks.refit import Refit
from bertsmith.tasks.slices import SliceRow, score_slices
from bertsmith.tasks.splits import Splits
from bertsmith.tokenizer.encode import Tokenizer


@dataclass(frozen=True)
class Scores:
    """scores.json."""

    metric: str
    """By which the best checkpoint was chosen."""
    name: str
    """What the table calls the model."""
    table: tuple[ScoreRow, ...]
    """The model and the simple ones, on each split, by each metric."""
    slices: tuple[SliceRow, ...] = ()
    """The model on parts of each split."""
    calibration: Mapping[str, Any] | None = None
    """How right its probabilities are, before and after the temperature, as docs/understand.md tells."""
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
            table = tuple(ScoreRow(**line) for line in found["table"])
            slices = tuple(SliceRow(**line) for line in found.get("slices", ()))
            refit = Refit(**found["refit"]) if found.get("refit") else None
            return cls(
                found["metric"], found["name"], table, slices, found.get("calibration"), refit, found.get("learned_on")
            )
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
    tokenizer: Tokenizer
    features: Callable[[Sequence[Any]], Features]
    """The same without a word on what is cut."""
    outputs: Callable[[Pretrained, Features], Floats]
    validation: Features
    """On which the temperature is fitted."""
    calibrate: bool
    """Whether the model keeps its temperature."""
    columns: Mapping[str, Mapping[str, Sequence[str]]]
    """Split -> column -> value of each row: parts of a split to be scored too."""
    say: Callable[[str], None]
    refit: Refit | None = None
    """How the model was trained on validation rows too, which are then no measure of it."""

    def score(self, model: Pretrained, folder: Path, *, training_seconds: float) -> Scores:
        """Score on every test split; writes predictions-SPLIT.jsonl, mistakes-SPLIT.jsonl and scores.json into
        `folder`, and the scores and, where it is to be kept, the temperature into the card of `folder`/model.
        """
        lines: list[ScoreRow] = []
        slices: list[SliceRow] = []
        temperature, fitting = self._fit(model)
        kept = temperature if self.calibrate else 1.0
        calibrations: dict[str, Any] = {}
        for split, rows in self._tests().items():
            for name, answers, seconds in self._simple_answers(rows):
                lines += self._table(rows, answers, name=name, split=split, seconds=seconds)
            started = time.monotonic()
            features = self.encode(rows, split)
            outputs = self.outputs(model, features)
            scored = score_outputs(self.task, rows, features, outputs / kept, self.splits.labels)
            seconds = training_seconds + time.monotonic() - started
            note = "" if self.refit is None else self.refit.note
            lines += self._table(rows, scored.answers, name=self.name, split=split, seconds=seconds, note=note)
            slices += score_slices(
                self.task,
                rows,
                scored.answers,
                self.splits.labels,
                features,
                columns=self.columns.get(split, {}),
                metric=self.metric,
                split=split,
                seed=self.seed,
            )
            if fitting is not None:
                calibrations[split] = self._calibration(rows, features, outputs, temperature)
                before, after = (calibrations[split][when]["ece"] for when in ("before", "after"))
                told = f"{split}: ECE {before:.4f}, at temperature {temperature:.3g} {after:.4f}"
                advice = "calibrate = true keeps that" if after < before else "no better: leave calibrate = false"
                self.say(f"calibrated {told}{'' if self.calibrate else f' ({advice})'}")
            pairs = enumerate(zip(rows, scored.answers, strict=True))
            records = (self.task.record(number, row, answer) for number, (row, answer) in pairs)
            write_predictions(folder / f"predictions-{split}.jsonl", records)
            driving = driving_words(
                self.task,
                rows,
                scored.answers,
                tokenizer=self.tokenizer,
                encode=self.features,
                answer=partial(self._answers, model, kept),
            )
            if driving:
                write_predictions(folder / f"mistakes-{split}.jsonl", driving)
        calibrated = None if fitting is None else {**fitting, "splits": calibrations}
        scores = Scores(self.metric, self.name, tuple(lines), tuple(slices), calibrated, self.refit)
        card = read_card(folder / "model")
        scale = {} if kept == 1.0 else {"temperature": kept}
        others = {key: value for key, value in card.items() if key != "temperature"}
        write_card(folder / "model", others | scale | {"scores": card["scores"] | scores.of_model()})
        scores.write(folder / "scores.json")
        return scores

    def _answers(self, model: Pretrained, temperature: float, rows: Sequence[Any], features: Features) -> Sequence[Any]:
        return self.task.decode(rows, features, self.outputs(model, features) / temperature, self.splits.labels)

    def _tests(self) -> Mapping[str, Sequence[Any]]:
        return self.splits.test or ({} if self.refit else {"validation": self.splits.validation})

    def _fit(self, model: Pretrained) -> tuple[float, dict[str, Any] | None]:
        """The temperature, and what is to be said of it; 1 and None where answers have no probabilities, or where
        the model has learned the validation rows.
        """
        if not self.task.gives_probabilities or self.refit is not None:
            return 1.0, None
        outputs = self.outputs(model, self.validation)

        def loss(temperature: float) -> float:
            return float(self.task.losses_of(outputs / temperature, self.validation).mean())

        temperature = fit_temperature(loss)
        losses = {"before": loss(1.0), "after": loss(temperature)}
        return temperature, {"temperature": temperature, "kept": self.calibrate, "validation_loss": losses}

    def _calibration(
        self, rows: Sequence[Any], features: Features, outputs: Floats, temperature: float
    ) -> dict[str, Any]:
        """ "before" and "after" the temperature: `Calibration` and mean loss."""
        found = {}
        for when, scaled in (("before", outputs), ("after", outputs / temperature)):
            decisions = self.task.decisions(rows, self.task.decode(rows, features, scaled, self.splits.labels))
            assert decisions is not None, "answers with probabilities"
            loss = float(self.task.losses_of(scaled, features).mean())
            found[when] = {**asdict(calibration(decisions)), "loss": loss}
        return found

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
