"""Exact match and F1 of answers against torchmetrics' SQuAD, and against CMRC 2018's rules with NLTK's own words."""

import random
from pathlib import Path

import pytest
from nltk.tokenize import NLTKWordTokenizer
from torchmetrics.functional.text import squad

from bertsmith.tasks.answer_metrics import exact_match, f1
from bertsmith.tasks.question_tables import read_question_rows

WORDS = ("The", "a", "panthers", "Panthers,", "defense", "24", "don't", "U.S.", "—", "an", "Short", "(four)", "")


def test_english_as_the_script_of_squad():
    draw = random.Random(5)
    for _ in range(600):
        truth = [" ".join(draw.choices(WORDS[:-1], k=draw.randint(1, 4))) for _ in range(draw.randint(1, 3))]
        answer = " ".join(draw.choices(WORDS, k=draw.randint(1, 5)))
        theirs = squad(
            [{"prediction_text": answer, "id": "1"}],
            [{"answers": {"answer_start": [0] * len(truth), "text": truth}, "id": "1"}],
        )
        assert exact_match(truth, answer, chinese=False) * 100 == pytest.approx(float(theirs["exact_match"]))
        if any(word.strip(".,()—").lower() not in ("", "a", "an", "the") for word in answer.split()):
            assert f1(truth, answer, chinese=False) * 100 == pytest.approx(float(theirs["f1"]), abs=1e-4)


def test_no_answer_as_the_script_of_squad_2():
    assert (exact_match([], "", chinese=False), f1([], "", chinese=False)) == (1, 1)
    assert (exact_match([], "so", chinese=False), f1([], "so", chinese=False)) == (0, 0)
    assert (exact_match(["so"], "", chinese=False), f1(["so"], "", chinese=False)) == (0, 0)


MARKS = set("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")


def by_the_rules(truth: str, answer: str) -> float:
    """F1 as CMRC 2018 defines it, written the plain way: characters and NLTK's words, longest common run."""

    def parts(text: str) -> list[str]:
        found, word = [], ""
        for character in text.lower().strip():
            if character in MARKS:
                continue
            if "\u4e00" <= character <= "\u9fa5":
                found += [*NLTKWordTokenizer().tokenize(word), character]
                word = ""
            else:
                word += character
        return found + NLTKWordTokenizer().tokenize(word)

    expected, found = parts(truth), parts(answer)
    runs = [
        length
        for i in range(len(expected))
        for j in range(len(found))
        for length in range(1, min(len(expected) - i, len(found) - j) + 1)
        if expected[i : i + length] == found[j : j + length]
    ]
    longest = max(runs, default=0)
    return 2 * longest / (len(expected) + len(found)) if longest else 0.0


@pytest.mark.data
def test_chinese_as_the_rules_of_cmrc_on_real_answers(shared_data: Path):
    rows = read_question_rows(shared_data / "cmrc2018" / "trial.json")[:400]
    draw = random.Random(7)
    different = 0
    for row in rows:
        truth, start = (row.answers or (("", 0),))[0]
        low = max(0, start + draw.randint(-4, 4))
        answer = row.text[low : low + max(1, len(truth) + draw.randint(-6, 6))]
        assert exact_match([truth], truth, chinese=True) == 1
        different += abs(f1([truth], answer, chinese=True) - by_the_rules(truth, answer)) > 1e-9
    assert different <= 8, "only where NLTK splits a mark or an English word in another way"
