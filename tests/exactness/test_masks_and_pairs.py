"""Promises 4 and 5: each mask, pair and order is a pure function of (seed, epoch, example id).

So any step can be asked for at once, in any process, by any rank, in micro-batches of any size.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertsmith.examples import shards
from bertsmith.examples.assemble import PretrainBatch
from examples_case import build_all, open_data

Row = tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...], int, bool]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_all(tmp_path_factory.mktemp("exactness"))


@pytest.fixture(scope="module")
def many_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "_BLOCK_TOKENS", 1500)
        return build_all(tmp_path_factory.mktemp("blocks"))


def rows_of(batches: list[PretrainBatch]) -> dict[int, list[Row]]:
    """Every example as a value that knows nothing of its batch: tokens, types, masks, label."""
    found: dict[int, list[Row]] = {}
    for batch in batches:
        width = batch.input_ids.shape[1]
        masks: dict[int, list[tuple[int, int]]] = {}
        for position, label in zip(batch.masked_positions.tolist(), batch.masked_labels.tolist(), strict=True):
            if label != -100:
                masks.setdefault(position // width, []).append((position % width, label))
        for row, number in enumerate(batch.example_ids):
            length = int(batch.attention_mask[row].sum())
            value = (
                tuple(batch.input_ids[row, :length].tolist()),
                tuple(batch.token_type_ids[row, :length].tolist()),
                tuple(masks.get(row, [])),
                int(batch.next_sentence_label[row]),
                bool(batch.same_document_negative[row]),
            )
            found.setdefault(number, []).append(value)
    return {number: sorted(values) for number, values in found.items()}


@settings(max_examples=25, deadline=None)
@given(step=st.integers(0, 3000), micro=st.integers(1, 12), world_size=st.integers(1, 12))
def test_ranks_and_micro_batches_share_the_same_examples(
    examples: Path, step: int, micro: int, world_size: int
) -> None:
    data = open_data(examples)
    whole = rows_of(data.batch(step, 12, 12))
    assert sum(map(len, whole.values())) == 12
    parts = [
        batch for rank in range(world_size) for batch in data.batch(step, 12, micro, rank=rank, world_size=world_size)
    ]
    assert rows_of(parts) == whole
    counts = {name: sum(batch.counts[name] for batch in parts) for name in ("mlm", "nsp")}
    assert counts == data.batch(step, 12, 12)[0].counts


def test_any_step_without_the_steps_before(examples: Path) -> None:
    walked = open_data(examples)
    steps = {step: walked.batch(step, 8, 8)[0] for step in range(60)}
    for step in (59, 17, 0, 16, 15):
        sought = open_data(examples).batch(step, 8, 8)[0]
        for name in ("input_ids", "masked_positions", "masked_labels", "next_sentence_label", "token_type_ids"):
            assert torch.equal(getattr(sought, name), getattr(steps[step], name))


def test_a_step_far_away_is_found_at_once(many_blocks: Path) -> None:
    """Epochs by the hundred million lie before it; what is drawn depends on none of them."""
    far = 10**10
    for settings_ in ({}, {"window_tokens": 4000}):
        one = open_data(many_blocks, **settings_).batch(far, 12, 12)
        data = open_data(many_blocks, **settings_)
        data.batch(7, 12, 12)
        assert rows_of(data.batch(far, 12, 12)) == rows_of(one)


def test_an_example_is_drawn_anew_each_epoch_and_by_each_seed(examples: Path) -> None:
    data = open_data(examples)
    per_epoch = -(-data.num_examples // 16)
    epochs = [
        rows_of([data.batch(start + step, 16, 16)[0] for step in range(per_epoch)]) for start in (0, 5 * per_epoch)
    ]
    both = epochs[0].keys() & epochs[1].keys()
    assert len(both) > 0.5 * data.num_examples
    assert np.mean([epochs[0][number] == epochs[1][number] for number in both]) < 0.02
    other = rows_of([open_data(examples, seed=12).batch(step, 16, 16)[0] for step in range(per_epoch)])
    same = other.keys() & epochs[0].keys()
    assert np.mean([other[number] == epochs[0][number] for number in same]) < 0.02


def test_another_process_draws_the_same(examples: Path) -> None:
    script = (
        "import sys, hashlib; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from examples_case import open_data\n"
        "batch = open_data(Path(sys.argv[1])).batch(123, 12, 12)[0]\n"
        "print(hashlib.sha256(batch.input_ids.numpy().tobytes() + batch.masked_labels.numpy().tobytes()).hexdigest())"
    )
    folder = str(Path(__file__).parents[1])
    other = subprocess.run(
        [sys.executable, "-c", script, str(examples), folder], check=True, capture_output=True, text=True
    ).stdout.strip()
    batch = open_data(examples).batch(123, 12, 12)[0]
    ours = hashlib.sha256(batch.input_ids.numpy().tobytes() + batch.masked_labels.numpy().tobytes())
    assert other == ours.hexdigest()


KINDS = [
    {"mask_by": "word"},
    {"mask_by": "span"},
    {"objectives": ("mlm", "sop"), "mask_by": "word"},
    {"objectives": ("mlm",), "window_tokens": 1},
    {"window_tokens": 4000, "mask_by": "word"},
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@settings(max_examples=6, deadline=None)
@given(step=st.integers(0, 2000), micro=st.integers(1, 12), world_size=st.integers(1, 12))
def test_of_every_kind(many_blocks: Path, kind: dict[str, object], step: int, micro: int, world_size: int) -> None:
    """Words and spans, sentence order, single spans, windows of some blocks: ranks share, any step is found at once."""
    whole = rows_of(open_data(many_blocks, **kind).batch(step, 12, 12))
    data = open_data(many_blocks, **kind)
    data.batch(step + 1, 12, 12)
    parts = [
        batch for rank in range(world_size) for batch in data.batch(step, 12, micro, rank=rank, world_size=world_size)
    ]
    assert rows_of(parts) == whole
    assert sum(map(len, whole.values())) == 12
    assert all(masks for values in whole.values() for _, _, masks, _, _ in values), "an example with nothing masked"


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_kind_is_drawn_anew_each_epoch(many_blocks: Path, kind: dict[str, object]) -> None:
    data = open_data(many_blocks, **kind)
    size = data.num_examples
    first, second = (rows_of([data.at(range(epoch * size, (epoch + 1) * size))]) for epoch in (0, 1))
    assert first.keys() == second.keys() == set(range(size))
    assert np.mean([first[number] == second[number] for number in range(size)]) < 0.05


def test_blocks_of_a_window_do_not_change_what_is_in_it(examples: Path, many_blocks: Path) -> None:
    """While one window holds all, it does not matter into how many blocks the text was cut."""
    for step in (0, 40):
        one, many = (open_data(folder, mask_by="word").batch(step, 12, 12)[0] for folder in (examples, many_blocks))
        assert torch.equal(one.input_ids, many.input_ids)
        assert torch.equal(one.masked_positions, many.masked_positions)
