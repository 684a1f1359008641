"""What became of a model that was made smaller: both side by side, and the smaller one kept or refused."""

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bertsmith.artifact import replace_directory, write_json
from bertsmith.compress.measure import Measured
from bertsmith.errors import BertsmithError, UsageError
from bertsmith.model.weights import read_card, write_card
from bertsmith.tasks.inputs import Inputs
from bertsmith.tasks.own_rows import MADE_FROM
from bertsmith.tasks.predict import Predictor

RECORD = "compression.json"


@dataclass(frozen=True)
class Outcome:
    """A model and what became of it."""

    folder: Path
    metric: str
    smaller_is_better: bool
    before: Measured
    after: Measured
    how: Mapping[str, Any]
    """What was done, for the record."""

    @classmethod
    def of(cls, folder: Path, inputs: Inputs, before: Measured, after: Measured, how: Mapping[str, Any]) -> "Outcome":
        return cls(folder, inputs.metric, inputs.metric in inputs.task.smaller_is_better, before, after, how)

    @property
    def lost_points(self) -> float:
        return lost_points(self.before.score, self.after.score, smaller_is_better=self.smaller_is_better)

    def keep(self, made: Path, whole: Predictor, max_drop: float, advice: str) -> None:
        """Give the model at `made` its place, `folder`/model, where it is good enough; what was measured is written in
        any case. Raises `BertsmithError` with `advice` where it lost more than `max_drop` points.
        """
        accepted = is_within(self.lost_points, max_drop)
        record = {
            "from": str(whole.directory),
            "metric": self.metric,
            "lost_points": self.lost_points,
            "max_drop": max_drop,
            "accepted": accepted,
            **self.how,
            "before": asdict(self.before),
            "after": asdict(self.after),
        }
        write_json(self.folder / RECORD, record)
        model = self.folder / "model"
        if not accepted:
            shutil.rmtree(model, ignore_errors=True)
            raise BertsmithError(
                f"the smaller model lost {self.lost_points:.2f} points of {self.metric}, more than --max-drop "
                f"{max_drop:g}, and is not kept (both are in {self.folder / RECORD}); {advice}"
            )
        draft = self.folder / ".model.draft"
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(made, draft)
        told: Mapping[str, Any] = {key: record[key] for key in ("from", "metric", "lost_points", "before", "after")}
        write_card(draft, read_card(draft) | {"compressed": told, MADE_FROM: str(whole.directory.resolve())})
        replace_directory(draft, model)


def check_request(folder: Path, max_drop: float) -> None:
    """Raise `UsageError` for a folder that is a file, and for points that are no number."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a folder for the smaller model")
    if math.isnan(max_drop):
        raise UsageError("max_drop is no number; give the points that may be lost, such as 1")


def lost_points(before: float, after: float, *, smaller_is_better: bool) -> float:
    """Hundredths of the metric by which the second is worse; below 0 where it is better."""
    return 100 * (after - before if smaller_is_better else before - after)


def is_within(lost: float, max_drop: float) -> bool:
    """Whether no more was lost than may be; a difference of two scores has its own rounding."""
    return lost <= max_drop + 1e-9
