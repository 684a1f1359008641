"""Our scores equal scikit-learn's and seqeval's on any labels and predictions."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from bertsmith.tasks.metrics import (
    TAG_SCORES,
    class_report,
    confusion_matrix,
    entities,
    score_classification,
    score_multilabel,
    score_tags,
    tag_report,
)
from bertsmith.tasks.roc import roc_auc, roc_auc_interval

seqeval_labeling = pytest.importorskip("seqeval.metrics.sequence_labeling")
seqeval_metrics = pytest.importorskip("seqeval.metrics")
seqeval_scheme = pytest.importorskip("seqeval.scheme")

NAMES = ("a", "b", "c", "d")
TYPES = ("person", "creative-work", "x")


def pairs(label: st.SearchStrategy[str]) -> st.SearchStrategy[list[tuple[str, str]]]:
    return st.lists(st.tuples(label, label), min_size=1, max_size=40)


def tagged(prefixes: str) -> st.SearchStrategy[list[list[tuple[str, str]]]]:
    tag = st.one_of(st.just("O"), st.builds("{}-{}".format, st.sampled_from(prefixes), st.sampled_from(TYPES)))
    return st.lists(st.lists(st.tuples(tag, tag), min_size=1, max_size=12), min_size=1, max_size=5)


def unzip(sentences: list[list[tuple[str, str]]]) -> tuple[list[list[str]], list[list[str]]]:
    return [[true for true, _ in s] for s in sentences], [[guess for _, guess in s] for s in sentences]


@given(pairs(st.sampled_from(NAMES)))
def test_classification_scores_are_scikit_learns(rows: list[tuple[str, str]]) -> None:
    labels, predictions = [true for true, _ in rows], [guess for _, guess in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's about a single class
        macro = sklearn_metrics.precision_recall_fscore_support(labels, predictions, average="macro", zero_division=0)
        weighted = sklearn_metrics.precision_recall_fscore_support(
            labels, predictions, average="weighted", zero_division=0
        )
        expected = {
            "accuracy": sklearn_metrics.accuracy_score(labels, predictions),
            "macro_precision": macro[0],
            "macro_recall": macro[1],
            "macro_f1": macro[2],
            "micro_f1": sklearn_metrics.f1_score(labels, predictions, average="micro", zero_division=0),
            "weighted_precision": weighted[0],
            "weighted_recall": weighted[1],
            "weighted_f1": weighted[2],
            "matthews": sklearn_metrics.matthews_corrcoef(labels, predictions),
        }
    assert score_classification(labels, predictions, NAMES) == pytest.approx(expected, abs=1e-12)


@given(pairs(st.sampled_from(("a", "b"))))
def test_f1_of_the_second_of_two_labels_is_scikit_learns(rows: list[tuple[str, str]]) -> None:
    labels, predictions = [true for true, _ in rows], [guess for _, guess in rows]
    expected = sklearn_metrics.f1_score(labels, predictions, pos_label="b", zero_division=0)
    assert score_classification(labels, predictions, ("a", "b"))["positive_f1"] == pytest.approx(expected, abs=1e-12)


@given(seed=st.integers(0, 500), rows=st.integers(6, 40), classes=st.integers(2, 4), ties=st.booleans())
def test_areas_under_the_roc_curve_are_scikit_learns(seed: int, rows: int, classes: int, ties: bool) -> None:
    draw = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(classes), draw.integers(0, classes, rows - classes)])
    probabilities = draw.random((rows, classes)) + 0.05
    probabilities = np.round(probabilities, 1) if ties else probabilities
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    shares = probabilities[:, 1] if classes == 2 else probabilities
    expected = sklearn_metrics.roc_auc_score(truth, shares, multi_class="ovr", average="macro")
    assert roc_auc(truth, probabilities) == pytest.approx(expected, abs=1e-9)
    low, high = roc_auc_interval(truth, probabilities, seed=1, resamples=200)
    assert low <= high


def test_an_interval_of_an_area_is_that_of_drawn_rows() -> None:
    draw = np.random.default_rng(3)
    truth = draw.integers(0, 2, 300)
    share = np.clip(0.5 + 0.2 * (truth - 0.5) + draw.normal(0, 0.2, 300), 0, 1)
    probabilities = np.stack([1 - share, share], axis=1)
    drawn = [draw.integers(0, 300, 300) for _ in range(1000)]
    plain = [sklearn_metrics.roc_auc_score(truth[rows], share[rows]) for rows in drawn]
    expected = np.quantile(plain, [0.025, 0.975])
    assert roc_auc_interval(truth, probabilities, seed=1) == pytest.approx(expected, abs=0.012)


@given(seed=st.integers(0, 500), rows=st.integers(1, 30), labels=st.integers(1, 4))
def test_scores_of_several_labels_are_scikit_learns(seed: int, rows: int, labels: int) -> None:
    draw = np.random.default_rng(seed)
    truth, guess = draw.random((rows, labels)) < 0.4, draw.random((rows, labels)) < 0.5
    expected = {
        "micro_f1": sklearn_metrics.f1_score(truth, guess, average="micro", zero_division=0),
        "macro_f1": sklearn_metrics.f1_score(truth, guess, average="macro", zero_division=0),
        "subset_accuracy": sklearn_metrics.accuracy_score(truth, guess),
    }
    if labels == 1:  # scikit-learn takes one column for two classes
        both = sklearn_metrics.f1_score(truth[:, 0], guess[:, 0], zero_division=0)
        expected |= {"micro_f1": both, "macro_f1": both}
    assert score_multilabel(truth, guess) == pytest.approx(expected, abs=1e-12)


@given(pairs(st.sampled_from(NAMES)))
def test_confusion_matrix_and_report_are_scikit_learns(rows: list[tuple[str, str]]) -> None:
    labels, predictions = [true for true, _ in rows], [guess for _, guess in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = sklearn_metrics.confusion_matrix(labels, predictions, labels=NAMES)
        columns = sklearn_metrics.precision_recall_fscore_support(labels, predictions, labels=NAMES, zero_division=0)
    assert np.array_equal(confusion_matrix(labels, predictions, NAMES), expected)
    report = class_report(labels, predictions, NAMES)
    for column, metric in enumerate(("precision", "recall", "f1", "support")):
        assert [report[name][metric] for name in NAMES] == pytest.approx(list(columns[column]), abs=1e-12)


@pytest.mark.parametrize("prefixes", ["I", "BI", "BIES"])
def test_entity_scores_are_seqevals(prefixes: str) -> None:
    names = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in TYPES)]

    @settings(max_examples=150)
    @given(tagged(prefixes))
    def check(sentences: list[list[tuple[str, str]]]) -> None:
        labels, predictions = unzip(sentences)
        ours = score_tags(labels, predictions, names)
        expected = {
            "precision": seqeval_metrics.precision_score(labels, predictions, zero_division=0),
            "recall": seqeval_metrics.recall_score(labels, predictions, zero_division=0),
            "f1": seqeval_metrics.f1_score(labels, predictions, zero_division=0),
            "accuracy": seqeval_metrics.accuracy_score(labels, predictions),
        }
        assert ours == pytest.approx(expected, abs=1e-12)
        theirs = seqeval_metrics.classification_report(labels, predictions, output_dict=True, zero_division=0)
        for kind, row in tag_report(labels, predictions, names).items():
            assert row["f1"] == pytest.approx(theirs[kind]["f1-score"], abs=1e-12)
            assert row["support"] == theirs[kind]["support"]
        assert seqeval_labeling.get_entities(labels[0]) == [
            (kind, start, end - 1) for kind, start, end in entities(labels[0])
        ]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's about means of nothing, inside seqeval
        check()


def test_strict_entity_scores_are_seqevals_in_iob2() -> None:
    names = ["O", *(f"{prefix}-{kind}" for prefix in "BI" for kind in TYPES)]

    @settings(max_examples=150)
    @given(tagged("BI"))
    def check(sentences: list[list[tuple[str, str]]]) -> None:
        labels, predictions = unzip(sentences)
        theirs = {"mode": "strict", "scheme": seqeval_scheme.IOB2, "zero_division": 0}
        if not any(entities(tags, strict=True) for tags in [*labels, *predictions]):
            return  # seqeval fails where nobody has an entity
        ours = score_tags(labels, predictions, names, strict=True)
        assert ours["precision"] == pytest.approx(seqeval_metrics.precision_score(labels, predictions, **theirs))
        assert ours["recall"] == pytest.approx(seqeval_metrics.recall_score(labels, predictions, **theirs))
        assert ours["f1"] == pytest.approx(seqeval_metrics.f1_score(labels, predictions, **theirs))

    check()


@given(pairs(st.sampled_from(["O", "CODE", "NAME"])))
def test_word_scores_are_scikit_learns_micro_average_without_o(words: list[tuple[str, str]]) -> None:
    labels, predictions = unzip([words])
    ours = score_tags(labels, predictions, ["CODE", "NAME", "O"])
    theirs = sklearn_metrics.precision_recall_fscore_support(
        labels[0], predictions[0], labels=["CODE", "NAME"], average="micro", zero_division=0
    )
    assert [ours[metric] for metric in ("precision", "recall", "f1")] == pytest.approx(list(theirs[:3]), abs=1e-12)
    assert ours["accuracy"] == sklearn_metrics.accuracy_score(labels[0], predictions[0])
    assert set(ours) == set(TAG_SCORES)
