"""Position embeddings that start from sine waves."""

import pytest
import torch

from bertsmith.model import BertForMaskedLM, BertForTokenClassification, preset
from bertsmith.model.positions import sinusoids, start_positions
from bertsmith.model.pretrained import Pretrained


def test_a_shift_is_the_same_rotation_everywhere() -> None:
    sines, cosines = sinusoids(600, 16).double().chunk(2, dim=1)
    for shift in (1, 7):
        turn = torch.atan2(sines[shift], cosines[shift])
        expected = sines[:-shift] * turn.cos() + cosines[:-shift] * turn.sin()
        assert torch.allclose(sines[shift:], expected, atol=1e-4)  # angles up to 600 in float32


def test_an_odd_width_has_as_many_columns() -> None:
    assert sinusoids(5, 33).shape == (5, 33)


def test_no_two_of_512_positions_are_alike_and_neighbours_are_most_alike() -> None:
    table = sinusoids(512, 64)
    likeness = table @ table.T
    likeness.fill_diagonal_(-torch.inf)
    assert torch.cdist(table, table).add(torch.eye(512) * 99).min() > 0.1
    assert ((likeness.argmax(dim=1) - torch.arange(512)).abs() == 1).all()


@pytest.mark.parametrize("network", [BertForMaskedLM, BertForTokenClassification])
def test_only_position_embeddings_change_and_they_are_learned_on(network: type[Pretrained]) -> None:
    torch.manual_seed(0)
    model = network(preset("tiny", {"vocab_size": 99, "initializer_range": 0.05}))
    before = {name: value.clone() for name, value in model.named_parameters()}
    start_positions(model, "random")
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())
    start_positions(model, "sinusoids")
    changed = {name for name, value in model.named_parameters() if not torch.equal(before[name], value)}
    assert changed == {"bert.embeddings.position_embeddings.weight"}
    table = dict(model.named_parameters())["bert.embeddings.position_embeddings.weight"]
    assert table.requires_grad
    assert float(table.detach().abs().max()) == pytest.approx(0.1, rel=1e-3)  # twice initializer_range
