"""Text as it was meant: broken encodings mended, one form for each character, no control characters."""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

import ftfy
from ftfy.badness import is_bad

from bertsmith.config import CorpusConfig
from bertsmith.corpus.document import RawDocument
from bertsmith.corpus.sentences import split_sentences

# Characters that text decoded with the wrong code page is full of, and proper English or Chinese almost free of.
_SUSPICIOUS = re.compile("[\u0080-\u1fff\u2190-\u25ff\ufffd]")
_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Control and private characters, lone surrogates, soft hyphens, zero-width marks, byte order marks; not tab or newline.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufdd0-\ufdef\ufeff\ufff0-\ufffc"
    "\ufffe\uffff\ud800-\udfff\ue000-\uf8ff]"
)
_OTHER_SPACES = "\t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_SPACES = re.compile(f"[ {_OTHER_SPACES}]{{2,}}|[{_OTHER_SPACES}]")
_BLANK_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What a document became."""

    text: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A document that is not taken, and why."""

    reason: str


class Cleaner:
    """All that is done to a document between its source and the corpus."""

    def __init__(self, config: CorpusConfig):
        self.config = config
        self.counts: Counter[str] = Counter()

    def clean(self, raw: RawDocument) -> Cleaned | Rejected:
        if raw.sentences is None:
            text = clean_text(raw.text)
            sentences = split_sentences(text)
        else:
            sentences = tuple(filter(None, (clean_text(line).replace("\n", " ") for line in raw.sentences)))
            text = "\n".join(sentences)
        if len(text) < self.config.min_characters:
            return Rejected("too short")
        return Cleaned(text, sentences) if sentences else Rejected("no sentences")


def clean_text(text: str) -> str:
    """Mend mojibake (`ftfy`, only where it looks needed), compose to NFC, drop control characters, squeeze spaces.

    Lines and blank lines between paragraphs stay.
    """
    text = _LINE_ENDS.sub("\n", text)
    if not text.isascii():
        if _SUSPICIOUS.search(text) and is_bad(text):
            text = ftfy.fix_encoding(text)
        if not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)
    text = _SPACES.sub(" ", _INVISIBLE.sub("", text))
    text = "\n".join(line.strip() for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n", text).strip()
