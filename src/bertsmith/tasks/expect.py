"""Scores that a model must reach, as a build server is told of them: `matthews>=0.4`, `rmse<=0.6`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bertsmith.errors import BertsmithError, UsageError

_EXPECTATION = re.compile(r"\s*(\w+)\s*(>=|<=)\s*([-+.\deE]+)\s*")


@dataclass(frozen=True)
class Expectation:
    """That a score is at least, or at most, so much."""

    metric: str
    is_lowest: bool
    bound: float

    def check(self, scores: Mapping[str, float]) -> None:
        """Raise `BertsmithError` where it is not so, `UsageError` where there is no such score."""
        if self.metric not in scores:
            raise UsageError(f"--expect {self.metric}: this table is scored by {', '.join(scores)}")
        score = scores[self.metric]
        if not (score >= self.bound if self.is_lowest else score <= self.bound):
            sign = ">=" if self.is_lowest else "<="
            raise BertsmithError(f"{self.metric} is {score:.4f}; expected {sign} {self.bound:g}")


def expectation(text: str, metrics: Sequence[str]) -> Expectation:
    """Read one; raises `UsageError` where it is none, or not of the task's metrics."""
    found = _EXPECTATION.fullmatch(text)
    if found is None:
        raise UsageError(f"--expect {text!r}: write METRIC>=SCORE or METRIC<=SCORE, such as matthews>=0.4")
    metric, sign, number = found.groups()
    if metric not in metrics:
        raise UsageError(f"--expect {text!r}: this model is scored by {', '.join(metrics)}")
    try:
        return Expectation(metric, sign == ">=", float(number))
    except ValueError as error:
        raise UsageError(f"--expect {text!r}: {number!r} is no number") from error
