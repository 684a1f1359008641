"""Scores where their denominators vanish, and intervals that cover what resampling covers."""

import numpy as np
import pytest

from bertsmith.tasks import resampling
from bertsmith.tasks.metrics import (
    CLASSIFICATION_SCORES,
    are_entities,
    class_report,
    classification_interval,
    confusion_matrix,
    entities,
    score_classification,
    score_tags,
    tag_counts,
    tag_interval,
    tag_report,
)


def test_confusion_matrix_has_true_labels_in_rows() -> None:
    assert confusion_matrix(["a", "a", "b"], ["a", "b", "b"], ["a", "b", "c"]).tolist() == [
        [1, 1, 0],
        [0, 1, 0],
        [0, 0, 0],
    ]


def test_one_class_gives_matthews_0_not_a_warning() -> None:
    scores = score_classification(["a", "a"], ["a", "a"], ["a", "b"])
    assert scores == dict.fromkeys(CLASSIFICATION_SCORES, 1) | {"matthews": 0, "positive_f1": 0}
    assert score_classification(["a", "b"], ["a", "a"], ["a", "b"])["matthews"] == 0


def test_worked_example_of_a_report() -> None:
    report = class_report(["a", "a", "a", "b"], ["a", "a", "b", "b"], ["a", "b", "c"])
    assert report["a"] == {"precision": 1.0, "recall": 2 / 3, "f1": 0.8, "support": 3.0}
    assert report["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0.0}


@pytest.mark.parametrize(("labels", "predictions"), [([], []), (["a"], []), (["a"], ["a", "a"])])
def test_unequal_or_no_rows_are_refused(labels: list[str], predictions: list[str]) -> None:
    with pytest.raises(ValueError, match="need equal"):
        score_classification(labels, predictions, ["a"])
    with pytest.raises(ValueError, match="need equal"):
        score_tags([labels] if labels else [], [predictions] if predictions else [], ["a", "O"])


@pytest.mark.parametrize(
    ("names", "answer"),
    [
        (["O", "B-PER", "I-PER"], True),
        (["S-x", "E-x", "O"], True),
        (["B", "I", "O"], True),
        (["CODE", "O"], False),
        (["NOUN", "VERB", "B"], False),
        (["O"], False),
        (["E", "I", "N"], False),
        (["BE-FORM", "O"], False),
    ],
)
def test_are_entities(names: list[str], answer: bool) -> None:
    assert are_entities(names) is answer


def test_entities_lenient_and_strict() -> None:
    tags = ["I-x", "I-x", "O", "B-x", "I-y", "I-y", "B-a-b", "I-a-b", "S-x", "E-x", "B"]
    assert entities(tags) == [
        ("x", 0, 2), ("x", 3, 4), ("y", 4, 6), ("a-b", 6, 8), ("x", 8, 9), ("x", 9, 10), ("_", 10, 11)
    ]  # fmt: skip
    assert entities(["I-x", "B-x", "I-x", "I-y", "I-x", "O"], strict=True) == [("x", 1, 3)]


def test_words_are_scored_where_labels_have_no_prefixes() -> None:
    labels, predictions = [["CODE", "CODE", "O", "O"]], [["CODE", "O", "CODE", "O"]]
    assert score_tags(labels, predictions, ["CODE", "O"]) == {
        "precision": 0.5,
        "recall": 0.5,
        "f1": 0.5,
        "accuracy": 0.5,
    }
    assert tag_counts(labels, predictions, ["CODE", "O"]).tolist() == [[1, 2, 2, 2, 4]]
    assert tag_report(labels, predictions, ["CODE", "O"])["CODE"]["support"] == 2


def test_no_entity_anywhere_scores_0() -> None:
    scores = score_tags([["O", "O"]], [["O", "O"]], ["O", "B-x"])
    assert scores == {"precision": 0, "recall": 0, "f1": 0, "accuracy": 1}


def test_sentences_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 labels and 1 predictions"):
        score_tags([["O", "O"]], [["O"]], ["O", "X"])


def noisy(count: int, right: float, names: list[str]) -> tuple[list[str], list[str]]:
    generator = np.random.default_rng(0)
    labels = [str(label) for label in generator.choice(names, count)]
    guesses = generator.choice(names, count)
    return labels, [
        label if generator.random() < right else str(guess) for label, guess in zip(labels, guesses, strict=True)
    ]


@pytest.mark.parametrize("metric", [*CLASSIFICATION_SCORES, "positive_f1"])
def test_interval_is_that_of_resampled_rows(metric: str) -> None:
    names = ["a", "b"] if metric == "positive_f1" else ["a", "b", "c"]
    labels, predictions = noisy(300, 0.6, names)
    generator = np.random.default_rng(1)
    scores = []
    for _ in range(1000):
        rows = generator.integers(0, 300, 300)
        resampled = score_classification([labels[row] for row in rows], [predictions[row] for row in rows], names)
        scores.append(resampled[metric])
    expected = np.quantile(scores, [0.025, 0.975])
    interval = classification_interval(labels, predictions, names, metric, seed=3)
    assert interval == pytest.approx(tuple(expected), abs=0.015)


def test_tag_interval_resamples_sentences_not_words() -> None:
    # Words of a sentence are all right or all wrong: as good as 40 observations, though there are 800 words.
    labels = [["CODE"] * 20] * 40
    predictions = [["CODE"] * 20] * 20 + [["O"] * 20] * 20
    low, high = tag_interval(labels, predictions, ["CODE", "O"], "accuracy", seed=1)
    half_width = 1.96 * np.sqrt(0.25 / 40)
    assert (low, high) == pytest.approx((0.5 - half_width, 0.5 + half_width), abs=0.03)


def test_intervals_are_the_same_each_time_and_in_any_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, predictions = noisy(100, 0.5, ["a", "b"])
    first = classification_interval(labels, predictions, ["a", "b"], "macro_f1", seed=1)
    assert first != classification_interval(labels, predictions, ["a", "b"], "macro_f1", seed=2)
    monkeypatch.setattr(resampling, "_CELLS", 28)
    assert first == classification_interval(labels, predictions, ["a", "b"], "macro_f1", seed=1)


def test_interval_of_certainty_is_a_point() -> None:
    assert classification_interval(["a", "b"] * 50, ["a", "b"] * 50, ["a", "b"], "accuracy", seed=1) == (1.0, 1.0)
