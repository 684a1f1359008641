"""Runs that truly have an illness, each made in seconds: a tiny model on made-up rows or text.

    python tests/illnesses/makers.py [NAME ...]     make them; record what a diagnosis reads in tests/illnesses/recorded

Nothing is written by hand: what is recorded is what the run itself wrote, without weights and checkpoints.
"""

import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from bertsmith.examples.batches import PretrainData  # noqa: E402
from bertsmith.tasks.finetune import finetune  # noqa: E402
from bertsmith.tasks.search import search  # noqa: E402
from finetune_case import BAD, CPU, FILLERS, GOOD, quiet, recipe, text_rows, write_tiny_model  # noqa: E402
from pretrain_case import made_of, run  # noqa: E402

RECORDED = HERE / "recorded"
KEPT = ("metrics.jsonl", "recipe.toml", "scores.json", "search.jsonl", "manifest.json", "run.json")
"""Names of the files that a diagnosis reads; besides predictions, and where it needs them a vocabulary and examples."""

Rows = list[tuple[str, str]]


def learn(
    folder: Path,
    train: Rows,
    *,
    validation: Rows | None = None,
    test: Rows | None = None,
    leaks: bool = False,
    **settings: Any,
) -> None:
    """Fine-tune the tiny model in folder/finetune."""
    base = write_tiny_model(folder / "base")
    runtime = settings.pop("runtime", CPU)
    changes = {"model": str(base), "log_every_steps": 1, "batch_size": 16, "epochs": 4, **settings}
    finetune(
        recipe(**changes),
        folder / "finetune",
        train=train,
        validation=unseen(validation or text_rows(150, seed=91), [] if validation is not None and leaks else train),
        test={"test": test} if test else None,
        console=quiet(),
        runtime=runtime,
    )


def unseen(rows: Rows, seen: Rows) -> Rows:
    """Those whose texts are not among the others: short texts of few words repeat."""
    known = {text for text, _ in seen}
    return [row for row in rows if row[0] not in known]


def wrongly(rows: Rows, share: float, *, seed: int = 5) -> Rows:
    """With the labels of a share of the rows turned round."""
    draw, other = random.Random(seed), {"good": "bad", "bad": "good"}
    return [(text, other[label] if draw.random() < share else label) for text, label in rows]


def by_chance(count: int, *, seed: int) -> Rows:
    """Labels that have nothing to do with the texts."""
    draw = random.Random(seed)
    return [(text, draw.choice(("bad", "good"))) for text, _ in text_rows(count, seed=seed)]


def of_many_classes(count: int, *, seed: int) -> Rows:
    """Eight labels, each told by its own word."""
    draw, words = random.Random(seed), (*GOOD, *BAD, "paris", "rome")
    rows = []
    for _ in range(count):
        word = draw.choice(words)
        text = [draw.choice(FILLERS[:8]) for _ in range(draw.randint(1, 10))]
        text.insert(draw.randint(0, len(text)), word)
        rows.append((" ".join(text), word))
    return rows


def overfitting(folder: Path) -> None:
    learn(folder, by_chance(60, seed=1), validation=by_chance(100, seed=2), epochs=30, log_every_steps=5)


def underfitting(folder: Path) -> None:
    rows, held_out = of_many_classes(2400, seed=1), of_many_classes(200, seed=2)
    learn(folder, rows, validation=held_out, epochs=1, learning_rate=3e-3, batch_size=40)


def learning_rate_too_low(folder: Path) -> None:
    rows, held_out = of_many_classes(2400, seed=1), of_many_classes(200, seed=2)
    learn(folder, rows, validation=held_out, epochs=3, learning_rate=5e-4, batch_size=60)


def learning_rate_too_high(folder: Path) -> None:
    learn(folder, text_rows(600, seed=1), epochs=6, learning_rate=0.15, warmup_share=0.8, schedule="constant")


def diverged(folder: Path) -> None:
    learn(
        folder,
        text_rows(600, seed=1),
        epochs=3,
        learning_rate=3.0,
        warmup_share=0.9,
        schedule="constant",
        clip=1e6,
    )


def spikes(folder: Path) -> None:
    """One batch an epoch holds rows that are all labelled wrongly; they are the longest, so they are read together."""
    long = [(" ".join(["the", "day", "so"] * 4 + [text.split()[0]]), label) for text, label in text_rows(8, seed=3)]
    odd = [(f"{text} {random.Random(n).choice(GOOD)}", "bad") for n, (text, _) in enumerate(long)]
    learn(folder, [*text_rows(392, seed=1), *odd], epochs=3, max_length=32)


def gradients_vanish(folder: Path) -> None:
    learn(folder, text_rows(400, seed=1), epochs=2, learning_rate=0.5, clip=1e6, freeze=["classifier"])


def always_clipped(folder: Path) -> None:
    learn(folder, text_rows(400, seed=1), epochs=2, clip=0.001)


def one_class(folder: Path) -> None:
    learn(folder, text_rows(400, seed=1), epochs=3, learning_rate=0.3)


def plateau(folder: Path) -> None:
    learn(
        folder,
        by_chance(3000, seed=1),
        validation=by_chance(200, seed=2),
        epochs=1,
        batch_size=32,
        learning_rate=1e-3,
        schedule="constant",
        log_every_steps=4,
    )


def leak(folder: Path) -> None:
    rows, seen = text_rows(300, seed=1), text_rows(100, seed=9)
    learn(folder, [*rows, *seen[:20]], validation=seen, leaks=True)


def label_noise(folder: Path) -> None:
    learn(
        folder,
        text_rows(800, seed=1),
        test=wrongly(unseen(text_rows(500, seed=4), text_rows(800, seed=1)), 0.15),
        epochs=4,
    )


def miscalibrated(folder: Path) -> None:
    rows = wrongly(text_rows(120, seed=1), 0.3)
    learn(
        folder,
        rows,
        validation=wrongly(text_rows(100, seed=8), 0.3),
        test=wrongly(text_rows(300, seed=4), 0.3),
        epochs=25,
        log_every_steps=5,
    )


def stranger(rows: Rows) -> Rows:
    """With a word that the vocabulary lacks."""
    return [(f"{text} {('zyx', 'qwert')[number % 2]}", label) for number, (text, label) in enumerate(rows)]


def unknown_tokens(folder: Path) -> None:
    rows = stranger(text_rows(400, seed=1))
    learn(folder, rows, validation=stranger(text_rows(100, seed=3)), test=stranger(text_rows(200, seed=6)))


def truncation(folder: Path) -> None:
    learn(folder, text_rows(400, seed=1), max_length=8)


def padding(folder: Path) -> None:
    learn(folder, text_rows(400, seed=1), batch_size=400, epochs=14, learning_rate=0.02)


def thread_bound(folder: Path) -> None:
    learn(folder, text_rows(400, seed=1), runtime=replace(CPU, threads=64))


def seeds_outweigh_gain(folder: Path) -> None:
    base = write_tiny_model(folder / "base")
    search(
        recipe(model=str(base), epochs=2),
        folder,
        grid={"learning_rate": [0.003, 0.0031]},
        seeds=3,
        train=wrongly(text_rows(80, seed=1), 0.2),
        validation=text_rows(60, seed=2),
        console=quiet(),
        runtime=CPU,
    )


def learn_text(folder: Path, documents: Sequence[str], *, hidden: int = 32, **settings: Any) -> None:
    """Pre-train a tiny model in folder/pretrain, with corpus, tokenizer and examples beside it."""
    sizes = {"num_hidden_layers": 1, "hidden_size": hidden, "num_attention_heads": 2}
    common = {"batch_size": 16, "evaluation_examples": 96, "log_every_steps": 2}
    sizes |= {"intermediate_size": 2 * hidden}
    made = made_of(folder, documents, vocab_size=400, sizes=sizes, pretrain=common | settings)
    run(made, folder / "pretrain")
    (folder / "recipe.toml").write_bytes((folder / "pretrain" / "recipe.toml").read_bytes())


def documents_of(count: int, *, sentences: int = 15, words: int = 300, own: int = 0, seed: int = 1) -> list[str]:
    """Sentences of made-up words, drawn by frequency as real ones are (Zipf); `own`: words of a document alone."""
    draw = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "el", "or")]
    vocabulary = ["".join(draw.choices(syllables, k=draw.randint(1, 3))) for _ in range(words)]
    weights = [1 / (rank + 2) for rank in range(words)]
    found = []
    for _ in range(count):
        topic = ["".join(draw.choices(syllables, k=2)) for _ in range(own)]
        lines = []
        for _ in range(sentences):
            line = draw.choices(vocabulary, weights, k=draw.randint(4, 12))
            if topic:
                line = [draw.choice(topic) if draw.random() < 0.6 else word for word in line]
            lines.append(" ".join(line).capitalize() + ".")
        found.append("\n".join(lines))
    return found


def word_frequencies_only(folder: Path) -> None:
    learn_text(folder, documents_of(150), max_steps=120, learning_rate=3e-3, evaluate_every_steps=40)


def repeated_text(folder: Path) -> None:
    learn_text(folder, documents_of(20) * 6, max_steps=30, learning_rate=1e-3, evaluate_every_steps=15)


def next_sentence_by_topic(folder: Path) -> None:
    """Topics with words of their own; sentences of a document are in no order, so that topic is all there is."""
    topics = [documents_of(30, words=12, seed=seed) for seed in range(6)]
    documents = [document for group in zip(*topics, strict=True) for document in group]
    learn_text(
        folder,
        documents,
        hidden=64,
        max_steps=1500,
        learning_rate=2e-3,
        evaluate_every_steps=500,
        log_every_steps=50,
        evaluation_examples=400,
    )


def next_sentence_by_length(folder: Path) -> None:
    """What follows is short, and what does not is long."""
    draw, rows = random.Random(1), []
    for number in range(500):
        follows = number % 2 == 0
        words = draw.choices(FILLERS[:8], k=draw.randint(1, 4) if follows else draw.randint(7, 12))
        text = draw.choices(FILLERS[:8], k=draw.randint(2, 6))
        rows.append((" ".join(text), " ".join(words), "is_next" if follows else "not_next"))
    base = write_tiny_model(folder / "base")
    finetune(
        recipe(task="next-sentence", model=str(base), epochs=3, pair_column="pair", batch_size=16, max_length=32),
        folder / "finetune",
        train=[dict(zip(("text", "pair", "label"), row, strict=True)) for row in rows[:300]],
        validation=[dict(zip(("text", "pair", "label"), row, strict=True)) for row in rows[300:]],
        console=quiet(),
        runtime=CPU,
    )


def loader_bound(folder: Path) -> None:
    """Examples on a disk that takes its time, as one behind a network does."""
    read = PretrainData._spans

    def slowly(data: PretrainData, blocks: tuple[int, ...]) -> Any:
        time.sleep(0.2)
        return read(data, blocks)

    with mock.patch.object(PretrainData, "_spans", slowly):
        learn_text(folder, documents_of(100), max_steps=60, learning_rate=1e-3, evaluate_every_steps=60, compile="off")


MAKERS: dict[str, Callable[[Path], None]] = {
    name.replace("_", "-"): maker
    for name, maker in {
        "diverged": diverged,
        "spikes": spikes,
        "word_frequencies_only": word_frequencies_only,
        "one_class": one_class,
        "plateau": plateau,
        "overfitting": overfitting,
        "underfitting": underfitting,
        "learning_rate_too_high": learning_rate_too_high,
        "learning_rate_too_low": learning_rate_too_low,
        "gradients_vanish": gradients_vanish,
        "always_clipped": always_clipped,
        "leak": leak,
        "label_noise": label_noise,
        "miscalibrated": miscalibrated,
        "repeated_text": repeated_text,
        "unknown_tokens": unknown_tokens,
        "truncation": truncation,
        "padding": padding,
        "next_sentence_by_topic": next_sentence_by_topic,
        "next_sentence_by_length": next_sentence_by_length,
        "loader_bound": loader_bound,
        "thread_bound": thread_bound,
        "seeds_outweigh_gain": seeds_outweigh_gain,
    }.items()
}
"""Illness -> what makes a run that has it."""


def record(run: Path, target: Path, *, with_text: bool = True, most_rows: int = 500) -> None:
    """Copy what a diagnosis reads; `with_text` False leaves out what rows say, where they are not ours to copy."""
    shutil.rmtree(target, ignore_errors=True)
    needs_examples = target.name == "repeated-text"
    needs_vocabulary = target.name == "unknown-tokens"
    needs_predictions = needs_vocabulary or target.name in ("label-noise", "next-sentence-by-length") or not with_text
    for path in sorted(run.rglob("*")):
        place = path.relative_to(run)
        if not path.is_file() or {"checkpoints", "base", "last", "trials"} & set(place.parts):
            continue
        is_kept = path.name in KEPT or (path.name.startswith("predictions-") and needs_predictions and most_rows > 0)
        is_kept |= needs_examples and path.name.startswith("train-0") and path.suffix == ".arrow"
        is_kept |= needs_vocabulary and "model" in place.parts and path.suffix in (".json", ".txt")
        if not is_kept:
            continue
        (target / place).parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".arrow", ".txt"):
            shutil.copyfile(path, target / place)
            continue
        text = path.read_text(encoding="utf-8").replace(str(run), f"runs/{target.name}")
        if path.suffix == ".jsonl":
            lines = [json.loads(line) for line in text.splitlines()]
            lines = [bare(line, with_text=with_text) for line in lines if line.get("event") != "sample"]
            lines = lines[:most_rows] if path.name.startswith("predictions-") else lines
            text = "".join(json.dumps(shortened(line), ensure_ascii=False) + "\n" for line in lines)
        elif path.name == "scores.json":
            text = json.dumps({"calibration": without_bins(json.loads(text).get("calibration") or {})}, indent=1) + "\n"
        (target / place).write_text(text, encoding="utf-8")


def shortened(value: Any) -> Any:
    """With numbers of six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: shortened(one) for key, one in value.items()}
    return [shortened(one) for one in value] if isinstance(value, list) else value


def without_bins(calibration: dict[str, Any]) -> dict[str, Any]:
    found = dict(calibration)
    for split, sides in (found.get("splits") or {}).items():
        found["splits"][split] = {
            side: {key: value for key, value in told.items() if key != "bins"} for side, told in sides.items()
        }
    return found


def bare(line: dict[str, Any], *, with_text: bool) -> dict[str, Any]:
    """A line of a log without what takes much room and no diagnosis reads."""
    left_out = {"hardest", "followed", "memory_bytes", "accuracies", "gradient_noise_scale"}
    left_out |= {"slices", "seconds", "split", "best"} if line.get("event") == "evaluation" else set()
    left_out |= set() if with_text else {"text", "pair"}
    found = {key: value for key, value in line.items() if key not in left_out}
    if line.get("event") in ("checkpoint", "evaluation"):
        found.pop("elapsed_seconds", None)
    if "scores" in found and isinstance(found["scores"], dict):
        found["scores"] = dict(list(found["scores"].items())[:3])
    if "environment" in found:
        keys = ("device", "threads", "cpu_count", "world_size", "matmul_flops_per_second")
        found["environment"] = {key: found["environment"].get(key) for key in keys}
    return found


def main() -> None:
    for name in sys.argv[1:] or MAKERS:
        with tempfile.TemporaryDirectory() as folder:
            MAKERS[name](Path(folder))
            record(Path(folder), RECORDED / name)
        print(name, flush=True)


if __name__ == "__main__":
    main()
