"""Muon against our AdamW: held-out masked-word loss after equal wall-clock, each at the best of its learning rates.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) is `torch.optim.Muon` on the matrices of the encoder's
layers, with `match_rms_adamw` (Liu et al. 2025, arXiv:2502.16982), so that rates mean the same on both sides;
embeddings, heads, biases and LayerNorm stay with AdamW at the same rate, as its author advises. The rest is one recipe:
the English one with `--layers` of 256, examples of 128 tokens, batches of 8, masked words only, the same seed, text,
vocabulary and budget. Time spent in the optimizer is part of the budget.

    step     milliseconds of each side's own part of an update; Muon's products are in bfloat16, which a processor
             without it emulates
    sweep    each side at each of its rates, seed 1, for --sweep-minutes
    pairs    each side at its best rate, a pair a seed, for --minutes

Runs go one after the other, the sides in turn, on --threads threads. A row a run is appended to --out as soon as it is
there; what is there is not run again, so that a stopped bench goes on. `--summary` only reads.

    python bench/optimizers.py --out bench/results/DATE-optimizers.jsonl
    python bench/optimizers.py --quick --out rows.jsonl      2 rates a side, 1 seed, half a minute each: that it runs
"""

import argparse
import json
import math
import shutil
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from equal_minutes import loss_of
from measure import machine
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from bertsmith.config import OptimizerConfig, Recipe, load_recipe
from bertsmith.model import BertForMaskedLM, preset
from bertsmith.pipeline import run as run_recipe
from bertsmith.training import pretrain as pretraining
from bertsmith.training.optimizer import make_optimizer

RATES = (5e-4, 1e-3, 2e-3, 4e-3)
SEEDS = (1, 2, 3)
SIDES = ("adamw", "muon")
HELD_OUT = 1_000


class MuonAndAdamW(Optimizer):
    """Muon for matrices of the encoder's layers, AdamW for the rest: one optimizer to those who hold it."""

    def __init__(self, model: nn.Module, config: OptimizerConfig):
        matrices = {id(p) for name, p in model.named_parameters() if "encoder.layer" in name and p.ndim == 2}
        groups = make_optimizer(model, config).param_groups
        super().__init__([{**group, "params": list(group["params"])} for group in groups], {})
        self.parts: list[Optimizer] = []
        for group in self.param_groups:
            common = {"lr": config.learning_rate, "weight_decay": group["weight_decay"]}
            by_muon = [p for p in group["params"] if id(p) in matrices]
            others = [p for p in group["params"] if id(p) not in matrices]
            if by_muon:
                self.parts.append(Muon(by_muon, **common, adjust_lr_fn="match_rms_adamw"))
                self.parts[-1].from_group = group
            if others:
                self.parts.append(AdamW(others, **common, betas=config.betas, eps=config.eps, fused=True))
                self.parts[-1].from_group = group

    def step(self, closure: Callable[[], float] | None = None) -> None:
        assert closure is None, "the loop gives none"
        for part in self.parts:
            part.param_groups[0]["lr"] = part.from_group["lr"]
            part.step()


def muon_for(model: nn.Module, config: OptimizerConfig, **_: Any) -> Optimizer:
    return MuonAndAdamW(model, config)


def recipe(options: argparse.Namespace, *, rate: float, seed: int, minutes: float) -> Recipe:
    path = Path(__file__).parent.parent / "recipes" / "english.toml"
    settings = {
        "name": "optimizers",
        "fill_mask": "[]",
        "model.overrides.num_hidden_layers": options.layers,
        "pretrain.objectives": '["mlm"]',
        "pretrain.budget_minutes": minutes,
        "pretrain.evaluation_examples": 64,  # the loss of a row is measured after the budget
        "pretrain.evaluate_every_steps": 1_000_000,  # at the end alone
        "pretrain.checkpoint_every_seconds": 1e6,  # a state of Muon's is not saved here, and a stopped run starts again
        "pretrain.learning_rate": rate,
        "pretrain.seed": seed,
        "pretrain.compile": "off",
        "runtime.threads": options.threads,
    }
    return load_recipe(path, [f"{key}={value}" for key, value in settings.items()])


def one_run(options: argparse.Namespace, *, kind: str, side: str, rate: float, seed: int, minutes: float) -> None:
    """Train and append a row, unless it is there."""
    wanted = {"kind": kind, "side": side, "rate": rate, "seed": seed, "minutes": minutes, "layers": options.layers}
    if any(all(row.get(key) == value for key, value in wanted.items()) for row in rows_of(options.out)):
        return
    folder = options.folder / "optimizers" / "pretrain"
    shutil.rmtree(folder, ignore_errors=True)
    chosen = recipe(options, rate=rate, seed=seed, minutes=minutes)
    if side == "muon":
        with patch.object(pretraining, "make_optimizer", muon_for):
            result = run_recipe(chosen, runs=options.folder, until="pretrain")
    else:
        result = run_recipe(chosen, runs=options.folder, until="pretrain")
    assert result.pretrained is not None
    row = wanted | {
        "loss": round(loss_of(result.pretrained.model, options.folder / "optimizers", HELD_OUT), 4),
        "steps": result.pretrained.steps,
        "seconds": round(result.pretrained.elapsed_seconds, 1),
    }
    print(json.dumps(row), flush=True)
    with options.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row | machine()) + "\n")


def step_rows(layers: int) -> list[dict[str, Any]]:
    """Milliseconds of the optimizer's own part of an update, the best of five: what equal minutes hang on."""
    sizes = {"vocab_size": 8192, "num_hidden_layers": layers}
    model = BertForMaskedLM(preset("mini", sizes))
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) * 1e-3
    rows = []
    for side, make in (("adamw", make_optimizer), ("muon", muon_for)):
        optimizer, seconds = make(model, OptimizerConfig()), []
        for _ in range(6):  # the first one makes the state
            started = time.perf_counter()
            optimizer.step()
            seconds.append(time.perf_counter() - started)
        rows.append({"kind": "step", "side": side, "layers": layers, "ms": round(1e3 * min(seconds[1:]), 2)})
    return rows


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []


def best_rate(rows: Iterable[dict[str, Any]], side: str) -> float:
    swept = [row for row in rows if row["kind"] == "sweep" and row["side"] == side and math.isfinite(row["loss"])]
    return float(min(swept, key=lambda row: row["loss"])["rate"])


def summary(rows: list[dict[str, Any]]) -> str:
    swept = [row for row in rows if row["kind"] == "sweep"]
    lines = [f"step  {row['side']:<6} {row['ms']:.2f} ms" for row in rows if row["kind"] == "step"]
    lines += [f"sweep {row['side']:<6} rate {row['rate']:<7g} loss {row['loss']:.4f}" for row in swept]
    losses = {
        side: {row["seed"]: row["loss"] for row in rows if row["kind"] == "pair" and row["side"] == side}
        for side in SIDES
    }
    seeds = sorted(losses["adamw"].keys() & losses["muon"].keys())
    gains = [losses["adamw"][seed] - losses["muon"][seed] for seed in seeds]
    lines += [f"seed {seed}: adamw {losses['adamw'][seed]:.4f}, muon {losses['muon'][seed]:.4f}" for seed in seeds]
    if len(gains) > 1:
        error = statistics.stdev(gains) / math.sqrt(len(gains))
        lines.append(f"muon is lower by {statistics.fmean(gains):.4f} (standard error of paired runs {error:.4f})")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON Lines; goes on where it stopped")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench"), help="corpus, models; may be removed after")
    parser.add_argument("--minutes", type=float, default=5.0, help="of each run of a pair")
    parser.add_argument("--sweep-minutes", type=float, default=2.0)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="shows that it runs; proves nothing")
    parser.add_argument("--summary", action="store_true", help="only read --out")
    options = parser.parse_args()
    rates, seeds, sweep, minutes = RATES, SEEDS, options.sweep_minutes, options.minutes
    if options.quick:
        rates, seeds, sweep, minutes = RATES[1:3], SEEDS[:1], 0.5, 0.5
    if not options.summary:
        run_recipe(recipe(options, rate=1e-3, seed=1, minutes=1), runs=options.folder, until="examples")
        torch.set_num_threads(options.threads)
        if not any(row["kind"] == "step" for row in rows_of(options.out)):
            with options.out.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row | machine()) + "\n" for row in step_rows(options.layers))
        for rate in rates:
            for side in SIDES:
                one_run(options, kind="sweep", side=side, rate=rate, seed=1, minutes=sweep)
        for seed in seeds:
            for side in SIDES if seed % 2 else reversed(SIDES):
                best = best_rate(rows_of(options.out), side)
                one_run(options, kind="pair", side=side, rate=best, seed=seed, minutes=minutes)
    print(summary(rows_of(options.out)))


if __name__ == "__main__":
    main()
