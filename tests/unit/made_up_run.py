"""A run directory as `bertsmith run` leaves it, with made-up numbers, for tests of the report."""

import json
import math
import random
from pathlib import Path
from typing import Any

from bertsmith.artifact import write_artifact

ENVIRONMENT = {"bertsmith": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "cpu": "A CPU", "cpu_count": 2, "gpus": []}
TEXT = "the function returns a new array whose dtype is numpy.float64 unless out= was given and copy is True"
WORDS = TEXT.split()

EXAMPLE_COUNTS = {
    "train": {"documents": 21_408, "spans": 71_204, "tokens": 4_410_233, "unknown_share": 0.001423},
    "validation": {"documents": 455, "spans": 1450, "tokens": 91_020, "unknown_share": 0.001004},
}
LABEL_COUNTS = {
    split: {"sentences": count, "code_words": 2 * count, "left_out": {"markup": 20, "repeated": 334}}
    for split, count in (("test", 1000), ("train", 1000), ("validation", 500))
}

TAG_RECIPE = """name = "quickstart"
description = "From the documentation on this machine to a tagger of code words, in ten minutes on two cores."
seed = 42

[corpus]
[tokenizer]
vocab_size = 8192
[examples]
[pretrain]
budget_minutes = 4.0
[finetune]
task = "tag"
[finetune.literature]
"first try, 4 x 256, MLM alone" = "0.71 F1, random weights 0.55"
"""
CLASSIFY_RECIPE = """name = "cola"
[finetune]
task = "classify"
train = "cola/in_domain_train.tsv"
[finetune.literature]
"bert-base-uncased (Warstadt et al.)" = "Matthews 49.2 on the in-domain test set"
"""


def make_tag_run(root: Path, *, steps: int = 1500, upto: str = "end") -> Path:
    """Corpus to scores; `upto` "corpus" or "pretrain" stops in the middle, with a torn last line."""
    root.mkdir(parents=True)
    (root / "recipe.toml").write_text(TAG_RECIPE, encoding="utf-8")
    stage(
        root / "corpus",
        {
            "documents": 22_393,
            "splits": {"train": 21_408, "validation": 455, "test": 530},
            "characters": 17_204_511,
            "dropped": {"too short": 9120, "duplicate": 3344, "no letters": 12},
            "sources": {
                "torch": {"characters": 7_204_511, "documents": 9201},
                "sympy": {"characters": 10_000_000, "documents": 13_192},
            },
        },
    )
    if upto == "corpus":
        return root
    stage(root / "tokenizer", {"vocab_size": 8192, "alphabet": 402, "alphabet_coverage": 0.99953})
    stage(root / "examples", {**EXAMPLE_COUNTS, "vocab_size": 8192})
    pretraining = pretraining_events(steps)
    if upto == "pretrain":
        write_events(root / "pretrain", pretraining[: len(pretraining) // 2], torn='{"event":"step","step":7')
        return root
    write_events(root / "pretrain", pretraining)
    stage(root / "labels", LABEL_COUNTS)
    write_events(root / "finetune", finetuning_events("tag", best=0.71))
    write_events(root / "finetune-random-weights", finetuning_events("tag", best=0.55))
    write_lines(root / "finetune" / "predictions-test.jsonl", tagged_rows(1000, wrong=0.06))
    write_lines(root / "finetune-random-weights" / "predictions-test.jsonl", tagged_rows(1000, wrong=0.12))
    rows = [("dictionary", 0.52), ("linear", 0.67), ("BERT, random weights", 0.551), ("BERT, pre-trained", 0.712)]
    write_scores(root, "f1", [(name, "test", score) for name, score in rows])
    fills = [
        ("Returns the [MASK] of the array.", ["shape", "sum", "value", "index", "mean"]),
        ("Raises a [MASK] if the key is not found.", ["KeyError", "ValueError", "TypeError", "warning", "error"]),
    ]
    answers = [
        {"text": text, "predictions": [[word, 0.43 / (i + 1)] for i, word in enumerate(words)]} for text, words in fills
    ]
    (root / "fill_mask.json").write_text(json.dumps(answers), encoding="utf-8")
    return root


def make_classify_run(root: Path, *, rows: int = 527, names: tuple[str, ...] = ("0", "1")) -> Path:
    """A fine-tuning of a given checkpoint, scored on two files."""
    root.mkdir(parents=True)
    (root / "recipe.toml").write_text(CLASSIFY_RECIPE, encoding="utf-8")
    write_events(root / "finetune", finetuning_events("classify", best=0.47))
    for split in ("in_domain_dev", "out_of_domain_dev"):
        write_lines(root / "finetune" / f"predictions-{split}.jsonl", classified_rows(rows, names))
    rows_of_scores = [
        (name, split, score)
        for split, ours in (("in_domain_dev", 0.47), ("out_of_domain_dev", 0.44))
        for name, score in (("majority", 0.0), ("BERT, fine-tuned", ours))
    ]
    write_scores(root, "matthews", rows_of_scores)
    return root


def stage(path: Path, counts: dict[str, Any]) -> None:
    with write_artifact(path, kind=path.name, config={}, inputs={}, environment=ENVIRONMENT) as draft:
        draft.counts |= counts


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_events(folder: Path, events: list[dict[str, Any]], *, torn: str = "") -> None:
    write_lines(folder / "metrics.jsonl", events)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(torn)


def write_scores(root: Path, metric: str, rows: list[tuple[str, str, float]]) -> None:
    """`metric` as given and, as the pipeline writes it, another one beside it that is higher."""
    table = [
        {"name": name, "split": split, "metric": which, "score": value, "low": value - 0.021, "high": value + 0.019,
         "rows": 1000, "seconds": 1.5 + 80 * score, "note": "4 minutes of pre-training" if score > 0.7 else ""}
        for name, split, score in rows
        for which, value in (("accuracy", 0.9 + score / 12), (metric, score))
    ]  # fmt: skip
    (root / "scores.json").write_text(json.dumps({"metric": metric, "table": table}), encoding="utf-8")


def start_event(kind: str, task: str | None, steps: int | None, data: dict[str, Any]) -> dict[str, Any]:
    plan = {"device": "A CPU", "device_count": 1, "dtype": "bfloat16", "threads": 2, "examples": 71_204, "epochs": 1.3,
            "micro_batch_size": 32, "accumulation": 1, "ranks": 1, "batch_size": 32, "steps": steps,
            "parameters": 5_345_282}  # fmt: skip
    return {"event": "start", "step": 0, "format": 1, "run": "quickstart", "kind": kind, "task": task,
            "time": 1_763_683_200.5, "environment": ENVIRONMENT, "plan": plan, "data": data}  # fmt: skip


def step_event(step: int, total: int, loss: float, losses: dict[str, float], noise: random.Random) -> dict[str, Any]:
    warm = min(1.0, step / (0.1 * total))
    return {
        "event": "step", "step": step, "epoch": step / total, "elapsed_seconds": 0.16 * step, "loss": loss,
        "losses": losses, "learning_rate": 1e-3 * warm * (1 - step / total), "clip_rate": 0.02,
        "gradient_norm": abs(noise.gauss(0.8, 0.15)) + (6 if noise.random() < 0.01 else 0),
        "tokens_per_second": noise.gauss(11_800, 500), "examples": 32 * step, "loader_wait_seconds": 0.004,
        "padding_share": 0.04, "truncation_share": 0.0, "memory_bytes": 812_000_000, "skipped_updates": 0,
    }  # fmt: skip


def pretraining_events(steps: int) -> list[dict[str, Any]]:
    noise = random.Random(7)
    events = [start_event("pretrain", None, None, {})]
    sentence = "Return the [MASK] of all values in the [MASK] ."
    for step in range(1, steps + 1):
        mlm = 3.1 + 5.9 * math.exp(-step / (steps / 4)) + noise.gauss(0, 0.12)
        nsp = 0.45 + 0.25 * math.exp(-step / (steps / 2)) + noise.gauss(0, 0.03)
        events.append(step_event(step, steps, mlm + nsp, {"mlm": mlm, "nsp": nsp}, noise))
        if step == 50:
            because = "4.0 minutes hold so many steps of 0.16 s"
            events.append({"event": "decision", "step": 50, "name": "total_steps", "value": steps, "because": because})
        if step % (steps // 10) == 0:
            done = step / steps
            scores = {"mlm_accuracy": 0.1 + 0.36 * done, "nsp_accuracy": 0.5 + 0.3 * done,
                      "nsp_accuracy_same_document": 0.5 + 0.11 * done}  # fmt: skip
            losses = {"mlm": 3.2 + 3 * (1 - done), "nsp": 0.5}
            events.append(
                {"event": "evaluation", "step": step, "epoch": done, "elapsed_seconds": 0.16 * step,
                 "split": "validation", "loss": sum(losses.values()), "losses": losses, "scores": scores,
                 "seconds": 1.9, "best": False}
            )  # fmt: skip
            first = [["sum", 0.1 + 0.6 * done], ["value", 0.2], ["mean", 0.1]]
            second = [["list", 0.3], ["array", 0.2]] if done < 0.5 else [["array", 0.1 + 0.5 * done], ["list", 0.2]]
            masked = [{"position": 2, "truth": "sum", "predictions": first},
                      {"position": 8, "truth": "array", "predictions": second}]  # fmt: skip
            events.append({"event": "sample", "step": step, "text": sentence, "masked": masked})
    stop = {"event": "stop", "step": steps, "reason": "done", "elapsed_seconds": 0.16 * steps}
    return [*events, stop]


def finetuning_events(task: str, *, best: float) -> list[dict[str, Any]]:
    noise = random.Random(11)
    steps = 128
    data = {"train_rows": 1000, "validation_rows": 500, "test_rows": 1000,
            "label_counts": {"CODE": 3310, "O": 15_211} if task == "tag" else {"1": 5440, "0": 2255}}  # fmt: skip
    events = [start_event("finetune", task, steps, data)]
    for step in range(4, steps + 1, 4):
        loss = 0.12 + 0.6 * math.exp(-step / 30) + noise.gauss(0, 0.02)
        events.append(step_event(step, steps, loss, {task: loss}, noise))
        if step % 32 == 0:
            score = best * (1 - math.exp(-step / 25))
            scores = {"f1": score, "precision": score + 0.02, "recall": score - 0.02, "accuracy": 0.8 + score / 5}
            hardest = [{"text": f"a hard row {i}", "label": "0", "prediction": "1", "loss": 6.1 - i} for i in range(3)]
            events.append(
                {"event": "evaluation", "step": step, "epoch": step / 32, "elapsed_seconds": 0.2 * step,
                 "split": "validation", "loss": 0.3 + 0.2 * abs(step - 96) / 96, "losses": {}, "scores": scores,
                 "seconds": 1.1, "best": step <= 96, "predictions_per_class": {"CODE": 90, "O": 610},
                 "hardest": hardest}
            )  # fmt: skip
    return [*events, {"event": "stop", "step": steps, "reason": "done", "elapsed_seconds": 25.6}]


def tagged_rows(rows: int, *, wrong: float) -> list[dict[str, Any]]:
    noise = random.Random(5)
    made = []
    for row in range(rows):
        words = [noise.choice(WORDS) for _ in range(noise.randint(6, 22))]
        labels = ["CODE" if word in ("numpy.float64", "out=", "True", "dtype") else "O" for word in words]
        guesses = [label if noise.random() > wrong else "O" if label == "CODE" else "CODE" for label in labels]
        confidence = [round(noise.uniform(0.6, 1.0), 4) for _ in words]
        made.append({"row": row, "line": row * 20 + 1, "words": words, "labels": labels, "predictions": guesses,
                     "confidence": confidence})  # fmt: skip
    return made


def classified_rows(rows: int, names: tuple[str, ...]) -> list[dict[str, Any]]:
    noise = random.Random(3)
    made = []
    for row in range(rows):
        label = noise.choice(names)
        guess = label if noise.random() < 0.8 else noise.choice(names)
        sure = noise.uniform(1 / len(names), 1.0)
        probabilities = {name: sure if name == guess else (1 - sure) / max(1, len(names) - 1) for name in names}
        text = " ".join(noise.choice(WORDS) for _ in range(12))
        made.append({"row": row, "line": row + 1, "text": text, "label": label, "prediction": guess,
                     "probabilities": probabilities})  # fmt: skip
    return made
