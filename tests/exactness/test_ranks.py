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
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bertsmith.runtime import Runtime
from bertsmith.tasks.finetune import finetune
from bertsmith.training.distributed import Ranks
from bertsmith.training.plan import Due, Plan, TrainResult
from bertsmith.training.pretrain import pretrain
from bertsmith.training.sharding import full, shard
from finetune_case import recipe as finetuning_recipe
from finetune_case import text_rows, write_tiny_model
from pretrain_case import Made, make_examples
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


def _run(ranks: Ranks, runtime: Runtime, directory: Path, plan: Plan, model: TinyModel) -> TrainResult:
    sharded = runtime.parallel == "fsdp" and not ranks.is_alone
    if sharded:
        shard(model, [model.dense], ranks)
    share = even_share_of if sharded else share_of
    result, _, _ = run(
        directory,
        plan=plan,
        model=model,
        runtime=runtime,
        next_batches=lambda due: share(due.step, ranks.rank, ranks.size),
        ranks=ranks,
    )
    return result


def trained(ranks: Ranks, runtime: Runtime, directory: Path, clip_by: Any) -> dict[str, Any]:
    """Gradients as the first update uses them, weights after it and after the last one; put together where sharded."""
    torch.manual_seed(3)
    model = TinyModel(dropout=0.0).to(torch.float64)
    gradients: dict[str, Any] = {}
    weights: list[dict[str, Any]] = []

    def spy(_optimizer: Any, _args: Any, _kwargs: Any) -> None:
        if len(weights) < 2:  # before the first update and after it
            weights.append(_weights(model))
        if not gradients:
            gradients.update({name: _numbers(p.grad) for name, p in model.named_parameters() if p.grad is not None})

    handle = register_optimizer_step_pre_hook(spy)
    plan = replace(
        PLAN, batch_size=BATCH, total_steps=10, log_every=1, evaluate_every=5, clip=CLIPS[clip_by], clip_by=clip_by
    )
    _run(ranks, runtime, directory, plan, model)
    handle.remove()
    return {"gradients": gradients, "first weights": weights[1], "last weights": _weights(model)}


def _weights(model: TinyModel) -> dict[str, Any]:
    return {name: _numbers(parameter) for name, parameter in model.named_parameters()}


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


def resumed(ranks: Ranks, runtime: Runtime, directory: Path, dropout: float) -> dict[str, Any]:
    """Weights after 8 steps, each saved, and the checkpoint it went on from."""
    torch.manual_seed(11 if list(directory.glob("checkpoints/*")) else 3)  # all weights must come from the checkpoint
    model = TinyModel(dropout=dropout).to(torch.float64)
    plan = with_every_checkpoint(replace(PLAN, batch_size=BATCH, total_steps=8))
    result = _run(ranks, runtime, directory, plan, model)
    return {"weights": _weights(model), "from": result.resumed_from}


def _until(step: int, straight: Path, directory: Path) -> None:
    shutil.copytree(straight, directory)
    for later in range(step + 1, 9):
        shutil.rmtree(directory / "checkpoints" / f"step-{later:08d}")


@pytest.mark.parametrize("written", ["ddp", "fsdp"])
def test_a_checkpoint_goes_on_with_another_number_of_ranks(tmp_path: Path, written: Any) -> None:
    """Each sharded rank writes its own file; one, two and four ranks take them up, sharded or not."""
    expected = resumed(Ranks(0, 1), ONE_THREAD, tmp_path / "straight", 0.0)["weights"]
    on_ranks(2, resumed, tmp_path / "many", 0.0, parallel=written)
    checkpoint = tmp_path / "many" / "checkpoints" / "step-00000005"
    assert len(list(checkpoint.glob("*.safetensors"))) == (4 if written == "fsdp" else 2)
    _until(5, tmp_path / "many", tmp_path / "one")
    ways = [[resumed(Ranks(0, 1), ONE_THREAD, tmp_path / "one", 0.0)]]
    other: Any = "fsdp" if written == "ddp" else "ddp"
    for way, many in ((other, 2), ("fsdp", 4)):
        _until(5, tmp_path / "many", tmp_path / f"{way}-{many}")
        ways.append(on_ranks(many, resumed, tmp_path / f"{way}-{many}", 0.0, parallel=way))
    for found in (found for way in ways for found in way):
        assert found["from"] == 5
        for name, tensor in expected.items():
            np.testing.assert_allclose(found["weights"][name], tensor, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_the_same_ranks_go_on_bit_for_bit_with_dropout(tmp_path: Path, parallel: Any) -> None:
    straight = on_ranks(2, resumed, tmp_path / "straight", 0.1, parallel=parallel)
    _until(3, tmp_path / "straight", tmp_path / "again")
    again = on_ranks(2, resumed, tmp_path / "again", 0.1, parallel=parallel)
    for one, other in zip(straight, again, strict=True):
        assert (one["from"], other["from"]) == (None, 3)
        for name, expected in one["weights"].items():
            assert other["weights"][name].tobytes() == expected.tobytes(), name


def in_a_budget(ranks: Ranks, runtime: Runtime, directory: Path) -> int:
    plan = replace(PLAN, batch_size=BATCH, total_steps=None, budget_seconds=1.0 + ranks.rank, evaluate_every=None)
    return _run(ranks, runtime, directory, plan, TinyModel()).steps


def test_a_budget_is_turned_into_steps_by_the_first_rank_for_all(tmp_path: Path) -> None:
    steps = on_ranks(2, in_a_budget, tmp_path)
    assert steps == [events(tmp_path, "decision")[-1]["value"]] * 2


def finetuned(ranks: Ranks, runtime: Runtime, base: Path, directory: Path) -> dict[str, Any]:
    """With 13 rows in a batch: ranks have unequal shares, and in the last batch of an epoch some have none."""
    result = finetune(
        finetuning_recipe(epochs=2, batch_size=13, micro_batch_size=3, dropout=0.0, learning_rate=1e-3),
        directory,
        model=base,
        train=text_rows(41, seed=1),
        validation=text_rows(24, seed=2),
        test={"test": text_rows(24, seed=3)},
        console=Console(quiet=True),
        runtime=runtime,
        ranks=ranks,
    )
    return {"scores": dict(result.scores["test"]), "best": result.best_step}


def test_a_bert_finetuned_by_ranks_is_the_same(tmp_path: Path) -> None:
    base = write_tiny_model(tmp_path / "base")
    expected = finetuned(Ranks(0, 1), ONE_THREAD, base, tmp_path / "one")
    assert on_ranks(4, finetuned, base, tmp_path / "many") == [expected] * 4
    for ours, theirs in zip(events(tmp_path / "many", "step"), events(tmp_path / "one", "step"), strict=True):
        assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-5)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-4)
    found, wanted = (load_file(tmp_path / name / "last/model.safetensors") for name in ("many", "one"))
    for name, tensor in wanted.items():
        if name.endswith("key.bias"):
            continue  # its true gradient is 0, and AdamW makes steps of full length of what rounding leaves
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def pretrained(ranks: Ranks, runtime: Runtime, made: Made, directory: Path) -> int:
    sizes = {"num_hidden_layers": 2, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    raw = made.raw | {"model": {**made.raw["model"], "overrides": {**made.raw["model"]["overrides"], **sizes}}}
    recipe = replace(made, raw=raw).recipe(max_steps=8, log_every_steps=1, compile="off")
    console = Console(quiet=True)
    return pretrain(
        recipe,
        directory,
        examples=made.examples,
        tokenizer=made.tokenizer,
        runtime=runtime,
        console=console,
        ranks=ranks,
    ).steps


def test_a_bert_pretrained_by_ranks_is_the_same(tmp_path: Path) -> None:
    """Float32, so to the rounding of sums in another order; masks and examples could not be others."""
    made = make_examples(tmp_path)
    assert pretrained(Ranks(0, 1), ONE_THREAD, made, tmp_path / "one") == 8
    assert on_ranks(2, pretrained, made, tmp_path / "ddp") == [8, 8]
    assert on_ranks(2, pretrained, made, tmp_path / "fsdp", parallel="fsdp") == [8, 8]
    expected = load_file(tmp_path / "one/model/model.safetensors")
    for name in ("ddp", "fsdp"):
        for kind in ("step", "evaluation"):
            ours, theirs = events(tmp_path / name, kind), events(tmp_path / "one", kind)
            assert len(ours) == len(theirs) >= 2
            for one, other in zip(theirs, ours, strict=True):
                assert other["losses"] == pytest.approx(one["losses"], rel=1e-5)
        found = load_file(tmp_path / name / "model/model.safetensors")
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, rtol=1e-3, atol=1e-4, msg=key)
        (start,) = events(tmp_path / name, "start")
        assert (start["plan"]["ranks"], start["plan"]["accumulation"]) == (2, 1)


def _poisoned_on(ranks: Ranks, runtime: Runtime, directory: Path) -> Any:
    """Rows 3 and 17, of which rank 0 and rank 1 have one each, spoil each update from step 5 on."""
    torch.manual_seed(3)
    model = TinyModel(dropout=0.0).to(torch.float64)
    steps = [0]

    def next_batches(due: Due) -> list[TinyBatch]:
        steps[0] = due.step
        return [replace(part, example_ids=tuple(i % BATCH for i in part.example_ids)) for part in mine(due.step)]

    def mine(step: int) -> list[TinyBatch]:
        return share_of(step, ranks.rank, ranks.size)

    def wrap(function: Any) -> Any:
        def loss_sums(batch: TinyBatch) -> Any:
            factor = float("nan") if steps[0] >= 5 and {3, 17} & set(batch.example_ids) else 1.0
            return {name: value * factor for name, value in function(batch).items()}

        return loss_sums

    plan = replace(PLAN, batch_size=BATCH, total_steps=10, log_every=1, evaluate_every=5)
    run(directory, plan=plan, model=model, runtime=runtime, next_batches=next_batches, wrap=wrap, ranks=ranks)
    return {name: _numbers(p) for name, p in model.named_parameters()}


def test_ranks_go_back_together_and_leave_out_what_any_of_them_found(tmp_path: Path) -> None:
    expected = _poisoned_on(Ranks(0, 1), ONE_THREAD, tmp_path / "one")
    found = on_ranks(2, _poisoned_on, tmp_path / "two")
    for directory in ("one", "two"):
        (rollback,) = events(tmp_path / directory, "rollback")
        assert rollback["examples"] == ["example 3", "example 17"]
        assert rollback["from_step"] == 5
    for weights in found:
        for name, tensor in expected.items():
            np.testing.assert_allclose(weights[name], tensor, rtol=1e-9, atol=1e-9, err_msg=name)
