"""Promise 4: one process = two = four at the same global batch: examples, masks, loss, gradients, weights.

Tolerances are those of promise 3: float64 1e-9 after 1 and 10 steps. Dropout is 0. Each rank has a stretch of rows of
its own, so that the ranks' counts of labels are far apart (`make_batch` labels later rows more), and cuts it into
micro-batches of its own.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bertsmith.runtime import Runtime
from bertsmith.training.distributed import Ranks
from bertsmith.training.sharding import full, shard, whole
from ranks_case import ONE_THREAD, on_ranks
from training_case import PLAN, TinyBatch, TinyModel, events, make_batch, run, with_every_checkpoint

BATCH = 32
CLIPS = {"norm": 2.4, "value": 1.1}
"""Between the sizes of the gradients to come, so that some are clipped."""
CUTS = {1: ((8, 8, 8, 8),), 2: ((4, 12), (9, 7)), 4: ((3, 5), (8, 0), (4, 4), (2, 6))}


def share_of(step: int, rank: int, size: int) -> list[TinyBatch]:
    """This rank's micro-batches of the global batch of a step."""
    mine = make_batch(step, BATCH).split([BATCH // size] * size)[rank]
    return [part for part in mine.split(CUTS[size][rank]) if len(part.input_ids)]


def even_share_of(step: int, rank: int, size: int) -> list[TinyBatch]:
    """The same with as many micro-batches on each rank, as FSDP2 needs it."""
    mine = make_batch(step, BATCH).split([BATCH // size] * size)[rank]
    return mine.split([BATCH // size // 2] * 2)


def trained(ranks: Ranks, runtime: Runtime, directory: Path, clip_by: Any) -> dict[str, Any]:
    """Gradients as the first update uses them, weights after it and after the last one; put together where sharded."""
    torch.manual_seed(3)
    model = TinyModel(dropout=0.0).to(torch.float64)
    sharded = runtime.parallel == "fsdp" and not ranks.is_alone
    if sharded:
        shard(model, [model.dense], ranks)
    share = even_share_of if sharded else share_of
    gradients: dict[str, Any] = {}
    weights: list[dict[str, Any]] = []

    def spy(_optimizer: Any, _args: Any, _kwargs: Any) -> None:
        if len(weights) < 2:  # before the first update and after it
            weights.append({name: _numbers(p) for name, p in model.named_parameters()})
        if not gradients:
            gradients.update({name: _numbers(p.grad) for name, p in model.named_parameters() if p.grad is not None})

    handle = register_optimizer_step_pre_hook(spy)
    plan = replace(
        PLAN, batch_size=BATCH, total_steps=10, log_every=1, evaluate_every=5, clip=CLIPS[clip_by], clip_by=clip_by
    )
    run(
        directory,
        plan=plan,
        model=model,
        runtime=runtime,
        next_batches=lambda step, _: share(step, ranks.rank, ranks.size),
        ranks=ranks,
    )
    handle.remove()
    with whole(model):
        last = {name: _numbers(p) for name, p in model.named_parameters()}
    return {"gradients": gradients, "first weights": weights[1], "last weights": last}


def _numbers(tensor: Tensor) -> Any:
    return full(tensor.detach()).clone().numpy()


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize(("size", "clip_by"), [(2, "norm"), (4, "value")])
def test_ranks_are_equal_to_one_process(tmp_path: Path, size: int, clip_by: str, parallel: Any) -> None:
    one = trained(Ranks(0, 1), ONE_THREAD, tmp_path / "one", clip_by)
    assert {event["clip_rate"] for event in events(tmp_path / "one", "step")} == {0.0, 1.0}, "the case has both"
    every = on_ranks(size, trained, tmp_path / "many", clip_by, parallel=parallel)
    for found in every:
        assert found.keys() == one.keys(), found
        for kind, expected in one.items():
            assert found[kind].keys() == expected.keys()
            for name, tensor in expected.items():
                np.testing.assert_allclose(found[kind][name], tensor, rtol=1e-9, atol=1e-9, err_msg=f"{kind} of {name}")
    for kind in ("step", "evaluation"):
        ours, theirs = events(tmp_path / "many", kind), events(tmp_path / "one", kind)
        assert len(ours) == len(theirs) >= 2
        for one_event, many_event in zip(theirs, ours, strict=True):
            assert many_event["losses"] == pytest.approx(one_event["losses"], rel=1e-9)
        if kind == "step":
            for name in ("gradient_norm", "loss", "learning_rate", "clip_rate", "padding_share", "examples"):
                assert [e[name] for e in ours] == pytest.approx([e[name] for e in theirs], rel=1e-9), name


def _weights_and_files(
    ranks: Ranks, runtime: Runtime, directory: Path, plan: Any, seed: int
) -> tuple[dict[str, Any], int | None]:
    """Train on, from whatever is in `directory`; the weights put together, and where it went on from."""
    torch.manual_seed(seed)
    model = TinyModel(dropout=0.0).to(torch.float64)
    if runtime.parallel == "fsdp" and not ranks.is_alone:
        shard(model, [model.dense], ranks)
    result, _, _ = run(
        directory,
        plan=plan,
        model=model,
        runtime=runtime,
        next_batches=lambda step, _: even_share_of(step, ranks.rank, ranks.size),
        ranks=ranks,
    )
    with whole(model):
        return {name: _numbers(p) for name, p in model.named_parameters()}, result.resumed_from


@pytest.mark.parametrize("writers", [("fsdp", 2), ("ddp", 2)])
def test_a_checkpoint_goes_on_with_another_number_of_ranks(tmp_path: Path, writers: tuple[Any, int]) -> None:
    """Each sharded rank writes its own file; one, two and four ranks take them up, sharded or not."""
    parallel, size = writers
    half = with_every_checkpoint(replace(PLAN, batch_size=BATCH, total_steps=8, evaluate_every=4))
    expected, _ = _weights_and_files(Ranks(0, 1), ONE_THREAD, tmp_path / "straight", half, 3)
    on_ranks(size, _weights_and_files, tmp_path / "many", half, 3, parallel=parallel)
    checkpoint = tmp_path / "many" / "checkpoints" / "step-00000005"
    assert len(list(checkpoint.glob("*.safetensors"))) == (2 * size if parallel == "fsdp" else 2)
    for later in range(6, 9):
        shutil.rmtree(checkpoint.with_name(f"step-{later:08d}"))
    shutil.copytree(tmp_path / "many", tmp_path / "one")
    ways = [[_weights_and_files(Ranks(0, 1), ONE_THREAD, tmp_path / "one", half, 99)]]
    for way, many in (("fsdp", 2), ("fsdp", 4), ("ddp", 2)):
        directory = tmp_path / f"{way}-{many}"
        shutil.copytree(tmp_path / "many", directory)
        ways.append(on_ranks(many, _weights_and_files, directory, half, 99, parallel=way))  # type: ignore[arg-type]
    for found in (found for way in ways for found in way):
        weights, resumed_from = found
        assert resumed_from == 5
        for name, tensor in expected.items():
            np.testing.assert_allclose(weights[name], tensor, rtol=1e-9, atol=1e-9, err_msg=name)
