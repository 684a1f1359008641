"""The section on distillation: a student learns from what a teacher says, beside the labels."""

from typing import Annotated

from pydantic import Field, model_validator

from bertsmith.config.section import Section


class DistillConfig(Section):
    """A fine-tuned model of the same task teaches."""

    teacher: str
    """Model directory, run or hub name, fine-tuned for the same labels, with the same vocabulary."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Of what the teacher says, softened by `temperature` (Hinton et al. 2015); the labels' own loss has 1."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """By which outputs of both are divided before they are compared."""
    hidden: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the mean squared distance of hidden states, of the embeddings and of each student layer, from those of
    the teacher's layers as deep in proportion (Jiao et al. 2020, TinyBERT). Both need the same hidden size."""

    @model_validator(mode="after")
    def _teaches(self) -> "DistillConfig":
        if not self.weight and not self.hidden:
            raise ValueError("weight and hidden are both 0, so nothing is taught; set one, or leave [distill] out")
        return self
