import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.examples.draws import example_keys, hash_counters
from bertsmith.examples.mask import budgets, mask_tokens

REPLACEMENTS = np.arange(10, 1000)
MASK = 4


def mask(ids: np.ndarray, maskable: np.ndarray, *, share: float = 0.15, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    keys = example_keys("mask", seed, np.zeros(len(ids), dtype=np.int64), np.arange(len(ids)))
    return mask_tokens(ids, maskable, keys, share=share, mask_id=MASK, replacements=REPLACEMENTS)


@given(
    rows=st.integers(1, 6),
    length=st.integers(1, 64),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 10**6),
)
def test_the_budget_is_exact(rows: int, length: int, share: float, seed: int) -> None:
    bits = hash_counters(np.uint64(seed), np.arange(rows * length)).reshape(rows, length)
    maskable = bits % 4 > 0
    ids = np.full((rows, length), 500)
    hidden, chosen = mask(ids, maskable, share=share, seed=seed)
    count = maskable.sum(axis=1)
    wanted = np.where(count > 0, np.maximum(1, np.floor(count * share + 0.5)), 0)
    assert chosen.sum(axis=1).tolist() == wanted.tolist()
    assert not (chosen & ~maskable).any()
    assert (hidden[~chosen] == 500).all()
    assert np.isin(hidden[chosen], [500, MASK, *REPLACEMENTS]).all()


def test_budgets() -> None:
    counts = np.array([0, 1, 3, 10, 17, 126])
    assert budgets(counts, 0.15).tolist() == [0, 1, 1, 2, 3, 19]


def test_eighty_ten_ten() -> None:
    ids = np.full((400, 128), 5)
    hidden, chosen = mask(ids, np.ones_like(ids, dtype=bool))
    values = hidden[chosen]
    assert abs((values == MASK).mean() - 0.8) < 0.02
    assert abs((values == 5).mean() - 0.1) < 0.015
    random = values[(values != MASK) & (values != 5)]
    assert random.min() >= 10
    assert len(np.unique(random)) > 400


def test_positions_are_chosen_evenly() -> None:
    ids = np.full((4000, 40), 5)
    _, chosen = mask(ids, np.ones_like(ids, dtype=bool))
    assert np.abs(chosen.mean(axis=0) - 0.15).max() < 0.03


@pytest.mark.parametrize("padding", [1, 40])
def test_padding_and_neighbours_change_nothing(padding: int) -> None:
    ids = np.arange(10, 10 + 6 * 20).reshape(6, 20)
    hidden, chosen = mask(ids, np.ones_like(ids, dtype=bool))
    wide = np.pad(ids, ((0, 0), (0, padding)))
    hidden_wide, chosen_wide = mask(wide, wide > 0)
    assert np.array_equal(hidden_wide[:, :20], hidden)
    assert np.array_equal(chosen_wide[:, :20], chosen)
    assert not chosen_wide[:, 20:].any()


# ---- whole words and spans ----


def example_words(costs: list[list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, what may be masked and word starts of `[CLS] words ... [SEP]`, a row for each list of words' lengths."""
    width = max(map(sum, costs)) + 2
    ids, maskable, starts = np.full((len(costs), width), 500), np.zeros((len(costs), width), bool), None
    starts = np.ones_like(maskable)
    for row, words in enumerate(costs):
        maskable[row, 1 : 1 + sum(words)] = True
        starts[row, 1 : 1 + sum(words)] = False
        starts[row, 1 + np.cumsum([0, *words[:-1]])] = True
    return ids, maskable, starts


def mask_words(
    ids: np.ndarray, maskable: np.ndarray, starts: np.ndarray, *, by: str, share: float = 0.15, seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.arange(len(ids))
    keys = example_keys("mask", seed, np.zeros_like(numbers), numbers)
    return mask_tokens(
        ids, maskable, keys, share=share, mask_id=MASK, replacements=REPLACEMENTS, by=by, word_starts=starts
    )  # type: ignore[arg-type]


@given(
    costs=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=30), min_size=1, max_size=6),
    share=st.floats(0.01, 0.9),
    seed=st.integers(0, 10**6),
    by=st.sampled_from(["word", "span"]),
)
def test_whole_words_within_the_budget_and_at_least_one(
    costs: list[list[int]], share: float, seed: int, by: str
) -> None:
    ids, maskable, starts = example_words(costs)
    hidden, chosen = mask_words(ids, maskable, starts, by=by, share=share, seed=seed)
    assert not (chosen & ~maskable).any()
    assert (hidden[~chosen] == 500).all()
    for row, words in enumerate(costs):
        parts = np.split(chosen[row, 1 : 1 + sum(words)], np.cumsum(words)[:-1])
        assert all(part.all() or not part.any() for part in parts), "a word is hidden in part"
        hit = [word for word, part in zip(words, parts, strict=True) if part.all()]
        budget = max(1, int(sum(words) * share + 0.5))
        assert len(hit) >= 1
        assert sum(hit) <= budget or (len(hit) == 1 and min(words) > budget)
        spared = [word for word, part in zip(words, parts, strict=True) if not part.any()]
        if by == "word" and sum(hit) < budget:
            assert all(sum(hit) + word > budget for word in spared), "there was room for another word"


@pytest.mark.parametrize("by", ["word", "span"])
def test_words_next_to_others_and_padding_change_nothing(by: str) -> None:
    draw = np.random.default_rng(3)
    costs = [draw.integers(1, 5, size=draw.integers(3, 40)).tolist() for _ in range(12)]
    whole = mask_words(*example_words(costs), by=by)[1]
    for row in range(12):
        ids, maskable, starts = example_words([costs[row]])
        keys = example_keys("mask", 1, np.zeros(1, dtype=np.int64), np.array([row]))
        alone = mask_tokens(
            ids, maskable, keys, share=0.15, mask_id=MASK, replacements=REPLACEMENTS, by=by, word_starts=starts
        )[1]  # type: ignore[arg-type]
        assert np.array_equal(whole[row, : alone.shape[1]], alone[0])


def test_every_word_has_its_turn() -> None:
    costs = [[1, 2, 3, 1, 2, 1, 4, 1, 2, 3]] * 3000
    _, chosen = mask_words(*example_words(costs), by="word", share=0.3)
    share = chosen.mean(axis=0)[1:-1]
    assert share.min() > 0.15
    assert abs(chosen.sum(axis=1).mean() - 6) < 0.1


def test_words_that_may_not_be_masked_are_left_and_end_a_span() -> None:
    ids, maskable, starts = example_words([[1] * 40] * 500)
    maskable[:, 11::10] = False
    for by in ("word", "span"):
        _, chosen = mask_words(ids, maskable, starts, by=by, share=0.5)
        assert (chosen.sum(axis=1) == np.floor(maskable.sum(axis=1) * 0.5 + 0.5)).all()
        assert not chosen[:, 11::10].any()


def runs_of(chosen: np.ndarray) -> list[int]:
    """Lengths of runs of chosen tokens."""
    edges = np.diff(np.pad(chosen, ((0, 0), (1, 1))).astype(int), axis=1)
    return (np.nonzero(edges == -1)[1] - np.nonzero(edges == 1)[1]).tolist()


def test_spans_are_as_long_as_in_the_paper() -> None:
    """Lengths are geometric with p = 0.2 up to 10: 3.8 words on the average. One span of a long row shows them."""
    _, maskable, starts = example_words([[1] * 400] * 400)
    ids = np.full(maskable.shape, 500)
    runs = runs_of(mask_words(ids, maskable, starts, by="span", share=0.05)[1])
    assert 3.3 < np.mean(runs) < 4.3
    assert np.quantile(runs, 0.99) <= 15  # two may touch
    single = runs_of(mask_words(ids, maskable, starts, by="word", share=0.05)[1])
    assert np.mean(single) < 1.2


def test_eighty_ten_ten_by_token_in_words_and_by_span_in_spans() -> None:
    ids, maskable, starts = example_words([[2] * 50] * 4000)
    for by, alike in (("word", False), ("span", True)):
        hidden, chosen = mask_words(ids, maskable, starts, by=by)
        values = hidden[chosen]
        assert abs((values == MASK).mean() - 0.8) < 0.03
        assert abs((values == 500).mean() - 0.1) < 0.02
        words = (hidden == MASK)[chosen].reshape(-1, 2)
        assert (words[:, 0] == words[:, 1]).all() == alike
