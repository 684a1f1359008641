"""A tiny BERT on disk and two tables that it can learn, for tests of fine-tuning and prediction."""

import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from bertsmith.config import Recipe, parse_recipe
from bertsmith.model.config import BertConfig
from bertsmith.model.language import BertForPreTraining
from bertsmith.runtime import Runtime
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.partition import held_out
from bertsmith.tokenizer.encode import SPECIAL_TOKENS, Tokenizer, make_backend

CPU = Runtime(device=torch.device("cpu"), dtype=torch.float32, threads=torch.get_num_threads())
GOOD, BAD = ("lovely", "bright", "kind"), ("awful", "gloomy", "mean")
FILLERS = ("the", "day", "was", "so", "and", "very", "today", "it", "is", "tom", "##orrow", "paris", "rome", ".")
POSITIONS = 32


def tiny_config(vocab_size: int, **changes: Any) -> BertConfig:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=vocab_size, max_position_embeddings=POSITIONS, initializer_range=0.2, **sizes)
    return config.replace(**changes)


def write_tiny_model(directory: Path, *, words: tuple[str, ...] = (*GOOD, *BAD, *FILLERS)) -> Path:
    """A pre-training checkpoint of 2 x 16 with a vocabulary of a few words."""
    vocabulary = {token: number for number, token in enumerate((*SPECIAL_TOKENS, *words))}
    tokenizer = Tokenizer(make_backend(vocabulary, lowercase=True), model_max_length=POSITIONS)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        BertForPreTraining(tiny_config(len(vocabulary))).save_pretrained(directory)
    tokenizer.save(directory)
    return directory


def text_rows(count: int, *, seed: int = 0) -> list[tuple[str, str]]:
    """(text, label) pairs: the label is told by one word among 2 to 12."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        label, words = draw.choice((("good", GOOD), ("bad", BAD)))
        text = [draw.choice(FILLERS[:8]) for _ in range(draw.randint(1, 11))]
        text.insert(draw.randint(0, len(text)), draw.choice(words))
        rows.append((" ".join(text), label))
    return rows


def write_run(folder: Path, *, train: int = 120, epochs: int = 6) -> Path:
    """A run that tells good from bad, with its rows in files beside it (train.tsv, validation.tsv), as a person has."""
    base = write_tiny_model(folder / "base")
    tables = {"train": text_rows(train, seed=3), "validation": text_rows(40, seed=4)}
    files = {name: str(write_tsv(folder / f"{name}.tsv", rows)) for name, rows in tables.items()}
    finetune(recipe(model=str(base), **files, epochs=epochs), folder / "run", console=quiet(), runtime=CPU)
    return folder / "run"


def pair_rows(count: int, *, seed: int = 0) -> list[tuple[str, str, str]]:
    """(text, second text, label): whether both are of one mood, as one word in each tells."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        moods = [draw.choice((GOOD, BAD)) for _ in range(2)]
        texts = []
        for words in moods:
            text = [draw.choice(FILLERS[:8]) for _ in range(draw.randint(1, 9))]
            text.insert(draw.randint(0, len(text)), draw.choice(words))
            texts.append(" ".join(text))
        rows.append((*texts, "same" if moods[0] is moods[1] else "other"))
    return rows


def multilabel_rows(count: int, *, seed: int = 0) -> list[tuple[str, list[str]]]:
    """(text, labels) pairs: a mood's label for each mood's word; a fifth of the texts have none."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        text = [draw.choice(FILLERS[:8]) for _ in range(draw.randint(1, 9))]
        labels = [label for label in ("bad", "good") if draw.random() < 0.6]
        for label in labels:
            text.insert(draw.randint(0, len(text)), draw.choice(GOOD if label == "good" else BAD))
        rows.append((" ".join(text), labels))
    return rows


def choice_rows(count: int, *, seed: int = 0) -> list[tuple[str, str, list[str], int]]:
    """(text, question, choices, number): the choice of the text's mood; two to four choices, short or long."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        right, wrong = draw.sample((GOOD, BAD), 2)
        number, size = draw.randint(0, 3), draw.randint(2, 4)
        number %= size
        moods = [right if place == number else wrong for place in range(size)]
        choices = [" ".join([draw.choice(mood), *["day"] * draw.randint(0, 3)]) for mood in moods]
        text = " ".join([draw.choice(right), *(draw.choice(FILLERS[:8]) for _ in range(draw.randint(0, 8)))])
        rows.append((text, "is it so", choices, number))
    return rows


def question_rows(count: int, *, seed: int = 0, unanswered: float = 0.0) -> list[dict[str, Any]]:
    """The answer is the city of a text, which may be longer than a window; `unanswered` of them have none."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        words = [draw.choice(("the", "day", "was", "so", "kind", ".")) for _ in range(draw.randint(3, 40))]
        city = draw.choice(("paris", "rome"))
        has_answer = draw.random() >= unanswered
        place = draw.randrange(len(words))
        if has_answer:
            words[place] = city
        start = len(" ".join(words[:place])) + (place > 0)
        answers = {"text": [city] if has_answer else [], "answer_start": [start] if has_answer else []}
        rows.append({"question": "today is it", "context": " ".join(words), "answers": answers})
    return rows


def partner_rows(count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Two texts of one mood, a third of the other, and a number that falls with how many fillers the first has."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        own, other = draw.sample((GOOD, BAD), 2)
        texts = []
        for words in (own, own, other):
            text = [draw.choice(FILLERS[:8]) for _ in range(draw.randint(0, 9))]
            text.insert(draw.randint(0, len(text)), draw.choice(words))
            texts.append(" ".join(text))
        first, second, third = texts
        rows.append({"text": first, "pair": second, "other": third, "number": 10 - len(first.split())})
    return rows


def tagged_rows(count: int, *, seed: int = 0) -> list[tuple[list[str], list[str]]]:
    """(words, labels) pairs: `paris` and `rome` are B-PLACE; `tomorrow` is two pieces."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        words = [draw.choice(("the", "day", "tomorrow", "paris", "rome", ".")) for _ in range(draw.randint(1, 10))]
        rows.append((words, ["B-PLACE" if word in ("paris", "rome") else "O" for word in words]))
    return rows


def write_tsv(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")
    return path


def write_conll(path: Path, rows: list[tuple[list[str], list[str]]]) -> Path:
    sentences = ("".join(f"{w}\t{t}\n" for w, t in zip(words, tags, strict=True)) for words, tags in rows)
    path.write_text("\n".join(sentences), encoding="utf-8")
    return path


def recipe(**finetune: Any) -> Recipe:
    """A recipe that learns the tables above in a second."""
    settings = {
        "model": "given",
        "train": "given",
        "max_length": 16,
        "batch_size": 8,
        "learning_rate": 0.01,
        "epochs": 2,
    }
    return parse_recipe({"name": "tiny", "finetune": settings | finetune})


def split_rows(rows: Sequence[Any], share: float, seed: int) -> tuple[list[Any], list[Any]]:
    """The rows to train on, and those held out."""
    chosen = set(held_out(rows, share, seed))
    parts: tuple[list[Any], list[Any]] = ([], [])
    for number, row in enumerate(rows):
        parts[number in chosen].append(row)
    return parts


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def spoken(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
