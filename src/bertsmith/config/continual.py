"""The section on learning on: new rows, labels or tasks for a model that was fine-tuned before."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bertsmith.config.section import Section


class LearnOnConfig(Section):
    """`model` is fine-tuned already, and is to keep what it knows."""

    old: tuple[str, ...] = ()
    """Files of rows that it was fine-tuned on, in the layout that they had then."""
    test: dict[str, str] = {}
    """Name -> file of rows of the old task on which forgetting is measured."""
    new_head: bool = False
    """Keep the old head as it is and learn the new rows with another one on the same encoder. Another task always does.
    Otherwise the head gets more labels, and says of the old ones what it said, until it is trained."""
    replay: Annotated[int, Field(ge=0)] = 0
    """Old rows that are learned along with the new ones."""
    replay_by: Literal["stratified", "reservoir"] = "stratified"
    """How they are chosen: of each label its share, or all rows alike, as if they passed by once (Vitter 1985)."""
    ewc: Annotated[float, Field(ge=0)] = 0.0
    """Weight of elastic weight consolidation: half the squared distance of each weight from the old one, times its
    Fisher information on old rows (Kirkpatrick et al. 2017)."""
    fisher: Literal["true", "empirical"] = "true"
    """ewc: by labels that are drawn from the old model's answers, or by those of the rows."""
    fisher_rows: Annotated[int, Field(ge=1)] = 200
    """ewc: old rows by which it is estimated, at most."""
    distill: Annotated[float, Field(ge=0)] = 0.0
    """Weight of what the old model says to the new rows (learning without forgetting, Li and Hoiem 2016)."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """distill: by which outputs are divided before they are compared."""

    @model_validator(mode="after")
    def _has_old_rows(self) -> "LearnOnConfig":
        for key in ("replay", "ewc"):
            if getattr(self, key) and not self.old:
                raise ValueError(f"{key} reads old rows; set learn_on.old to the files that the model was trained on")
        return self
