"""Splits and folds that are made: parts of the whole, stratified, groups in one piece, by seed and content alone."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.errors import DataError, UsageError
from bertsmith.tasks.partition import folds_of, held_out
from bertsmith.tasks.rows import QuestionRow, TextRow
from finetune_case import split_rows

LABELS = st.lists(st.sampled_from("aabc"), min_size=2, max_size=120)
GROUPED = st.lists(st.tuples(st.sampled_from("aab"), st.integers(0, 8)), min_size=4, max_size=80)


def rows_of(labels: list[str]) -> list[TextRow[str]]:
    return [TextRow(f"text {number}", label, number) for number, label in enumerate(labels)]


@given(
    labels=st.lists(st.sampled_from("aabc"), min_size=2, max_size=200),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
)
def test_split_is_stratified_to_within_one_row(labels: list[str], share: float, seed: int) -> None:
    rows = [TextRow(f"text {number}", label, number) for number, label in enumerate(labels)]
    train, validation = split_rows(rows, share, seed)
    assert sorted([*train, *validation], key=lambda row: row.line) == rows
    wanted = min(max(round(len(rows) * share), 1), len(rows) - 1)
    assert len(validation) == wanted
    for label in set(labels):
        taken = sum(row.label == label for row in validation)
        assert abs(taken - labels.count(label) * wanted / len(rows)) <= 1


def test_split_depends_on_seed_and_content_not_on_order() -> None:
    rows = [TextRow(f"text {number}", "ab"[number % 2], number) for number in range(100)]
    first = split_rows(rows, 0.2, 1)
    assert first == split_rows(rows, 0.2, 1)
    assert first != split_rows(rows, 0.2, 2)
    backwards = split_rows(rows[::-1], 0.2, 1)
    assert {row.text for row in backwards[1]} == {row.text for row in first[1]}


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_split_refuses_shares_that_leave_nothing(share: float) -> None:
    with pytest.raises(UsageError, match="more than 0 and less than 1"):
        split_rows([TextRow("a", "x", 1), TextRow("b", "y", 2)], share, 1)


@given(labels=LABELS, folds=st.integers(2, 7), seed=st.integers(0, 5))
def test_folds_are_a_partition_and_stratified_to_within_one_row(labels: list[str], folds: int, seed: int) -> None:
    rows = rows_of(labels)
    folds = min(folds, len(rows))
    places = folds_of(rows, folds, seed)
    assert places.shape == (len(rows),)
    sizes = np.bincount(places, minlength=folds)
    assert len(sizes) == folds
    assert sizes.max() - sizes.min() <= 1
    for label in set(labels):
        own = np.bincount(places[[row.label == label for row in rows]], minlength=folds)
        assert own.max() - own.min() <= 1


@given(pairs=GROUPED, folds=st.integers(2, 5), seed=st.integers(0, 5))
def test_groups_are_dealt_whole_and_no_fold_is_empty(pairs: list[tuple[str, int]], folds: int, seed: int) -> None:
    rows, groups = rows_of([label for label, _ in pairs]), [str(group) for _, group in pairs]
    if len(set(groups)) < folds:
        with pytest.raises(UsageError, match=rf"{folds} folds of {len(set(groups))} (rows|groups); give from 2 to"):
            folds_of(rows, folds, seed, groups=groups)
        return
    places = folds_of(rows, folds, seed, groups=groups)
    assert set(places.tolist()) == set(range(folds))
    of_group = {
        group: {place for place, own in zip(places.tolist(), groups, strict=True) if own == group} for group in groups
    }
    assert all(len(found) == 1 for found in of_group.values())


@given(sizes=st.lists(st.integers(1, 9), min_size=3, max_size=30), seed=st.integers(0, 5))
def test_folds_of_groups_with_one_label_differ_by_no_more_than_the_largest_group(sizes: list[int], seed: int) -> None:
    groups = [str(number) for number, size in enumerate(sizes) for _ in range(size)]
    found = np.bincount(folds_of(rows_of(["a"] * len(groups)), 3, seed, groups=groups))
    assert found.max() - found.min() <= max(sizes)


@given(pairs=GROUPED, share=st.floats(0.1, 0.9), seed=st.integers(0, 3))
def test_groups_are_held_out_whole(pairs: list[tuple[str, int]], share: float, seed: int) -> None:
    rows, groups = rows_of([label for label, _ in pairs]), [str(group) for _, group in pairs]
    if len(set(groups)) < 2:
        with pytest.raises(
            DataError, match="rows of one group, or on one text, cannot be split into training and test"
        ):
            held_out(rows, share, seed, groups=groups, what="test")
        return
    held = set(held_out(rows, share, seed, groups=groups))
    inside = {groups[number] for number in held}
    assert inside.isdisjoint(groups[number] for number in range(len(rows)) if number not in held)
    assert 0 < len(held) < len(rows)


def test_groups_share_the_labels_among_the_folds() -> None:
    """Forty people with three rows each, of whom a quarter have the rare label."""
    groups = [f"person {number}" for number in range(40) for _ in range(3)]
    labels = ["rare" if number % 4 == 0 else "usual" for number in range(40) for _ in range(3)]
    places = folds_of(rows_of(labels), 5, 1, groups=groups)
    found = Counter(zip(places.tolist(), labels, strict=True))
    assert {found[fold, "rare"] for fold in range(5)} == {6}
    assert {found[fold, "usual"] for fold in range(5)} == {18}


def test_numbers_are_spread_over_folds_of_groups() -> None:
    groups = [str(number // 2) for number in range(80)]
    rows = [TextRow(f"text {number}", float(number), number) for number in range(80)]
    places = folds_of(rows, 4, 1, groups=groups)
    assert np.bincount(places).tolist() == [20] * 4
    means = [np.mean(np.flatnonzero(places == fold)) for fold in range(4)]
    assert max(means) - min(means) < 8


def test_rows_without_a_group_stand_alone_and_questions_go_with_their_article() -> None:
    rows = rows_of(["a"] * 6)
    assert np.bincount(folds_of(rows, 3, 1, groups=[None] * 6)).tolist() == [2, 2, 2]
    asked = [QuestionRow("q", "text", (("a", 0),), line, source=f"article {line % 4}") for line in range(12)]
    places = folds_of(asked, 4, 1)
    assert [len({int(places[line]) for line in range(12) if line % 4 == one}) for one in range(4)] == [1] * 4


def test_folds_depend_on_seed_and_content_not_on_order() -> None:
    rows = rows_of(["ab"[number % 2] for number in range(60)])
    first = folds_of(rows, 5, 1)
    backwards = folds_of(rows[::-1], 5, 1)[::-1]
    assert first.tolist() == backwards.tolist()
    assert first.tolist() != folds_of(rows, 5, 2).tolist()


@pytest.mark.parametrize("folds", [0, 1, 5])
def test_folds_that_cannot_be(folds: int) -> None:
    with pytest.raises(UsageError, match=f"{folds} folds of 4 rows; give from 2 to 4"):
        folds_of(rows_of(["a", "b", "a", "b"]), folds, 1)
