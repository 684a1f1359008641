"""Promise 1: the same weights give the same answers as transformers, on real text and the real checkpoint.

Every head with every kind of input is in tests/parity; here the promise is kept from file to answer, for a task head
trained by transformers and read by us, and for whole texts at full length.
"""

from pathlib import Path

import pytest
import torch
import transformers

from bertsmith.model import BertForSequenceClassification, BertModel

TEXT = Path(__file__).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def texts(minilm_dir: Path) -> transformers.BatchEncoding:
    """Four texts of very unlike length, the longest cut at 512 tokens."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_dir)
    rows = [TEXT * 3, "One.", TEXT[:700], "A question?"]
    return tokenizer(rows, padding=True, truncation=True, max_length=512, return_tensors="pt")


@torch.no_grad()
def test_real_text_up_to_512_tokens(minilm_dir: Path, texts: transformers.BatchEncoding) -> None:
    ours = BertModel.from_pretrained(minilm_dir)(**texts)
    theirs = transformers.BertModel.from_pretrained(minilm_dir).eval()(**texts)
    real = texts["attention_mask"].bool()
    assert real.shape == (4, 512)
    for mine, other in (
        (ours.last_hidden_state[real], theirs.last_hidden_state[real]),
        (ours.pooler_output, theirs.pooler_output),
    ):
        assert ((mine - other).abs() / other.abs().clamp(min=1)).max() <= 1e-5


def test_the_same_three_steps_of_training(minilm_dir: Path, texts: transformers.BatchEncoding, tmp_path: Path) -> None:
    """Losses and weights stay together over updates, so gradients are the same too, without dropout."""
    theirs = transformers.BertForSequenceClassification.from_pretrained(minilm_dir, num_labels=3)
    theirs.save_pretrained(tmp_path / "start")
    ours = BertForSequenceClassification.from_pretrained(tmp_path / "start")
    assert str(ours.load_report) == ""
    inputs = {name: tensor[1:, :64] for name, tensor in texts.items()}
    labels = torch.tensor([2, 0, 1])
    losses: list[list[float]] = []
    for model in (ours, theirs.eval()):  # evaluation mode: no dropout
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
        losses.append([])
        for _ in range(3):
            optimizer.zero_grad()
            loss = model(**inputs, labels=labels).loss
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][0] > losses[0][-1]
    named = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter, named[name], rtol=1e-5, atol=1e-5, msg=name)
