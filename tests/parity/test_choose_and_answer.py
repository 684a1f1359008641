"""Multiple choice and question answering against transformers: equal token ids, windows, logits, losses, gradients."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers

from bertsmith.tasks.base import Columns
from bertsmith.tasks.batches import assemble
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.predict import Predictor, compute_outputs
from finetune_case import CPU, choice_rows, question_rows, quiet, recipe, write_tiny_model

CHOICES = [row for row in choice_rows(120, seed=3) if len(row[2]) == 3][:30]
QUESTIONS = question_rows(40, seed=3)
MAX_LENGTH, STRIDE = 24, 6


def fine_tuned(folder: Path, task: str, rows: Any, **settings: Any) -> Predictor:
    base = write_tiny_model(folder / "base")
    config = recipe(task=task, epochs=1, max_length=MAX_LENGTH, **settings)
    finetune(config, folder / "run", model=base, train=rows, console=quiet(), runtime=CPU)
    return Predictor.load(folder / "run" / "model", runtime=CPU)


def compare(ours: Predictor, theirs: torch.nn.Module, batch: Any, their_loss: torch.Tensor) -> None:
    ours.model.zero_grad()
    loss = ours.task.outputs.losses(ours.task.item_outputs(ours.model, batch), batch.targets, batch.item_groups).mean()
    loss.backward()
    theirs.zero_grad()
    their_loss.backward()
    assert loss.item() == pytest.approx(their_loss.item(), rel=1e-5)
    own = dict(ours.model.named_parameters())
    for name, parameter in theirs.named_parameters():
        constant = "classifier.bias" if ours.task.name == "choose" else "qa_outputs.bias"
        if name.endswith(("key.bias", constant)):  # the true gradient is 0: one number more for all changes nothing
            continue
        error = torch.linalg.norm(own[name].grad - parameter.grad) / torch.linalg.norm(parameter.grad)
        assert error < 1e-5, name


def test_multiple_choice(tmp_path: Path):
    ours = fine_tuned(tmp_path, "choose", CHOICES)
    theirs = transformers.AutoModelForMultipleChoice.from_pretrained(tmp_path / "run" / "model").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    inputs = tokenizer(
        [text for text, _, choices, _ in CHOICES for _ in choices],
        [f"{question} {choice}" for _, question, choices, _ in CHOICES for choice in choices],
        truncation=True,
        max_length=MAX_LENGTH,
        padding=True,
        return_tensors="pt",
    )
    rows = ours.task.read(CHOICES, Columns(), require_labels=True)
    features = ours.encode(rows, labelled=True)
    batch = assemble(features, np.arange(len(rows)), objective="x", pad_id=ours.tokenizer.pad_id)
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert torch.equal(getattr(batch, name), inputs[name]), name
    labels = torch.tensor([number for _, _, _, number in CHOICES])
    found = theirs(**{name: value.view(len(rows), 3, -1) for name, value in inputs.items()}, labels=labels)
    outputs = compute_outputs(ours.model, features, ours.task, pad_id=0, runtime=CPU, batch_tokens=100)
    torch.testing.assert_close(torch.from_numpy(outputs).view(-1, 3), found.logits.detach(), rtol=1e-5, atol=1e-5)
    compare(ours, theirs, batch, found.loss)


def test_question_answering(tmp_path: Path):
    ours = fine_tuned(tmp_path, "answer", QUESTIONS, stride=STRIDE)
    theirs = transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path / "run" / "model").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    inputs = tokenizer(
        [row["question"] for row in QUESTIONS],
        [row["context"] for row in QUESTIONS],
        truncation="only_second",
        max_length=MAX_LENGTH,
        stride=STRIDE,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding=True,
        return_tensors="pt",
    )
    owners, offsets = inputs.pop("overflow_to_sample_mapping"), inputs.pop("offset_mapping")
    rows = ours.task.read(QUESTIONS, Columns(), require_labels=True)
    features = ours.encode(rows, labelled=True)
    batch = assemble(features, np.arange(len(features)), objective="x", pad_id=ours.tokenizer.pad_id)
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert torch.equal(getattr(batch, name), inputs[name]), name
    assert features.row_of_example.tolist() == owners.tolist()

    # as run_qa.py finds them: tokens whose characters hold the answer's, else [CLS]
    positions = []
    for number, owner in enumerate(owners.tolist()):
        answer = QUESTIONS[owner]["answers"]
        start = answer["answer_start"][0]
        end = start + len(answer["text"][0])
        tokens = [
            place
            for place, (low, high) in enumerate(offsets[number].tolist())
            if inputs["token_type_ids"][number, place] and high > low and low < end and high > start
        ]
        whole = tokens and offsets[number][tokens[0]][0] <= start and offsets[number][tokens[-1]][1] >= end
        positions.append((tokens[0], tokens[-1]) if whole else (0, 0))
    assert batch.targets is not None
    assert batch.targets.tolist() == [list(place) for place in positions]

    found = theirs(**inputs)
    real = inputs["attention_mask"].bool()
    logits = torch.stack([found.start_logits, found.end_logits], dim=-1)
    outputs = compute_outputs(ours.model, features, ours.task, pad_id=0, runtime=CPU, batch_tokens=100)
    torch.testing.assert_close(torch.from_numpy(outputs), logits[real].detach(), rtol=1e-5, atol=1e-5)
    # Theirs would count padding among the places where an answer may stand.
    masked = logits.masked_fill(~real[..., None], -torch.inf)
    compare(ours, theirs, batch, F.cross_entropy(masked, torch.tensor(positions)))
