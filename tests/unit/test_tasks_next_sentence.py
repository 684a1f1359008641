"""Next sentence: labels under both names, pairs that a corpus makes, wrong rows, learning, answering."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from bertsmith.errors import DataError, UsageError
from bertsmith.model.language import BertForNextSentencePrediction
from bertsmith.tasks.base import Columns
from bertsmith.tasks.evaluate import evaluate
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.next_sentence import NextSentence
from bertsmith.tasks.partition import held_out
from bertsmith.tasks.predict import Predictor, predict
from bertsmith.tokenizer.encode import Tokenizer
from finetune_case import CPU, quiet, recipe, spoken, text_rows, tiny_config, write_tiny_model

TASK = NextSentence()
ROWS = [(first, second, int(label == "bad")) for (first, _), (second, label) in pairwise(text_rows(161, seed=1))]
"""The second text tells by itself."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def corpus(documents: int, sentences: int) -> str:
    return "\n\n".join(
        "\n".join(f"document {number} sentence {place}" for place in range(sentences)) for number in range(documents)
    )


def test_numbers_and_names(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "text,pair,label\na,b,0\na,b,1\na,b,is_next\na,b,NOT_NEXT\n")
    rows = TASK.read(table, Columns(), require_labels=True)
    assert [row.label for row in rows] == ["is_next", "not_next", "is_next", "not_next"]
    assert {row.pair for row in rows} == {"b"}
    named = write(tmp_path / "b.csv", "first,second,label\na,b,0\n")
    (row,) = TASK.read(named, Columns(text="first", pair="second"), require_labels=True)
    assert (row.text, row.pair) == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,pair,label\na,b,2\na,b,0\n", r"rows.csv:2: label '2'; expected 0 or is_next, 1 or not_next"),
        ("text,pair,label\na,b,0\na,b,\n", r"rows.csv:3: the label is missing"),
        ("text,label\na,0\n", r"no column 'pair'"),
        ("text,pair,label\n", "no rows"),
        ("", "empty"),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TASK.read(write(tmp_path / "rows.csv", text), Columns(), require_labels=True)


def test_a_corpus_makes_its_own_pairs(tmp_path: Path) -> None:
    file = write(tmp_path / "text.txt", corpus(documents=100, sentences=8))
    rows = TASK.read(file, Columns(), require_labels=True)
    assert len(rows) == 100 * 7
    lines = file.read_text(encoding="utf-8").split("\n")
    for row in rows:
        assert row.text == lines[row.line - 1]
        document, number = (int(row.text.split()[place]) for place in (1, 3))
        assert row.pair is not None
        other, place = (int(row.pair.split()[at]) for at in (1, 3))
        assert (other, place) == (document, number + 1) if row.label == "is_next" else other != document
    counts = Counter(row.label for row in rows)
    assert 300 < counts["is_next"] < 400
    assert len({row.pair for row in rows if row.label == "not_next"}) > 200, "drawn from everywhere"
    assert {(row.pair or "").split()[3] for row in rows if row.label == "not_next"} == set("01234567")
    assert rows == TASK.read(file, Columns(), require_labels=True)
    kept = set(held_out(rows, 0.1, seed=1))
    documents = [
        {row.text.split()[1] for number, row in enumerate(rows) if (number in kept) == side} for side in (0, 1)
    ]
    assert len(documents[1]) == 10
    assert not documents[0] & documents[1], "a document is on one side"


@pytest.mark.parametrize("text", [corpus(1, 20), "a\n\nb\n\n\nc\n"])
def test_a_corpus_without_documents(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"text.txt: \d documents, the longest of \d+ sentences; expected"):
        TASK.read(write(tmp_path / "text.txt", text), Columns(), require_labels=True)


def test_what_does_not_belong_here() -> None:
    with pytest.raises(UsageError, match="task = 'next-sentence' takes no head"):
        TASK.with_head(torch.nn.Linear)
    with pytest.raises(UsageError, match="label_names is for classify"):
        TASK.read(ROWS, Columns(label_names="names.txt"), require_labels=True)
    with pytest.raises(UsageError, match="is_next and not_next"):
        TASK.labels_in([], where=None, declared=("a", "b"))
    rows = TASK.read([("a", "b", 0)] * 3, Columns(), require_labels=True)
    with pytest.raises(DataError, match="3 rows, all of them is_next"):
        TASK.labels_in(rows, where=None, declared=())


def test_learned_scored_and_answered(base: Path, tmp_path: Path) -> None:
    settings = recipe(task="next-sentence", max_length=32, epochs=5, baselines=["majority"])
    result = finetune(settings, tmp_path / "run", model=base, train=ROWS, console=quiet(), runtime=CPU)
    scores = {row.name: row.score for row in result.score_table if row.metric == "accuracy"}
    assert scores[str(base)] > max(0.8, scores["majority"])
    predictor = Predictor.load(tmp_path / "run", runtime=CPU)
    answers = predictor.predict([("lovely day", "so kind"), ("lovely day", "awful")])
    assert [answer.label for answer in answers] == ["is_next", "not_next"]
    assert evaluate(predictor, ROWS).scores["accuracy"] > 0.8
    for wrong in ("alone", ("a", "b", "c")):
        with pytest.raises(UsageError, match=r"expected \(text, second text\)"):
            predictor.predict([wrong])
    (record,) = predict(predictor, [("lovely", "awful")])
    assert (record["pair"], record["prediction"]) == ("awful", "not_next")


def test_the_head_of_pre_training_is_kept(base: Path, tmp_path: Path) -> None:
    settings = recipe(task="next-sentence", max_length=32, epochs=1, learning_rate=1e-9)
    finetune(settings, tmp_path / "run", model=base, train=ROWS[:40], console=quiet(), runtime=CPU)
    first, last = (
        BertForNextSentencePrediction.from_pretrained(path).state_dict()["cls.seq_relationship.weight"]
        for path in (base, tmp_path / "run")
    )
    torch.testing.assert_close(first, last)


def test_a_model_from_elsewhere_answers_by_the_meaning_of_its_outputs(base: Path, tmp_path: Path) -> None:
    """Its config.json calls them LABEL_0 and LABEL_1."""
    tokenizer = Tokenizer.load(base)
    BertForNextSentencePrediction(tiny_config(tokenizer.vocab_size)).save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    predictor = Predictor.load(tmp_path / "theirs", runtime=CPU)
    (answer,) = predictor.predict([("lovely", "awful")])
    assert set(answer.probabilities) == {"is_next", "not_next"}
    assert 0 <= evaluate(predictor, ROWS[:20]).scores["accuracy"] <= 1


def test_a_model_that_reads_from_left_to_right_is_said_to(base: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(base)
    config = tiny_config(tokenizer.vocab_size, is_decoder=True)
    BertForNextSentencePrediction(config).save_pretrained(tmp_path / "causal")
    tokenizer.save(tmp_path / "causal")
    settings = recipe(task="next-sentence", max_length=32, epochs=1)
    for model, is_said in ((tmp_path / "causal", True), (base, False)):
        console = quiet()
        finetune(settings, tmp_path / model.name / "run", model=model, train=ROWS[:40], console=console, runtime=CPU)
        assert ("[CLS], where this head reads, sees itself" in spoken(console)) == is_said
