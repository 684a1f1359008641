"""A real checkpoint, all-MiniLM-L6-v2, against transformers."""

import shutil
from pathlib import Path

import pytest
import torch
import transformers

from bertsmith.model import BertForMaskedLM, BertForSequenceClassification, BertForTokenClassification, BertModel

SENTENCES = ["The cat sat on the mat.", "Bert", "A much longer sentence, so that the other two need padding " * 3]


@pytest.fixture(scope="module")
def both(minilm_dir: Path) -> tuple[BertModel, transformers.BertModel]:
    theirs = transformers.BertModel.from_pretrained(minilm_dir, attn_implementation="eager").eval()
    return BertModel.from_pretrained(minilm_dir), theirs


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ((ours - theirs).abs() / theirs.abs().clamp(min=1)).max() <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("typed", [False, True], ids=["no types", "types"])
def test_padded_sentences(both: tuple[BertModel, transformers.BertModel], minilm_dir: Path, typed: bool) -> None:
    ours, theirs = both
    inputs = transformers.AutoTokenizer.from_pretrained(minilm_dir)(SENTENCES, padding=True, return_tensors="pt")
    real = inputs["attention_mask"].bool()
    assert not real.all()
    if typed:
        inputs["token_type_ids"] = torch.randint(0, 2, real.shape)
    else:
        inputs.pop("token_type_ids", None)
    mine, other = ours(**inputs), theirs(**inputs)
    assert_same(mine.last_hidden_state[real], other.last_hidden_state[real])
    assert_same(mine.pooler_output, other.pooler_output)


@torch.no_grad()
def test_512_tokens(both: tuple[BertModel, transformers.BertModel]) -> None:
    ours, theirs = both
    ids = torch.randint(1000, 30000, (2, 512))
    mask = torch.ones_like(ids)
    mask[1, 300:] = 0
    mine = ours(ids, mask, output_hidden_states=True, output_attentions=True)
    other = theirs(ids, mask, output_hidden_states=True, output_attentions=True)
    for a, b in zip(mine.hidden_states, other.hidden_states, strict=True):
        assert_same(a[mask.bool()], b[mask.bool()])
    for a, b in zip(mine.attentions, other.attentions, strict=True):
        assert_same(a.transpose(1, 2)[mask.bool()], b.transpose(1, 2)[mask.bool()])
    theirs.set_attn_implementation("sdpa")
    mine, other = ours(ids, mask), theirs(ids, mask)  # the fused attention call, which keeps no attentions
    theirs.set_attn_implementation("eager")
    assert mine.attentions is None
    assert_same(mine.last_hidden_state[mask.bool()], other.last_hidden_state[mask.bool()])


def test_gradients(both: tuple[BertModel, transformers.BertModel]) -> None:
    ours, theirs = both
    ids = torch.randint(1000, 30000, (2, 24))
    weight = torch.randn(2, 24, 384)
    for model in both:
        model.zero_grad()
        outputs = model(ids)
        ((outputs.last_hidden_state * weight).sum() + outputs.pooler_output.sum()).backward()
    named = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        other = named[name].grad
        assert parameter.grad is not None
        assert other is not None
        if name.endswith("key.bias"):
            beside = named[name.replace("key.bias", "query.bias")].grad
            assert beside is not None
            assert parameter.grad.norm() <= 1e-4 * beside.norm()
        else:
            assert (parameter.grad - other).norm() <= 1e-5 * other.norm(), name


@torch.no_grad()
@pytest.mark.parametrize(
    ("ours_class", "auto_class"),
    [
        (BertModel, transformers.AutoModel),
        (BertForMaskedLM, transformers.AutoModelForMaskedLM),
        (BertForSequenceClassification, transformers.AutoModelForSequenceClassification),
        (BertForTokenClassification, transformers.AutoModelForTokenClassification),
    ],
)
def test_auto_classes_load_what_we_save(ours_class: type, auto_class: type, minilm_dir: Path, tmp_path: Path) -> None:
    ours = ours_class.from_pretrained(minilm_dir, labels=["no", "yes", "maybe"])
    ours.save_pretrained(tmp_path / "model")
    for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(minilm_dir / name, tmp_path / "model" / name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    theirs = auto_class.from_pretrained(tmp_path / "model").eval()
    assert type(theirs).__name__ == ours_class.__name__
    assert theirs.config.id2label == {0: "no", 1: "yes", 2: "maybe"}
    assert theirs.dtype == torch.float32
    inputs = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    real = inputs["attention_mask"].bool()
    mine, other = ours(**inputs), theirs(**inputs)
    name = "last_hidden_state" if ours_class is BertModel else "logits"
    a, b = getattr(mine, name), getattr(other, name)
    assert_same(*((a[real], b[real]) if a.shape[:2] == real.shape else (a, b)))
