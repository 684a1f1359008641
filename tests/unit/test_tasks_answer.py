"""Questions on texts: reading, windows, spans, wrong files, learning, answering."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bertsmith.cli import app
from bertsmith.errors import DataError, UsageError
from bertsmith.tasks.answer import LONGEST_ANSWER, NOWHERE, Answer, Windows
from bertsmith.tasks.evaluate import evaluate
from bertsmith.tasks.features import Ragged
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.predict import Predictor
from bertsmith.tasks.question_tables import read_question_rows
from bertsmith.tasks.rows import QuestionRow
from bertsmith.tokenizer.encode import Tokenizer
from finetune_case import CPU, question_rows, quiet, recipe, split_rows, write_tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Tokenizer:
    return Tokenizer.load(base)


def squad(*questions: dict[str, Any], context: str = "the day was paris") -> str:
    return json.dumps({"data": [{"title": "A", "paragraphs": [{"context": context, "qas": list(questions)}]}]})


def asked(answer: str = "paris", start: int = 12, **more: Any) -> dict[str, Any]:
    return {"id": "q1", "question": "so", "answers": [{"text": answer, "answer_start": start}], **more}


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_squad_json_and_tables_say_the_same(tmp_path: Path) -> None:
    (row,) = read_question_rows(write(tmp_path / "a.json", squad(asked())))
    assert row == QuestionRow("so", "the day was paris", (("paris", 12),), 1, "q1", "A")
    table = [{"question": "so", "context": "the day was paris", "answers": {"text": ["paris"], "answer_start": [12]}}]
    assert read_question_rows(table)[0].answers == row.answers
    impossible = write(tmp_path / "b.json", squad(asked(is_impossible=True), asked()))
    assert [bool(found.answers) for found in read_question_rows(impossible, no_answer=True)] == [False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (squad(*[asked("rome")] * 12), r"a.json: 12 questions whose answer is not in .* number 1 \(q1\), .*2 more"),
        (squad(asked(), asked("", 0)), r"1 questions whose answer is not in the text.* number 2 \(q1\)"),
        (squad(asked(start="12")), "question 1: an answer needs text and a whole number answer_start"),
        (squad(asked(is_impossible=True)), r"1 questions whose text holds no answer; set finetune.no_answer = true"),
        (squad({"id": "x", "question": "so"}), "1 questions without answers"),
        (squad({"id": "x", "answers": []}), "question 1: the question is missing or empty"),
        (squad(asked(), context=""), "question 1: the context is missing or empty"),
        ('{"data": []}', "no questions"),
        ('{"data": [{"paragraphs": 3}]}', "no list 'paragraphs'"),
        ("[1]", "no list 'data'"),
        ("{", "not valid JSON"),
    ],
)
def test_wrong_files_are_refused_with_the_numbers_of_questions(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_question_rows(write(tmp_path / "a.json", text))


@pytest.mark.parametrize("answers", [3, {"text": 3, "answer_start": 0}, {"text": ["day"], "answer_start": None}, "day"])
def test_answers_of_a_table_that_are_none(answers: Any) -> None:
    with pytest.raises(DataError, match="row 1: answers are not"):
        read_question_rows([{"question": "so", "context": "the day", "answers": answers}])


def test_an_answer_at_a_wrong_place_is_looked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """CMRC 2018 has answers a character off, and answers that are nowhere, beside others that are right."""
    off = asked("day", 10)
    nowhere = asked() | {"answers": [{"text": "rome", "answer_start": -1}, {"text": "day", "answer_start": 4}]}
    path = write(tmp_path / "a.json", squad(off, nowhere, asked(), context="the day was paris day"))
    rows = read_question_rows(path)
    assert [row.answers for row in rows] == [(("day", 4),), (("rome", -1), ("day", 4)), (("paris", 12),)]
    assert "a.json: 1 questions have an answer that does not stand at its place" in caplog.text
    assert "number 1 (q1)" in caplog.text


def test_questions_on_one_article_stay_together() -> None:
    rows = [QuestionRow("q", f"text {n}", (("t", 0),), n, source=f"article {n // 5}") for n in range(100)]
    train, held_out = split_rows(rows, 0.25, seed=1)
    assert not {row.source for row in train} & {row.source for row in held_out}
    assert len(held_out) == 25


WORDS = st.lists(st.sampled_from(("the", "day", "tomorrow", "paris", "rome", ".")), min_size=1, max_size=60)


@settings(deadline=None)
@given(words=WORDS, data=st.data(), max_length=st.integers(10, 40), stride=st.integers(0, 20))
def test_windows_hold_the_text_and_find_the_answer_again(tokenizer, words, data, max_length, stride):
    """Every token is in a window, windows share `stride` tokens, and a target's characters are the answer's."""
    place = data.draw(st.integers(0, len(words) - 1))
    text = " ".join(words)
    start = len(" ".join(words[:place])) + (place > 0)
    row = QuestionRow("so it is", text, ((words[place], start),), 1)
    windows = Answer(stride=stride).encode([row], tokenizer, labels=("start", "end"), max_length=max_length)
    (pieces,) = tokenizer.encode_batch([text])
    covered, found = [], 0
    room = max_length - 6
    for number in range(len(windows)):
        low, high = windows.items.starts[number : number + 2]
        ids = windows.tokens.values[windows.tokens.starts[number] : windows.tokens.starts[number + 1]].tolist()
        assert len(ids) == high - low <= max_length
        assert (ids[0], ids[4], ids[-1]) == (tokenizer.cls_id, tokenizer.sep_id, tokenizer.sep_id)
        spans = windows.spans[low:high]
        inside = [tuple(span) for span in spans.tolist() if span[0] != NOWHERE]
        assert inside == [tuple(offset) for offset in pieces.offsets[pieces.offsets.index(inside[0]) :][: len(inside)]]
        if covered:
            shared = len(set(covered) & set(inside))
            assert shared == min(stride, room // 2)
        covered += [span for span in inside if span not in covered]
        first, last = windows.targets[number]
        if first:
            found += 1
            assert text[spans[first, 0] : spans[last, 1]] == words[place]
    assert covered == [tuple(offset) for offset in pieces.offsets]
    longest_answer = 2  # pieces of `tomorrow`
    assert found or min(stride, room // 2) < longest_answer, "an answer at a border may be cut where nothing is shared"


def test_the_best_span_of_all(tokenizer: Tokenizer) -> None:
    """Against the plain way: every start, every end, every window."""
    draw = np.random.default_rng(3)
    texts = [" ".join(draw.choice(["the", "day", "paris", "tomorrow"], size)) for size in (3, 50, 90)]
    rows = [QuestionRow("so", text, None, 1) for text in texts]
    task = Answer(stride=8)
    windows = task.encode(rows, tokenizer, labels=None, max_length=40)
    outputs = draw.normal(size=(len(windows.items.values), 2)).astype(np.float32)
    answers = task.decode(rows, windows, outputs, ("start", "end"))
    for number, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        best, expected = -np.inf, ""
        for window in np.flatnonzero(windows.row_of_example == number):
            low, high = windows.items.starts[window : window + 2]
            for i in range(low, high):
                for j in range(i, min(high, i + LONGEST_ANSWER)):
                    score = float(outputs[i, 0]) + float(outputs[j, 1])
                    if windows.spans[i, 0] >= 0 and windows.spans[j, 0] >= 0 and score > best:
                        best, expected = score, row.text[windows.spans[i, 0] : windows.spans[j, 1]]
        assert answer.text == expected == row.text[answer.start : answer.end]
        assert 0 < answer.probability < 1


def test_no_answer_is_given_only_where_it_may_be_missing() -> None:
    windows = Windows(
        tokens=Ragged.of([[2, 3, 4]]),
        items=Ragged.of([[0, 1, 2]]),
        targets=None,
        cut_tokens=np.zeros(1, dtype=np.int64),
        alternatives=True,
        rows=np.array([0]),
        spans=np.array([[-1, -1], [0, 3], [-1, -1]], dtype=np.int32),
    )
    outputs = np.array([[5, 5], [1, 1], [9, 9]], dtype=np.float32)  # [CLS] before the word; [SEP] is no candidate
    row = QuestionRow("so", "day", None, 1)
    assert [Answer(no_answer=may).decode([row], windows, outputs, ())[0].text for may in (True, False)] == ["", "day"]


def test_learned_scored_and_answered(base: Path, tmp_path: Path) -> None:
    config = recipe(task="answer", max_length=24, stride=6, epochs=5, learning_rate=0.02)
    rows = question_rows(120, seed=1)
    console = quiet()
    result = finetune(config, tmp_path / "run", model=base, train=rows, console=console, runtime=CPU)
    scores = {row.metric: row.score for row in result.score_table}
    assert scores["exact_match"] > 0.6
    assert "windows " in console.file.getvalue()  # type: ignore[attr-defined]
    predictor = Predictor.load(tmp_path / "run", runtime=CPU)
    assert predictor.task.options == {"stride": 6, "no_answer": False}
    text = " ".join(["the day was so"] * 12 + ["rome"] + ["the day"] * 5)
    (answer,) = predictor.predict([("today is it", text)])
    assert answer.text == "rome" == text[answer.start : answer.end]
    found = evaluate(predictor, rows)
    assert set(found.scores) == {"f1", "exact_match"}
    for row in found.table:
        assert row.low <= row.score <= row.high
    printed = CliRunner().invoke(app, ["predict", str(tmp_path / "run"), "today is it", "--pair", "so rome was kind"])
    assert printed.stdout.startswith("rome  ")
    with pytest.raises(UsageError, match=r"text 1 is 'alone'; expected \(question, text\)"):
        predictor.predict(["alone"])


def test_questions_without_an_answer_are_learned(base: Path, tmp_path: Path) -> None:
    config = recipe(task="answer", max_length=64 // 2, stride=6, epochs=6, learning_rate=0.02, no_answer=True)
    rows = question_rows(160, seed=1, unanswered=0.4)
    finetune(config, tmp_path / "run", model=base, train=rows, console=quiet(), runtime=CPU)
    predictor = Predictor.load(tmp_path / "run", runtime=CPU)
    with_city, without = predictor.predict(
        [("today is it", "so rome was kind"), ("today is it", "so the day was kind")]
    )
    assert (with_city.text, without.text) == ("rome", "")
