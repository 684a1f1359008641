import random
from pathlib import Path

import numpy as np
import pytest

from bertsmith.artifact import open_artifact
from bertsmith.examples.pairs import (
    FOLLOWS,
    IN_ORDER,
    NO_PAIR,
    RANDOM,
    SWAPPED,
    Segments,
    draw_orders,
    draw_pairs,
    single_segments,
)
from bertsmith.examples.spans import Spans, open_spans
from examples_case import build_all, made_up_text, open_data

MAX_LENGTH = 64


@pytest.fixture(scope="module")
def spans(tmp_path_factory: pytest.TempPathFactory) -> Spans:
    return open_spans(open_artifact(build_all(tmp_path_factory.mktemp("pairs")), "examples"), "train")


def draw(spans: Spans, *, epochs: int = 20, seed: int = 5) -> Segments:
    ids = np.tile(np.arange(len(spans)), epochs)
    return draw_pairs(spans, ids, np.repeat(np.arange(epochs), len(spans)), seed=seed, max_length=MAX_LENGTH)


def documents_of(spans: Spans, tokens: np.ndarray) -> np.ndarray:
    return spans.document[np.searchsorted(spans.ends, tokens, side="right")]


def test_lengths_and_labels(spans: Spans) -> None:
    pairs = draw(spans)
    assert pairs.lengths.max() <= MAX_LENGTH
    assert (pairs.a_lengths > 0).all()
    assert ((pairs.b_lengths > 0) == (pairs.labels != NO_PAIR)).all()
    labelled = pairs.labels[pairs.labels != NO_PAIR]
    assert len(labelled) > 0.8 * len(pairs.labels)
    assert abs((labelled == RANDOM).mean() - 0.5) < 0.03
    share = pairs.same_document[pairs.labels == RANDOM].mean()
    assert 0.05 < share <= 0.25  # some documents are too short for it
    assert not pairs.same_document[pairs.labels != RANDOM].any()


def test_what_follows_follows(spans: Spans) -> None:
    pairs = draw(spans)
    rows = pairs.labels == FOLLOWS
    starts, ends = spans.bounds(pairs.ids)
    assert (pairs.b_starts[rows] == (pairs.a_starts + pairs.a_lengths)[rows]).all()
    assert ((pairs.b_starts + pairs.b_lengths)[rows] == ends[rows]).all()
    assert (pairs.a_starts == starts).all()


def test_where_random_partners_come_from(spans: Spans) -> None:
    pairs = draw(spans)
    a_documents, b_documents = documents_of(spans, pairs.a_starts), documents_of(spans, pairs.b_starts)
    other = (pairs.labels == RANDOM) & ~pairs.same_document
    assert (a_documents[other] != b_documents[other]).all()
    same = pairs.same_document
    assert (a_documents[same] == b_documents[same]).all()
    partners = np.searchsorted(spans.ends, pairs.b_starts, side="right")
    assert (np.abs(partners - pairs.ids)[same] >= 2).all()
    assert len(np.unique(partners[other])) > 0.9 * len(spans)
    last = np.searchsorted(spans.ends, pairs.b_starts + pairs.b_lengths - 1, side="right")
    assert (last == partners)[pairs.labels != NO_PAIR].all()


def test_the_borders_of_b_do_not_give_the_label_away(spans: Spans) -> None:
    """B begins and ends at sentence borders about as often, and is about as long, whichever the label."""
    pairs = draw(spans)
    begins = np.isin(pairs.b_starts, spans.sentence_ends)
    stops = np.isin(pairs.b_starts + pairs.b_lengths, spans.sentence_ends)
    follows, random = pairs.labels == FOLLOWS, pairs.labels == RANDOM
    assert abs(begins[follows].mean() - begins[random].mean()) < 0.1
    assert abs(stops[follows].mean() - stops[random].mean()) < 0.1
    assert abs(pairs.b_lengths[follows].mean() / pairs.b_lengths[random].mean() - 1) < 0.1
    for lengths in (pairs.b_lengths, pairs.lengths):
        bins = np.digitize(lengths, np.quantile(lengths, np.linspace(0, 1, 9)[1:-1]))
        guesses = [max((pairs.labels[bins == one] == label).sum() for label in (FOLLOWS, RANDOM)) for one in range(8)]
        assert sum(guesses) / (follows | random).sum() < 0.6


def test_pairs_change_with_epoch_and_seed_only(spans: Spans) -> None:
    whole = draw(spans, epochs=3)
    again = draw_pairs(spans, np.array([4, 9]), np.array([2, 1]), seed=5, max_length=MAX_LENGTH)
    rows = np.array([2 * len(spans) + 4, len(spans) + 9])
    for name in ("a_lengths", "b_starts", "b_lengths", "labels", "same_document"):
        assert np.array_equal(getattr(again, name), getattr(whole, name)[rows])
    by_epoch = whole.a_lengths.reshape(3, -1)
    assert (by_epoch[0] != by_epoch[1]).mean() > 0.3
    assert (draw(spans, epochs=1, seed=6).a_lengths != by_epoch[0]).mean() > 0.3


def test_one_sentence_is_split_at_a_word_or_not_at_all(tmp_path: Path) -> None:
    lines = ["Ba ker lo min tu sha re pon di vex ba ker lo min tu sha re pon di vex.", "Ba ker.", "Lo min tu."]
    examples = build_all(tmp_path, text="\n\n".join(f"{line} {number}" for number in range(9) for line in lines))
    spans = open_spans(open_artifact(examples, "examples"), "train")
    pairs = draw(spans, epochs=4)
    starts, ends = spans.bounds(pairs.ids)
    short = ends - starts < 16
    assert short.any()
    assert (pairs.labels[short] == NO_PAIR).all()
    assert (pairs.a_lengths[short] == (ends - starts)[short]).all()
    assert (pairs.labels[~short] != NO_PAIR).all()
    for start, length in zip(pairs.a_starts[~short], pairs.a_lengths[~short], strict=True):
        assert spans.read(np.array([start + length]), np.array([1]))[1][0]
        assert length >= 4


def test_a_single_document(tmp_path: Path) -> None:
    """Partners can only come from the document itself; where it is too short even for that, B follows."""
    for sentences, expects_random in ((90, True), (1, False)):
        text = "\n".join(made_up_text().split("\n")[:sentences])
        examples = build_all(tmp_path / str(sentences), text=text, validation_share=0.0)
        spans = open_spans(open_artifact(examples, "examples"), "train")
        pairs = draw(spans, epochs=8)
        assert len(np.unique(spans.document)) == 1
        assert (pairs.same_document == (pairs.labels == RANDOM)).all()
        assert pairs.same_document.any() == expects_random


def test_single_segments(spans: Spans) -> None:
    ids = np.arange(len(spans))
    rows = single_segments(spans, ids, np.zeros_like(ids))
    assert (rows.labels == NO_PAIR).all()
    assert (rows.lengths == rows.a_lengths + 2).all()
    assert rows.a_lengths.sum() == spans.ends[-1]


def begins_a_word(spans: Spans, tokens: np.ndarray) -> np.ndarray:
    """Does a word begin at each token; what is one beyond the last counts as a beginning."""
    inside = tokens < spans.ends[-1]
    begins = np.ones(len(tokens), dtype=bool)
    begins[inside] = spans.read(tokens[inside], np.ones(inside.sum(), dtype=np.int64))[1]
    return begins


@pytest.mark.parametrize("max_length", [16, 24])
def test_no_part_is_cut_inside_a_word(tmp_path: Path, max_length: int) -> None:
    """Long sentences in short examples, so that spans, splits and partners have to end inside sentences."""
    build_all(tmp_path, max_length=max_length)
    spans = open_spans(open_artifact(tmp_path / "examples", "examples"), "train")
    places = np.tile(np.arange(len(spans)), 8)
    epochs = np.repeat(np.arange(8), len(spans))
    pairs = draw_pairs(spans, places, epochs, seed=5, max_length=max_length)
    orders = draw_orders(spans, places, epochs, seed=5)
    cut_short = (pairs.labels == RANDOM) & ~np.isin(pairs.b_starts + pairs.b_lengths, spans.ends)
    assert cut_short.any(), "the case has partners that are cut short"
    for rows in (pairs, orders, single_segments(spans, places, epochs)):
        assert rows.lengths.max() <= max_length
        assert begins_a_word(spans, rows.a_starts).all()
        assert begins_a_word(spans, rows.a_starts + rows.a_lengths).all()
        has_pair = rows.b_lengths > 0
        assert (has_pair == (rows.labels != NO_PAIR)).all()
        assert begins_a_word(spans, rows.b_starts[has_pair]).all()
        assert begins_a_word(spans, (rows.b_starts + rows.b_lengths)[has_pair]).all()


def test_sentence_order(spans: Spans) -> None:
    places, epochs = np.tile(np.arange(len(spans)), 20), np.repeat(np.arange(20), len(spans))
    rows = draw_orders(spans, places, epochs, seed=5)
    starts, ends = spans.bounds(places)
    assert (rows.a_lengths + rows.b_lengths == ends - starts).all()
    swapped, in_order = rows.labels == SWAPPED, rows.labels == IN_ORDER
    assert abs(swapped.sum() / (swapped | in_order).sum() - 0.5) < 0.03
    assert (rows.a_starts[in_order] == starts[in_order]).all()
    assert (rows.b_starts[swapped] == starts[swapped]).all()
    assert ((rows.b_starts + rows.b_lengths)[swapped] == rows.a_starts[swapped]).all()
    assert ((rows.a_starts + rows.a_lengths)[in_order] == rows.b_starts[in_order]).all()
    assert not rows.same_document.any()
    assert (rows.labels[:: len(spans)] != rows.labels[0]).any()


def test_words_longer_than_an_example(tmp_path: Path) -> None:
    """Nothing fits: spans of one torn word, partners without a word's beginning in them. All still has a shape."""
    draw_letters = random.Random(5)
    words = ["".join(draw_letters.choices("bakerlomintu", k=draw_letters.choice([2, 60, 90]))) for _ in range(600)]
    sentences = [" ".join(draw_letters.choices(words, k=draw_letters.randint(1, 4))) + "." for _ in range(400)]
    text = "\n\n".join("\n".join(sentences[start : start + 8]) for start in range(0, 400, 8))
    build_all(tmp_path, text=text, max_length=24)
    spans = open_spans(open_artifact(tmp_path / "examples", "examples"), "train")
    places, epochs = np.tile(np.arange(len(spans)), 30), np.repeat(np.arange(30), len(spans))
    pairs = draw_pairs(spans, places, epochs, seed=5, max_length=24)
    assert pairs.lengths.max() <= 24
    assert (pairs.a_lengths > 0).all()
    assert ((pairs.b_lengths > 0) == (pairs.labels != NO_PAIR)).all()
    b_ends = pairs.b_starts + pairs.b_lengths
    span, last = (np.searchsorted(spans.ends, tokens, side="right") for tokens in (pairs.b_starts, b_ends - 1))
    assert (span == last)[pairs.b_lengths > 0].all(), "a part goes on into another span"
    for mask_by in ("word", "span"):
        data = open_data(tmp_path / "examples", mask_by=mask_by)
        assert all(data.batch(step, 16, 16)[0].counts["mlm"] >= 16 for step in range(40))
