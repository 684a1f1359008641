"""Vocabularies that grow, shrink, or do not fit."""

from pathlib import Path

import pytest
import torch

from bertsmith.errors import CheckpointError, UsageError
from bertsmith.model import (
    BertForMaskedLM,
    BertForPreTraining,
    BertForTokenClassification,
    BertModel,
    check_tokenizer_fits,
    preset,
)

TINY = preset("tiny", {"vocab_size": 40, "num_hidden_layers": 1})


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("size", [47, 40, 23])
@pytest.mark.parametrize("network", [BertModel, BertForMaskedLM, BertForPreTraining, BertForTokenClassification])
def test_known_words_keep_their_answers(network: type[BertForMaskedLM], size: int, tied: bool, tmp_path: Path) -> None:
    model = network(TINY.replace(tie_word_embeddings=tied)).eval()
    if isinstance(model, BertForMaskedLM | BertForPreTraining):
        torch.nn.init.normal_(model.decoder_bias)
    ids = torch.randint(0, min(size, 40), (2, 7))
    before = _answers(model(ids))
    model.resize_token_embeddings(size)
    after = _answers(model(ids))
    common = min(size, 40) if before.shape[-1] == 40 else before.shape[-1]
    torch.testing.assert_close(after[..., :common], before[..., :common], rtol=0, atol=1e-6)
    if isinstance(model, BertForMaskedLM | BertForPreTraining):
        assert after.shape[-1] == size
        assert (model.decoder_bias[40:] == 0).all()
        assert model.decoder_weight.shape == (size, 128)
    assert model.config.vocab_size == size
    model.save_pretrained(tmp_path / "model")
    again = type(model).from_pretrained(tmp_path / "model")
    assert str(again.load_report) == ""
    assert torch.equal(_answers(again(ids)), after)


def _answers(outputs: object) -> torch.Tensor:
    for name in ("logits", "prediction_logits", "last_hidden_state"):
        if hasattr(outputs, name):
            answers: torch.Tensor = getattr(outputs, name)
            return answers
    raise AssertionError("outputs without answers")


def test_new_words_are_drawn_as_fresh_weights_are() -> None:
    model = BertModel(TINY)
    model.resize_token_embeddings(2040)
    new = model.embeddings.word_embeddings.weight.detach()[40:]
    assert new.abs().max() <= 0.04
    assert new.std().item() == pytest.approx(0.8796 * 0.02, rel=0.02)
    assert model.embeddings.word_embeddings.padding_idx == 0
    assert (model.embeddings.word_embeddings.weight[0] == 0).all()


@pytest.mark.parametrize("size", [0, -3])
def test_too_few_embeddings_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match=f"{size} token embeddings are too few"):
        BertModel(TINY).resize_token_embeddings(size)


def test_a_tokenizer_with_more_ids_than_embeddings_does_not_fit() -> None:
    check_tokenizer_fits(40, TINY)
    check_tokenizer_fits(30, TINY)  # published checkpoints are padded to a round number
    with pytest.raises(CheckpointError, match="41 entries, the model 40 embeddings"):
        check_tokenizer_fits(41, TINY)
