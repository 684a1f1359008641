"""Simple models: right where the problem is simple, the same each time, no warnings."""

import itertools
import warnings

import pytest

from bertsmith.config import FinetuneConfig
from bertsmith.tasks.baselines import (
    BASELINES,
    dictionary_tag,
    linear_label,
    linear_tag,
    majority_label,
    majority_tag,
    word_features,
)
from bertsmith.tasks.metrics import score_tags
from bertsmith.tasks.rows import TaggedRow, TextRow


@pytest.fixture(autouse=True)
def _no_warnings() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def tagged(text: str) -> TaggedRow:
    """`[word]` is CODE."""
    words = text.split()
    labels = tuple("CODE" if word.startswith("[") else "O" for word in words)
    return TaggedRow(tuple(word.strip("[]") for word in words), labels, 1)


TAGGED = [
    tagged(f"{opening} {word} {rest}")
    for opening, word, rest in itertools.product(
        ["use the", "set the option", "see what"], ["[axis]", "[n_jobs]", "array", "value"], ["is .", "of all ."]
    )
]


def test_majority() -> None:
    rows = [TextRow("t", label, 1) for label in ("b", "a", "b", "a", "c")]
    assert majority_label(rows, rows, "macro_f1")(rows[:2]) == ["a", "a"]
    assert majority_tag(TAGGED, TAGGED, "f1")([tagged("x y")]) == [("O", "O")]


def test_dictionary_gives_known_words_their_most_frequent_label() -> None:
    train = [tagged("[axis] axis [axis] None [none] none none")]
    predict = dictionary_tag(train, [], "f1")
    assert predict([tagged("axis AXIS None none NONE other")]) == [("CODE", "CODE", "O", "O", "O", "O")]


def test_linear_tagger_learns_words_and_context() -> None:
    predict = linear_tag(TAGGED * 10, TAGGED, "f1")
    found = predict(TAGGED)
    assert score_tags([row.labels or () for row in TAGGED], found, ["CODE", "O"])["f1"] == 1.0
    words = ("alpha", "beta", "gamma", "delta", "omega", "sigma")
    shapes = [tagged(f"the {word} was good") for word in words] * len(words)
    shapes += [tagged(f"the [{first}_{second}] was good") for first in words for second in words]
    predict = linear_tag(shapes, shapes, "f1")
    assert predict([tagged("the x_y was good")]) == [("O", "CODE", "O", "O")]  # by its shape
    assert predict([tagged("the zeta was good")]) == [("O", "O", "O", "O")]


def test_linear_tagger_knows_entities_of_many_labels() -> None:
    rows = [
        TaggedRow(("in", "New", "York", "by", name), ("O", "B-loc", "I-loc", "O", "B-person"), 1)
        for name in ("Ann", "Bob", "Eve")
    ]
    test = TaggedRow(("in", "New", "York", "by", "Joe"), None, 1)
    assert linear_tag(rows, rows, "f1")([test]) == [("O", "B-loc", "I-loc", "O", "B-person")]


def most_probable(found: list[dict[str, float]]) -> list[str]:
    assert all(sum(shares.values()) == pytest.approx(1) for shares in found)
    return [max(shares, key=lambda label: shares[label]) for shares in found]


def test_linear_classifier_in_english_and_chinese() -> None:
    english = [TextRow(f"{word} {number}", word[0], 1) for word in ("good film", "bad film") for number in range(9)]
    new = [TextRow("Good !", None, 1), TextRow("so bad", None, 1)]
    assert most_probable(linear_label(english, english, "macro_f1")(new)) == ["g", "b"]
    chinese = [TextRow(f"{text}{number}", text[:2], 1) for text in ("股票上涨了", "球队赢了") for number in range(9)]
    found = linear_label(chinese, chinese, "macro_f1")([TextRow("今天股票", None, 1), TextRow("我们球队", None, 1)])
    assert most_probable(found) == ["股票", "球队"]


def test_penalty_is_chosen_by_the_metric_on_the_validation_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[list[str]] = []

    def score(labels: list[str], predictions: list[str], names: tuple[str, ...]) -> dict[str, float]:
        tried.append(predictions)
        return {"matthews": float(len(tried) == 2)}

    monkeypatch.setattr("bertsmith.tasks.baselines.score_classification", score)
    rows = [TextRow(f"{word} text", word, 1) for word in ("a", "b", "b")]
    linear_label(rows, rows, "matthews")(rows)
    assert len(tried) == 3


def test_linear_models_are_the_same_each_time() -> None:
    assert linear_tag(TAGGED, TAGGED, "f1")(TAGGED) == linear_tag(TAGGED, TAGGED, "f1")(TAGGED)


def test_features_see_word_neighbours_and_shape() -> None:
    features = word_features(("set", "max_Iter2", "to", "1"), 1)
    assert {"word=max_Iter2", "shape=x_Xxd", "has _", "-1:lower=set", "1:shape=x"} <= set(features)


def test_every_baseline_a_recipe_may_name_is_there() -> None:
    annotation = FinetuneConfig.model_fields["baselines"].annotation
    named = set(annotation.__args__[0].__args__)  # type: ignore[union-attr]
    assert named - {"random-weights"} == {name for task in BASELINES.values() for name in task}
