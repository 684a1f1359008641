"""Held-out masked-word loss after equal wall-clock: ours against `transformers` at its best, on the same text.

Both train 4 layers of 256 on examples of 128 tokens, in batches of 32, masked words only, from random weights, on
corpus/en with one vocabulary of 8,192, for the same minutes of this machine, compilation included. The peer is
`BertForMaskedLM` with fused AdamW, compiled, in bfloat16 where the CPU has it, on texts joined and cut every 128,
masked by `DataCollatorForLanguageModeling`, as run_mlm does; its rate falls in a straight line over the wall-clock.
Ours is the settings of recipes/english.toml otherwise.

    rates    each side's learning rate is the best of five on short runs (--rate-minutes), by held-out loss
    pairs    a pair of runs a seed (--minutes); the seed is that of weights, order and masks

Both sides run at the same time, each on half of the processors and with as many threads, changing halves from pair to
pair: what disturbs the machine disturbs both.

The loss is measured by the same code on both: the model directory in `transformers`, float32, on the same held-out
examples and masks. A row a run is appended to --out as soon as it is there; what is there is not run again, so that a
stopped bench goes on. Read the pairs with `--summary`.

    python bench/equal_minutes.py --out bench/results/DATE-equal-minutes.jsonl
"""

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import transformers
from measure import machine
from torch.nn.utils import clip_grad_norm_

from bertsmith.config import Recipe, load_recipe
from bertsmith.corpus.build import corpus_parts
from bertsmith.examples.batches import PretrainData
from bertsmith.pipeline import run as run_recipe
from bertsmith.runtime import cpu_has_bfloat16
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.track import read_metrics

LENGTH, BATCH, HELD_OUT, WARMUP = 128, 32, 2_000, 0.05
RATES = {"ours": (5e-4, 1e-3, 1.5e-3, 2e-3, 3e-3), "peer": (2e-4, 5e-4, 1e-3, 2e-3, 3e-3)}
SEEDS = (1, 2, 3)
SIZES = {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}


def recipe(*, minutes: float, rate: float, seed: int) -> Recipe:
    """The English recipe with the sizes of this bench; corpus, tokenizer and examples are the same for every run."""
    path = Path(__file__).parent.parent / "recipes" / "english.toml"
    overrides = {**SIZES, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.05}
    settings = {
        "name": "equal-minutes",
        "fill_mask": "[]",
        "model.overrides": "{" + ", ".join(f"{name} = {value}" for name, value in overrides.items()) + "}",
        "examples.max_length": LENGTH,
        "pretrain.batch_size": BATCH,
        "pretrain.objectives": '["mlm"]',
        "pretrain.budget_minutes": minutes,
        "pretrain.evaluation_examples": 256,  # the peer takes no time for its own
        "pretrain.learning_rate": rate,
        "pretrain.seed": seed,
    }
    return load_recipe(path, [f"{key}={value}" for key, value in settings.items()])


def prepare(folder: Path) -> Path:
    """Corpus, tokenizer and examples, once."""
    run_recipe(recipe(minutes=1, rate=1e-3, seed=1), runs=folder, until="examples")
    return folder / "equal-minutes"


def held_out(data_folder: Path, num_examples: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """(ids, attention mask, labels) of the validation split, the same each time."""
    tokenizer = Tokenizer.load(data_folder / "tokenizer")
    data = PretrainData(data_folder / "examples", split="validation", tokenizer=tokenizer, objectives=("mlm",), seed=0)
    for batch in data.evaluation_batches(num_examples, BATCH):
        labels = torch.full((batch.input_ids.numel(),), -100)
        real = batch.masked_labels != -100
        labels[batch.masked_positions[real]] = batch.masked_labels[real]
        yield batch.input_ids, batch.attention_mask, labels.view_as(batch.input_ids)


def loss_of(model_folder: Path, data_folder: Path, num_examples: int = HELD_OUT) -> float:
    model = transformers.BertForMaskedLM.from_pretrained(model_folder).eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for ids, mask, labels in held_out(data_folder, num_examples):
            logits = model(input_ids=ids, attention_mask=mask).logits
            total += float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum"))
            count += int((labels != -100).sum())
    return total / count


def train_ours(folder: Path, *, minutes: float, rate: float, seed: int) -> tuple[Path, dict[str, Any]]:
    """With all it costs: loading, compiling, its own evaluations and checkpoints."""
    started = time.perf_counter()
    result = run_recipe(recipe(minutes=minutes, rate=rate, seed=seed), runs=folder)
    assert result.pretrained is not None
    evaluations = (
        e for e in read_metrics(folder / "equal-minutes/pretrain/metrics.jsonl") if e["event"] == "evaluation"
    )
    curve = [(round(event["elapsed_seconds"]), round(event["losses"]["mlm"], 4)) for event in evaluations]
    facts = {"steps": result.pretrained.steps, "tokens": result.pretrained.tokens, "own_curve": curve}
    return result.pretrained.model, facts | {"seconds": round(time.perf_counter() - started)}


def train_peer(data_folder: Path, out: Path, *, minutes: float, rate: float, seed: int) -> dict[str, Any]:
    transformers.set_seed(seed)
    tokenizer = transformers.BertTokenizerFast.from_pretrained(data_folder / "tokenizer")
    blocks = joined_blocks(data_folder, tokenizer)
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), **SIZES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    model = transformers.BertForMaskedLM(config).train()
    started = time.perf_counter()
    forward = torch.compile(model)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), eps=1e-6, fused=True)
    steps = tokens = 0
    for rows in epochs(blocks, seed):
        progress = (time.perf_counter() - started) / (60 * minutes)
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate * min(progress / WARMUP, (1 - progress) / (1 - WARMUP))
        batch = collator([{"input_ids": row} for row in rows])
        with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bfloat16()):
            loss = forward(input_ids=batch["input_ids"], labels=batch["labels"]).loss
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        steps, tokens = steps + 1, tokens + batch["input_ids"].numel()
    seconds = round(time.perf_counter() - started)
    model.save_pretrained(out)
    return {"steps": steps, "tokens": tokens, "seconds": seconds}


def joined_blocks(data_folder: Path, tokenizer: Any) -> torch.Tensor:
    """(blocks, LENGTH): all training documents, each as [CLS] text [SEP], joined and cut."""
    tables = [pq.read_table(path, columns=["text", "split"]) for path in corpus_parts(data_folder / "corpus")]
    texts = [row["text"] for table in tables for row in table.to_pylist() if row["split"] == "train"]
    ids = list(itertools.chain.from_iterable(tokenizer(texts, verbose=False)["input_ids"]))
    return torch.tensor(ids[: len(ids) // LENGTH * LENGTH]).view(-1, LENGTH)


def epochs(blocks: torch.Tensor, seed: int) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(blocks), generator=generator)
        for start in range(0, len(order) - BATCH + 1, BATCH):
            yield blocks[order[start : start + BATCH]]


def one_run(options: argparse.Namespace) -> None:
    """In a process of its own: train, measure, append a row."""
    folder: Path = options.folder
    data_folder = folder / "equal-minutes"
    settings = {"minutes": options.minutes, "rate": options.rate, "seed": options.seed}
    if options.side == "ours":
        model, facts = train_ours(folder, **settings)
    else:
        model = folder / "peer-model"
        facts = train_peer(data_folder, model, **settings)
    row = {
        "side": options.side,
        "kind": options.kind,
        **settings,
        "loss": round(loss_of(model, data_folder), 4),
        **facts,
    }
    print(json.dumps(row), flush=True)
    with options.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row | machine()) + "\n")


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []


def done(out: Path, **wanted: object) -> dict[str, Any] | None:
    return next((row for row in rows_of(out) if all(row[key] == value for key, value in wanted.items())), None)


def ensure(options: argparse.Namespace, *, kind: str, minutes: float, rates: Mapping[str, float], seed: int) -> None:
    """Run the sides that have no row yet, together."""
    processors = sorted(os.sched_getaffinity(0))
    half = max(1, len(processors) // 2)
    halves = (processors[:half], processors[-half:])
    started = []
    for number, (side, rate) in enumerate(rates.items()):
        wanted = {"side": side, "kind": kind, "minutes": minutes, "rate": rate, "seed": seed}
        if done(options.out, **wanted) is None:
            own = halves[(number + seed) % 2]
            flags = [f"--{name}={value}" for name, value in wanted.items()]
            command = [sys.executable, __file__, "--one", f"--folder={options.folder}", f"--out={options.out}", *flags]
            bound = ["taskset", "--cpu-list", ",".join(map(str, own)), *command]
            started.append(subprocess.Popen(bound, env=os.environ | {"OMP_NUM_THREADS": str(half)}))
    codes = [process.wait() for process in started]
    if any(codes):
        raise SystemExit("a run failed; see above")


def best_rates(options: argparse.Namespace) -> dict[str, float]:
    chosen = {}
    for trial in zip(*RATES.values(), strict=True):
        rates = dict(zip(RATES, trial, strict=True))
        ensure(options, kind="rate", minutes=options.rate_minutes, rates=rates, seed=1)
    rows = [row for row in rows_of(options.out) if row["kind"] == "rate"]
    for side in RATES:
        chosen[side] = float(min((row for row in rows if row["side"] == side), key=lambda row: row["loss"])["rate"])
    return chosen


def summary(rows: Sequence[dict[str, Any]]) -> str:
    pairs = {side: {row["seed"]: row["loss"] for row in rows if row["side"] == side} for side in ("ours", "peer")}
    seeds = sorted(pairs["ours"].keys() & pairs["peer"].keys())
    lines = [f"seed {seed}: ours {pairs['ours'][seed]:.4f}, peer {pairs['peer'][seed]:.4f}" for seed in seeds]
    if len(seeds) > 1:
        ours, peer = ([pairs[side][seed] for seed in seeds] for side in ("ours", "peer"))
        pooled = math.sqrt((statistics.variance(ours) + statistics.variance(peer)) / 2 * 2 / len(seeds))
        gain = statistics.fmean(peer) - statistics.fmean(ours)
        lines.append(f"ours is lower by {gain:.4f}, {gain / pooled:.1f} pooled standard errors")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON Lines; goes on where it stopped")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench"), help="corpus, models; may be removed after")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate-minutes", type=float, default=5.0)
    parser.add_argument("--summary", action="store_true", help="only read --out")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    for name, kind in (("side", str), ("kind", str), ("rate", float), ("seed", int)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one_run(options)
        return
    if not options.summary:
        prepare(options.folder)
        rates = best_rates(options)
        for seed in SEEDS:
            ensure(options, kind="pair", minutes=options.minutes, rates=rates, seed=seed)
    print(summary([row for row in rows_of(options.out) if row["kind"] == "pair"]))


if __name__ == "__main__":
    main()
