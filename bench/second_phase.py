"""Does agreement or smoothness help? One checkpoint, a second phase with and without them, and what comes of it.

A small English BERT (2 layers of 256) learns masked words for --first-steps. From that very checkpoint, for each seed
and each arm, a second phase of --steps goes on, with the same examples, masks and learning rate:

    mlm          masked words alone
    agreement    and agreement, weight 0.1
    both         and smoothness, weight 0.001: its loss is a sum over 256 dimensions

Steps are equal, not time: agreement's other forward pass is for nothing if it loses even so; `seconds` says what it
cost. Each model is then measured three ways: held-out masked-word loss in `transformers`; accuracy in SICK entailment
(4,927 test pairs) after fine-tuning; and the same where only pooler and head learn, a probe of [CLS]. The row `none` is
the checkpoint itself. A row an arm and seed is appended to --out as it ends; what is there is not run again. The last
lines are means over the seeds, and paired differences from `mlm` with their standard errors.

    python bench/second_phase.py --out bench/results/DATE-second-phase.jsonl
    python bench/second_phase.py --quick --out rows.jsonl        2 seeds, fewer steps: within 20 minutes on one core
"""

import argparse
import json
import math
import shutil
import statistics
import tomllib
from pathlib import Path
from typing import Any

import torch
from equal_minutes import loss_of
from measure import machine
from rich.console import Console

from bertsmith.config import parse_recipe
from bertsmith.pipeline import run as run_recipe
from bertsmith.runtime import detect
from bertsmith.tasks.finetune import finetune

NONE, PLAIN = "none", "mlm"
ARMS: dict[str, tuple[str, str]] = {
    PLAIN: ('["mlm"]', "{}"),
    "agreement": ('["mlm", "agreement"]', "{ agreement = 0.1 }"),
    "both": ('["mlm", "agreement", "smoothness"]', "{ agreement = 0.1, smoothness = 0.001 }"),
}
SCORES = ("loss", "finetuned", "probe")
NAME, HELD_OUT = "second-phase", 500


def pretrained(options: argparse.Namespace, *, steps: int, seed: int, arm: str, init: Path | None) -> dict[str, Any]:
    """Pre-train; the model directory and the seconds it took. Corpus and examples are made once."""
    objectives, weights = ARMS[arm]
    settings = {
        "name": NAME,
        "fill_mask": "[]",
        "pretrain.objectives": objectives,
        "pretrain.weights": weights,
        "pretrain.max_steps": steps,
        "pretrain.evaluation_examples": 64,
        "pretrain.evaluate_every_steps": steps,
        "pretrain.learning_rate": options.rate if init is None else options.rate / 2,
        "pretrain.seed": seed,
        "pretrain.compile": "off",
        "runtime.threads": options.threads,
    }
    if init is not None:
        settings["pretrain.init"] = json.dumps(str(init.resolve()))
    raw = tomllib.loads((Path(__file__).parent.parent / "recipes" / "english.toml").read_text(encoding="utf-8"))
    del raw["pretrain"]["budget_minutes"]
    recipe = parse_recipe(raw, overrides=[f"{key}={value}" for key, value in settings.items()])
    result = run_recipe(recipe, runs=options.folder, until="pretrain").pretrained
    assert result is not None
    return {"model": result.model, "seconds": round(result.elapsed_seconds, 1)}


def accuracy(options: argparse.Namespace, model: Path, *, seed: int, probe: bool) -> float:
    """In SICK's test pairs."""
    settings: dict[str, Any] = {
        "task": "classify",
        "model": str(model),
        "train": "sick2014/train.tsv",
        "validation": "sick2014/trial.tsv",
        "text_column": "sentence_A",
        "pair_column": "sentence_B",
        "label_column": "entailment_judgment",
        "metric": "accuracy",
        "max_train_rows": options.rows,
        "epochs": 3,
        "batch_size": 32,
        "max_length": 64,
        "learning_rate": 2e-3 if probe else 3e-4,
        "test": {"test": "sick2014/test.tsv"},
    }
    if probe:
        settings["freeze"] = ["embeddings", "encoder"]
    folder = options.folder / f"{NAME}-finetune"
    shutil.rmtree(folder, ignore_errors=True)
    recipe = parse_recipe({"name": NAME, "seed": seed, "finetune": settings})
    result = finetune(recipe, folder, console=Console(quiet=True), runtime=detect(threads=options.threads))
    return round(result.scores["test"]["accuracy"], 4)


def one_row(options: argparse.Namespace, first: Path, *, arm: str, seed: int) -> None:
    wanted = {"arm": arm, "seed": seed, "first_steps": options.first_steps, "steps": options.steps}
    wanted |= {"rows": options.rows}
    if any(all(row[key] == value for key, value in wanted.items()) for row in rows_of(options.out)):
        return
    found: dict[str, Any] = {"model": first, "seconds": 0.0}
    if arm != NONE:
        found = pretrained(options, steps=options.steps, seed=seed, arm=arm, init=first)
    row = wanted | {
        "loss": round(loss_of(found["model"], options.folder / NAME, HELD_OUT), 4),
        "finetuned": accuracy(options, found["model"], seed=seed, probe=False),
        "probe": accuracy(options, found["model"], seed=seed, probe=True),
        "seconds": found["seconds"],
    }
    print(json.dumps(row), flush=True)
    with options.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row | machine()) + "\n")


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []


def summary(rows: list[dict[str, Any]]) -> str:
    """Means, and differences from masked words alone over the seeds that both have."""
    by_arm = {arm: {row["seed"]: row for row in rows if row["arm"] == arm} for arm in (NONE, *ARMS)}
    lines = []
    for arm, found in by_arm.items():
        parts = [f"{score} {statistics.fmean(row[score] for row in found.values()):.4f}" for score in SCORES if found]
        seeds = sorted(found.keys() & by_arm[PLAIN].keys())
        if arm not in (NONE, PLAIN) and len(seeds) > 1:
            for score in SCORES:
                gains = [found[seed][score] - by_arm[PLAIN][seed][score] for seed in seeds]
                error = statistics.stdev(gains) / math.sqrt(len(gains))
                parts.append(f"{score} - {PLAIN} {statistics.fmean(gains):+.4f} (se {error:.4f})")
        lines.append(f"{arm:<10} {len(found)} seeds: " + ", ".join(parts))
    return "\n".join(lines)


def first_phase(options: argparse.Namespace) -> Path:
    """The checkpoint that all go on from, made once."""
    first: Path = options.folder / f"{NAME}-first-{options.first_steps}"
    if not first.exists():
        made = pretrained(options, steps=options.first_steps, seed=1, arm=PLAIN, init=None)["model"]
        shutil.copytree(made, first.with_suffix(".part"), dirs_exist_ok=True)
        first.with_suffix(".part").rename(first)
    return first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON Lines; goes on where it stopped")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench"), help="corpus, models; may be removed after")
    parser.add_argument("--first-steps", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=1000, help="of the second phase")
    parser.add_argument("--rows", type=int, default=1500, help="of SICK's training rows")
    parser.add_argument("--rate", type=float, default=1e-3, help="of the first phase; the second has half of it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="2 seeds, 1,000 and 200 steps, 500 rows")
    parser.add_argument("--summary", action="store_true", help="only read --out")
    options = parser.parse_args()
    if options.quick:
        options.first_steps, options.steps, options.rows, options.seeds = 1000, 200, 500, [1, 2]
    if not options.summary:
        first = first_phase(options)
        for seed in options.seeds:
            for arm in (NONE, *ARMS):
                one_row(options, first, arm=arm, seed=seed)
    print(summary(rows_of(options.out)))


if __name__ == "__main__":
    main()
