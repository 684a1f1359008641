"""A tiny two-objective training problem with dropout, tied weights and unequal batches, for tests of the loop."""

import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from bertsmith.config import OptimizerConfig, ScheduleConfig
from bertsmith.runtime import Runtime, derive_seed
from bertsmith.training.checkpoints import Checkpoints
from bertsmith.training.distributed import Ranks
from bertsmith.training.loop import train
from bertsmith.training.optimizer import make_optimizer
from bertsmith.training.plan import Callback, Due, Evaluation, LossSums, Plan, TrainResult
from bertsmith.training.schedule import make_schedule
from bertsmith.training.sizes import FitMicroBatch
from bertsmith.training.track import Track, read_metrics

CPU = Runtime(device=torch.device("cpu"), dtype=torch.float32, threads=torch.get_num_threads())
VOCAB, HIDDEN, LENGTH = 17, 8, 6


class TinyModel(nn.Module):
    """Embedding, LayerNorm, dropout, one linear layer, a decoder tied to the embedding, a pair head."""

    def __init__(self, *, dropout: float = 0.1):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, HIDDEN)
        self.norm = nn.LayerNorm(HIDDEN)
        self.dense = nn.Linear(HIDDEN, HIDDEN)
        self.decoder = nn.Linear(HIDDEN, VOCAB)
        self.decoder.weight = self.embedding.weight
        self.pair = nn.Linear(HIDDEN, 2)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("scale", torch.ones(1))

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.dropout(self.norm(self.embedding(input_ids)))
        hidden = self.dropout(F.gelu(self.dense(hidden))) * self.scale
        return self.decoder(hidden), self.pair(hidden[:, 0])


@dataclass(frozen=True)
class TinyBatch:
    """Labels of -100 are ignored."""

    input_ids: Tensor  # (batch, length)
    labels: Tensor  # (batch, length)
    pair_labels: Tensor  # (batch,)
    example_ids: tuple[int, ...]

    @property
    def example_kind(self) -> str:
        return "example"

    @property
    def counts(self) -> dict[str, int]:
        return {"mlm": int((self.labels != -100).sum()), "nsp": int((self.pair_labels != -100).sum())}

    @property
    def num_tokens(self) -> int:
        return int((self.input_ids != 0).sum())

    def to(self, device: torch.device) -> "TinyBatch":
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            labels=self.labels.to(device),
            pair_labels=self.pair_labels.to(device),
        )

    def take(self, rows: Sequence[int]) -> "TinyBatch":
        chosen = list(rows)
        ids = tuple(self.example_ids[row] for row in chosen)
        return TinyBatch(self.input_ids[chosen], self.labels[chosen], self.pair_labels[chosen], ids)

    def split(self, sizes: Sequence[int]) -> list["TinyBatch"]:
        ends = list(itertools.accumulate(sizes))
        return [self.take(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


def make_batch(step: int, batch_size: int) -> TinyBatch:
    """The global batch of a step: about a third of the positions labelled, unevenly over the rows."""
    generator = torch.Generator().manual_seed(derive_seed("batch", step))
    ids = torch.randint(1, VOCAB, (batch_size, LENGTH), generator=generator)
    ids[::3, LENGTH - 2 :] = 0
    labelled = torch.rand(batch_size, LENGTH, generator=generator) < torch.linspace(0, 0.7, batch_size)[:, None]
    pairs = torch.randint(0, 2, (batch_size,), generator=generator)
    pairs[: batch_size // 4] = -100
    numbers = range(step * batch_size, (step + 1) * batch_size)
    return TinyBatch(ids, torch.where(labelled, (ids * 3 + 1) % VOCAB, -100), pairs, tuple(numbers))


def loss_sums_of(model: nn.Module) -> LossSums:
    def loss_sums(batch: TinyBatch) -> Mapping[str, Tensor]:
        logits, pair_logits = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in model(batch.input_ids))
        return {
            "mlm": F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="sum"),
            "nsp": F.cross_entropy(pair_logits, batch.pair_labels, reduction="sum"),
        }

    return loss_sums


def evaluate_with(model: nn.Module) -> Callable[[int], Evaluation]:
    def evaluate(step: int) -> Evaluation:
        batch = make_batch(-1, 16)
        sums = loss_sums_of(model)(batch)
        losses = {name: float(value) / batch.counts[name] for name, value in sums.items()}
        return Evaluation(loss=sum(losses.values()), losses=losses, scores={"seen": float(step)})

    return evaluate


PLAN = Plan(
    batch_size=8,
    micro_batch_size=4,
    num_examples=64,
    total_steps=12,
    learning_rate=1e-2,
    log_every=5,
    evaluate_every=4,
    checkpoint_every_seconds=1e9,
)


def run(
    directory: Path,
    *,
    plan: Plan = PLAN,
    model: nn.Module | None = None,
    runtime: Runtime = CPU,
    sizes: Sequence[int] = (4, 4),
    next_batches: Callable[[Due], Sequence[Any]] | None = None,
    wrap: Callable[[LossSums], LossSums] = lambda function: function,
    callbacks: Sequence[Callback] = (),
    evaluates: bool = True,
    fit_micro_batch: FitMicroBatch | None = None,
    keep: int = 100,
    config: OptimizerConfig | None = None,
    ranks: Ranks | None = None,
) -> tuple[TrainResult, nn.Module, str]:
    """Train a tiny model in `directory`; the result, the model and what was printed."""
    if model is None:
        torch.manual_seed(1)
        model = TinyModel()
    output = io.StringIO()
    result = train(
        model=model,
        optimizer=make_optimizer(model, config or OptimizerConfig()),
        schedule=make_schedule(ScheduleConfig(schedule="linear", warmup_share=0.2)),
        next_batches=next_batches or (lambda due: make_batch(due.step, plan.batch_size).split(sizes)),
        loss_sums=wrap(loss_sums_of(model)),
        plan=plan,
        checkpoints=Checkpoints(directory / "checkpoints", keep=keep),
        track=Track(directory / "metrics.jsonl", about={"run": "tiny"}, console=Console(file=output, width=120)),
        runtime=runtime,
        evaluate=evaluate_with(model) if evaluates else None,
        fit_micro_batch=fit_micro_batch,
        callbacks=callbacks,
        ranks=ranks,
    )
    return result, model, output.getvalue()


def events(directory: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_metrics(directory / "metrics.jsonl") if event["event"] == kind]


def with_every_checkpoint(plan: Plan = PLAN) -> Plan:
    """The plan, saving a checkpoint after each update."""
    return replace(plan, checkpoint_every_seconds=1e-9)
