"""`BertTokenizer`: a `Tokenizer` with the field's methods, which gives what `transformers.BertTokenizerFast` gives.

tokenizer = bertsmith.BertTokenizer.from_pretrained("runs/english/tokenizer")
model(**tokenizer(["A text.", "Another."], padding=True, truncation=True, return_tensors="pt"))
"""

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, Self, SupportsInt, overload

from bertsmith.errors import UsageError
from bertsmith.tokenizer.encode import SPECIAL_TOKENS, Tokenizer
from bertsmith.tokenizer.frame import (
    BatchEncoding,
    Padding,
    Pieces,
    Truncation,
    as_tensors,
    bare,
    cut_to,
    frame,
    pad,
    which_cut,
)


class BertTokenizer(Tokenizer):
    """Text to a BERT's inputs and back, with the methods and the results of `transformers.BertTokenizerFast`.

    Calling it is fast where no offsets are asked for, since words that were seen before are looked up. It holds nothing
    that changes a result, and may be called from several threads.
    """

    pad_token, unk_token, cls_token, sep_token, mask_token = SPECIAL_TOKENS

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> Self:
        """Load from a directory with tokenizer.json or vocab.txt, or from the model hub by name; see `load`."""
        return cls.load(directory)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write tokenizer.json, vocab.txt and the settings, as Hugging Face's libraries read them."""
        self.save(Path(directory))

    @property
    def pad_token_id(self) -> int:
        return self.pad_id

    @property
    def unk_token_id(self) -> int:
        return self.unk_id

    @property
    def cls_token_id(self) -> int:
        return self.cls_id

    @property
    def sep_token_id(self) -> int:
        return self.sep_id

    @property
    def mask_token_id(self) -> int:
        return self.mask_id

    def __len__(self) -> int:
        return self.vocab_size

    def get_vocab(self) -> dict[str, int]:
        """Each token's id."""
        return self._backend.get_vocab()

    def tokenize(self, text: str, pair: str | None = None, *, add_special_tokens: bool = False) -> list[str]:
        """Pieces of the text (and its pair), spelled as in the vocabulary; `##` begins one that continues a word."""
        return self.tokens(self.encode(text, pair, add_special_tokens=add_special_tokens))

    @overload
    def convert_tokens_to_ids(self, tokens: str) -> int: ...
    @overload
    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]: ...
    def convert_tokens_to_ids(self, tokens: str | list[str]) -> int | list[int]:
        """Ids of pieces, that of `[UNK]` for those not in the vocabulary."""
        if isinstance(tokens, str):
            number = self.token_id(tokens)
            return self.unk_id if number is None else number
        return [self.convert_tokens_to_ids(token) for token in tokens]

    @overload
    def convert_ids_to_tokens(self, ids: int) -> str: ...
    @overload
    def convert_ids_to_tokens(self, ids: Iterable[SupportsInt], *, skip_special_tokens: bool = False) -> list[str]: ...
    def convert_ids_to_tokens(
        self, ids: int | Iterable[SupportsInt], *, skip_special_tokens: bool = False
    ) -> str | list[str]:
        """The vocabulary's spelling of ids; `[UNK]` for those outside it."""
        if isinstance(ids, int):
            return self.tokens([ids])[0]
        skipped = {self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id} if skip_special_tokens else set()
        return self.tokens([number for number in map(int, ids) if number not in skipped])

    def encode(
        self,
        text: str,
        text_pair: str | None = None,
        *,
        add_special_tokens: bool = True,
        padding: Padding = False,
        truncation: Truncation = None,
        max_length: int | None = None,
    ) -> list[int]:
        """Ids of one text, or of a pair; see `__call__`."""
        encoding = self(
            text,
            text_pair,
            add_special_tokens=add_special_tokens,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
        )
        return list(encoding["input_ids"])

    def batch_decode(self, rows: Iterable[Iterable[SupportsInt]], *, skip_special_tokens: bool = False) -> list[str]:
        """Text of each row of ids: lists, arrays or a tensor."""
        return [self.decode(list(map(int, row)), skip_special_tokens=skip_special_tokens) for row in rows]

    def __call__(
        self,
        text: str | Sequence[str],
        text_pair: str | Sequence[str] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: Padding = False,
        truncation: Truncation = None,
        max_length: int | None = None,
        return_tensors: Literal["np", "pt"] | None = None,
        return_token_type_ids: bool = True,
        return_attention_mask: bool = True,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
    ) -> BatchEncoding:
        """Encode a text, or a batch of texts, each with its pair if there is one.

        A row is `[CLS] text [SEP]` of token type 0, with a pair `pair [SEP]` of type 1 after it.

        Args:
            padding: True or "longest" to the longest row, "max_length" to `max_length`.
            truncation: True or "longest_first" takes from whichever text is longer; "only_first" and "only_second"
                from that one alone. None is "longest_first" where `max_length` is given and `padding` is not.
            max_length: tokens of a row, special ones included; `model_max_length` if None.
            return_tensors: "np" or "pt" for int64 of shape (batch, length); None for lists, and for a single text
                without the batch around them.
            return_special_tokens_mask: adds `special_tokens_mask`, 1 at `[CLS]`, `[SEP]` and padding.
            return_offsets_mapping: adds `offset_mapping`, the characters [start, end) of each token, (0, 0) for those
                that were put in; slower, since no word is looked up.

        Raises:
            UsageError: for a lone surrogate, a choice that does not exist, a `max_length` that the special tokens
                fill, a text too short to be cut as asked, or rows of different lengths for a tensor.
        """
        texts, pairs = _batches(text, text_pair)
        cut = which_cut(truncation, padding=padding, max_length=max_length)
        limit = self.model_max_length if max_length is None else max_length
        pieces = self._pieces([*texts, *(pairs or ())], offsets=return_offsets_mapping)
        num_special = (2 if pairs is None else 3) if add_special_tokens else 0
        if cut is not None and limit < num_special:
            raise UsageError(f"max_length={limit} has no room for the {num_special} special tokens; give a larger one")
        rows = []
        for number in range(len(texts)):
            first, second = pieces[number], None if pairs is None else pieces[len(texts) + number]
            if cut is not None:
                first, second = cut_to(first, second, cut, limit - num_special)
            rows.append(
                frame(first, second, cls_id=self.cls_id, sep_id=self.sep_id)
                if add_special_tokens
                else bare(first, second)
            )
        columns = pad(rows, padding, max_length=limit, pad_id=self.pad_id)
        for name, is_wanted in (
            ("token_type_ids", return_token_type_ids),
            ("attention_mask", return_attention_mask),
            ("special_tokens_mask", return_special_tokens_mask),
            ("offset_mapping", return_offsets_mapping),
        ):
            if not is_wanted:
                columns.pop(name, None)
        if return_tensors is not None:
            return as_tensors(columns, return_tensors)
        return BatchEncoding({name: rows[0] for name, rows in columns.items()} if isinstance(text, str) else columns)

    def _pieces(self, texts: Sequence[str], *, offsets: bool) -> list[Pieces]:
        """Pieces of each text; a special token written in the text is that token."""
        if offsets or self._added_tokens is None:
            encoded = self._encodings(self._backend, texts)
            return [Pieces(found.ids, found.offsets if offsets else None) for found in encoded]
        is_plain = [self._added_tokens.search(text) is None for text in texts]
        plain = iter(self.encode_ids([text for text, alone in zip(texts, is_plain, strict=True) if alone]))
        rest = self._encodings(self._backend, [text for text, alone in zip(texts, is_plain, strict=True) if not alone])
        others = iter(found.ids for found in rest)
        return [Pieces(next(plain if alone else others), None) for alone in is_plain]

    @cached_property
    def _added_tokens(self) -> re.Pattern[str] | None:
        """Finds tokens that are not parted, such as `[MASK]`; None where they are looked for in the normalised text."""
        added = self._backend.get_added_tokens_decoder().values()
        if any(token.normalized for token in added):
            return None
        return re.compile("|".join(re.escape(token.content) for token in added))


def _batches(
    text: str | Sequence[str], text_pair: str | Sequence[str] | None
) -> tuple[Sequence[str], Sequence[str] | None]:
    """Texts and their pairs as two equally long lists."""
    if isinstance(text, str) and (text_pair is None or isinstance(text_pair, str)):
        return [text], [text_pair] if text_pair else None  # an empty pair of a single text is none, as for the peer
    if isinstance(text, str) or isinstance(text_pair, str):
        raise UsageError("a text takes a text as its pair, and a list of texts a list of pairs")
    if text_pair is not None and len(text) != len(text_pair):
        raise UsageError(f"{len(text):,} texts and {len(text_pair):,} pairs; give each text its pair")
    return text, text_pair
