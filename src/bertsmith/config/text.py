"""Sections on text: where files come from, documents, vocabulary, examples."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from bertsmith.config.section import Column, Positive, Section, Share, refuse_passwords

Script = Literal[
    "latin", "han", "hiragana", "katakana", "hangul", "cyrillic", "greek", "arabic", "hebrew", "devanagari", "thai"
]


class Download(Section):
    """One public file that a recipe needs: where it is, what it must hash to, and under which licence."""

    url: str
    sha256: str | None = None
    """Hash of the downloaded file; may be left out for an archive whose members are all listed with theirs."""
    members: dict[str, str] = {}
    """For a .zip or .tar.*: member's name -> path below the data folder. Empty: the file itself goes to `path`."""
    member_sha256: dict[str, str] = {}
    """Path below the data folder -> sha256 of that file."""
    path: str = ""
    licence: str
    max_bytes: Positive = 2_000_000_000
    """Refuse a download, or an unpacked archive, larger than this."""


class Data(Section):
    """Where a recipe's files come from (`bertsmith fetch RECIPE` downloads them)."""

    downloads: tuple[Download, ...] = ()


class Source(Section):
    """One source of documents."""

    kind: Literal["text", "jsonl", "json", "csv", "parquet", "sql", "hub", "python-docs"]
    paths: tuple[str, ...] = ()
    """Files, folders, globs or fsspec URLs, plain or .gz, .bz2, .xz, .zst; paths are looked up in the current folder,
    then in each data folder. hub: which of the dataset's files."""
    layout: Literal["sentences", "paragraphs", "file"] = "paragraphs"
    """Text: a sentence a line with blank lines between documents; a paragraph a document; a file a document."""
    unwrap: bool = False
    """Rejoin hard-wrapped lines into paragraphs."""
    text_field: str = "text"
    """JSON: the field with the text (dots go into nested objects; of a list, each element); else the column."""
    header: bool = True
    """CSV: the first line names the columns; false: text_field is a number from 0."""
    delimiter: Annotated[str, Field(max_length=1)] = ""
    """CSV: what parts columns; default: a tab in .tsv files, else a comma."""
    encoding: str = "utf-8"
    """Of text, JSON and CSV: any that Python knows, such as gb18030 or utf-16."""
    on_error: Literal["strict", "skip", "replace"] = "strict"
    """What cannot be decoded: refuse it with its place, leave it out, or put U+FFFD; the last two are counted. skip
    leaves out, and counts, records that hold no text where it should be, too."""
    max_document_bytes: Positive = 16_000_000
    """Longer lines and documents are left out and counted, so that memory is bounded."""
    weight: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Mixing weight: 2 takes each training document twice, 0.25 every fourth, chosen by a hash."""
    url: str = ""
    """sql: the database, as SQLAlchemy writes it: sqlite:///FILE, postgresql://USER:${NAME}@HOST/DATABASE. ${NAME} is
    an environment variable, read when connecting; a password in plain text is refused, since recipes are kept."""
    query: str = ""
    """sql: the query whose rows are documents; order it (ORDER BY), since a row's number is its id."""
    dataset: str = ""
    """hub: OWNER/NAME of a dataset, or OWNER/NAME@REVISION."""
    packages: tuple[str, ...] = ()
    """python-docs: installed packages to read beside the standard library."""

    @field_validator("url", "paths")
    @classmethod
    def _holds_no_password(cls, value: Any) -> Any:
        refuse_passwords((value,) if isinstance(value, str) else value)
        return value


class CleanConfig(Section):
    """What happens to a document before it may enter the corpus; each step is on or off by itself.

    On by default is what every source is better for; off is what takes a decision about your text.
    """

    mend_mojibake: bool = True
    """Mend text that was read with the wrong encoding, such as `doesnâ€™t` (ftfy, on lines that seem to need it)."""
    drop_control_characters: bool = True
    """Drop control and private characters, soft hyphens, zero-width marks and byte order marks."""
    unicode_form: Literal["NFC", "NFKC", "off"] = "NFC"
    """One form for each character. NFC changes no glyph; NFKC also makes full-width signs and ligatures plain, so that
    Chinese punctuation becomes ASCII."""
    squeeze_spaces: bool = True
    """One space for any run of spaces and tabs, none at line ends, one blank line at most."""
    max_characters: Positive | None = None
    """Longer documents are dropped and counted."""
    max_non_letter_share: Share = 1.0
    """Drop documents in which more of the characters, spaces aside, are no letters: tables, logs, code. English or
    Chinese prose stays below 0.2; 0.4 is a careful bound, 1 is off."""
    scripts: tuple[Script, ...] = ()
    """Languages by script: keep documents mostly written in these; empty keeps all. Chinese is `han`, Japanese mostly
    `hiragana` and `katakana`. Languages that share a script are not told apart."""
    min_script_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.7
    """Share of a document's letters that must be in `scripts`: an English text may quote some Greek."""
    max_repeated_line_share: Share = 1.0
    """Drop documents in which lines that stood earlier in the same document make up more of its characters; 0.3 is
    Gopher's bound (Rae et al. 2021), 1 is off."""
    boilerplate_documents: Annotated[int, Field(ge=2)] | None = None
    """Leave out lines (of 24 bytes or more) that stand in at least so many documents: menus, licences, signatures."""
    mask_emails: bool = False
    """Write [EMAIL] for every e-mail address."""
    mask_phones: bool = False
    """Write [PHONE] for phone numbers: international with +, North American, Chinese, any after `Tel:` or `电话`."""


class DedupConfig(Section):
    """Near duplicates over all sources; the first in the order of the sources stays."""

    near: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Drop a document whose shingles are at least so similar (Jaccard, estimated by MinHash) to those of an earlier
    one; 0.8 is usual. Default: off."""
    permutations: Annotated[int, Field(ge=16, le=1024)] = 128
    """Numbers in a signature; the estimate's standard deviation is at most 0.5 / sqrt(permutations)."""
    shingle: Annotated[int, Field(ge=1, le=16)] = 5
    """Words, or Chinese characters, in a shingle."""


class EvaluationFiles(Section):
    """Rows that a model will be scored on, and must not be trained on."""

    paths: tuple[str, ...]
    """.tsv, .csv, .jsonl, .json (each text in it is a row), any other: a row a line; looked up as sources are."""
    columns: tuple[Column, ...] = ()
    """Read only these columns or fields: names, or numbers from 0 where there is no header. Default: all text."""


class CorpusConfig(Section):
    """Text to documents."""

    sources: tuple[Source, ...] = ()
    clean: CleanConfig = CleanConfig()
    """What happens to each document."""
    dedup: DedupConfig = DedupConfig()
    """Near duplicates."""
    evaluation: tuple[EvaluationFiles, ...] = ()
    """One table, `[[corpus.evaluation]]`, a set of evaluation files; documents that hold a row of them are dropped."""
    validation_share: Share = 0.02
    """Share of documents held out for validation, chosen by a hash of the text or, for python-docs, the module: texts
    that are equal, case and spaces aside, are held out together."""
    test_share: Share = 0.0
    """Share of documents kept out of training and validation, for tasks made from the same text."""
    min_characters: Positive = 40
    """Shorter documents are dropped and counted."""
    deduplicate: bool = True
    """Drop documents whose text was seen before, case and spaces aside."""
    max_documents: Positive | None = None
    """Stop after so many documents; for trials."""

    @model_validator(mode="after")
    def _near_duplicates_are_duplicates(self) -> "CorpusConfig":
        if self.dedup.near is not None and not self.deduplicate:
            raise ValueError("dedup.near needs deduplicate = true")
        return self


class TokenizerConfig(Section):
    """Documents to vocabulary."""

    path: str | None = None
    """Use this tokenizer (directory or hub name) instead of training one."""
    vocab_size: Positive | None = None
    """Entries, special tokens and single characters included; kept exactly, or the manifest says why not. Not given:
    30,522, or fewer where the corpus is too small to show that many pieces 100 times each."""
    lowercase: bool = True
    """Lowercase and strip accents, as bert-base-uncased does."""
    min_frequency: Positive = 2
    alphabet_coverage: Share = 0.9995
    """Single characters are put in the vocabulary, most frequent first, until they cover this share of the text;
    printable ASCII is always in."""
    unused_slots: Annotated[int, Field(ge=0)] = 0
    """Number of `[unusedN]` entries kept free for words added later."""


class ExamplesConfig(Section):
    """Documents and vocabulary to spans of token ids."""

    max_length: Annotated[int, Field(ge=16, le=512)] = 128
    """Tokens in an example, [CLS] and both [SEP] included."""
    short_share: Share = 0.1
    """Share of spans cut at a random shorter length, so that positions and lengths are not all alike (BERT paper)."""
