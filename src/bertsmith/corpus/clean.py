"""A document on its way from source to corpus.

The steps, in this order; `[corpus.clean]` turns each of them on or off:

    characters    mojibake mended, control characters dropped, one Unicode form, spaces squeezed
    boilerplate   lines that stand in many documents left out
    refusals      too short, too long, mostly not letters, another script, repeated lines, rows of evaluation files
    masks         e-mail addresses and phone numbers
    sentences     found, or kept where the source gives them
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

import ftfy
import numpy as np
from ftfy.badness import is_bad

from bertsmith.config import CleanConfig, CorpusConfig
from bertsmith.corpus.boilerplate import Hashes, line_hashes, without_lines
from bertsmith.corpus.document import RawDocument
from bertsmith.corpus.filters import character_counts, non_letter_share, repeated_line_share, script_share
from bertsmith.corpus.overlap import Overlap
from bertsmith.corpus.privacy import mask_emails, mask_phones
from bertsmith.corpus.sentences import split_sentences

# Characters that text decoded with the wrong code page is full of, and proper English or Chinese almost free of.
_SUSPICIOUS = re.compile("[\u0080-\u1fff\u2190-\u25ff\ufffd]")
_LINE_ENDS = "\r\x0b\x0c\x85\u2028\u2029"
_LINE_END = re.compile(f"\r\n?|[{_LINE_ENDS}]")
# Control and private characters, lone surrogates, soft hyphens, zero-width marks, byte order marks; not tab or newline.
_SURROGATES = "\ud800-\udfff"
_INVISIBLE = (
    "\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufdd0-\ufdef\ufeff\ufff0-\ufffc"
    f"\ufffe\uffff{_SURROGATES}\ue000-\uf8ff"
)
_CONTROLS = {True: re.compile(f"[{_INVISIBLE}]"), False: re.compile(f"[{_SURROGATES}]")}
"""What is dropped by `drop_control_characters`; lone surrogates always are, since no file can hold them."""
_OTHER_SPACES = "\t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_OTHER_SPACE = re.compile(f"[{_OTHER_SPACES}]")
_SPACES = re.compile("  +")
_UNUSUAL = re.compile(f"[{_LINE_ENDS}{_INVISIBLE}{_OTHER_SPACES}]")
_BLANK_LINES = re.compile(r"\n{3,}")
_DEFAULT = CleanConfig()


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
    """All that is done to one document without knowing the others; `counts` says what was changed.

    `boilerplate`: hashes of lines to leave out, ascending (`boilerplate.common_lines`; may be memory-mapped).
    `overlap`: rows that no document may hold. Picklable.
    """

    def __init__(self, config: CorpusConfig, *, boilerplate: Hashes | None = None, overlap: Overlap | None = None):
        self.config = config
        self.boilerplate = np.empty(0, np.uint64) if boilerplate is None else boilerplate
        self.overlap = overlap
        self.counts: Counter[str] = Counter()

    def clean(self, raw: RawDocument) -> Cleaned | Rejected:
        """The document as it goes on, or the first reason against it."""
        text, num_left_out = without_lines(self._characters(raw, self.counts), self.boilerplate)
        if num_left_out:
            self.counts["boilerplate lines left out"] += num_left_out
            text = _BLANK_LINES.sub("\n\n", text).strip()
        reason = self._reason_against(text)
        if reason is not None:
            return Rejected(reason)
        text = self._masked(text)
        sentences = split_sentences(text) if raw.sentences is None else tuple(filter(None, text.split("\n")))
        return Cleaned(text, sentences) if sentences else Rejected("no sentences")

    def lines(self, raw: RawDocument) -> Hashes:
        """The document's lines as `boilerplate.count_lines` takes them, before any document is cleaned."""
        return line_hashes(self._characters(raw, Counter()))

    def _characters(self, raw: RawDocument, counts: Counter[str]) -> str:
        if raw.sentences is None:
            return clean_text(raw.text, self.config.clean, counts)
        sentences = (clean_text(sentence, self.config.clean, counts) for sentence in raw.sentences)
        return "\n".join(sentence.replace("\n", " ") for sentence in sentences if sentence)

    def _reason_against(self, text: str) -> str | None:
        config = self.config.clean
        if len(text) < self.config.min_characters:
            return "too short"
        if config.max_characters is not None and len(text) > config.max_characters:
            return "too long"
        if config.max_non_letter_share < 1 or config.scripts:
            counts = character_counts(text)
            if non_letter_share(counts) > config.max_non_letter_share:
                return "mostly not letters"
            if config.scripts and script_share(counts, config.scripts) < config.min_script_share:
                return "another script"
        if config.max_repeated_line_share < 1 and repeated_line_share(text) > config.max_repeated_line_share:
            return "repeated lines"
        if self.overlap is not None and self.overlap.found_in(text):
            return "overlap with evaluation files"
        return None

    def _masked(self, text: str) -> str:
        if self.config.clean.mask_emails:
            text, masked = mask_emails(text)
            self.counts["e-mail addresses masked"] += masked
        if self.config.clean.mask_phones:
            text, masked = mask_phones(text)
            self.counts["phone numbers masked"] += masked
        return text


def clean_text(text: str, config: CleanConfig = _DEFAULT, counts: Counter[str] | None = None) -> str:
    """Mend mojibake (`ftfy`, only lines in which it looks needed), drop control characters, compose, squeeze spaces.

    Lines and blank lines between paragraphs stay. What was changed is added to `counts`.
    """
    counts = Counter() if counts is None else counts
    if config.mend_mojibake and not text.isascii() and _SUSPICIOUS.search(text):
        text = _mended(text, counts)
    unusual = _UNUSUAL.search(text) is not None
    if unusual:
        text, dropped = _CONTROLS[config.drop_control_characters].subn("", _LINE_END.sub("\n", text))
        if dropped:
            counts["control characters dropped"] += dropped
    if config.unicode_form != "off" and not unicodedata.is_normalized(config.unicode_form, text):
        text = unicodedata.normalize(config.unicode_form, text)
        counts["documents brought to one Unicode form"] += 1
    return _squeezed(text, odd_spaces=unusual) if config.squeeze_spaces else text


def _mended(text: str, counts: Counter[str]) -> str:
    """Line by line: a line that was read rightly would hide from ftfy how its neighbour was read."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if not line.isascii() and _SUSPICIOUS.search(line) and is_bad(line):
            lines[number] = ftfy.fix_encoding(line)
            counts["mojibake lines mended"] += lines[number] != line
    return "\n".join(lines)


def _squeezed(text: str, *, odd_spaces: bool) -> str:
    # Looks for what most text has nothing of: each is several times quicker than the work that it saves.
    if odd_spaces:
        text = _OTHER_SPACE.sub(" ", text)
    if "  " in text:
        text = _SPACES.sub(" ", text)
    if " \n" in text or "\n " in text:
        text = "\n".join(line.strip() for line in text.split("\n"))
    if "\n\n\n" in text:
        text = _BLANK_LINES.sub("\n\n", text)
    return text.strip()
