"""Scores of predictions against labels, and how far chance may have moved them (`resampling`).

    classify   accuracy; macro and weighted precision, recall and f1; micro_f1 (where each row has one class, it is the
               accuracy, as micro precision and recall are); matthews: functions of the confusion matrix, equal to
               scikit-learn's (sklearn.metrics) with zero_division=0; roc_auc is in `roc`. Of two classes besides
               positive_f1, the F1 of the second
    multilabel micro_f1, macro_f1 (mean over all labels), subset_accuracy (all labels of a row right), equal to
               scikit-learn's with zero_division=0
    tag        precision, recall, f1 over entities, equal to seqeval's, or over words; accuracy over words

Tags are entities where the label names carry prefixes (B-, I-, E-, S-, types after the dash; M-, L-, U- in BMES and
BILOU). Where they do not (CODE and O, say), precision, recall and F1 are over words, and every label but O is a
positive.

A score whose denominator is 0 is 0: precision where nothing was predicted, Matthews where one side has one class.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from bertsmith.tasks.resampling import Counts, Floats, Score, Statistic, additive, additive_kinds, interval, mean

Tags = Sequence[str]
Marks = npt.NDArray[np.bool_]

_PREFIXES = "BIES"
_SAME_AS = {"M": "I", "L": "E", "U": "S"}
"""BMES and BILOU have other letters for what IOBES has."""


def confusion_matrix(labels: Sequence[str], predictions: Sequence[str], names: Sequence[str]) -> Counts:
    """(classes, classes) counts: row = true label, column = predicted label, both in the order of `names`."""
    if len(labels) != len(predictions) or not labels:
        raise ValueError(f"{len(labels)} labels and {len(predictions)} predictions; need equal numbers above 0")
    index = {name: number for number, name in enumerate(names)}
    cells = [index[label] * len(names) + index[guess] for label, guess in zip(labels, predictions, strict=True)]
    return np.bincount(cells, minlength=len(names) ** 2).reshape(len(names), len(names))


def score_classification(labels: Sequence[str], predictions: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    """Every score of `CLASSIFICATION_SCORES`, and of two classes those of `BINARY_SCORES`."""
    tallies = _tallies(confusion_matrix(labels, predictions, names))
    return {metric: float(score(tallies)) for metric, score in _scores_of(names).items()}


def classification_statistics(
    labels: Sequence[str], predictions: Sequence[str], names: Sequence[str]
) -> dict[str, Statistic]:
    """The same, for resampling rows."""
    index = {name: number for number, name in enumerate(names)}
    pairs = np.array([[index[label], index[guess]] for label, guess in zip(labels, predictions, strict=True)])
    known, kind_of_row = np.unique(pairs, axis=0, return_inverse=True)
    kinds = np.zeros((len(known), 3, len(names)))
    every = np.arange(len(known))
    kinds[every, 0, known[:, 0]] = known[:, 0] == known[:, 1]
    kinds[every, 1, known[:, 1]] = kinds[every, 2, known[:, 0]] = 1
    numbers = kind_of_row.reshape(-1)
    return {metric: additive_kinds(kinds, numbers, score) for metric, score in _scores_of(names).items()}


def _scores_of(names: Sequence[str]) -> dict[str, Score]:
    return CLASSIFICATION_SCORES | (BINARY_SCORES if len(names) == 2 else {})


def class_report(
    labels: Sequence[str], predictions: Sequence[str], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Class -> precision, recall, f1, and support (rows that truly have it)."""
    confusion = confusion_matrix(labels, predictions, names)
    precision, recall, f1 = _per_class(_tallies(confusion))
    support = confusion.sum(axis=1)
    return {
        name: {
            "precision": float(precision[number]),
            "recall": float(recall[number]),
            "f1": float(f1[number]),
            "support": float(support[number]),
        }
        for number, name in enumerate(names)
    }


def _ratio(above: npt.ArrayLike, below: npt.ArrayLike) -> Floats:
    """above / below, and 0 where below is 0."""
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    ratio: Floats = np.zeros(np.broadcast_shapes(above.shape, below.shape))
    np.divide(above, below, out=ratio, where=below > 0)
    return ratio


def _tallies(confusion: npt.NDArray[np.number]) -> npt.NDArray[np.number]:
    """(classes, classes) confusion matrix -> (3, classes): of each class right, predicted, true."""
    return np.stack([np.diagonal(confusion), confusion.sum(axis=0), confusion.sum(axis=1)])


def _per_class(tallies: npt.NDArray[np.number]) -> tuple[Floats, Floats, Floats]:
    """(..., 3, classes) -> precision, recall and F1, each (..., classes)."""
    right, predicted, true = np.moveaxis(tallies, -2, 0)
    return _ratio(right, predicted), _ratio(right, true), _ratio(2 * right, predicted + true)


def _accuracy(tallies: npt.NDArray[np.number]) -> Floats:
    return _ratio(tallies[..., 0, :].sum(axis=-1), tallies[..., 2, :].sum(axis=-1))


def _macro(which: int) -> Score:
    """Mean over the classes that occur among labels or predictions, as scikit-learn averages."""

    def score(tallies: npt.NDArray[np.number]) -> Floats:
        occurs = tallies[..., 1:, :].sum(axis=-2) > 0
        return _ratio((_per_class(tallies)[which] * occurs).sum(axis=-1), occurs.sum(axis=-1))

    return score


def _weighted(which: int) -> Score:
    """Mean over the classes, each by the rows that truly have it."""

    def score(tallies: npt.NDArray[np.number]) -> Floats:
        rows = tallies[..., 2, :]
        return _ratio((_per_class(tallies)[which] * rows).sum(axis=-1), rows.sum(axis=-1))

    return score


def _matthews(tallies: npt.NDArray[np.number]) -> Floats:
    """(c s - Σ p_k t_k) / sqrt((s² - Σ p_k²)(s² - Σ t_k²)): Gorodkin 2004, equation 8, for any number of classes.

    c correct and s all rows, p_k predicted as and t_k truly of class k.
    """
    right, predicted, true = np.moveaxis(tallies.astype(np.float64), -2, 0)
    correct, rows = right.sum(axis=-1), true.sum(axis=-1)
    covariance = correct * rows - (predicted * true).sum(axis=-1)
    spread = (rows**2 - (predicted**2).sum(axis=-1)) * (rows**2 - (true**2).sum(axis=-1))
    return _ratio(covariance, np.sqrt(spread))


CLASSIFICATION_SCORES: dict[str, Score] = {
    "accuracy": _accuracy,
    "macro_precision": _macro(0),
    "macro_recall": _macro(1),
    "macro_f1": _macro(2),
    "micro_f1": _accuracy,
    "weighted_precision": _weighted(0),
    "weighted_recall": _weighted(1),
    "weighted_f1": _weighted(2),
    "matthews": _matthews,
}
"""Metric -> function of (..., 3, classes) counts: of each class right, predicted, true."""


def _positive_f1(tallies: npt.NDArray[np.number]) -> Floats:
    return _per_class(tallies)[2][..., 1]


BINARY_SCORES: dict[str, Score] = {"positive_f1": _positive_f1}
"""The same for two classes, of which the second is the positive one."""


def _per_label(counts: npt.NDArray[np.number]) -> tuple[Floats, Floats, Floats]:
    """(..., 3 * labels + 2) counts as `_multilabel_counts` has them -> (..., labels) each: right, predicted, true."""
    right, predicted, true = np.split(counts[..., :-2], 3, axis=-1)
    return right, predicted, true


def _micro_f1(counts: npt.NDArray[np.number]) -> Floats:
    right, predicted, true = (part.sum(axis=-1) for part in _per_label(counts))
    return _ratio(2 * right, predicted + true)


def _label_macro_f1(counts: npt.NDArray[np.number]) -> Floats:
    right, predicted, true = _per_label(counts)
    scores = _ratio(2 * right, predicted + true)
    return _ratio(scores.sum(axis=-1), scores.shape[-1])


MULTILABEL_SCORES: dict[str, Score] = {
    "micro_f1": _micro_f1,
    "macro_f1": _label_macro_f1,
    "subset_accuracy": lambda counts: _ratio(counts[..., -2], counts[..., -1]),
}
"""Metric -> function of counts as `_multilabel_counts` has them."""


def score_multilabel(truth: Marks, guess: Marks) -> dict[str, float]:
    """Every score of `MULTILABEL_SCORES`; truth, guess: (rows, labels), True where a row has a label."""
    counts = _multilabel_counts(truth, guess).sum(axis=0)
    return {metric: float(score(counts)) for metric, score in MULTILABEL_SCORES.items()}


def multilabel_statistics(truth: Marks, guess: Marks) -> dict[str, Statistic]:
    """Every score of `MULTILABEL_SCORES`, for resampling rows."""
    counts = _multilabel_counts(truth, guess)
    return {metric: additive(counts, score) for metric, score in MULTILABEL_SCORES.items()}


def multilabel_interval(
    truth: Marks, guess: Marks, metric: str, *, seed: int, resamples: int = 1000
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a score of several labels a row, resampling rows."""
    return interval(multilabel_statistics(truth, guess)[metric], seed=seed, resamples=resamples)


def _multilabel_counts(truth: Marks, guess: Marks) -> Counts:
    """(rows, 3 * labels + 2): for each label right, then predicted, then true; then all labels right, and 1."""
    if truth.shape != guess.shape or not len(truth):
        raise ValueError(f"labels of shape {truth.shape} and predictions of {guess.shape}; need equal, above 0 rows")
    whole = (truth == guess).all(axis=1)
    parts = [truth & guess, guess, truth, whole[:, None], np.ones((len(truth), 1), dtype=np.bool_)]
    return np.concatenate(parts, axis=1).astype(np.int64)


def are_entities(names: Sequence[str]) -> bool:
    """True where label names mark entities by B-, I-, E-, S-, or are just these letters, or those of BMES or BILOU."""
    positive = {name for name in names if name != "O"}
    dashed = any(name[:1] in _PREFIXES and name[1:2] == "-" for name in positive)
    plain = positive <= set(_PREFIXES) or ("B" in positive and positive <= {*_PREFIXES, *_SAME_AS})
    return dashed or (bool(positive) and plain)


def entities(tags: Tags, *, strict: bool = False) -> list[tuple[str, int, int]]:
    """(type, start, end) of each entity in a sentence, `end` not included; a tag without a type has type "_".

    Lenient, as seqeval's default and CoNLL's own script: a word goes on with the entity before it where its tag is I
    or E, the tag before is B or I, and the types are equal; any other word that is not O begins one. So BIO, IOBES and
    plain IO tags are all read; BMES and BILOU too, whose M, L and U seqeval's default does not know. `strict` is
    seqeval's mode="strict" with IOB2: only B begins an entity; an I that does not go on with one is ignored.
    """
    found: list[tuple[str, int, int]] = []
    before, open_type = "O", ""
    for position, tag in enumerate(tags):
        prefix, kind = _prefix(tag), tag[1:].split("-", maxsplit=1)[-1] or "_"
        if prefix in ("I", "E") and before in ("B", "I") and kind == open_type:
            found[-1] = (kind, found[-1][1], position + 1)
        elif prefix == "O" or (strict and prefix != "B"):
            prefix = "O"
        else:
            found.append((kind, position, position + 1))
            open_type = kind
        before = prefix
    return found


def orphans(tags: Tags) -> list[int]:
    """Words whose tag goes on with an entity (I, E) where none of its type has begun before it."""
    begins = {start for _, start, _ in entities(tags)}
    return [place for place, tag in enumerate(tags) if place in begins and _prefix(tag) in ("I", "E")]


def _prefix(tag: str) -> str:
    """B, I, E, S or O, whatever letters the scheme has."""
    letter = tag[:1]
    return _SAME_AS.get(letter, letter) if tag[1:2] in ("", "-") else letter


def score_tags(
    labels: Sequence[Tags], predictions: Sequence[Tags], names: Sequence[str], *, strict: bool = False
) -> dict[str, float]:
    """Every score of `TAG_SCORES`, over all sentences; `names`, the model's labels, say whether tags are entities."""
    counts = tag_counts(labels, predictions, names, strict=strict).sum(axis=0)
    return {metric: float(score(counts)) for metric, score in TAG_SCORES.items()}


def tag_counts(
    labels: Sequence[Tags], predictions: Sequence[Tags], names: Sequence[str], *, strict: bool = False
) -> Counts:
    """(sentences, 5) counts: items right, items predicted, items true, words right, words.

    Items are entities (right: type, start and end) or words that are not O.
    """
    if len(labels) != len(predictions) or not labels:
        raise ValueError(f"{len(labels)} labelled and {len(predictions)} predicted sentences; need equal, above 0")
    items = _entity_items(strict) if are_entities(names) else _word_items
    rows = []
    for true, guess in zip(labels, predictions, strict=True):
        right = sum(map(str.__eq__, true, guess))
        if len(true) != len(guess):
            raise ValueError(f"{len(true)} labels and {len(guess)} predictions in a sentence; need equal numbers")
        expected, found = items(true), items(guess)
        rows.append((len(expected & found), len(found), len(expected), right, len(true)))
    return np.array(rows, dtype=np.int64)


def tag_report(
    labels: Sequence[Tags], predictions: Sequence[Tags], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Entity type (or label but O) -> precision, recall, f1, support, sorted by name."""
    items = _entity_items(False) if are_entities(names) else _word_items
    counts: dict[str, list[int]] = {}
    for true, guess in zip(labels, predictions, strict=True):
        expected, found = items(true), items(guess)
        for column, some in enumerate((expected & found, found, expected)):
            for kind, *_ in some:
                counts.setdefault(kind, [0, 0, 0])[column] += 1
    report = {}
    for kind, (right, predicted, support) in sorted(counts.items()):
        row = np.array([right, predicted, support])
        scores = {metric: float(TAG_SCORES[metric](row)) for metric in ("precision", "recall", "f1")}
        report[kind] = {**scores, "support": float(support)}
    return report


def _entity_items(strict: bool) -> Callable[[Tags], set[tuple[str, int, int]]]:
    return lambda tags: set(entities(tags, strict=strict))


def _word_items(tags: Tags) -> set[tuple[str, int, int]]:
    return {(tag, position, position + 1) for position, tag in enumerate(tags) if tag != "O"}


TAG_SCORES: dict[str, Score] = {
    "precision": lambda counts: _ratio(counts[..., 0], counts[..., 1]),
    "recall": lambda counts: _ratio(counts[..., 0], counts[..., 2]),
    "f1": lambda counts: _ratio(2 * counts[..., 0], counts[..., 1] + counts[..., 2]),
    "accuracy": lambda counts: _ratio(counts[..., 3], counts[..., 4]),
}
"""Metric -> function of (..., 5) counts as `tag_counts` has them."""


def classification_interval(
    labels: Sequence[str],
    predictions: Sequence[str],
    names: Sequence[str],
    metric: str,
    *,
    seed: int,
    resamples: int = 1000,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval (Efron 1979) of a classification score, resampling rows."""
    return interval(classification_statistics(labels, predictions, names)[metric], seed=seed, resamples=resamples)


def tag_statistics(labels: Sequence[Tags], predictions: Sequence[Tags], names: Sequence[str]) -> dict[str, Statistic]:
    """Every score of `TAG_SCORES`, for resampling sentences (their words hang together)."""
    counts = tag_counts(labels, predictions, names)
    return {metric: additive(counts, score) for metric, score in TAG_SCORES.items()}


def tag_interval(
    labels: Sequence[Tags],
    predictions: Sequence[Tags],
    names: Sequence[str],
    metric: str,
    *,
    seed: int,
    resamples: int = 1000,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a tagging score, resampling sentences (their words hang together)."""
    return interval(tag_statistics(labels, predictions, names)[metric], seed=seed, resamples=resamples)


def mean_interval(values: Floats, *, seed: int, resamples: int = 1000) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of `values`, (rows,), resampling rows."""
    return interval(mean(values), seed=seed, resamples=resamples)
