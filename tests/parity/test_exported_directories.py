"""What is exported is loaded by `transformers` and sentence-transformers, by its name alone, with the same answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
import transformers

from bertsmith.export.directory import export_directory
from bertsmith.model import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertLMHeadModel,
    BertModel,
)
from bertsmith.model.pretrained import Pretrained
from bertsmith.model.weights import write_card
from bertsmith.tasks.predict import Predictor
from bertsmith.tokenizer.encode import Tokenizer
from finetune_case import tiny_config, write_tiny_model

TEXTS = ["the day was lovely", "so awful and very mean today", "tomorrow it is ##orrow"]
HEADS: list[tuple[type[Pretrained], str]] = [
    (BertForSequenceClassification, "AutoModelForSequenceClassification"),
    (BertForTokenClassification, "AutoModelForTokenClassification"),
    (BertForQuestionAnswering, "AutoModelForQuestionAnswering"),
    (BertForMultipleChoice, "AutoModelForMultipleChoice"),
    (BertForMaskedLM, "AutoModelForMaskedLM"),
    (BertLMHeadModel, "AutoModelForCausalLM"),
    (BertForNextSentencePrediction, "AutoModelForNextSentencePrediction"),
    (BertForPreTraining, "AutoModelForPreTraining"),
    (BertModel, "AutoModel"),
]


def model_of(head: type[Pretrained], folder: Path, **changes: Any) -> Path:
    base = write_tiny_model(folder)
    torch.manual_seed(1)
    config = tiny_config(Tokenizer.load(base).vocab_size, is_decoder=head is BertLMHeadModel, **changes)
    head(config).save_pretrained(base)
    return base


def tensors(outputs: Any) -> list[torch.Tensor]:
    return [one for one in vars(outputs).values() if isinstance(one, torch.Tensor)]


@pytest.mark.parametrize(("head", "theirs"), HEADS, ids=[head.__name__ for head, _ in HEADS])
def test_heads(tmp_path: Path, head: type[Pretrained], theirs: str) -> None:
    base = model_of(head, tmp_path / "base")
    export_directory(base, tmp_path / "out")
    model, report = getattr(transformers, theirs).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(model).__name__ == head.__name__
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    batch = dict(tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt"))
    plain = Tokenizer.load(base)
    for ids, mask, own in zip(
        *(batch[name] for name in ("input_ids", "attention_mask")), plain.encode_ids(TEXTS), strict=True
    ):
        assert ids[mask.bool()].tolist() == [plain.cls_id, *own, plain.sep_id]
    exec(lines_of_the_card(tmp_path / "out"), {})
    if head is BertForMultipleChoice:
        batch = {name: one[None] for name, one in batch.items()}
    with torch.no_grad():
        ours = head.from_pretrained(base)(**batch)
        found = model.eval()(**batch)
    for one, other in zip(tensors(ours), [value for value in found.values() if torch.is_tensor(value)], strict=False):
        real = batch["attention_mask"].bool() if one.shape[:2] == batch["input_ids"].shape else slice(None)
        torch.testing.assert_close(other[real], one[real], rtol=1e-5, atol=1e-5)


def lines_of_the_card(folder: Path) -> str:
    """What README.md says to type, typed in that folder."""
    page = (folder / "README.md").read_text(encoding="utf-8")
    return page.partition("```python\n")[2].partition("```")[0].replace("THIS-DIRECTORY", str(folder))


def test_a_pipeline_answers_as_predict(tmp_path: Path) -> None:
    base = model_of(BertForSequenceClassification, tmp_path / "base", num_labels=3)
    write_card(base, {"task": "classify", "max_length": 5})
    export_directory(base, tmp_path / "out")
    ask = transformers.pipeline("text-classification", str(tmp_path / "out"), top_k=None)
    ours = Predictor.load(tmp_path / "out")
    assert ours.max_length == 5
    for found, answer in zip(ask(TEXTS, truncation=True), ours.predict(TEXTS), strict=True):
        theirs = {one["label"]: one["score"] for one in found}
        assert theirs == pytest.approx(answer.probabilities, abs=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_sentence_transformers(tmp_path: Path, pooling: str) -> None:
    base = model_of(BertModel, tmp_path / "base")
    write_card(base, {"task": "embed", "options": {"pooling": pooling}, "max_length": 6})
    export_directory(base, tmp_path / "out", layout="sentence-transformers", texts=TEXTS)
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert theirs.max_seq_length == 6
    exec(lines_of_the_card(tmp_path / "out"), {})
    assert theirs.similarity_fn_name == "cosine"
    ours = np.stack([answer.vector for answer in Predictor.load(base).predict(TEXTS)])
    np.testing.assert_allclose(theirs.encode(TEXTS), ours, rtol=1e-5, atol=1e-5)
