"""Augmentation: copies keep their label, tags stay valid, and a copy is a pure function of seed, row and number."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bertsmith.cli import app
from bertsmith.config import AugmentConfig
from bertsmith.errors import BertsmithError, RecipeError
from bertsmith.model.language import BertForMaskedLM
from bertsmith.tasks.augment import copies_of, told
from bertsmith.tasks.base import Columns
from bertsmith.tasks.edits import Draws, Editor, Word, row_of, segments_of, split_text
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.metrics import entities
from bertsmith.tasks.predict import TASKS
from bertsmith.tasks.replace_words import WordReplacer
from bertsmith.tasks.rows import TaggedRow, TextRow
from bertsmith.tokenizer.encode import SPECIAL_TOKENS, Tokenizer, make_backend
from bertsmith.training.track import read_metrics
from finetune_case import CPU, FILLERS, GOOD, quiet, recipe, spoken, text_rows, tiny_config, write_tiny_model

ALL = AugmentConfig(methods=("swap", "delete", "insert"), rate=0.3, copies=3)
ASCII_WORDS = st.text("abcXY", min_size=1, max_size=3)
TEXTS = st.one_of(
    st.text(max_size=30),
    st.lists(st.one_of(ASCII_WORDS, st.sampled_from([",", "我爱北京", "don't", " ", "!"])), max_size=8).map(" ".join),
)


@st.composite
def tagged(draw: Any, scheme: str = "BIO") -> TaggedRow:
    """A sentence of runs outside entities and of entities, tagged by the scheme."""
    tags: list[str] = []
    for kind, length in draw(st.lists(st.tuples(st.sampled_from(["O", "x", "y"]), st.integers(1, 4)), max_size=5)):
        if kind == "O":
            tags += ["O"] * length
        elif scheme == "IOBES":
            tags += [f"S-{kind}"] if length == 1 else [f"B-{kind}", *[f"I-{kind}"] * (length - 2), f"E-{kind}"]
        else:
            tags += [f"B-{kind}", *[f"I-{kind}"] * (length - 1)]
    tags = tags or ["O"]
    words = draw(st.lists(ASCII_WORDS, min_size=len(tags), max_size=len(tags)))
    return TaggedRow(tuple(words), tuple(tags), 1)


def is_valid(tags: tuple[str, ...], scheme: str) -> bool:
    """Whether every entity begins and ends as the scheme has it: seqeval's strict reading finds all of them."""
    from seqeval.metrics.sequence_labeling import get_entities
    from seqeval.scheme import IOB2, IOBES, Entities

    strict = Entities([list(tags)], IOB2 if scheme == "BIO" else IOBES).entities[0]
    return {(e.tag, e.start, e.end) for e in strict} == {(kind, a, b + 1) for kind, a, b in get_entities(list(tags))}


@settings(max_examples=40)
@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(0, 9))
def test_copies_of_texts_keep_label_and_some_word(texts: list[str], seed: int) -> None:
    rows = [TextRow(text, "ab"[number % 2], number) for number, text in enumerate(texts)]
    for copy in copies_of(rows, ALL, seed=seed):
        source = rows[copy.source]
        assert (copy.row.label, copy.row.line, copy.row.pair) == (source.label, source.line, None)
        assert copy.row.text.strip()
        assert copy.row != source
        before, after = (sorted(word.text for word in split_text(text)[1]) for text in (source.text, copy.row.text))
        assert after
        if copy.method == "swap" and source.text.isascii():
            assert after == before


@given(TEXTS)
def test_words_and_what_is_between_are_the_text(text: str) -> None:
    before, words = split_text(text)
    assert before + "".join(word.text + word.after for word in words) == text


@pytest.mark.parametrize("scheme", ["BIO", "IOBES"])
@given(data=st.data())
def test_tags_travel_with_their_words(scheme: str, data: Any) -> None:
    rows = data.draw(st.lists(tagged(scheme), min_size=1, max_size=4))
    known = {tag for row in rows for tag in row.labels or ()}
    for copy in copies_of(rows, ALL, seed=data.draw(st.integers(0, 9))):
        source, row = rows[copy.source], copy.row
        assert len(row.words) == len(row.labels) >= 1
        assert set(row.labels) <= known
        assert is_valid(row.labels, scheme)
        kinds = [kind for kind, _, _ in entities(source.labels or ())]
        assert [kind for kind, _, _ in entities(row.labels)] == kinds, "an entity was lost or made"
        if copy.method == "swap":
            assert row.labels == source.labels
            for kind in {tag.partition("-")[2] for tag in row.labels}:
                assert words_of(row, kind) == words_of(source, kind)
        if copy.method == "delete":
            assert len(row.words) < len(source.words)
        if copy.method == "insert":
            assert len(row.words) > len(source.words)


def words_of(row: TaggedRow, kind: str) -> list[str]:
    return sorted(word for word, tag in zip(row.words, row.labels or (), strict=True) if tag.partition("-")[2] == kind)


@settings(max_examples=40)
@given(st.lists(tagged(), min_size=2, max_size=5, unique_by=lambda row: row.content), st.randoms())
def test_a_copy_does_not_hang_on_order_or_on_other_copies(rows: list[TaggedRow], random: Any) -> None:
    def by_row(given: list[TaggedRow], config: AugmentConfig) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for copy in copies_of(given, config, seed=7):
            found.setdefault(given[copy.source].content, []).append((copy.row, copy.method))
        return found

    shuffled = random.sample(rows, len(rows))
    assert by_row(rows, ALL) == by_row(shuffled, ALL)
    once = by_row(rows, ALL.model_copy(update={"copies": 1}))
    assert {key: value[:1] for key, value in by_row(rows, ALL).items()} == once


def test_each_edit_by_hand() -> None:
    row = TextRow("He, too, left Rome.", "a", 1)
    segments = segments_of(row, frozenset())
    assert segments[0].words == (Word("He", ", "), Word("too", ", "), Word("left", " "), Word("Rome", "."))
    editor = Editor(frozenset(), {segments[0].pool: ["soon"]}, rate=0.1)
    deleted = {row_of(row, editor.delete(segments, Draws(n)) or ()).text for n in range(40)}
    assert deleted == {"too, left Rome.", "He,, left Rome.", "He, too, Rome.", "He, too, left."}
    inserted = {row_of(row, editor.insert(segments, Draws(n)) or ()).text for n in range(60)}
    assert "He, too, left soon Rome." in inserted
    assert "He, too, left Rome soon." in inserted
    assert len(inserted) == 4
    swapped = {row_of(row, editor.swap(segments, Draws(n)) or ()).text for n in range(99)}
    assert "too, He, left Rome." in swapped
    assert len(swapped) == 6


def test_chinese_words_are_rjieba_s() -> None:
    assert [word.text for word in split_text("我爱北京天安门, really!")[1]] == ["我", "爱", "北京", "天安门", "really"]
    rows = [TextRow("我爱北京天安门", "a", 1)]
    texts = {
        copy.row.text for seed in range(30) for copy in copies_of(rows, AugmentConfig(methods=("delete",)), seed=seed)
    }
    assert texts == {"爱北京天安门", "我北京天安门", "我爱天安门", "我爱北京"}


def test_what_cannot_be_changed_has_no_copy_and_is_counted() -> None:
    rows = [TextRow("...", "a", 1), TextRow("word", "a", 2)]
    copies = list(copies_of(rows, AugmentConfig(methods=("swap", "delete")), seed=1))
    assert copies == []
    assert "0 copies (none); 2 rows have none: nothing in them can be changed" in next(told(rows, copies))
    (copy,) = copies_of(rows, AugmentConfig(methods=("swap", "insert")), seed=1)
    assert (copy.source, copy.method, copy.row.text) == (1, "insert", "word word")


def test_schemes_that_are_not_known_are_left_alone_and_plain_labels_are_not() -> None:
    row = TaggedRow(tuple("abcdef"), ("B-x", "M-x", "E-x", "O", "O", "O"), 1)
    for copy in copies_of([row], ALL, seed=1):
        assert copy.row.words[:3] == row.words[:3]
        assert copy.row.labels[:3] == row.labels[:3]
    plain = TaggedRow(("np", ".", "dot", "is", "a", "name"), ("CODE", "CODE", "CODE", "O", "O", "O"), 1)
    for copy in copies_of([plain], ALL, seed=1):
        assert "CODE" in copy.row.labels
        assert copy.row.labels == tuple(sorted(copy.row.labels))
    separate = TaggedRow(("a", "b", "c"), ("I-x", "O", "I-x"), 1)
    for copy in copies_of([separate], ALL, seed=1):
        assert len(entities(copy.row.labels)) == 2


def test_inserted_words_are_of_rows_of_the_same_label() -> None:
    rows = [TextRow("a b c", "low", 1), TextRow("x y z", "high", 2)]
    config = AugmentConfig(methods=("insert",), rate=0.5, copies=20)
    for copy in copies_of(rows, config, seed=1):
        own = "abc" if copy.row.label == "low" else "xyz"
        assert set(copy.row.text) <= {*own, " "}


def test_pairs_keep_both_texts() -> None:
    rows = [TextRow("one two", "a", 1, pair="three")]
    for copy in copies_of(rows, AugmentConfig(methods=("delete", "swap"), rate=0.5, copies=9), seed=1):
        assert copy.row.text
        assert copy.row.pair == "three"


# ---- words of a masked language model ----


@pytest.fixture(scope="module")
def proposer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("proposer"))


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of Chinese characters."""
    import torch

    folder = tmp_path_factory.mktemp("chinese")
    words = [*SPECIAL_TOKENS, *"我爱北京天安门上海很大", "good"]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        BertForMaskedLM(tiny_config(len(words))).save_pretrained(folder)
    backend = make_backend({word: number for number, word in enumerate(words)}, lowercase=True)
    Tokenizer(backend, model_max_length=32).save(folder)
    return folder


def replacing(model: Path, **chosen: Any) -> AugmentConfig:
    return AugmentConfig(methods=("replace",), model=str(model), **chosen)


def test_words_are_replaced_by_other_whole_words(proposer: Path) -> None:
    rows = [TextRow(text, label, line) for line, (text, label) in enumerate(text_rows(6), 1)]
    copies = list(copies_of(rows, replacing(proposer, rate=0.3, copies=4), seed=1, runtime=CPU))
    assert len(copies) == 24
    known = {word for word in (*FILLERS, *GOOD, "awful", "gloomy", "mean") if word.isalpha()}
    for copy in copies:
        source = rows[copy.source]
        before, after = source.text.split(), copy.row.text.split()
        changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
        assert len(changed) == max(1, round(0.3 * len(before)))
        assert {new for _, new in changed} <= known
        assert copy.row.label == source.label
    again = list(copies_of(rows[::-1], replacing(proposer, rate=0.3, copies=4), seed=1, runtime=CPU))
    assert sorted(map(repr, (copy.row for copy in again))) == sorted(map(repr, (copy.row for copy in copies)))


def test_draws_go_by_the_model_s_probabilities(proposer: Path) -> None:
    """With k = 1 always the likeliest word that is not the word itself, by the whole model's logits."""
    import torch

    row = TextRow("paris was lovely", "a", 1)
    segments = segments_of(row, frozenset())
    replacer = WordReplacer.load(proposer, [segments], top_k=1, runtime=CPU)
    model, tokenizer = BertForMaskedLM.from_pretrained(proposer), Tokenizer.load(proposer)
    expected = set()
    for place, word in enumerate(("paris", "was", "lovely")):
        masked = [*row.text.split()]
        masked[place] = "[MASK]"
        ids = [tokenizer.cls_id, *tokenizer.encode_batch([" ".join(masked)])[0].ids, tokenizer.sep_id]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, place + 1]
        order = [tokenizer.tokens([number])[0] for number in logits.argsort(descending=True).tolist()]
        masked[place] = next(token for token in order if token.isalpha() and token != word)
        expected.add(" ".join(masked))
    found = {row_of(row, replacer.replace(segments, Draws(n), 1) or ()).text for n in range(60)}
    assert found == expected


def test_chinese_words_are_replaced_by_words_as_long(chinese: Path) -> None:
    rows = [TextRow("我爱北京", "a", 1), TextRow("上海很大", "b", 2)]
    copies = list(copies_of(rows, replacing(chinese, copies=20), seed=3, runtime=CPU))
    assert {copy.row.text for copy in copies if copy.source == 0} >= {"我爱上海"}
    assert all(len(copy.row.text) == 4 for copy in copies)
    assert {"北京"} & {copy.row.text[:2] for copy in copies if copy.source == 1}


def test_names_stay_and_capitals_too(proposer: Path) -> None:
    row = TaggedRow(("Tom", "was", "lovely"), ("B-x", "O", "O"), 1)
    for copy in copies_of([row], replacing(proposer, copies=9), seed=1, runtime=CPU):
        assert copy.row.words[0] == "Tom"
        assert copy.row.labels == row.labels
    shouted = TextRow("Was LOVELY", "a", 1)
    for copy in copies_of([shouted], replacing(proposer, copies=9, rate=0.5), seed=1, runtime=CPU):
        first, second = copy.row.text.split()
        assert first.istitle()
        assert second.isupper()


def test_a_text_longer_than_the_model_reads_is_changed_where_it_reads(proposer: Path) -> None:
    row = TextRow(" ".join(["day"] * 50), "a", 1)
    for copy in copies_of([row], replacing(proposer, copies=5), seed=1, runtime=CPU):
        words = copy.row.text.split()
        assert words[30:] == ["day"] * 20
        assert words != ["day"] * 50


# ---- in a fine-tuning, and at the terminal ----


def test_training_rows_alone_have_copies(proposer: Path, tmp_path: Path) -> None:
    chosen = recipe(augment={"copies": 2}, epochs=1)
    console = quiet()
    result = finetune(chosen, tmp_path / "run", model=proposer, train=text_rows(40), console=console, runtime=CPU)
    start = next(iter(read_metrics(tmp_path / "run" / "metrics.jsonl")))
    assert start["data"]["train_rows"] == 36
    assert start["data"]["validation_rows"] == 4
    assert start["data"]["copied_rows"] == start["plan"]["examples"] - 36 > 60
    assert "augmented  36 training rows and" in spoken(console)
    again = finetune(chosen, tmp_path / "run", model=proposer, train=text_rows(40), console=console, runtime=CPU)
    assert "done before" in spoken(console)
    assert again.scores == result.scores
    other = recipe(augment={"copies": 2, "rate": 0.2}, epochs=1)
    finetune(other, tmp_path / "run", model=proposer, train=text_rows(40), console=console, runtime=CPU)
    assert "starting again" in spoken(console)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"methods": ["swop"]}, "Input should be 'swap', 'delete', 'insert' or 'replace', not 'swop'"),
        ({"methods": ["swap", "swap"]}, "methods names 'swap' twice"),
        ({"methods": []}, "at least 1 item"),
        ({"methods": ["replace"]}, "no model to propose words; set model = DIRECTORY"),
        ({"model": "somewhere"}, "is for the method 'replace', which methods does not name"),
        ({"rate": 0.0}, "greater than 0"),
    ],
)
def test_wrong_sections_are_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=r"finetune\.augment") as caught:
        recipe(augment=section)
    assert message in str(caught.value)
    with pytest.raises(RecipeError, match="task = 'answer' takes no"):
        recipe(task="answer", augment={})


CASES = {
    "rows.csv": ("text,label\n" + "red and green,a\nblue and so on,b\n" * 5, "more.jsonl"),
    "rows.conll": ("Rome\tB-x\nis\tO\nfar\tO\n\nso\tO\nis\tO\nParis\tB-x\n", "more.conll"),
    "rows.jsonl": ('{"text": "red, green", "labels": ["a", "b"]}\n{"text": "blue one", "labels": []}\n', "more.csv"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_table_with_copies_can_be_read_again(name: str, tmp_path: Path) -> None:
    content, out = CASES[name]
    (tmp_path / name).write_text(content, encoding="utf-8")
    found = CliRunner().invoke(
        app, ["data", "augment", str(tmp_path / name), "--out", str(tmp_path / out), "--rate", "0.4"]
    )
    assert found.exit_code == 0, found.output
    assert "original" in found.output
    kind = {"rows.csv": "classify", "rows.conll": "tag", "rows.jsonl": "multilabel"}[name]
    columns = Columns(label="labels") if name == "rows.jsonl" else Columns()
    before = TASKS[kind].read(tmp_path / name, columns, require_labels=True)
    rows = TASKS[kind].read(tmp_path / out, columns, require_labels=True)
    assert len(rows) == 2 * len(before)
    strip = [(row.content, row.labels if kind == "tag" else row.label) for row in rows]
    assert strip[: len(before)] == [(row.content, row.labels if kind == "tag" else row.label) for row in before]
    if out == "more.jsonl":
        records = [json.loads(line) for line in (tmp_path / out).read_text(encoding="utf-8").splitlines()]
        assert [record["row"] for record in records] == [row.line for row in before] * 2
        assert {record["method"] for record in records[: len(before)]} == {"original"}
        by_line = {row.line: row.label for row in before}
        assert all(record["label"] == by_line[record["row"]] for record in records)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "more.txt"], "texts with labels are written to .jsonl or .csv"),
        (["--out", "more.csv", "--rate", "0.9"], "finetune.augment.rate"),
        (["--out", "more.csv", "--method", "replace", "--model", "nowhere/at/all"], "nowhere/at/all"),
    ],
)
def test_wrong_options_are_told(options: list[str], message: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text(CASES["rows.csv"][0], encoding="utf-8")
    found = CliRunner().invoke(app, ["data", "augment", "rows.csv", *options])
    assert isinstance(found.exception, BertsmithError)
    assert message in str(found.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_a_model_without_words_of_its_own_is_refused(tmp_path: Path) -> None:
    from bertsmith.errors import UsageError

    folder = write_tiny_model(tmp_path, words=("lovely", "##ly", "."))
    with pytest.raises(UsageError, match="has no whole words to propose; give another model"):
        list(copies_of([TextRow("so far", "a", 1)], replacing(folder), seed=1, runtime=CPU))
