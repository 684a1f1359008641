"""What went wrong, of every task: confusion, labels, the surest mistakes, and blocks in file order."""

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import multilabel_confusion_matrix

from bertsmith.analysis.mistakes import blocks, confusion, have_mistakes, label_scores, surest_mistakes
from bertsmith.tasks.answer import Span
from bertsmith.tasks.choose import Choice
from bertsmith.tasks.classify import Classification
from bertsmith.tasks.embed import Embedding
from bertsmith.tasks.multilabel import Labelling
from bertsmith.tasks.predict import TASKS
from bertsmith.tasks.predictions import Predictions
from bertsmith.tasks.regress import Rating
from bertsmith.tasks.rows import ChoiceRow, EmbedRow, QuestionRow, TaggedRow, TextRow
from bertsmith.tasks.tag import Tagging


def of(name: str, *pairs: tuple[Any, Any]) -> Predictions:
    return Predictions(TASKS[name], [row for row, _ in pairs], [answer for _, answer in pairs])


def classified(label: str, guess: str, sure: float, line: int = 1) -> tuple[Any, Any]:
    return TextRow(f"{label} {guess}", label, line), Classification(guess, {guess: sure})


def told(predictions: Predictions) -> list[tuple[float, int, str, str]]:
    return [(one.size, one.line, one.label, one.prediction) for one in surest_mistakes(predictions, 3)]


def test_classes() -> None:
    found = of(
        "classify", classified("a", "b", 0.6, 1), classified("a", "a", 0.9, 2), *[classified("b", "a", 0.8, 3)] * 4
    )
    assert dict(confusion(found)) == {("a", "b"): 1, ("a", "a"): 1, ("b", "a"): 4}
    assert told(found) == [(0.8, 3, "b", "a")] * 3
    assert [one.row for one in surest_mistakes(found, 9)] == [2, 3, 4, 5, 0]
    first, second = label_scores(found)
    assert (first.label, first.precision, first.recall, first.truly, first.cells) == ("a", 0.2, 0.5, 2, None)
    assert (second.label, second.recall, second.truly) == ("b", 0, 4)


def test_labels_have_a_table_of_two_by_two_each() -> None:
    draw = np.random.default_rng(1)
    truth, shares = draw.random((40, 3)) < 0.4, draw.random((40, 3))
    names = ("x", "y", "z")

    def chosen(marks: np.ndarray) -> tuple[str, ...]:
        return tuple(name for name, mark in zip(names, marks, strict=True) if mark)

    rows = [TextRow("t", chosen(marks), 1) for marks in truth]
    answers = [Labelling(chosen(row >= 0.5), dict(zip(names, row.tolist(), strict=True))) for row in shares]
    found = of("multilabel", *zip(rows, answers, strict=True))
    for one, matrix in zip(label_scores(found), multilabel_confusion_matrix(truth, shares >= 0.5), strict=True):
        (neither, wrongly), (missed, right) = matrix.tolist()
        assert one.cells == (right, wrongly, missed, neither)
    wrong = surest_mistakes(found, 200)
    assert len(wrong) == int((truth != (shares >= 0.5)).sum())
    assert wrong[0].size == np.maximum(shares, 1 - shares)[truth != (shares >= 0.5)].max()
    assert {one.label.removeprefix("not ") == one.prediction.removeprefix("not ") for one in wrong} == {True}
    assert not confusion(found)


def test_tags_point_at_the_word() -> None:
    row = TaggedRow(("in", "new", "york"), ("O", "B-LOC", "I-LOC"), 7)
    found = of("tag", (row, Tagging(row.words, ("O", "B-LOC", "O"), (0.9, 0.8, 0.7))))
    (one,) = surest_mistakes(found, 5)
    assert (one.text, one.word, one.words, one.size, one.label, one.prediction) == (
        *("york", 2, row.words, 0.7),
        *("I-LOC", "O"),
    )
    assert confusion(found)["I-LOC", "O"] == 1
    assert [(score.label, score.truly, score.f1) for score in label_scores(found)] == [("LOC", 1, 0)]


def test_choices_answers_and_numbers() -> None:
    row = ChoiceRow("t", "q", ("x", "y"), 1, 3)
    assert told(of("choose", (row, Choice(0, "x", (0.7, 0.3))), (row, Choice(1, "y", (0.1, 0.9))))) == [
        (0.7, 3, "y", "x")
    ]
    question = QuestionRow("who", "ann and bob", (("ann", 0),), 4)
    assert told(of("answer", (question, Span("bob", 8, 11, 0.4)), (question, Span("Ann", 0, 3, 0.9)))) == [
        (0.4, 4, "ann", "bob")
    ]
    rated = of("regress", (TextRow("t", 1.0, 1), Rating(3.5)), (TextRow("u", 2.0, 2), Rating(2.0)))
    assert told(rated) == [(2.5, 1, "1", "3.5"), (0, 2, "2", "2")]
    assert label_scores(rated) == ()


def test_vectors_are_neither_right_nor_wrong() -> None:
    vector = np.ones(2, np.float32)
    assert not have_mistakes(of("embed", (EmbedRow("a", 1, "b", label=1.0), Embedding.of(vector, vector))))
    assert have_mistakes(of("classify", classified("a", "a", 0.9)))
    assert have_mistakes(of("regress", (TextRow("a", 1.0, 1), Rating(1.0))))


def test_a_run_of_bad_rows_is_a_low_block() -> None:
    rows = [classified("ab"[n % 2], "ab"[(n + (64 <= n < 96)) % 2], 0.9) for n in range(170)]
    found = blocks(of("classify", *rows), "accuracy")
    assert found.scores == (1, 1, 0, 1, 1, 1)
    assert found.whole == pytest.approx(1 - 32 / 170)
    many = blocks(of("classify", *rows * 60), "accuracy")
    assert (many.rows, len(many.scores)) == (128, 80)
