"""Examples of several sequences, and several examples of a row: batches hold whole examples, losses come by target."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.tasks.batches import TrainingBatches, assemble, evaluation_batches
from bertsmith.tasks.features import Features, Ragged
from bertsmith.tasks.losses import ONE_OF_ITEMS

groups_of_ids = st.lists(
    st.lists(st.lists(st.integers(5, 50), min_size=1, max_size=9), min_size=1, max_size=4), min_size=1, max_size=12
)


def features(groups: list[list[list[int]]]) -> Features:
    """Choices: each sequence has its first token for an item, and each group a target."""
    flat = [sequence for group in groups for sequence in group]
    return Features(
        tokens=Ragged.of(flat),
        items=Ragged.of([[0]] * len(flat)),
        targets=np.array([[len(group) - 1] for group in groups], dtype=np.int64),
        cut_tokens=np.zeros(len(flat), dtype=np.int64),
        second_starts=np.ones(len(flat), dtype=np.int64),
        alternatives=True,
        starts=np.concatenate([[0], np.cumsum([len(group) for group in groups])]).astype(np.int64),
    )


@given(groups=groups_of_ids, data=st.data())
def test_a_batch_holds_whole_examples(groups, data):
    table = features(groups)
    chosen = data.draw(st.lists(st.integers(0, len(groups) - 1), min_size=1, max_size=6))
    batch = assemble(table, np.array(chosen), objective="choose", pad_id=0)
    wanted = [sequence for number in chosen for sequence in groups[number]]
    longest = max(map(len, wanted))
    assert batch.input_ids.tolist() == [ids + [0] * (longest - len(ids)) for ids in wanted]
    assert batch.items.tolist() == [place * longest for place in range(len(wanted))]
    owner = [place for place, number in enumerate(chosen) for _ in groups[number]]
    assert batch.item_groups is not None
    assert batch.item_groups.tolist() == owner
    assert batch.targets is not None
    assert batch.targets.tolist() == [[len(groups[number]) - 1] for number in chosen]
    assert (batch.counts, batch.example_ids) == ({"choose": len(chosen)}, tuple(chosen))


@given(groups=groups_of_ids, data=st.data())
def test_some_examples_of_a_batch_are_those(groups, data):
    table = features(groups)
    batch = assemble(table, np.arange(len(groups)), objective="choose", pad_id=0)
    chosen = data.draw(st.lists(st.integers(0, len(groups) - 1), min_size=1, unique=True))
    some, alone = batch.take(chosen), assemble(table, np.array(chosen), objective="choose", pad_id=0)
    longest = alone.input_ids.shape[1]
    assert torch.equal(some.input_ids[:, :longest], alone.input_ids)
    assert torch.equal(some.input_ids.flatten()[some.items], alone.input_ids.flatten()[alone.items])
    for name in ("targets", "item_groups", "sequence_examples"):
        assert torch.equal(getattr(some, name), getattr(alone, name)), name
    assert (some.num_tokens, some.counts, some.example_ids) == (alone.num_tokens, alone.counts, alone.example_ids)


@given(groups=groups_of_ids, data=st.data())
def test_the_batch_by_which_memory_is_measured_is_as_large_as_any(groups, data):
    """Many short choices in one example, few long ones in another: both rows and tokens are as many as can be."""
    batches = TrainingBatches(features(groups), objective="choose", pad_id=0, batch_size=4, seed=1)
    chosen = data.draw(st.lists(st.integers(0, len(groups) - 1), min_size=1, max_size=6, unique=True))
    other = assemble(batches.features, np.array(chosen), objective="choose", pad_id=0)
    largest = batches.longest(len(chosen))
    assert largest.counts == other.counts
    assert largest.input_ids.shape[0] >= other.input_ids.shape[0]
    assert largest.input_ids.shape[1] >= other.input_ids.shape[1]
    assert len(largest.input_ids) == sum(sorted(map(len, groups), reverse=True)[: len(chosen)]), "and no larger"
    assert batches.longest(20).counts == {"choose": 20}


@given(groups=groups_of_ids, batch_tokens=st.integers(1, 60), batch_size=st.integers(1, 5))
def test_every_example_comes_once(groups, batch_tokens, batch_size):
    table = features(groups)
    found = []
    for examples, batch in evaluation_batches(table, objective="choose", pad_id=0, batch_tokens=batch_tokens):
        found += examples.tolist()
        assert batch.input_ids.numel() <= batch_tokens or len(examples) == 1
    assert sorted(found) == list(range(len(groups)))
    batches = TrainingBatches(table, objective="choose", pad_id=0, batch_size=batch_size, seed=1)
    seen = [
        number for step in range(batches.steps_per_epoch) for part in batches.batch(step) for number in part.example_ids
    ]
    assert sorted(seen) == list(range(len(groups)))


@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=8), kinds=st.integers(1, 2), seed=st.integers(0, 99))
def test_the_loss_of_alternatives_is_a_softmax_over_each_example(sizes, kinds, seed):
    torch.manual_seed(seed)
    parts = [torch.randn(size, kinds, dtype=torch.float64) for size in sizes]
    targets = torch.stack([torch.randint(size, (kinds,)) for size in sizes])
    groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    expected = [
        torch.stack([-part[:, kind].log_softmax(0)[target[kind]] for kind in range(kinds)]).mean()
        for part, target in zip(parts, targets, strict=True)
    ]
    torch.testing.assert_close(ONE_OF_ITEMS.losses(torch.cat(parts), targets, groups), torch.stack(expected))


def test_rows_of_targets_where_a_row_has_several_examples():
    windows = Features(
        tokens=Ragged.of([[1, 2], [3], [4, 5, 6]]),
        items=Ragged.of([[0, 1], [0], [0, 1, 2]]),
        targets=np.zeros((3, 2), dtype=np.int64),
        cut_tokens=np.zeros(3, dtype=np.int64),
        alternatives=True,
        rows=np.array([0, 0, 1]),
    )
    assert windows.row_of_target.tolist() == [0, 0, 1]
    assert windows.item_groups.tolist() == [0, 0, 1, 2, 2, 2]
    assert len(windows) == 3
