"""Simple models scored on the same rows as BERT, so that its score can be judged.

    classify   majority: the most frequent label; linear: TF-IDF of n-grams, then logistic regression
    multilabel majority: the labels most rows have; linear: a logistic regression for each label
    regress    mean: that of the training rows; linear: TF-IDF of n-grams, then ridge regression
    choose     majority: the most frequent number; overlap: the choice whose words are most those of the text
    embed      overlap: a vector of words
    tag        majority; dictionary: each training word's most frequent label; linear: logistic regression on the
               word, its neighbours and its shape

They are built to be as good as their kind is: the linear models' penalty is chosen on the validation rows. All are
deterministic, and take seconds for a thousand sentences.
"""

import statistics
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy.sparse import hstack
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import MultiLabelBinarizer

from bertsmith.errors import DataError
from bertsmith.tasks.embed_metrics import Vectors
from bertsmith.tasks.metrics import CLASSIFICATION_SCORES, score_classification, score_multilabel, score_tags
from bertsmith.tasks.number_metrics import SMALLER_IS_BETTER, score_numbers
from bertsmith.tasks.rows import ChoiceRow, ClassesRow, ClassRow, EmbedRow, RatedRow, TaggedRow, TextRow
from bertsmith.tasks.tables import class_names
from bertsmith.tasks.texts import mostly_chinese

Tags = tuple[str, ...]
ClassPredictor = Callable[[Sequence[ClassRow]], list[str]]
SoftClassPredictor = Callable[[Sequence[ClassRow]], list[dict[str, float]]]
ClassesPredictor = Callable[[Sequence[ClassesRow]], list[Tags]]
ChoicePredictor = Callable[[Sequence[ChoiceRow]], list[int]]
NumberPredictor = Callable[[Sequence[RatedRow]], list[float]]
VectorPredictor = Callable[[Sequence[EmbedRow]], list[tuple[Vectors, Vectors]]]
TagPredictor = Callable[[Sequence[TaggedRow]], list[Tags]]

_INVERSE_PENALTIES = (0.1, 1.0, 10.0)
"""Values of scikit-learn's C that are tried."""
_MOST_ITERATIONS = 100
"""Of L-BFGS; where it has not converged by then, scores no longer move (it is stopped without a warning)."""
_MOST_WORDS = 4096
"""Width of a vector of words."""
_FEWEST_USES = 2
"""Features of one training word alone are left out: scores stay, and with a third of the features, most time goes."""


def majority_label(train: Sequence[ClassRow], validation: Sequence[ClassRow], metric: str) -> ClassPredictor:  # noqa: ARG001
    """Always the most frequent label of the training rows."""
    label = _most_frequent(_label(row) for row in train)
    return lambda rows: [label for _ in rows]


def linear_label(train: Sequence[ClassRow], validation: Sequence[ClassRow], metric: str) -> SoftClassPredictor:
    """TF-IDF (1 + log tf, unit length) of words and word pairs, of 1 to 3 characters for Chinese; `metric` picks C.

    Of a pair of texts: of each, and their product.
    """
    names = class_names(train)
    truth = [_label(row) for row in validation]
    encode = _text_features(train)
    features, held_out = encode(train), encode(validation)
    chosen_by = metric if metric in CLASSIFICATION_SCORES else "macro_f1"  # not by what needs probabilities
    model = _best(
        features,
        [_label(row) for row in train],
        lambda model: score_classification(truth, list(map(str, model.predict(held_out))), names)[chosen_by],
    )
    classes = [str(label) for label in model.classes_]
    return lambda rows: [
        dict(zip(classes, shares, strict=True)) for shares in model.predict_proba(encode(rows)).tolist()
    ]


def mean_number(
    train: Sequence[RatedRow],
    validation: Sequence[RatedRow],  # noqa: ARG001
    metric: str,  # noqa: ARG001
) -> NumberPredictor:
    """Always the mean of the training rows."""
    mean = statistics.fmean(row.label or 0.0 for row in train)
    return lambda rows: [mean for _ in rows]


def linear_number(train: Sequence[RatedRow], validation: Sequence[RatedRow], metric: str) -> NumberPredictor:
    """Ridge regression on the features of `linear_label`; `metric` picks the penalty."""
    encode = _text_features(train)
    features, held_out = encode(train), encode(validation)
    truth = [row.label or 0.0 for row in validation]
    sign = -1 if metric in SMALLER_IS_BETTER else 1
    models = [Ridge(alpha=1 / inverse).fit(features, [row.label for row in train]) for inverse in _INVERSE_PENALTIES]
    best = max(models, key=lambda model: sign * score_numbers(truth, model.predict(held_out))[metric])
    return lambda rows: [float(value) for value in best.predict(encode(rows))]


def majority_tag(train: Sequence[TaggedRow], validation: Sequence[TaggedRow], metric: str) -> TagPredictor:  # noqa: ARG001
    """Always the most frequent label of the training words."""
    label = _most_frequent(label for row in train for label in _labels(row))
    return lambda rows: [(label,) * len(row.words) for row in rows]


def dictionary_tag(train: Sequence[TaggedRow], validation: Sequence[TaggedRow], metric: str) -> TagPredictor:  # noqa: ARG001
    """Each word's most frequent label in training, as written, else in lower case, else the most frequent label."""
    counts: dict[str, Counter[str]] = {}
    for row in train:
        for word, label in zip(row.words, _labels(row), strict=True):
            for key in {word, word.lower()}:
                counts.setdefault(key, Counter())[label] += 1
    unseen = _most_frequent(label for row in train for label in _labels(row))
    known = {word: _most_frequent(labels.elements()) for word, labels in counts.items()}
    return lambda rows: [tuple(known.get(word, known.get(word.lower(), unseen)) for word in row.words) for row in rows]


def linear_tag(train: Sequence[TaggedRow], validation: Sequence[TaggedRow], metric: str) -> TagPredictor:
    """Logistic regression on each word by itself, with `word_features`; `metric` picks C."""
    names = class_names(train)
    vectorizer = DictVectorizer()
    features = vectorizer.fit_transform(list(_all_features(train)))
    used = features.getnnz(axis=0) >= min(_FEWEST_USES, features.shape[0])

    def encode(rows: Sequence[TaggedRow]) -> Any:
        return vectorizer.transform(list(_all_features(rows)))[:, used]

    held_out = encode(validation)
    truth = [_labels(row) for row in validation]
    model = _best(
        features[:, used],
        [label for row in train for label in _labels(row)],
        lambda model: score_tags(truth, _by_row(model.predict(held_out), validation), names)[metric],
    )
    return lambda rows: _by_row(model.predict(encode(rows)), rows)


def majority_labels(
    train: Sequence[ClassesRow],
    validation: Sequence[ClassesRow],  # noqa: ARG001
    metric: str,  # noqa: ARG001
) -> ClassesPredictor:
    """Always the labels that more than half of the training rows have; else the most frequent one."""
    counts = Counter(label for row in train for label in row.label or ())
    usual = tuple(sorted(label for label, count in counts.items() if 2 * count > len(train)))
    usual = usual or (_most_frequent(counts.elements()),)
    return lambda rows: [usual for _ in rows]


def linear_labels(train: Sequence[ClassesRow], validation: Sequence[ClassesRow], metric: str) -> ClassesPredictor:
    """A logistic regression for each label on the features of `linear_label`; `metric` picks C, the same for all."""
    encode, binarizer = _text_features(train), MultiLabelBinarizer()
    features, held_out = encode(train), encode(validation)
    targets = binarizer.fit_transform([row.label or () for row in train])
    truth = binarizer.transform([row.label or () for row in validation]).astype(bool)
    model = _best(
        features,
        targets,
        lambda model: score_multilabel(truth, model.predict(held_out).astype(bool))[metric],
        make=lambda inverse: OneVsRestClassifier(LogisticRegression(C=inverse, max_iter=_MOST_ITERATIONS)),
    )
    return lambda rows: [tuple(map(str, found)) for found in binarizer.inverse_transform(model.predict(encode(rows)))]


def majority_choice(train: Sequence[ChoiceRow], validation: Sequence[ChoiceRow], metric: str) -> ChoicePredictor:  # noqa: ARG001
    """Always the number that is most often right."""
    counts = Counter(row.label or 0 for row in train)
    number = min(counts, key=lambda number: (-counts[number], number))
    return lambda rows: [number for _ in rows]


def overlap_choice(train: Sequence[ChoiceRow], validation: Sequence[ChoiceRow], metric: str) -> ChoicePredictor:  # noqa: ARG001
    """The choice whose TF-IDF vector of words is nearest to the text's, by cosine."""
    vectorizer = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", sublinear_tf=True).fit([row.text for row in train])

    def choose(rows: Sequence[ChoiceRow]) -> list[int]:
        found = []
        for row in rows:
            nearness = vectorizer.transform(row.choices) @ vectorizer.transform([row.text]).T
            found.append(int(nearness.toarray().argmax()))
        return found

    return choose


def overlap_vectors(train: Sequence[EmbedRow], validation: Sequence[EmbedRow], metric: str) -> VectorPredictor:  # noqa: ARG001
    """A text's vector is the TF-IDF of its words (of 1 to 3 characters, for Chinese), the most frequent of training."""
    texts = [text for row in train for text in row.texts]
    words = {"analyzer": "char", "ngram_range": (1, 3)} if mostly_chinese(texts) else {"token_pattern": r"\w+|[^\w\s]"}
    vectorizer = TfidfVectorizer(**words, sublinear_tf=True, max_features=_MOST_WORDS, dtype=np.float32).fit(texts)

    def embed(rows: Sequence[EmbedRow]) -> list[tuple[Vectors, Vectors]]:
        first, second = (
            vectorizer.transform(some).toarray() for some in zip(*(row.texts[:2] for row in rows), strict=True)
        )
        return list(zip(first, second, strict=True))

    return embed


BASELINES: dict[str, dict[str, Callable[..., Any]]] = {
    "classify": {"majority": majority_label, "linear": linear_label},
    "multilabel": {"majority": majority_labels, "linear": linear_labels},
    "regress": {"mean": mean_number, "linear": linear_number},
    "choose": {"majority": majority_choice, "overlap": overlap_choice},
    "tag": {"majority": majority_tag, "dictionary": dictionary_tag, "linear": linear_tag},
    "answer": {},
    "embed": {"overlap": overlap_vectors},
    "next-sentence": {"majority": majority_label, "linear": linear_label},
    "masked-word": {},
    "language-model": {},
}
"""Task -> name -> function (train rows, validation rows, metric) -> function (rows) -> a label or tags for each row."""


def word_features(words: Sequence[str], position: int) -> dict[str, bool]:
    """What the linear tagger sees of one word: itself, its shape and ends, and the neighbour on each side."""
    word = words[position]
    lower = word.lower()
    names = [
        "bias",
        f"word={word}",
        f"lower={lower}",
        f"shape={_shape(word)}",
        *(f"prefix={lower[:length]}" for length in (1, 2, 3)),
        *(f"suffix={lower[-length:]}" for length in (1, 2, 3)),
        *(f"has {character}" for character in "_.-'" if character in word),
        f"length={min(len(word), 12)}",
    ]
    for offset in (-1, 1):
        there = position + offset
        neighbour = words[there] if 0 <= there < len(words) else "<edge>"
        names += [f"{offset}:lower={neighbour.lower()}", f"{offset}:shape={_shape(neighbour)}"]
    return dict.fromkeys(names, True)


def _shape(word: str) -> str:
    """Case pattern with runs folded: `DataFrame` -> XxXx, `max_iter` -> x_x, `v2` -> xd."""
    shape = ""
    for character in word:
        kind = "X" if character.isupper() else "x" if character.isalpha() else "d" if character.isdigit() else character
        if not shape.endswith(kind):
            shape += kind
    return shape


def _logistic(inverse_penalty: float) -> LogisticRegression:
    return LogisticRegression(C=inverse_penalty, max_iter=_MOST_ITERATIONS)


def _best(features: Any, labels: Any, score: Callable[[Any], float], make: Callable[[float], Any] = _logistic) -> Any:
    """The model, of those with different penalties, that scores best on the validation rows (first of equals)."""
    models = []
    for inverse_penalty in _INVERSE_PENALTIES:
        model = make(inverse_penalty)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features, labels)
        models.append(model)
    return max(models, key=score)


def _all_features(rows: Sequence[TaggedRow]) -> Iterator[dict[str, bool]]:
    return (word_features(row.words, position) for row in rows for position in range(len(row.words)))


def _by_row(labels: Sequence[str], rows: Sequence[TaggedRow]) -> list[Tags]:
    each = iter(labels)
    return [tuple(str(next(each)) for _ in row.words) for row in rows]


def _most_frequent(labels: Any) -> str:
    """Ties go to the label that sorts first, so that the order of rows does not matter."""
    counts = Counter(labels)
    return str(min(counts, key=lambda label: (-counts[label], label)))


def _text_features(train: Sequence[TextRow[Any]]) -> Callable[[Sequence[TextRow[Any]]], Any]:
    """Rows to TF-IDF features, fitted on the training rows; of a pair, those of each text and their product."""
    if mostly_chinese(text for row in train[:1000] for text in _texts(row)):
        vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, min_df=2)
    else:
        vectorizer = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 2), sublinear_tf=True)
    vectorizer.fit([text for row in train for text in _texts(row)])

    def encode(rows: Sequence[TextRow[Any]]) -> Any:
        found = vectorizer.transform([row.text for row in rows])
        if all(row.pair is None for row in rows):
            return found
        other = vectorizer.transform([row.pair or "" for row in rows])
        return hstack([found, other, found.multiply(other)]).tocsr()

    return encode


def _texts(row: TextRow[Any]) -> list[str]:
    return [row.text] if row.pair is None else [row.text, row.pair]


def _label(row: ClassRow) -> str:
    if row.label is None:
        raise DataError("the row has no label; a baseline learns from labelled rows", line=row.line)
    return row.label


def _labels(row: TaggedRow) -> Tags:
    if row.labels is None:
        raise DataError("the sentence has no labels; a baseline learns from labelled rows", line=row.line)
    return row.labels
