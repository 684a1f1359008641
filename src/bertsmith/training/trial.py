"""A few real updates of a recipe's network on this machine, through the loop itself, to see what one takes."""

import io
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from bertsmith.config import PretrainConfig
from bertsmith.examples.assemble import PretrainBatch
from bertsmith.examples.mask import budgets
from bertsmith.model.config import BertConfig
from bertsmith.model.encoder import encoder_of
from bertsmith.model.language import LanguageModel
from bertsmith.runtime import Runtime, peak_memory_bytes
from bertsmith.training.checkpoints import Checkpoints
from bertsmith.training.compiling import COMPILED, compiled
from bertsmith.training.distributed import Ranks
from bertsmith.training.loop import train
from bertsmith.training.objectives import loss_sums_of
from bertsmith.training.optimizer import make_optimizer
from bertsmith.training.plan import Due, Plan
from bertsmith.training.schedule import make_schedule
from bertsmith.training.track import Track

Batches = Callable[[int], Sequence[PretrainBatch]]

_WARMUP_STEPS = 3
_LEAST_STEPS = 5


@dataclass(frozen=True)
class Trial:
    """What was measured; `step_seconds` is a median."""

    step_seconds: float
    steps: int
    first_seconds: float
    """The first update: compiling, and what else happens once."""
    peak_bytes: int
    """Of the whole process."""
    note: str
    """Whether the step was compiled, and why."""


def measure(
    model: LanguageModel,
    config: PretrainConfig,
    *,
    batches: Callable[[bool], Batches],
    runtime: Runtime,
    seconds: float,
    long_enough: bool,
    batch_size: int,
    evaluate: Callable[[], None] | None = None,
) -> tuple[Trial, float | None]:
    """Train for about `seconds` after a warm-up; the weights are spoiled. And how long `evaluate` takes, if given.

    batches(static_shapes)   step -> micro-batches, for compiled code all of one shape

    The updates are those that a run of `config` makes: loss, clipping, optimizer, log; of `batch_size` examples.
    """
    encoder_of(model).recomputes = config.activation_checkpointing
    mode = "off" if config.activation_checkpointing else config.compile
    forward, note = compiled(model.masked_states, mode, long_enough=long_enough, say=lambda _: None)
    source = batches(note == COMPILED)
    starts: list[float] = []

    def next_batches(due: Due) -> Sequence[Any]:
        starts.append(time.perf_counter())
        return source(due.step)

    def run(plan: Plan) -> None:
        with tempfile.TemporaryDirectory() as folder:
            train(
                model=model,
                optimizer=make_optimizer(model, config),
                schedule=make_schedule(config),
                next_batches=next_batches,
                loss_sums=loss_sums_of(model, forward, skips_mask=note != COMPILED),
                plan=plan,
                checkpoints=_Nowhere(Path(folder) / "checkpoints"),
                track=Track(Path(folder) / "metrics.jsonl", about={"run": ""}, console=Console(file=io.StringIO())),
                runtime=runtime,
            )

    plan = Plan(
        batch_size=batch_size,
        micro_batch_size=batch_size,  # `batches` have been cut already
        num_examples=batch_size,
        total_steps=_WARMUP_STEPS,
        learning_rate=config.learning_rate,
        clip=config.clip,
        clip_by=config.clip_by,
        log_every=config.log_every_steps,
    )
    began = time.perf_counter()
    run(plan)
    first_seconds, first = starts[1] - began, len(starts)
    if (starts[-1] - starts[-2]) * _LEAST_STEPS > seconds:
        run(replace(plan, total_steps=_LEAST_STEPS))
    else:
        run(replace(plan, total_steps=None, budget_seconds=seconds))
    found = [after - before for before, after in itertools.pairwise([*starts[first:], time.perf_counter()])]
    trial = Trial(statistics.median(found), len(found), first_seconds, peak_memory_bytes(), note)
    return trial, None if evaluate is None else _timed(model, evaluate)


def made_up_batches(
    config: PretrainConfig, shape: BertConfig, *, length: int, batch_size: int, micro_batch_size: int
) -> Batches:
    """Full examples of random tokens, masked and paired as `config` says: the work of real ones without padding."""
    generator = torch.Generator().manual_seed(0)
    share = max(config.mask_share_at(0.0), config.mask_share_at(1.0))

    def batch(rows: int) -> PretrainBatch:
        masks = rows * int(budgets(torch.tensor([length - 2]).numpy(), share)[0]) if "mlm" in config.objectives else 0
        ids = torch.randint(5, shape.vocab_size, (rows, length), generator=generator)
        is_pair = {"nsp", "sop"} & set(config.objectives)
        items = {"mlm": masks, "nsp": rows, "sop": rows, "agreement": rows * length, "smoothness": rows * (length - 1)}
        return PretrainBatch(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            token_type_ids=(torch.arange(length) >= length // 2).long().repeat(rows, 1) * bool(is_pair),
            masked_positions=torch.randperm(rows * length, generator=generator)[:masks].sort().values,
            masked_labels=torch.randint(5, shape.vocab_size, (masks,), generator=generator),
            next_sentence_label=torch.randint(0, 2, (rows,), generator=generator)
            if is_pair
            else torch.full((rows,), -100),
            same_document_negative=torch.zeros(rows, dtype=torch.bool),
            counts={name: count for name, count in items.items() if name in config.objectives},
            num_tokens=rows * length,
            example_ids=tuple(range(rows)),
        )

    whole, rest = divmod(batch_size, micro_batch_size)
    made = [batch(micro_batch_size) for _ in range(whole)] + ([batch(rest)] if rest else [])
    return lambda _step: made


def _timed(model: LanguageModel, evaluate: Callable[[], None]) -> float:
    model.eval()
    started = time.perf_counter()
    with torch.no_grad():
        evaluate()
    return time.perf_counter() - started


class _Nowhere(Checkpoints):
    """Checkpoints of a run of which nothing is to be left: none is written, so none is found."""

    def begin_save(
        self,
        step: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: Mapping[str, Any],
        *,
        ranks: Ranks,
        keep_step: int | None = None,
    ) -> None: ...
