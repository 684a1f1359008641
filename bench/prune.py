"""Structured pruning to about half the layers' arithmetic, with recovery: how quick, how good, beside the whole model.

A recipe's model is fine-tuned for each seed, cut each way (`bertsmith compress prune`), and both are scored on the test
rows, which chose nothing. Times are those of the command: whole calls on validation rows, both models in turn. A row a
seed and cut is added to --out as it ends, and rows that are there are not made again; the last lines are means over
seeds.

    python bench/prune.py recipes/cola.toml --out bench/results/prune.jsonl --seeds 1 2 3
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from measure import machine
from rich.console import Console

from bertsmith.compress.prune import prune
from bertsmith.config import Recipe, load_recipe
from bertsmith.runtime import detect
from bertsmith.tasks.evaluate import evaluate
from bertsmith.tasks.finetune import finetune

CUTS: dict[str, dict[str, Any]] = {
    "layers-half": {"layers": 3},
    "neurons-quarter": {"neurons": 0.25},
    "heads-half": {"heads": 0.5, "neurons": 0.5},
}
"""Of MiniLM, 6 layers of 384 with 1,536 neurons: 0.50, 0.50 and 0.50 of the layers' arithmetic."""


def measure(recipe: Recipe, runs: Path, names: Sequence[str], recovery: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row a cut, of one seed."""
    config, quiet, runtime = recipe.finetune, Console(quiet=True), detect()
    assert config is not None
    finetune(recipe, runs / "whole", console=quiet, runtime=runtime)
    for name in names:
        small = runs / name
        overrides = ["finetune.baselines=[]", *recovery]
        found = prune(runs / "whole", small, **CUTS[name], max_drop=100, overrides=overrides, console=quiet)
        tests = {}
        for split, path in config.test.items():
            both = [evaluate(folder, path).scores[found.metric] for folder in (runs / "whole", small)]
            tests[split] = [round(score, 4) for score in both]
        before, after = found.before, found.after
        yield {
            "cut": name,
            "metric": found.metric,
            "validation": [round(before.score, 4), round(after.score, 4)],
            **tests,
            "flops": round(before.flops_per_token / after.flops_per_token, 2),
            "times_rows_per_second": round(after.rows_per_second / before.rows_per_second, 2),
            "times_one_row": round(before.one_ms / after.one_ms, 2),
            "times_batch": round(before.batch_ms / after.batch_ms, 2),
            "megabytes": [round(before.megabytes, 1), round(after.megabytes, 1)],
        }


def means(rows: Sequence[dict[str, Any]], splits: Sequence[str]) -> Iterator[dict[str, Any]]:
    for cut in dict.fromkeys(row["cut"] for row in rows):
        some = [row for row in rows if row["cut"] == cut]
        lost = {split: [100 * (row[split][0] - row[split][1]) for row in some] for split in splits}
        yield {
            "cut": cut,
            "seeds": [row["seed"] for row in some],
            "lost_points": {split: round(statistics.fmean(values), 2) for split, values in lost.items()},
            "times_rows_per_second": round(statistics.fmean(row["times_rows_per_second"] for row in some), 2),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="changes", help="KEY=VALUE, for both models")
    parser.add_argument("--recovery", action="append", default=[], help="KEY=VALUE, for the recovery alone")
    parser.add_argument("--cuts", nargs="+", choices=CUTS, default=list(CUTS))
    parser.add_argument("--out", type=Path, required=True, help="file of rows, read and added to")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    known = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    name = load_recipe(options.recipe).name
    about = {"name": name, "set": options.changes, "recovery": options.recovery}
    rows = [row for row in known if {key: row.get(key) for key in about} == about]
    splits = list(load_recipe(options.recipe, options.changes).finetune.test)  # type: ignore[union-attr]
    for seed in options.seeds:
        left = [cut for cut in options.cuts if (cut, seed) not in {(row["cut"], row["seed"]) for row in rows}]
        if not left:
            continue
        recipe = load_recipe(options.recipe, [f"seed={seed}", "finetune.baselines=[]", *options.changes])
        with tempfile.TemporaryDirectory() as folder:
            for found in measure(recipe, Path(folder), left, options.recovery):
                rows.append({**about, "seed": seed, **found, **machine()})
                print(json.dumps(rows[-1]), flush=True)
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    for line in means(rows, splits):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
