"""What the loop does beside the exact arithmetic: skipping, clipping, logging, choosing the best, budgets."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bertsmith.config import OptimizerConfig
from bertsmith.errors import BertsmithError, UsageError
from bertsmith.training.plan import Due, Evaluation, Sums
from training_case import CPU, PLAN, TinyModel, events, make_batch, run

FIELDS = {
    *("event", "step", "epoch", "elapsed_seconds", "loss", "losses", "learning_rate", "gradient_norm", "clip_rate"),
    *("tokens_per_second", "examples", "loader_wait_seconds", "padding_share", "truncation_share", "memory_bytes"),
    *("skipped_updates", "accuracies", "flops_per_token", "batch_size", "gradient_noise_scale"),
}


def _spoiled(steps: set[int], how: float) -> Callable[[Any], Any]:
    """Multiply the loss by `how` (nan, inf) in the first micro-batch of some steps."""
    calls = 0

    def wrap(function: Callable[[Any], Mapping[str, Tensor]]) -> Callable[[Any], Mapping[str, Tensor]]:
        def loss_sums(batch: Any) -> Mapping[str, Tensor]:
            nonlocal calls
            calls += 1
            sums = dict(function(batch))
            if calls % 2 == 1 and calls // 2 in steps:
                sums["mlm"] = sums["mlm"] * how
            return sums

        return loss_sums

    return wrap


@pytest.mark.parametrize("how", [math.nan, math.inf])
def test_an_update_that_is_not_finite_is_skipped_counted_and_told(tmp_path: Path, how: float) -> None:
    weights: dict[int, Tensor] = {}
    torch.manual_seed(1)
    model = TinyModel()
    keep = lambda step, _: weights.__setitem__(step, model.dense.weight.detach().clone())  # noqa: E731
    plan = replace(PLAN, evaluate_every=1, log_every=2)
    result, _, printed = run(tmp_path, plan=plan, model=model, wrap=_spoiled({4, 5}, how), callbacks=[keep])
    assert result.skipped_updates == 2
    assert torch.equal(weights[4], weights[5])
    assert torch.equal(weights[4], weights[6])
    assert not torch.equal(weights[6], weights[7])
    assert all(torch.isfinite(p).all() for p in model.parameters())
    steps = {event["step"]: event for event in events(tmp_path, "step")}
    assert [steps[n]["skipped_updates"] for n in (4, 6, 8)] == [0, 2, 2]
    assert steps[6]["loss"] is None, "a window without an update has no mean"
    assert steps[8]["loss"] > 0
    assert "step 5: not finite (mlm" in printed


def test_ten_in_a_row_stop_the_run(tmp_path: Path) -> None:
    plan = replace(PLAN, total_steps=40, rollback_after=10, max_rollbacks=0)
    with pytest.raises(BertsmithError, match="not finite in 10 updates in a row"):
        run(tmp_path, plan=plan, wrap=_spoiled(set(range(7, 40)), math.nan))
    stop = events(tmp_path, "stop")[-1]
    assert (stop["reason"], stop["step"]) == ("error", 16)
    assert "lower the learning rate" in stop["message"]


def test_nine_in_a_row_do_not(tmp_path: Path) -> None:
    plan = replace(PLAN, total_steps=40, rollback_after=10)
    bad = {*range(7, 16), *range(17, 26)}
    assert run(tmp_path, plan=plan, wrap=_spoiled(bad, math.nan))[0].skipped_updates == 18


def test_the_whole_gradient_is_clipped_and_the_rate_recorded(tmp_path: Path) -> None:
    seen: list[float] = []

    def spy(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        seen.append(float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients]))))

    handle = register_optimizer_step_pre_hook(spy)
    try:
        run(tmp_path, plan=replace(PLAN, clip=1.5, log_every=1))
    finally:
        handle.remove()
    logged = events(tmp_path, "step")
    assert {event["clip_rate"] for event in logged} == {0.0, 1.0}, "the case has both"
    for norm, event in zip(seen, logged, strict=True):
        assert norm == pytest.approx(min(event["gradient_norm"], 1.5), rel=1e-5)
        assert event["clip_rate"] == (event["gradient_norm"] > 1.5)


def test_the_learning_rate_follows_the_schedule(tmp_path: Path) -> None:
    run(tmp_path, plan=replace(PLAN, total_steps=10, log_every=1))
    rates = [event["learning_rate"] / PLAN.learning_rate for event in events(tmp_path, "step")]
    assert rates == pytest.approx([0.25, 0.75, 0.9375, 0.8125, 0.6875, 0.5625, 0.4375, 0.3125, 0.1875, 0.0625])


def test_a_layer_s_rate_is_its_share_of_the_one_in_the_log(tmp_path: Path) -> None:
    class Model(nn.Module):
        """All but a pair head of its own is called embeddings, and learns at a quarter of the rate."""

        def __init__(self) -> None:
            super().__init__()
            self.embeddings = TinyModel()
            self.pair = nn.Linear(17, 2)

        def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
            logits, pair_logits = self.embeddings(input_ids)
            return logits, pair_logits + self.pair(logits[:, 0])

    seen: list[set[float]] = []
    handle = register_optimizer_step_pre_hook(lambda o, *_: seen.append({g["lr"] for g in o.param_groups}))
    try:
        run(tmp_path, plan=replace(PLAN, log_every=1), model=Model(), config=OptimizerConfig(layer_decay=0.25))
    finally:
        handle.remove()
    rates = [event["learning_rate"] for event in events(tmp_path, "step")]
    assert rates[3] == pytest.approx(PLAN.learning_rate * (1 - 3.5 / 12) / 0.8)
    assert seen == [{rate, rate * 0.25} for rate in rates]


def test_lines_are_whole_and_means_are_over_the_window(tmp_path: Path) -> None:
    run(tmp_path / "each", plan=replace(PLAN, log_every=1))
    run(tmp_path / "five", plan=replace(PLAN, log_every=5))
    each, five = events(tmp_path / "each", "step"), events(tmp_path / "five", "step")
    assert [event["step"] for event in five] == [5, 10, 12]
    assert all(event.keys() == FIELDS for event in [*each, *five])
    for event, window in zip(five, (each[:5], each[5:10], each[10:]), strict=True):
        assert event["loss"] == pytest.approx(sum(e["loss"] for e in window) / len(window))
        assert event["losses"]["mlm"] == pytest.approx(sum(e["losses"]["mlm"] for e in window) / len(window))
        assert event["clip_rate"] == pytest.approx(sum(e["clip_rate"] for e in window) / len(window))
    assert five[-1]["examples"] == 96
    assert five[-1]["epoch"] == 1.5
    assert five[0]["padding_share"] == pytest.approx(1 / 8)
    trained = [event["training_loss"] for event in events(tmp_path / "each", "evaluation")]
    assert trained == pytest.approx([sum(e["loss"] for e in each[i : i + 4]) / 4 for i in (0, 4, 8)])


def test_right_answers_are_shares_of_the_items_of_applied_updates(tmp_path: Path) -> None:
    """One item in each micro-batch is right; the second update is spoiled, so nothing of it counts."""

    def wrap(function: Callable[[Any], Mapping[str, Tensor]]) -> Callable[[Any], Mapping[str, Tensor]]:
        spoiled = _spoiled({1}, math.nan)(function)

        def loss_sums(batch: Any) -> Mapping[str, Tensor]:
            sums = Sums()
            sums.update(spoiled(batch))
            sums.right["nsp"] = torch.tensor(1)
            return sums

        return loss_sums

    plan = replace(PLAN, total_steps=4, log_every=4, flops=lambda batch: 7.0 * batch.num_tokens)
    run(tmp_path, plan=plan, wrap=wrap)
    (event,) = events(tmp_path, "step")
    items = sum(make_batch(step, 8).counts["nsp"] for step in (0, 2, 3))
    assert event["skipped_updates"] == 1
    assert event["accuracies"] == {"nsp": pytest.approx(2 * 3 / items)}
    assert event["flops_per_token"] == pytest.approx(7.0)


def test_the_start_event_tells_the_plan(tmp_path: Path) -> None:
    _, _, printed = run(tmp_path)
    (start,) = events(tmp_path, "start")
    assert start["format"] == 1
    assert start["run"] == "tiny"
    assert start["plan"] == {
        "phase": 0,
        "phases": 1,
        "phase_name": "",
        "step": "",
        "first_step": 0,
        "examples": 64,
        "epochs": 1.5,
        "micro_batch_size": 4,
        "accumulation": 2,
        "ranks": 1,
        "batch_size": 8,
        "steps": 12,
        "budget_seconds": None,
        "device": CPU.device_name,
        "device_count": 1,
        "dtype": "float32",
        "threads": CPU.threads,
        "parameters": 259,
        "trained_tensors": 8,
        "trained_parameters": 259,
        "frozen_tensors": 0,
        "frozen_parameters": 0,
    }
    for line in ("1 x", "float32", "64, 1.5 epochs", "4 (micro-batch) x 2 (accumulation) x 1 (ranks) = 8", "12"):
        assert line in printed


def test_the_best_evaluation_is_the_first_of_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import training_case

    values = {3: 0.1, 6: 0.7, 9: 0.7, 12: math.nan}
    monkeypatch.setattr(
        training_case,
        "evaluate_with",
        lambda model: lambda step: Evaluation(loss=1.0, scores={"f1": values[step]}, metric="f1"),
    )
    called: list[tuple[int, bool]] = []
    plan = replace(PLAN, evaluate_every=3)
    result, _, _ = run(tmp_path, plan=plan, callbacks=[lambda step, e: called.append((step, e.best))])
    assert called == [(3, True), (6, True), (9, False), (12, False)]
    assert (result.best_step, result.best_value) == (6, 0.7)


def test_evaluations_run_in_eval_mode_without_gradients_and_come_ten_times_by_default(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = TinyModel()
    modes: list[tuple[int, bool]] = []
    plan = replace(PLAN, total_steps=40, evaluate_every=None)
    run(tmp_path, plan=plan, model=model, callbacks=[lambda step, _: modes.append((step, model.training))])
    assert modes == [(step, True) for step in range(4, 41, 4)], "callbacks see the model in training mode again"


def test_weights_scale_the_objectives(tmp_path: Path) -> None:
    run(tmp_path / "a", plan=replace(PLAN, total_steps=1, log_every=1, weights={"nsp": 0.5}))
    (event,) = events(tmp_path / "a", "step")
    assert event["loss"] == pytest.approx(event["losses"]["mlm"] + 0.5 * event["losses"]["nsp"])


def test_a_run_that_is_over_is_not_trained_again(tmp_path: Path) -> None:
    _, first, _ = run(tmp_path)

    def next_batches(due: Due) -> list[Any]:
        raise AssertionError("trained again")

    result, second, _ = run(tmp_path, model=TinyModel(), next_batches=next_batches)
    assert result.resumed_from == 12
    assert torch.equal(first.dense.weight, second.dense.weight)  # type: ignore[union-attr, arg-type]


def test_another_length_under_the_same_folder_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(UsageError, match=r"holds a run of 12 steps, but 13 are asked for"):
        run(tmp_path, plan=replace(PLAN, total_steps=13))


def test_a_plan_without_an_end_and_several_processes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs total_steps or budget_seconds"):
        run(tmp_path, plan=replace(PLAN, total_steps=None))
    with pytest.raises(UsageError, match="2 processes were started, but they do not know of one another"):
        run(tmp_path, runtime=replace(CPU, world_size=2))


def test_a_batch_without_labels_for_an_objective_counts_nothing(tmp_path: Path) -> None:
    def next_batches(due: Due) -> list[Any]:
        batch = make_batch(due.step, 8)
        return [replace(batch, pair_labels=torch.full_like(batch.pair_labels, -100))]

    run(tmp_path, next_batches=next_batches, plan=replace(PLAN, log_every=1), evaluates=False)
    assert all(event["losses"]["nsp"] == 0.0 for event in events(tmp_path, "step"))


def test_with_steps_and_a_budget_the_first_to_end_counts(tmp_path: Path) -> None:
    few = replace(PLAN, total_steps=6, budget_seconds=60.0)
    result, _, _ = run(tmp_path / "few", plan=few)
    assert result.steps == 6
    assert events(tmp_path / "few", "decision") == []
    assert [event["step"] for event in events(tmp_path / "few", "evaluation")] == [0, 4, 6]
    many = replace(PLAN, total_steps=1_000_000, budget_seconds=1.0, evaluate_every=None)
    result, _, _ = run(tmp_path / "many", plan=many)
    decision = events(tmp_path / "many", "decision")[-1]
    assert result.steps == decision["value"] < 1_000_000
