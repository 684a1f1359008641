"""Text to token ids and back, with a vocabulary that we trained or that somebody else did."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from bertsmith.errors import CheckpointError, UsageError
from bertsmith.tokenizer.chunks import LONE_SURROGATE, ChunkEncoder

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
LONGEST_WORD = 100
"""Characters; a longer word is `[UNK]`, as in the code of the paper."""
_UNUSED = re.compile(r"\[unused\d+\]")


@dataclass(frozen=True, slots=True)
class Encoded:
    """Pieces of one text, without special tokens."""

    ids: list[int]
    word_ids: list[int]
    """Number of the word each piece belongs to, counted from 0."""
    offsets: list[tuple[int, int]]
    """Characters [start, end) of the text that each piece stands for."""


@dataclass(frozen=True, slots=True)
class EncodedWords:
    """Pieces of one sentence that was given as words, without special tokens."""

    ids: list[int]
    first: list[int]
    """Index into `ids` of each word's first piece; every word has one."""


class Tokenizer:
    """A BERT WordPiece tokenizer; ids are those of `transformers.AutoTokenizer` for the same directory."""

    def __init__(self, backend: tokenizers.Tokenizer, *, model_max_length: int = 512):
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.model_max_length = model_max_length
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = map(self._special_id, SPECIAL_TOKENS)

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Load from a directory, or from the model hub by name (tokenizer files only).

        A directory needs tokenizer.json, or vocab.txt (then `do_lower_case` is read from tokenizer_config.json).
        Raises `CheckpointError` when neither is there or they cannot be read.
        """
        folder = Path(directory) if Path(directory).exists() else _download(str(directory))
        settings = _read_json(folder / "tokenizer_config.json")
        if (folder / "tokenizer.json").is_file():
            try:
                backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
            except Exception as error:  # the library raises bare Exception
                raise CheckpointError(f"{folder / 'tokenizer.json'} is not a tokenizer file: {error}") from error
            if not isinstance(backend.model, models.WordPiece):
                raise CheckpointError(
                    f"{folder / 'tokenizer.json'} holds a {type(backend.model).__name__} model; BERT needs WordPiece"
                )
        elif (folder / "vocab.txt").is_file():
            backend = make_backend(read_vocabulary(folder / "vocab.txt"), lowercase=settings.get("do_lower_case", True))
        else:
            raise CheckpointError(f"{folder} holds neither tokenizer.json nor vocab.txt; give a tokenizer's directory")
        max_length = settings.get("model_max_length")
        return cls(backend, model_max_length=max_length if isinstance(max_length, int) and max_length < 2**31 else 512)

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """The tokenizer of the library `tokenizers`, not to be changed."""
        return self._backend

    @property
    def vocab_size(self) -> int:
        return self._backend.get_vocab_size()

    @cached_property
    def lowercase(self) -> bool:
        """Whether upper and lower case letters get the same ids."""
        normalizer = self._backend.normalizer
        return normalizer is not None and normalizer.normalize_str("A") == "a"

    @cached_property
    def never_drawn(self) -> npt.NDArray[np.bool_]:
        """(vocab_size,) True for special tokens and `[unusedN]`: not masked, and never a random replacement."""
        flags = np.zeros(self.vocab_size, dtype=bool)
        flags[[self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id]] = True
        for number, added in self._backend.get_added_tokens_decoder().items():
            flags[number] |= added.special
        for token, number in self._backend.get_vocab().items():
            flags[number] |= _UNUSED.fullmatch(token) is not None
        return flags

    @cached_property
    def continues_word(self) -> npt.NDArray[np.bool_]:
        """(vocab_size,) True for pieces that continue a word (`##...`)."""
        flags = np.zeros(self.vocab_size, dtype=bool)
        for token, number in self._backend.get_vocab().items():
            flags[number] = token.startswith("##") and len(token) > 2
        return flags

    def encode_batch(self, texts: Sequence[str]) -> list[Encoded]:
        """Pieces of each text; a special token written in the text, such as `[MASK]`, is that token."""
        return [
            Encoded(found.ids, [_not_none(word) for word in _words_of_specials(found.word_ids)], found.offsets)
            for found in self._encodings(self._backend, texts)
        ]

    def encode_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, as `encode_flat` has them."""
        ids, ends = self.encode_flat(texts)
        return [part.tolist() for part in np.split(ids, ends)[:-1]]

    def encode_flat(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Ids of all texts end to end, (ids,), and where each text ends in them, (texts,); fast.

        `[MASK]` and the like in a text are plain characters here, as a corpus may hold them.
        """
        if self._chunks is not None:
            return self._chunks.flat(texts)[:2]
        encoded = self._encodings(self._plain, texts)
        ends = np.cumsum([len(found.ids) for found in encoded], dtype=np.int64)
        return np.fromiter(chain.from_iterable(found.ids for found in encoded), dtype=np.int32), ends

    def encode_with_words(
        self, texts: Sequence[str]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """As `encode_flat`, and (ids,) True where a word begins.

        Words are those of `rjieba` in Chinese, and elsewhere those that pieces without `##` begin.
        """
        if self._chunks is not None:
            return self._chunks.flat(texts, han_words=True)
        ids, ends = self.encode_flat(texts)
        return ids, ends, ~self.continues_word[ids]

    def encode_words(self, rows: Sequence[Sequence[str]]) -> list[EncodedWords]:
        """Pieces of sentences given as words; a word of which nothing is left (a control character) is `[UNK]`."""
        encoded = self._plain.encode_batch([list(row) for row in rows], is_pretokenized=True, add_special_tokens=False)
        return [
            self._with_every_word(found.ids, found.word_ids, len(row)) for found, row in zip(encoded, rows, strict=True)
        ]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        return self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary's own spelling of each id; `[UNK]` for ids outside it."""
        return [self._backend.id_to_token(int(number)) or "[UNK]" for number in ids]

    def token_id(self, token: str) -> int | None:
        return self._backend.token_to_id(token)

    def save(self, directory: Path) -> None:
        """Write the four files as Hugging Face's BERT has them."""
        directory.mkdir(parents=True, exist_ok=True)
        self._backend.save(str(directory / "tokenizer.json"))
        by_id = sorted(self._backend.get_vocab().items(), key=lambda item: item[1])
        (directory / "vocab.txt").write_text("".join(token + "\n" for token, _ in by_id), encoding="utf-8")
        names = dict(
            zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL_TOKENS, strict=True)
        )
        settings = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": self.lowercase,
            "strip_accents": None,
            "tokenize_chinese_chars": True,
            "model_max_length": self.model_max_length,
            **names,
        }
        for name, value in (("tokenizer_config.json", settings), ("special_tokens_map.json", names)):
            (directory / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        backend.encode_special_tokens = True
        return backend

    @cached_property
    def _chunks(self) -> ChunkEncoder | None:
        return ChunkEncoder.of(self._plain)

    @staticmethod
    def _encodings(backend: tokenizers.Tokenizer, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        try:
            return backend.encode_batch(list(texts), add_special_tokens=False)
        except TypeError as error:  # what it says of a lone surrogate is that it is no string
            for text in texts:
                if not isinstance(text, str):
                    raise UsageError(f"a text must be a string, and {text!r} is {type(text).__name__}") from error
            raise UsageError(LONE_SURROGATE) from error

    def _special_id(self, token: str) -> int:
        number = self._backend.token_to_id(token)
        if number is None:
            raise CheckpointError(f"the vocabulary has no {token}; BERT needs {', '.join(SPECIAL_TOKENS)}")
        return number

    def _with_every_word(self, ids: list[int], word_ids: list[int | None], num_words: int) -> EncodedWords:
        pieces: list[list[int]] = [[] for _ in range(num_words)]
        for number, word in zip(ids, word_ids, strict=True):
            pieces[_not_none(word)].append(number)
        flat: list[int] = []
        first: list[int] = []
        for word_pieces in pieces:
            first.append(len(flat))
            flat.extend(word_pieces or [self.unk_id])
        return EncodedWords(flat, first)


def make_backend(vocabulary: dict[str, int], *, lowercase: bool) -> tokenizers.Tokenizer:
    """BERT's pipeline around a vocabulary: clean, split Chinese characters, (lowercase,) split words, WordPiece."""
    backend = tokenizers.Tokenizer(
        models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD)
    )
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=lowercase
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    backend.add_special_tokens([token for token in SPECIAL_TOKENS if token in vocabulary])
    if "[CLS]" in vocabulary and "[SEP]" in vocabulary:
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0",
            pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
        )
    return backend


def _words_of_specials(word_ids: list[int | None]) -> list[int | None]:
    """A special token in the text has no word number of its own; it counts as a word."""
    if None not in word_ids:
        return word_ids
    numbers: list[int | None] = []
    previous: int | None = None
    current = -1
    for word in word_ids:
        if word is None or word != previous:
            current += 1
        numbers.append(current)
        previous = word
    return numbers


def _not_none(value: int | None) -> int:
    assert value is not None
    return value


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    return value if isinstance(value, dict) else {}


def read_vocabulary(path: Path) -> dict[str, int]:
    """Token -> id of a vocab.txt. Raises `CheckpointError` where it is not UTF-8, or has a token twice."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8 (byte {error.start})") from error
    if lines and lines[-1] == "":
        lines.pop()
    vocabulary = {line.rstrip("\r"): number for number, line in enumerate(lines)}
    if len(vocabulary) != len(lines):
        raise CheckpointError(f"{path} has the same token on two lines; ids would be ambiguous")
    return vocabulary


def _download(name: str) -> Path:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise CheckpointError(f"tokenizer {name!r}: no such directory")
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(FILES)))
    except Exception as error:  # offline, unknown name, no permission: the hub has a dozen kinds
        raise CheckpointError(
            f"tokenizer {name!r}: no such directory, and the model hub did not give it ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''})"
        ) from error
