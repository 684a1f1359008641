"""Fine-tuning against transformers: same directory and batch, same token ids, logits, loss and gradients."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from bertsmith.tasks.base import Columns
from bertsmith.tasks.batches import assemble
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.predict import Predictor, compute_outputs
from finetune_case import CPU, multilabel_rows, pair_rows, quiet, recipe, tagged_rows, text_rows, write_tiny_model

ROWS: dict[str, Any] = {
    "classify": text_rows(40, seed=3),
    "pairs": pair_rows(40, seed=3),
    "multilabel": multilabel_rows(40, seed=3),
    "regress": [(text, 4.5 if label == "good" else 0.5) for text, label in text_rows(40, seed=3)],
    "tag": tagged_rows(40, seed=3),
}
AUTO = {
    "classify": transformers.AutoModelForSequenceClassification,
    "pairs": transformers.AutoModelForSequenceClassification,
    "multilabel": transformers.AutoModelForSequenceClassification,
    "regress": transformers.AutoModelForSequenceClassification,
    "tag": transformers.AutoModelForTokenClassification,
}


class Case:
    """A fine-tuned run, our predictor on it, and transformers' own model and inputs for the same rows."""

    def __init__(self, task: str, folder: Path):
        base = write_tiny_model(folder / "base")
        columns = Columns(pair="pair") if task == "pairs" else Columns()
        own = "classify" if task == "pairs" else task
        settings = recipe(task=own, epochs=1, pair_column=columns.pair)
        finetune(settings, folder / "run", model=base, train=ROWS[task], console=quiet(), runtime=CPU)
        directory = folder / "run" / "model"
        self.ours = Predictor.load(directory, runtime=CPU)
        self.theirs = AUTO[task].from_pretrained(directory).eval()
        self.rows = self.ours.task.read(ROWS[task], columns, require_labels=True)
        self.features = self.ours.encode(self.rows, labelled=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        texts = [list(row.words) if task == "tag" else row.text for row in self.rows]
        self.inputs = tokenizer(
            texts,
            [row.pair for row in self.rows] if task == "pairs" else None,
            is_split_into_words=task == "tag",
            truncation=True,
            max_length=settings.finetune.max_length if settings.finetune else None,
            padding=True,
            return_tensors="pt",
        )
        label2id = self.theirs.config.label2id
        if task == "regress":
            self.labels = torch.tensor([row.label for row in self.rows])
        elif task == "multilabel":
            marks = [[float(name in row.label) for name in label2id] for row in self.rows]
            self.labels = torch.tensor(marks, dtype=torch.float64)
        elif task != "tag":
            self.labels = torch.tensor([label2id[row.label] for row in self.rows])
        else:  # as run_ner.py aligns them: the first piece of a word has its label, all else -100
            aligned = []
            for number, row in enumerate(self.rows):
                words = self.inputs.word_ids(number)
                first = [
                    word is not None and word != before for word, before in zip(words, [None, *words], strict=False)
                ]
                aligned.append([label2id[row.labels[w]] if new else -100 for w, new in zip(words, first, strict=True)])
            self.labels = torch.tensor(aligned)


@pytest.fixture(scope="module", params=list(ROWS))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(request.param, tmp_path_factory.mktemp(request.param))


def test_token_ids_are_those_of_auto_tokenizer(case: Case):
    batch = assemble(case.features, np.arange(len(case.rows)), objective="x", pad_id=case.ours.tokenizer.pad_id)
    assert torch.equal(batch.input_ids, case.inputs["input_ids"])
    assert batch.attention_mask is not None
    assert torch.equal(batch.attention_mask, case.inputs["attention_mask"])
    types = torch.zeros_like(batch.input_ids) if batch.token_type_ids is None else batch.token_type_ids
    assert torch.equal(types, case.inputs["token_type_ids"])


def test_logits_are_equal(case: Case):
    ours = compute_outputs(case.ours.model, case.features, case.ours.task, pad_id=0, runtime=CPU, batch_tokens=50)
    with torch.no_grad():
        logits = case.theirs(**case.inputs).logits
    theirs = logits[case.labels != -100] if case.ours.task.name == "tag" else logits
    torch.testing.assert_close(torch.from_numpy(ours), theirs, rtol=1e-5, atol=1e-5)


def compare_gradients(case: Case, *, parts: int, tolerance: float) -> None:
    """Our loss is a sum over items divided by their count, in `parts` bucketed micro-batches; theirs is a mean."""
    case.ours.model.zero_grad()
    order = np.argsort(case.features.tokens.lengths, kind="stable") if parts > 1 else np.arange(len(case.rows))
    total = len(case.features.items.values)
    loss = 0.0
    for part in np.array_split(order, parts):
        batch = assemble(case.features, part, objective="x", pad_id=0)
        assert batch.targets is not None
        outputs = case.ours.task.item_outputs(case.ours.model, batch)
        share = case.ours.task.outputs.losses(outputs, batch.targets, batch.item_groups).sum() / total
        share.backward()
        loss += share.item()
    case.theirs.zero_grad()
    theirs = case.theirs(**case.inputs, labels=case.labels).loss
    theirs.backward()
    assert loss == pytest.approx(theirs.item(), rel=tolerance, abs=tolerance)
    own = dict(case.ours.model.named_parameters())
    for name, parameter in case.theirs.named_parameters():
        if name.endswith("key.bias"):  # its true gradient is 0
            continue
        error = torch.linalg.norm(own[name].grad - parameter.grad) / torch.linalg.norm(parameter.grad)
        assert error < tolerance, name


def test_loss_and_gradients_are_equal(case: Case):
    """Promise 1: float32, the same rows in one padded batch."""
    compare_gradients(case, parts=1, tolerance=1e-5)


def test_bucketed_micro_batches_have_the_same_gradients(case: Case):
    """In float64: in float32 one LayerNorm bias differed by 3.7e-5 here, more than the 1e-5 we would like."""
    case.ours.model.double()
    case.theirs.double()
    try:
        compare_gradients(case, parts=4, tolerance=1e-9)
    finally:
        case.ours.model.float()
        case.theirs.float()


def test_label_names_reach_transformers(case: Case):
    assert tuple(case.theirs.config.id2label.values()) == case.ours.labels
