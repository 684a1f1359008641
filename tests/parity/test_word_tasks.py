"""Next sentence, masked words and the language model against transformers: logits, losses, gradients, continuations."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.generation import logits_process

from bertsmith.model.language import BertLMHeadModel
from bertsmith.model.weights import read_config
from bertsmith.tasks.base import Columns
from bertsmith.tasks.batches import TaskBatch, assemble
from bertsmith.tasks.continuation import Sampling, TextGenerator
from bertsmith.tasks.evaluate import evaluate
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.predict import Predictor, compute_outputs
from bertsmith.tokenizer.encode import Tokenizer
from finetune_case import CPU, pair_rows, quiet, recipe, text_rows, tiny_config, write_tiny_model

TEXTS = [text for text, _ in text_rows(60, seed=3)]
PAIRS = [(one, other, int(label == "other")) for one, other, label in pair_rows(60, seed=3)]
IGNORED = -100


def fine_tuned(folder: Path, task: str, rows: Any, **settings: Any) -> Predictor:
    base = write_tiny_model(folder / "base")
    config = recipe(task=task, **{"epochs": 1, "max_length": 32} | settings)
    finetune(config, folder / "run", model=base, train=rows, console=quiet(), runtime=CPU)
    return Predictor.load(folder / "run" / "model", runtime=CPU)


def whole(ours: Predictor, rows: Any) -> TaskBatch:
    features = ours.encode(ours.task.read(rows, Columns(), require_labels=True), labelled=True)
    return assemble(features, np.arange(len(features)), objective="x", pad_id=ours.tokenizer.pad_id)


def compare(ours: Predictor, theirs: torch.nn.Module, batch: TaskBatch, their_loss: torch.Tensor) -> None:
    """Mean loss and gradients, through what training runs and through the plain outputs."""
    theirs.zero_grad()
    their_loss.backward()
    assert batch.targets is not None
    plain = ours.task.outputs.losses(ours.task.item_outputs(ours.model, batch), batch.targets, None).sum()
    for loss in (ours.task.loss_sum(ours.model, batch), plain):
        ours.model.zero_grad()
        mean = loss / len(batch.targets)
        mean.backward()
        assert mean.item() == pytest.approx(their_loss.item(), rel=1e-5)
        own = dict(ours.model.named_parameters())
        for name, parameter in theirs.named_parameters():
            if name.endswith("key.bias"):  # the true gradient is 0
                continue
            error = torch.linalg.norm(own[name].grad - parameter.grad) / torch.linalg.norm(parameter.grad)
            assert error < 1e-5, name


def labels_at_items(batch: TaskBatch) -> torch.Tensor:
    assert batch.targets is not None
    labels = torch.full(batch.input_ids.shape, IGNORED)
    labels.view(-1)[batch.items] = batch.targets
    return labels


def test_next_sentence(tmp_path: Path):
    ours = fine_tuned(tmp_path, "next-sentence", PAIRS)
    theirs = transformers.AutoModelForNextSentencePrediction.from_pretrained(tmp_path / "run" / "model").eval()
    batch = whole(ours, PAIRS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    inputs = tokenizer(*zip(*[row[:2] for row in PAIRS], strict=True), padding=True, return_tensors="pt")
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert torch.equal(getattr(batch, name), inputs[name]), name
    found = theirs(**inputs, labels=torch.tensor([label for _, _, label in PAIRS]))
    torch.testing.assert_close(ours.task.item_outputs(ours.model, batch), found.logits, rtol=1e-5, atol=1e-5)
    compare(ours, theirs, batch, found.loss)


@pytest.mark.parametrize("mask_by", ["token", "word", "span"])
def test_masked_words(tmp_path: Path, mask_by: str):
    ours = fine_tuned(tmp_path, "masked-word", TEXTS, mask_by=mask_by)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "run" / "model").eval()
    batch = whole(ours, TEXTS)
    labels = labels_at_items(batch)
    found = theirs(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels)
    expected = found.logits[labels != IGNORED]
    torch.testing.assert_close(ours.task.item_outputs(ours.model, batch), expected, rtol=1e-5, atol=1e-5)
    compare(ours, theirs, batch, found.loss)


def test_fill_mask_as_the_pipeline_does(tmp_path: Path):
    ours = fine_tuned(tmp_path, "masked-word", TEXTS)
    folder = str(tmp_path / "run" / "model")
    pipeline = transformers.pipeline("fill-mask", model=folder, tokenizer=folder, top_k=5)
    for text in ("the day was [MASK] today", "[MASK] is kind", "it is so [MASK]."):
        (answer,) = ours.predict([text])
        (blank,) = answer.blanks
        expected = [(found["token_str"], pytest.approx(found["score"], abs=2e-6)) for found in pipeline(text)]
        assert list(blank.guesses) == expected


def test_language_model(tmp_path: Path):
    ours = fine_tuned(tmp_path, "language-model", TEXTS)
    folder = tmp_path / "run" / "model"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    assert type(theirs).__name__ == "BertLMHeadModel"
    assert read_config(folder).is_decoder
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, IGNORED)
    found = theirs(**inputs, labels=labels, use_cache=False)
    batch = whole(ours, TEXTS)
    is_learned = labels[:, 1:] != IGNORED
    outputs = ours.task.item_outputs(ours.model, batch)
    torch.testing.assert_close(outputs, found.logits[:, :-1][is_learned], rtol=1e-5, atol=1e-5)
    compare(ours, theirs, batch, found.loss)
    scores = evaluate(ours, TEXTS).scores
    assert scores["loss"] == pytest.approx(found.loss.item(), rel=1e-5)
    assert scores["perplexity"] == pytest.approx(math.exp(found.loss.item()), rel=1e-4)
    right = found.logits[:, :-1].argmax(-1)[is_learned] == labels[:, 1:][is_learned]
    assert scores["accuracy"] == pytest.approx(right.float().mean().item())


def test_parts_of_a_long_text_are_read_as_transformers_reads_them(tmp_path: Path):
    """Nothing is cut: [CLS] before each part, and the end of the text learned once."""
    ours = fine_tuned(tmp_path, "language-model", TEXTS, max_length=8)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model").eval()
    text = " ".join(["the day was so kind and bright"] * 3)
    ids = [*ours.tokenizer.encode_ids([text])[0], ours.tokenizer.sep_id]
    losses = []
    for start in range(0, len(ids), 8):
        part = ids[start : start + 8]
        logits = theirs(torch.tensor([[ours.tokenizer.cls_id, *part]]), use_cache=False).logits[0, :-1]
        losses += torch.nn.functional.cross_entropy(logits, torch.tensor(part), reduction="none").tolist()
    (answer,) = ours.predict([text])
    assert (answer.tokens, answer.loss) == (len(ids), pytest.approx(np.mean(losses), rel=1e-5))


def test_greedy_continuations_are_those_of_generate(tmp_path: Path):
    tokenizer = Tokenizer.load(write_tiny_model(tmp_path / "base"))
    tokenizer.save(tmp_path / "random")
    continuations, endings = set(), set()
    for seed in range(4):
        torch.manual_seed(seed)  # wide weights, so that tokens and their order matter
        config = tiny_config(tokenizer.vocab_size, initializer_range=1.0)
        BertLMHeadModel(config).save_pretrained(tmp_path / "random")
        generator = TextGenerator.load(tmp_path / "random", runtime=CPU)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "random").eval()
        for prompt in ("", "the day", "it was lovely and", "paris", "tom is awful today ."):
            ids = [tokenizer.cls_id, *tokenizer.encode_ids([prompt])[0]]
            expected = theirs.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=20,
                do_sample=False,
                eos_token_id=tokenizer.sep_id,
                pad_token_id=tokenizer.pad_id,
            )[0, len(ids) :].tolist()
            found = generator.generate(prompt, max_new_tokens=20)
            assert [*found.ids, *([tokenizer.sep_id] if found.is_ended else [])] == expected
            continuations.add(found.ids)
            endings.add(found.is_ended)
    assert len(continuations) > 10, "one continuation for all prompts would say little"
    assert endings == {True, False}


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, None, None), (0.7, None, None), (1.5, 7, None), (1.0, None, 0.6), (0.8, 9, 0.5), (1.0, 1, None)],
)
def test_what_is_drawn_from(temperature: float, top_k: int | None, top_p: float | None):
    logits = torch.randn(20, 50, generator=torch.Generator().manual_seed(1)) * 3
    scores = logits_process.TemperatureLogitsWarper(temperature)(torch.zeros(0), logits)
    if top_k is not None:
        scores = logits_process.TopKLogitsWarper(top_k)(torch.zeros(0), scores)
    if top_p is not None:
        scores = logits_process.TopPLogitsWarper(top_p)(torch.zeros(0), scores)
    expected = scores.softmax(-1).numpy()
    found = [Sampling(temperature, top_k, top_p).probabilities(row) for row in logits.numpy()]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert ((np.array(found) == 0) == (expected == 0)).all()


def test_results_hold_no_more_than_they_must(tmp_path: Path):
    """Loss, one likeliest word and its probability an item, not the vocabulary."""
    ours = fine_tuned(tmp_path, "language-model", TEXTS)
    features = ours.encode(ours.task.read(TEXTS, Columns(), require_labels=True), labelled=True)
    outputs = compute_outputs(ours.model, features, ours.task, pad_id=0, runtime=CPU)
    assert outputs.shape == (len(features.items.values), 3)
