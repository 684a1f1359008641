"""Labelled data that nobody labelled: which words of a sentence are code?

Documentation in reStructuredText puts code between double backticks. The marks are taken out and kept as labels:

    Returns ``None`` if ``max_iter`` is reached.   ->   Returns None if max_iter is reached .
                                                        O       CODE O  CODE     O  O       O

- Words are those a tagger is given for plain text (`words.split_words`): runs of letters, digits and underscores;
  every other character stands alone. Only words can be CODE: a bracket or operator between the marks is O.
- Left out are sentences in which the labels would be a matter of taste or the text is not prose: with single backticks
  or Sphinx roles (some authors write code so), with markup, of fewer than 5 or more than 60 words, with fewer than
  two thirds of the words ordinary, not ASCII, cut off at either end. Each is counted under its reason.
- Sentences that differ only in case or in their code words are one sentence, within and across splits, so that no
  test sentence was seen in training.
- A sentence belongs to the split of its document, a module. Which are taken is a pure function of (seed, sentence),
  with at most 20 from one module.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsmith.artifact import Artifact, open_artifact, write_artifact, write_text
from bertsmith.config import CodeWords
from bertsmith.corpus.build import read_documents
from bertsmith.corpus.document import Document
from bertsmith.errors import DataError
from bertsmith.runtime import derive_seed
from bertsmith.tasks.rows import TaggedRow
from bertsmith.tasks.words import split_words

KIND = "labels"
CODE, OTHER = "CODE", "O"
MOST_PER_MODULE = 20
FEWEST = 20
"""Sentences in a split below which nothing could be learned or measured."""

_MARKED = re.compile(r"``([^`]+)``")
_MARKUP = re.compile(r">>>|\.\. |::|--|==|\|\||\*\*|\[\d+\]_|\\|[$#]|%\(|__$")
_ORDINARY = re.compile(r"[A-Za-z]+")
_FEWEST_WORDS, _MOST_WORDS = 5, 60


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence without its marks, and where it stood."""

    words: tuple[str, ...]
    labels: tuple[str, ...]
    module: str

    @property
    def key(self) -> str:
        """Equal for sentences that differ only in case or in their code words."""
        kept = (word.lower() if label == OTHER else "`" for word, label in zip(self.words, self.labels, strict=True))
        return " ".join(kept)


def code_words_config(config: CodeWords, seed: int) -> dict[str, Any]:
    """The part of a recipe that the artifact depends on, as its manifest has it."""
    return {**config.model_dump(mode="json"), "seed": seed}


def build_code_words(
    config: CodeWords, corpus: Path, out: Path, *, seed: int, environment: Mapping[str, Any]
) -> Artifact:
    """Write train.conll, validation.conll and test.conll from a corpus of Python documentation.

    Fewer sentences than asked are all taken, and the counts say so; fewer than 20 in a split is a `DataError`.
    """
    inputs = {"corpus": open_artifact(corpus, "corpus", verify=False).digest}
    with write_artifact(
        out, kind=KIND, config=code_words_config(config, seed), inputs=inputs, environment=environment
    ) as draft:
        wanted = {"test": config.test, "validation": config.validation, "train": config.train}
        seen: set[str] = set()
        for split, count in wanted.items():  # test first: a sentence that stands in two splits is kept for the test
            left_out: Counter[str] = Counter()
            found = list(find_sentences(read_documents(corpus, split), seen, left_out))
            taken = choose(found, count, seed=seed)
            if len(taken) < min(FEWEST, count):
                raise DataError(
                    f"the corpus has {len(taken)} sentences with words in double backticks in its {split} split, "
                    f"at least {FEWEST} are needed; add packages to its python-docs source"
                    + ("" if split == "train" else f" or raise corpus.{split}_share"),
                    path=corpus,
                )
            write_text(draft.path / f"{split}.conll", to_conll(taken))
            draft.counts[split] = {
                "sentences": len(taken),
                "asked": count,
                "found": len(found),
                "modules": len({sentence.module for sentence in taken}),
                "words": sum(len(sentence.words) for sentence in taken),
                "code_words": sum(sentence.labels.count(CODE) for sentence in taken),
                "left_out": dict(sorted(left_out.items())),
            }
    return open_artifact(out, KIND, verify=False)


def find_sentences(documents: Iterable[Document], seen: set[str], left_out: Counter[str]) -> Iterator[Sentence]:
    """Yield the usable sentences, none of whose keys is in `seen`; add their keys, count what is left out and why."""
    for document in documents:
        for text in document.sentences:
            if "``" not in text:
                continue
            sentence = take_marks_out(text, document.id)
            if isinstance(sentence, str):
                left_out[sentence] += 1
            elif sentence.key in seen:
                left_out["repeated"] += 1
            else:
                seen.add(sentence.key)
                yield sentence


def take_marks_out(text: str, module: str) -> Sentence | str:
    """The labelled sentence, or the reason why it is left out."""
    parts = _MARKED.split(text)  # prose, code, prose, code, ..., prose
    plain, prose = "".join(parts), "".join(parts[::2])
    if "`" in prose:
        return "other backticks"
    if _MARKUP.search(prose):
        return "markup"
    if not plain.isascii():
        return "not ASCII"
    if plain[-1] not in ".!?" or not (plain[0].isupper() or text.startswith("``")):
        return "not a whole sentence"
    words: list[str] = []
    labels: list[str] = []
    for number, part in enumerate(parts):
        some = split_words(part) if part.strip() else []
        words += some
        labels += [CODE if number % 2 and _is_word(word) else OTHER for word in some]
    if words != split_words(plain):
        return "marks inside a word"
    if not _FEWEST_WORDS <= len(words) <= _MOST_WORDS:
        return "too short or too long"
    ordinary = sum(
        label == OTHER and _ORDINARY.fullmatch(word) is not None for word, label in zip(words, labels, strict=True)
    )
    if 3 * ordinary < 2 * sum(map(_is_word, words)):  # below, they are formulas more than prose
        return "not prose"
    if CODE not in labels:
        return "no word between the marks"
    return Sentence(tuple(words), tuple(labels), module)


def choose(sentences: Iterable[Sentence], count: int, *, seed: int) -> list[Sentence]:
    """The first `count` in the order of a hash of (seed, key), at most `MOST_PER_MODULE` from one module."""
    taken: list[Sentence] = []
    modules: Counter[str] = Counter()
    for sentence in sorted(sentences, key=lambda one: (derive_seed("code-words", seed, one.key), one.key)):
        if len(taken) == count:
            break
        if modules[sentence.module] < MOST_PER_MODULE:
            modules[sentence.module] += 1
            taken.append(sentence)
    return taken


def to_conll(sentences: Iterable[Sentence | TaggedRow]) -> str:
    """A word, a tab and its label a line; a blank line after each sentence."""
    return "".join(
        "".join(f"{word}\t{label}\n" for word, label in zip(sentence.words, sentence.labels or (), strict=True)) + "\n"
        for sentence in sentences
    )


def _is_word(word: str) -> bool:
    return word[0].isalnum() or word[0] == "_"
