"""New words for a vocabulary that exists: ids of old tokens stay, and each new word remembers its old pieces.

A new word is an entry like any other, so WordPiece takes it wherever it is the longest match from where a word begins:
`cardio` is then also the first piece of `cardiogram`. Texts without such words keep their ids.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers

from bertsmith.errors import UsageError
from bertsmith.tokenizer.chunks import UNKNOWN
from bertsmith.tokenizer.count import split_words
from bertsmith.tokenizer.encode import LONGEST_WORD, Tokenizer

MIN_COUNT = 5
"""A word proposed for a vocabulary occurs so often, at least."""
_UNUSED = re.compile(r"\[unused(\d+)\]")
_HAN_RUN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]{2,}")


@dataclass(frozen=True)
class Extended:
    """A tokenizer with new words."""

    tokenizer: Tokenizer
    added: Mapping[str, int]
    """Id of each new token, in the order in which they were given."""
    old_ids: Mapping[int, Sequence[int]]
    """Ids of the old pieces that stood for each new token, by its id."""
    known: tuple[str, ...]
    """Words that the vocabulary had already."""


@dataclass(frozen=True)
class Proposal:
    """A word that the vocabulary would gain by."""

    word: str
    count: int
    pieces: tuple[str, ...]
    """What stands for it now."""
    saved: int
    """count x (pieces - 1): tokens by which the text becomes shorter. A word that is [UNK] counts as two pieces."""


def extend_vocabulary(tokenizer: Tokenizer, words: Iterable[str], *, use_unused: bool = False) -> Extended:
    """Add words, or pieces that go on with a word (`##itis`), after the last id; `tokenizer` itself is not changed.

    use_unused: take the ids of `[unusedN]`, in the order of N, before new ones.

    Raises `UsageError` for what is no single word to the tokenizer, since it could never be found in a text.
    """
    vocabulary = tokenizer.backend.get_vocab()
    wanted = dict.fromkeys(_as_token(word, tokenizer) for word in words)
    new = [token for token in wanted if token not in vocabulary]
    free = _free_slots(tokenizer) if use_unused else []
    last = max(vocabulary.values())
    numbers = [*(number for _, number in free), *range(last + 1, last + 1 + len(new))][: len(new)]
    added = dict(zip(new, numbers, strict=True))
    definition: dict[str, Any] = json.loads(tokenizer.backend.to_str())
    entries: dict[str, int] = definition["model"]["vocab"]
    for slot, _ in free[: len(new)]:
        del entries[slot]
    definition["model"]["vocab"] = dict(sorted((entries | added).items(), key=lambda item: item[1]))
    definition["truncation"] = definition["padding"] = None
    return Extended(
        Tokenizer(
            tokenizers.Tokenizer.from_str(json.dumps(definition, ensure_ascii=False)),
            model_max_length=tokenizer.model_max_length,
        ),
        added,
        {number: _old_pieces(token, tokenizer) for token, number in added.items()},
        tuple(token for token in wanted if token in vocabulary),
    )


def propose_words(
    tokenizer: Tokenizer, words: Mapping[str, int], number: int, *, min_count: int = MIN_COUNT
) -> list[Proposal]:
    """The words of a text whose entries would shorten it most, best first; ties by text.

    words: how often each occurs, as the tokenizer's own normaliser and pre-tokenizer make them. Words with digits or
    punctuation are left out, and those seen fewer than `min_count` times.
    """
    found = []
    for word, count in words.items():
        if count < min_count or not word.isalpha():
            continue
        pieces = tuple(token.value for token in tokenizer.backend.model.tokenize(word))
        saved = count * (len(pieces) - 1 if pieces != (UNKNOWN,) else 1)
        if saved:
            found.append(Proposal(word, count, pieces, saved))
    return sorted(found, key=lambda one: (-one.saved, one.word))[:number]


def _as_token(word: str, tokenizer: Tokenizer) -> str:
    """The entry by which the tokenizer finds `word`: normalised, with its `##` if it was given one."""
    bare = word.strip()
    prefix = "##" if bare.startswith("##") and len(bare) > 2 else ""
    parts = split_words(bare.removeprefix(prefix), tokenizer.backend)
    if len(parts) == 1 and len(parts[0]) <= LONGEST_WORD:
        return prefix + parts[0]
    if len(parts) == 1:
        raise UsageError(f"{parts[0][:30]}... has {len(parts[0])} characters; a word has {LONGEST_WORD} at most")
    if not parts:
        raise UsageError(f"{word!r} holds no character that the tokenizer keeps; give words, one a line")
    because = " (each Chinese character is a word to BERT)" if _HAN_RUN.search(bare) else ""
    raise UsageError(
        f"{bare!r} is {len(parts)} words to this tokenizer: {' '.join(parts[:8])}{because}; an entry is one word, "
        "so leave it out or give those of its words that matter"
    )


def _old_pieces(token: str, tokenizer: Tokenizer) -> list[int]:
    """Ids that stood for a token: those of the word, or, of a piece that goes on with a word, its greedy pieces."""
    model = tokenizer.backend.model
    if not token.startswith("##"):
        return [piece.id for piece in model.tokenize(token)]
    ids: list[int] = []
    rest = token.removeprefix("##")
    while rest:
        for end in range(len(rest), 0, -1):
            number = model.token_to_id(f"##{rest[:end]}")
            if number is not None:
                break
        else:
            return [tokenizer.unk_id]
        ids.append(number)
        rest = rest[end:]
    return ids


def _free_slots(tokenizer: Tokenizer) -> list[tuple[str, int]]:
    """`[unusedN]` entries and their ids in the order of N, but those that were made special tokens."""
    special = {token.content for token in tokenizer.backend.get_added_tokens_decoder().values()}
    found = [
        (int(match[1]), token, number)
        for token, number in tokenizer.backend.get_vocab().items()
        if (match := _UNUSED.fullmatch(token)) and token not in special
    ]
    return [(token, number) for _, token, number in sorted(found)]
