"""Agreement and smoothness: against the formula written out, their gradients, and what they leave alone."""

import pytest
import torch

from bertsmith.config import parse_recipe
from bertsmith.errors import RecipeError
from bertsmith.examples.assemble import PretrainBatch
from bertsmith.model import BertForMaskedLM, preset
from bertsmith.training.objectives import agreement_loss_sum, cls_of_unmasked, smoothness_loss_sum


def _states() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(3, 5, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    cls = torch.randn(3, 4, dtype=torch.float64, generator=generator)
    is_real = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]).bool()
    return states, cls, is_real


def test_agreement_is_its_formula() -> None:
    states, cls, is_real = _states()
    expected = 0.0
    for row in range(3):
        for h, real in zip(states[row], is_real[row], strict=True):
            if real:
                expected += (1 - h @ cls[row] / (h.norm() * cls[row].norm())).item()
    assert agreement_loss_sum(states, cls, is_real).item() == pytest.approx(expected, rel=1e-12)


def test_smoothness_is_its_formula() -> None:
    states, _, is_real = _states()
    expected = 0.0
    for row, tokens in enumerate(is_real.sum(dim=1).tolist()):
        for t in range(tokens - 1):
            expected += ((states[row, t + 1] - states[row, t]) ** 2).sum().item()
    assert smoothness_loss_sum(states, is_real).item() == pytest.approx(expected, rel=1e-12)


def test_gradients() -> None:
    states, cls, is_real = _states()
    assert torch.autograd.gradcheck(lambda s: agreement_loss_sum(s, cls, is_real), (states,))
    assert torch.autograd.gradcheck(lambda s: smoothness_loss_sum(s, is_real), (states,))
    (agreement_loss_sum(states, cls, is_real) + smoothness_loss_sum(states, is_real)).backward()
    assert states.grad is not None
    assert not states.grad[~is_real].any(), "padding has a gradient"


@pytest.mark.parametrize(
    ("pretrain", "message"),
    [
        ({"objectives": ["nsp", "agreement"], "max_steps": 1}, "without 'mlm'"),
        ({"weights": {"sop": 2.0}, "max_steps": 1}, "weights names 'sop', which is not in objectives"),
        ({"phases": [{"max_step": 3}]}, r"phases\[0\]: 'max_step' is no key of a phase; did you mean 'max_steps'"),
        ({"phases": [{"max_steps": 3, "seed": 1}]}, r"'seed' is no key of a phase; it is of the whole run"),
        ({"phases": [{"max_steps": 3}, {"batch_size": 8}]}, r"phases\[1\]: needs max_steps or budget_minutes"),
        ({"phases": [{"max_steps": 0}]}, r"phases\[0\]: max_steps"),
        ({"mask_share": [0.3, 1.2], "max_steps": 1}, "mask_share"),
    ],
)
def test_wrong_settings_are_refused_with_the_reason(pretrain: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe({"name": "x", "corpus": {}, "tokenizer": {}, "examples": {}, "pretrain": pretrain})


def test_a_phase_s_end_replaces_the_one_said_for_all() -> None:
    raw = {"budget_minutes": 3, "learning_rate": 1e-3, "phases": [{"max_steps": 2}, {"learning_rate": 1e-4}]}
    recipe = parse_recipe({"name": "x", "corpus": {}, "tokenizer": {}, "examples": {}, "pretrain": raw})
    assert recipe.pretrain is not None
    first, second = recipe.pretrain.each_phase()
    assert (first.max_steps, first.budget_minutes, first.learning_rate) == (2, None, 1e-3)
    assert (second.max_steps, second.budget_minutes, second.learning_rate) == (None, 3, 1e-4)


def test_the_cls_state_of_the_unmasked_text_has_neither_dropout_nor_gradient() -> None:
    torch.manual_seed(0)
    model = BertForMaskedLM(preset("tiny", {"vocab_size": 50, "num_hidden_layers": 1})).train()
    ids = torch.tensor([[2, 7, 4, 9, 3]])
    batch = PretrainBatch(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        token_type_ids=torch.zeros_like(ids),
        masked_positions=torch.tensor([2, 0]),
        masked_labels=torch.tensor([8, -100]),
        next_sentence_label=torch.tensor([-100]),
        same_document_negative=torch.tensor([False]),
        counts={"mlm": 1},
        num_tokens=5,
        example_ids=(0,),
    )
    found = cls_of_unmasked(model, batch)
    assert model.training
    assert all(module.training for module in model.modules())
    assert not found.requires_grad
    model.eval()
    with torch.no_grad():
        expected = model.bert(torch.tensor([[2, 7, 8, 9, 3]]), batch.attention_mask, batch.token_type_ids)
    torch.testing.assert_close(found, expected.last_hidden_state[:, 0], rtol=0, atol=0)
