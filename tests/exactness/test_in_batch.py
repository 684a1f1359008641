"""Promises 3 and 4 where examples are each other's negatives: however a batch is cut, over micro-batches or ranks, each
text is compared with those of the whole batch, and the update is that of the whole batch.
"""

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from bertsmith.config import FinetuneConfig
from bertsmith.errors import Stopped
from bertsmith.model.heads import SentenceEncoder
from bertsmith.runtime import Runtime
from bertsmith.tasks.batches import TrainingBatches
from bertsmith.tasks.embed import Embed
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.losses import Shape
from bertsmith.tasks.rows import EmbedRow
from bertsmith.tasks.whole_batch import WholeBatchLoss
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.accumulate import Accumulator
from bertsmith.training.distributed import Ranks
from bertsmith.training.interrupts import Interrupts
from bertsmith.training.state import State
from finetune_case import partner_rows, recipe, write_tiny_model
from ranks_case import ONE_THREAD, on_ranks
from training_case import PLAN, events, run

ROWS = partner_rows(41, seed=1)


def _model(base: Path, dropout: float = 0.0) -> SentenceEncoder:
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return SentenceEncoder.from_pretrained(base, overrides=rates).double()


def _batches(base: Path, task: Embed, ranks: Ranks) -> TrainingBatches:
    tokenizer = Tokenizer.load(base)
    rows = [EmbedRow(row["text"], n, row["pair"], row["other"]) for n, row in enumerate(ROWS)]
    features = task.encode(rows, tokenizer, labels=("vector",), max_length=16)
    return TrainingBatches(
        features,
        objective="embed",
        pad_id=tokenizer.pad_id,
        batch_size=13,
        seed=1,
        rank=ranks.rank,
        world_size=ranks.size,
    )


def trained(
    ranks: Ranks, runtime: Runtime, base: Path, folder: Path, micro_batch_size: int, steps: int, dropout: float = 0.0
) -> tuple[dict[str, np.ndarray], list[float]]:
    """Weights, and the loss of each update; with 13 rows in a batch, ranks have unequal shares."""
    task, model = Embed(temperature=0.1), _model(base, dropout)
    batches = _batches(base, task, ranks)
    loss = WholeBatchLoss(task, model, FinetuneConfig(task="embed"), Shape())
    run(
        folder,
        plan=replace(PLAN, batch_size=13, total_steps=steps, log_every=1, clip=0.5, num_examples=len(ROWS)),
        model=model,
        runtime=runtime,
        next_batches=lambda due: batches.batch(due.step, micro_batch_size),
        wrap=lambda _: loss,
        evaluates=False,
        ranks=ranks,
    )
    weights = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    return weights, [event["losses"]["embed"] for event in events(folder, "step")] if ranks.is_first else []


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


def assert_equal(found: tuple[Any, Any], wanted: tuple[Any, Any]) -> None:
    for name, weight in wanted[0].items():
        np.testing.assert_allclose(found[0][name], weight, rtol=1e-9, atol=1e-9, err_msg=name)
    assert found[1] == pytest.approx(wanted[1], rel=1e-9)


@pytest.mark.parametrize("micro_batch_size", [1, 3, 8])
@pytest.mark.parametrize("steps", [1, 10])
def test_micro_batches_of_any_size_are_one_batch(base, tmp_path, micro_batch_size, steps):
    whole = trained(Ranks(0, 1), ONE_THREAD, base, tmp_path / "whole", 13, steps)
    parts = trained(Ranks(0, 1), ONE_THREAD, base, tmp_path / "parts", micro_batch_size, steps)
    assert_equal(parts, whole)


def test_the_same_after_500_steps(base, tmp_path):
    whole = trained(Ranks(0, 1), ONE_THREAD, base, tmp_path / "whole", 13, 500)
    parts = trained(Ranks(0, 1), ONE_THREAD, base, tmp_path / "parts", 5, 500)
    assert_equal(parts, whole)


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_are_one_process(base, tmp_path, size):
    """41 rows in batches of 13: the last of an epoch has one row, so that some ranks have none."""
    whole = trained(Ranks(0, 1), ONE_THREAD, base, tmp_path / "whole", 13, 10)
    several = on_ranks(size, trained, base, tmp_path / "several", 2, 10)
    for rank, found in enumerate(several):
        assert_equal((found[0], found[1] if rank == 0 else whole[1]), whole)


def test_both_readings_of_a_text_have_one_dropout(base):
    """What a micro-batch is compared by was computed with the dropout that it is trained with."""
    task, model = Embed(temperature=0.1), _model(base, 0.3).train()
    batches = _batches(base, task, Ranks(0, 1))
    seen: list[torch.Tensor] = []

    class Spy(WholeBatchLoss):
        def look(self, batch):
            seen.append(super().look(batch))
            return seen[-1]

    loss = Spy(task, model, FinetuneConfig(task="embed"), Shape())
    plan = replace(PLAN, batch_size=13, num_examples=len(ROWS))
    sums = Accumulator(model, list(model.parameters()), loss, plan, ONE_THREAD, Ranks(0, 1))
    with Interrupts() as interrupts:
        sums.gradient(batches.batch(0, 5), State.begin(plan), interrupts)
    first, again = seen[:3], seen[3:]
    order = [next(i for i, b in enumerate(again) if b.shape == a.shape and torch.equal(a, b)) for a in first]
    assert sorted(order) == [0, 1, 2]
    assert not torch.equal(first[0][:2], first[1][:2])


def test_resumed_bit_for_bit(base, tmp_path):
    settings = {"task": "embed", "pair_column": "pair", "dropout": 0.1, "epochs": 2, "learning_rate": 1e-3}

    def fine_tuned(folder: Path, **more: Any) -> bytes:
        finetune(
            recipe(**settings, batch_size=13, micro_batch_size=4, **more),
            folder,
            model=base,
            train=[(row["text"], row["pair"]) for row in ROWS],
            validation=[(row["text"], row["pair"]) for row in partner_rows(12, seed=2)],
            console=Console(quiet=True),
            runtime=ONE_THREAD,
            on_evaluation=stop_once if more else None,
        )
        return (folder / "last" / "model.safetensors").read_bytes()

    def stop_once(step: int, _: Any) -> None:
        if step == 4 and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            signal.raise_signal(signal.SIGINT)

    straight = fine_tuned(tmp_path / "straight")
    with pytest.raises(Stopped):
        fine_tuned(tmp_path / "again", checkpoint_every_seconds=1e9)
    assert fine_tuned(tmp_path / "again", checkpoint_every_seconds=1e9) == straight
