"""Lines answered as they come in, a bar for long work, and a model that is called."""

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import bertsmith
from bertsmith import progress
from bertsmith.commands.predict import predict as command
from bertsmith.errors import DataError, UsageError
from bertsmith.tasks import predict as room
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.line_stream import lines_as_they_come, predict_lines
from bertsmith.tasks.predict import Predictor, predict
from finetune_case import CPU, pair_rows, question_rows, quiet, recipe, text_rows, write_tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def moods(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    finetune(recipe(epochs=1), folder, model=base, train=text_rows(40), console=quiet(), runtime=CPU)
    return folder


@pytest.fixture
def predictor(moods: Path) -> Predictor:
    return Predictor.load(moods, runtime=CPU)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


def answered(predictor: Predictor, content: bytes, **more: Any) -> list[dict[str, Any]]:
    reading, writing = os.pipe()
    try:
        os.write(writing, content)
        os.close(writing)
        return list(predict_lines(predictor, reading, **more))
    finally:
        os.close(reading)


@given(
    texts=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=30)),
    most=st.integers(1, 5),
)
def test_groups_of_lines_are_all_of_them_once(texts: list[str], most: int) -> None:
    reading, writing = os.pipe()
    os.write(writing, "\n".join(texts).encode())
    os.close(writing)
    found = [line for group in lines_as_they_come(reading, most=most) for line in group]
    os.close(reading)
    assert found == [
        (number, text.removeprefix("\ufeff") if number == 1 else text)
        for number, text in enumerate(texts, 1)
        if text.strip()
    ]


def test_an_answer_comes_before_the_next_line(predictor: Predictor, pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    records = predict_lines(predictor, reading)
    os.write(writing, b"lovely day\n\n")
    assert next(records)["text"] == "lovely day"
    os.write(writing, b"awful day\r\nthe ")
    found = next(records)
    assert (found["row"], found["line"], found["text"]) == (1, 3, "awful day")
    os.write(writing, b"end")
    os.close(writing)
    assert [record["text"] for record in records] == ["the end"]


def test_lines_get_the_answers_of_a_file(predictor: Predictor, tmp_path: Path) -> None:
    texts = [text for text, _ in text_rows(30, seed=4)]
    path = tmp_path / "a.txt"
    path.write_text("\n".join(texts))
    expected = list(predict(predictor, path))
    assert answered(predictor, path.read_bytes()) == expected
    objects = "".join(json.dumps({"text": text, "more": 1}) + "\n" for text in texts).encode()
    assert answered(predictor, objects) == expected
    assert [record["text"] for record in answered(predictor, b'{"text\nlovely')] == ['{"text', "lovely"]


def test_pairs_and_questions_come_as_objects(base: Path, tmp_path: Path) -> None:
    settings = recipe(epochs=1, pair_column="second")
    rows = [{"text": a, "second": b, "label": label} for a, b, label in pair_rows(30)]
    finetune(settings, tmp_path / "pairs", model=base, train=rows, console=quiet(), runtime=CPU)
    (record,) = answered(Predictor.load(tmp_path / "pairs", runtime=CPU), b'{"text": "the day", "second": "so kind"}\n')
    assert record["pair"] == "so kind"
    settings = recipe(task="answer", epochs=1, stride=4)
    finetune(settings, tmp_path / "asked", model=base, train=question_rows(20), console=quiet(), runtime=CPU)
    asked = Predictor.load(tmp_path / "asked", runtime=CPU)
    (record,) = answered(asked, b'{"question": "is it", "context": "the day was paris"}\n')
    assert "prediction" in record
    with pytest.raises(DataError, match=r"standard input: row 1: a text, but this model takes \(question, text\)"):
        answered(asked, b"the day was paris\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"the day\n\xff\xfe\n", r"standard input: line 2: byte 0xff is not UTF-8"),
        (b'{"text": "a"}\nplain\n', r"standard input: row 2: 'plain' is no JSON object, as the first line is"),
        (b'{"body": "a"}\n{"text": "b"}\n{}\n', r"standard input: row 1: no field 'text'.*besides: 3\)"),
        (b'{"text": 3}\n', r"standard input: row 1: the text in column 'text' is int '3'"),
    ],
)
def test_wrong_lines(predictor: Predictor, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        answered(predictor, content)


def test_at_the_terminal(moods: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (tmp_path / "in.txt").write_text("lovely day\nawful day\n")
    with (tmp_path / "in.txt").open() as stream:
        monkeypatch.setattr("sys.stdin", stream)
        command(str(moods), ["-"])
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["text"] for record in printed] == ["lovely day", "awful day"]
    with (tmp_path / "in.txt").open() as stream:
        monkeypatch.setattr("sys.stdin", stream)
        command(str(moods), ["-"], out=tmp_path / "out.jsonl")
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == printed
    with pytest.raises(UsageError, match="--pair is the second text to one TEXT"):
        command(str(moods), ["-"], pair="x")


def test_a_model_is_called_with_one_text_or_many(moods: Path, base: Path) -> None:
    model: Any = bertsmith.load(moods, runtime=CPU)
    one, other = model.predict(["lovely day", "awful day"])
    assert model("lovely day").label == one.label
    assert [answer.label for answer in model(["lovely day", "awful day"])] == [one.label, other.label]
    assert model([]) == []
    filler: Any = bertsmith.load(base, runtime=CPU)
    assert filler("the [MASK]") == filler.predict("the [MASK]")
    assert filler(["the [MASK]"] * 2) == [filler.predict("the [MASK]")] * 2


def test_rows_are_counted_on_the_way(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "ROWS_AT_ONCE", 20)
    monkeypatch.setattr(room, "BATCH_TOKENS", {"cpu": 64})
    told: list[tuple[int, int]] = []
    texts = [text for text, _ in text_rows(50)]
    assert len(list(predict(predictor, texts, on_rows=lambda done, total: told.append((done, total))))) == 50
    counts = [done for done, _ in told]
    assert counts == sorted(counts)
    assert len(counts) > 5
    assert counts[-1] == 50


def test_quick_work_shows_nothing_and_slow_work_a_bar_or_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = {}
    for is_terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=is_terminal, width=100)
        now[0] = 0.0
        with progress.rows_shown("predict", console) as report:
            report(10, 1000)
            assert not console.file.getvalue()  # type: ignore[attr-defined]
            now[0] = 20.0
            report(200, 1000)
        shown[is_terminal] = console.file.getvalue()  # type: ignore[attr-defined]
    assert "200/1000" in shown[True]
    assert "10 rows/s" in shown[True]
    assert shown[False] == "predict 200 of 1,000 rows, 10 rows/s, 80 s left\n"
