"""Scores over paired seeds: a recipe as it stands beside `transformers` with the same settings.

Both sides: the same rows, token ids, first weights (head included), batches in the same order, AdamW, learning rates,
clip, epochs, bfloat16 where the CPU has it; each its own dropout. Of each the best epoch by the recipe's metric on the
validation rows is scored on the test rows, by the same scorer. The peer's part is its model, its loss and its padding.

First, with dropout 0 and in float32, the first 50 losses of both must agree to 1e-4 (of answers with the peer's padding
masked, which it would count among the places of an answer).

    python bench/scores.py recipes/sick.toml --out bench/results/scores.jsonl --seeds 1 2 3 4 5

With `--folds K` every training row is answered by a model that has not seen it (`bertsmith finetune --folds`), on both
sides; the score is the folds' mean, weighted by their rows.

Runs take minutes, so each writes a row as it ends, and rows that are there are not made again. The last line compares
the means: `difference_in_standard_errors` is that of the pairs' differences.
"""

import argparse
import copy
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from measure import machine
from rich.console import Console
from tasks import AUTO, PeerRows, loss_without_padding
from torch.nn.utils import clip_grad_norm_

from bertsmith.config import FinetuneConfig, Recipe, load_recipe
from bertsmith.model.weights import resolve_model_dir
from bertsmith.runtime import Runtime, detect
from bertsmith.tasks.base import Task
from bertsmith.tasks.batches import TrainingBatches, evaluation_batches
from bertsmith.tasks.evaluate import score_outputs
from bertsmith.tasks.features import Features, Floats
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.partition import folds_of
from bertsmith.tasks.predict import TASKS
from bertsmith.tasks.splits import Splits, read_all, read_splits
from bertsmith.tasks.starting_model import StartingPoint
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.optimizer import make_optimizer
from bertsmith.training.schedule import make_schedule
from bertsmith.training.track import read_metrics

COMPARED_LOSSES = 50


@dataclass(frozen=True)
class Setting:
    """A recipe with one seed, read and tokenised once for both sides."""

    recipe: Recipe
    config: FinetuneConfig
    task: Task[Any, Any]
    splits: Splits
    tokenizer: Tokenizer
    base: Path

    @classmethod
    def of(cls, recipe: Recipe, splits: Splits | None = None) -> "Setting":
        config = recipe.finetune
        assert config is not None
        assert config.model is not None
        task = TASKS[config.task].with_options(**config.task_options)
        if splits is None:
            splits = read_splits(config, task, seed=recipe.seed, test=config.test)
        base = resolve_model_dir(config.model)
        return cls(recipe, config, task, splits, Tokenizer.load(base), base)

    @classmethod
    def of_folds(cls, recipe: Recipe, folds: int) -> Iterator["Setting"]:
        """The same recipe for each fold, whose rows are the test rows."""
        config = recipe.finetune
        assert config is not None
        task = TASKS[config.task].with_options(**config.task_options)
        known = read_all(config, task)
        places = folds_of(known.rows, folds, recipe.seed, groups=known.groups)
        for number in range(folds):
            yield cls.of(recipe, known.fold(number, places, config, task, seed=recipe.seed))

    @property
    def metric(self) -> str:
        return self.config.metric or self.task.default_metric

    def features(self, rows: Sequence[Any]) -> Features:
        labels = self.splits.labels
        return self.task.encode(rows, self.tokenizer, labels=labels, max_length=self.config.max_length)

    def start(self) -> Any:
        return StartingPoint(self.base, random_weights=False, position_init="random", seed=self.recipe.seed).model(
            self.task, self.splits.labels, self.config
        )

    def batches(self) -> TrainingBatches:
        return TrainingBatches(
            self.features(self.splits.train),
            objective=self.task.name,
            pad_id=self.tokenizer.pad_id,
            batch_size=int(self.config.batch_size),
            seed=self.recipe.seed,
        )


def our_score(setting: Setting, runtime: Runtime) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        result = finetune(setting.recipe, folder, splits=setting.splits, console=Console(quiet=True), runtime=runtime)
        return {split: found[setting.metric] for split, found in result.scores.items()}


class Peer:
    """The same weights as a class of `transformers`, and rows as its collators pad them."""

    def __init__(self, setting: Setting, folder: Path):
        self.setting, task = setting, setting.task
        setting.start().save_pretrained(folder)
        setting.tokenizer.save(folder)
        auto = AUTO.get(task.name, transformers.AutoModelForSequenceClassification)
        self.model = auto.from_pretrained(folder)
        self.pad = transformers.AutoTokenizer.from_pretrained(folder).pad

    def losses(
        self, runtime: Runtime, *, steps: int | None = None, pad_counts: bool = True
    ) -> Iterator[tuple[int, float]]:
        """Train; (updates done, loss of the last). `pad_counts`: as the peer has it, padding may be an answer."""
        config, batches = self.setting.config, self.setting.batches()
        rows = PeerRows(self.setting.task.name, batches.features, self.pad)
        optimizer = make_optimizer(self.model, config)  # torch's fused AdamW over the paper's two groups
        schedule = make_schedule(config)
        total = config.epochs * batches.steps_per_epoch
        self.model.train()
        for step in range(total if steps is None else min(steps, total)):
            epoch, number = divmod(step, batches.steps_per_epoch)
            examples = batches.epoch_batches(epoch)[number]
            batch = rows.batch(examples)
            with runtime.autocast():
                found = self.model(**batch)
                loss = found.loss if pad_counts else loss_without_padding(rows.name, found, batch)
            loss.backward()
            clip_grad_norm_(self.model.parameters(), float(config.clip or math.inf))
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * schedule((step + 0.5) / total) * group.get("lr_factor", 1.0)
            optimizer.step()
            optimizer.zero_grad()
            yield step + 1, loss.item()

    def score(self, rows: Sequence[Any], runtime: Runtime) -> float:
        setting = self.setting
        features = setting.features(rows)
        outputs = self._outputs(features, runtime)
        return score_outputs(setting.task, rows, features, outputs, setting.splits.labels).scores[setting.metric]

    @torch.no_grad()
    def _outputs(self, features: Features, runtime: Runtime) -> Floats:
        """(all items, outputs)"""
        self.model.eval()
        task, pad_id = self.setting.task, self.setting.tokenizer.pad_id
        width = 2 if task.name == "answer" else 1 if task.name == "choose" else len(self.setting.splits.labels)
        found = torch.zeros(len(features.items.values), width).numpy()
        for examples, batch in evaluation_batches(features, objective="", pad_id=pad_id, batch_tokens=4096):
            inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
            inputs |= {"token_type_ids": batch.token_type_ids}
            if task.name == "choose":
                inputs = {name: None if ids is None else ids[:, None] for name, ids in inputs.items()}
            with runtime.autocast():
                outputs = self.model(**inputs)
            if task.name == "answer":
                logits = torch.stack([outputs.start_logits, outputs.end_logits], dim=-1).flatten(0, 1)[batch.items]
            elif task.name == "tag":
                logits = outputs.logits.flatten(0, 1)[batch.items]
            else:
                logits = outputs.logits
            found[features.items.indices(features.sequences(examples)[0])[0]] = logits.float().numpy()
        self.model.train()
        return found


def peer_score(setting: Setting, runtime: Runtime) -> dict[str, float]:
    torch.manual_seed(setting.recipe.seed)
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(setting, Path(folder))
    every = setting.batches().steps_per_epoch
    sign = -1.0 if setting.metric in setting.task.smaller_is_better else 1.0
    best, weights = -math.inf, peer.model.state_dict()
    for step, _ in peer.losses(runtime):
        if step % every == 0 and (score := sign * peer.score(setting.splits.validation, runtime)) > best:
            best, weights = score, copy.deepcopy(peer.model.state_dict())
    peer.model.load_state_dict(weights)
    tests = setting.splits.test or {"validation": setting.splits.validation}
    return {split: peer.score(rows, runtime) for split, rows in tests.items()}


def mean_of_folds(settings: Sequence[Setting], scores: Sequence[dict[str, float]]) -> dict[str, float]:
    """Weighted by the folds' rows; without folds the scores themselves."""
    if len(settings) == 1:
        return scores[0]
    rows = [len(setting.splits.test["test"]) for setting in settings]
    total = sum(count * found["test"] for count, found in zip(rows, scores, strict=True))
    return {"folds": total / sum(rows)} | {f"fold-{n}": found["test"] for n, found in enumerate(scores, start=1)}


def largest_difference(setting: Setting, runtime: Runtime) -> float:
    """Between the first losses of both sides, without dropout, in float32."""
    few = COMPARED_LOSSES * int(setting.config.batch_size)
    changes = {"dropout": 0.0, "log_every_steps": 1, "epochs": 1, "max_train_rows": few, "test": {}, "baselines": ()}
    recipe = setting.recipe.model_copy(update={"finetune": setting.config.model_copy(update=changes)})
    setting = Setting.of(recipe)
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(setting, Path(folder))
        theirs = [loss for _, loss in peer.losses(runtime, steps=COMPARED_LOSSES, pad_counts=False)]
    with tempfile.TemporaryDirectory() as folder:
        finetune(recipe, folder, console=Console(quiet=True), runtime=runtime)
        events = [event for event in read_metrics(Path(folder) / "metrics.jsonl") if event["event"] == "step"]
    ours = [event["losses"][setting.task.name] for event in events][: len(theirs)]
    return max(abs(one - other) for one, other in zip(ours, theirs, strict=True))


def compare_means(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """For each test file: means over the seeds that both sides have, and their difference in standard errors."""
    by_seed = {(row["side"], row["seed"]): row["scores"] for row in rows}
    seeds = sorted(seed for side, seed in by_seed if side == "ours" and ("peer", seed) in by_seed)
    if len(seeds) < 2:
        return
    for split in by_seed["ours", seeds[0]]:
        ours, peer = ([by_seed[side, seed][split] for seed in seeds] for side in ("ours", "peer"))
        differences = [mine - theirs for mine, theirs in zip(ours, peer, strict=True)]
        error = statistics.stdev(differences) / math.sqrt(len(seeds))
        mean = statistics.fmean(differences)
        yield {
            "name": f"{rows[0]['name']}-{split}",
            "metric": rows[0]["metric"],
            "ours": round(statistics.fmean(ours), 4),
            "peer": round(statistics.fmean(peer), 4),
            "difference": round(mean, 4),
            "difference_in_standard_errors": round(mean / error, 2) if error else 0.0,
            "seeds": seeds,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="changes", help="KEY=VALUE, for both sides")
    parser.add_argument("--out", type=Path, required=True, help="file of rows, read and added to")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--folds", type=int, help="cross-validate over the training rows")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    runtime, exact = detect(threads=options.threads), detect(threads=options.threads, dtype="float32")
    done = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    name = load_recipe(options.recipe).name
    changes = options.changes + ([f"folds={options.folds}"] if options.folds else [])
    rows = [row for row in done if row["name"] == name and row["set"] == changes]
    for seed in options.seeds:
        known = {row["side"] for row in rows if row["seed"] == seed}
        if known == {"ours", "peer"}:
            continue
        recipe = load_recipe(options.recipe, [f"seed={seed}", "finetune.baselines=[]", *options.changes])
        settings = list(Setting.of_folds(recipe, options.folds)) if options.folds else [Setting.of(recipe)]
        if not rows and (found := largest_difference(settings[0], exact)) > 1e-4:
            raise SystemExit(f"{name}: the first losses differ by {found}; nothing is measured")
        for side, score in (("ours", our_score), ("peer", peer_score)):
            if side in known:
                continue
            started = time.monotonic()
            found_scores = mean_of_folds(settings, [score(setting, runtime) for setting in settings])
            scores = {split: round(value, 4) for split, value in found_scores.items()}
            about = {"name": name, "set": changes, "metric": settings[0].metric, "side": side, "seed": seed}
            rows.append(about | {"scores": scores, "seconds": round(time.monotonic() - started), **machine()})
            print(json.dumps(rows[-1]), flush=True)
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    for line in compare_means(rows):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
