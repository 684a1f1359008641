"""Recipes: frozen pydantic models read from TOML; an unknown key is refused with the nearest known one.

Each field says its unit and, where the default is not obvious, its reason. `--set a.b=c` overrides one key. Fields
that do not change a stage's result (threads, device) live in `[runtime]` and never enter a manifest.
"""

import difflib
import json
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bertsmith.errors import RecipeError

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Column = str | Annotated[int, Field(ge=0)]
Script = Literal[
    "latin", "han", "hiragana", "katakana", "hangul", "cyrillic", "greek", "arabic", "hebrew", "devanagari", "thai"
]


_PASSWORD = re.compile(r"^[\w+.-]+://[^/@:]*:(?!\d+/)([^@]+)@|[?&]\w*password=([^&]*)", re.IGNORECASE)
_VARIABLES = re.compile(r"(\$\{\w+\})*")


class Section(BaseModel):
    """A part of a recipe: immutable, no unknown keys, docstrings of fields are their help."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # a value may be a secret
    )


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
        for url in (value,) if isinstance(value, str) else value:
            for found in _PASSWORD.finditer(url):
                if not _VARIABLES.fullmatch(found[1] or found[2]):
                    raise ValueError(
                        "holds a password, which would be written to recipe.toml and manifests; put it in an "
                        "environment variable, and ${NAME} in its place (sql), or in the storage's own settings"
                    )
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


class ModelConfig(Section):
    """The network to pre-train from random weights."""

    preset: Literal["tiny", "mini", "small", "medium", "base", "large"] = "mini"
    overrides: dict[str, Any] = {}
    """BertConfig fields that differ from the preset, such as `hidden_dropout_prob = 0.0`."""
    position_init: Literal["random", "sinusoids"] = "random"
    """Where position embeddings start from: random as in the BERT paper, or sine waves, from which short runs learn
    sooner what stands beside a word. Learned on from there either way."""


class OptimizerConfig(Section):
    """AdamW with no decay on biases and LayerNorm, and a learning rate that warms up, then falls."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-6
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the whole gradient."""
    schedule: Literal["linear", "constant"] = "linear"
    warmup_share: Share = 0.1
    """Share of all steps over which the learning rate rises from 0."""


class LoopConfig(OptimizerConfig):
    """What pre-training and fine-tuning have in common."""

    batch_size: Positive = 32
    """Examples in one update, over all micro-batches and processes."""
    micro_batch_size: Positive | None = None
    """Examples in one forward pass; the update is the same, memory is less. Default: the whole batch."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile the step: auto takes it where a C++ compiler is found and the run is long enough to pay for it."""
    checkpoint_every_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Time between checkpoints."""
    keep_checkpoints: Positive = 2
    log_every_steps: Positive = 10
    seed: int | None = None
    """Default: the recipe's seed."""


class PretrainConfig(LoopConfig):
    """Masked language model and next-sentence prediction."""

    objectives: tuple[Literal["mlm", "nsp", "sop"], ...] = ("mlm", "nsp")
    """Masked words, and of sentence pairs next sentence (BERT) or sentence order (ALBERT). Without pairs an example is
    one run of sentences."""
    mask_share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    mask_by: Literal["token", "word", "span"] = "token"
    """What is hidden together: single tokens, whole words (Chinese ones too), or runs of words (SpanBERT)."""
    window_tokens: Positive = 64_000_000
    """Examples are shuffled, and partners drawn, among so many tokens at a time: what is open at once."""
    max_steps: Positive | None = None
    budget_minutes: Annotated[float, Field(gt=0)] | None = None
    """Wall-clock budget, turned into a step count after 50 measured steps. One of this and max_steps is needed."""
    evaluate_every_steps: Positive | None = None
    """Default: ten evaluations in the run."""
    evaluation_examples: Positive = 512
    """Held-out examples in one evaluation: the same ones, with the same masks, each time."""
    init: str | None = None
    """Go on from this model directory or hub name instead of random weights."""

    @model_validator(mode="after")
    def _has_an_end(self) -> "PretrainConfig":
        if self.max_steps is None and self.budget_minutes is None:
            raise ValueError("needs max_steps or budget_minutes")
        if not self.objectives:
            raise ValueError("objectives is empty; use 'mlm', 'nsp', 'sop', or 'mlm' with one of the others")
        if {"nsp", "sop"} <= set(self.objectives):
            raise ValueError("objectives has both 'nsp' and 'sop', two questions about one pair; leave one out")
        return self


class CodeWords(Section):
    """Labelled sentences made from python-docs: which words stand between double backticks?"""

    train: Positive = 1000
    validation: Positive = 500
    test: Positive = 1000


class FinetuneConfig(LoopConfig):
    """A labelled table to a model with scores."""

    task: Literal["classify", "tag"] = "classify"
    model: str | None = None
    """Checkpoint directory, run or hub name; default: the model this recipe pre-trains."""
    code_words: CodeWords | None = None
    """Make the labelled data from the recipe's own corpus instead of reading files."""
    train: str = ""
    """File of labelled rows: .tsv, .csv, .jsonl or CoNLL; looked up in the current folder, then in each data folder."""
    validation: str | None = None
    validation_share: Share = 0.1
    """Without a validation file: the share of training rows split off for it, stratified by label."""
    test: dict[str, str] = {}
    """Name -> file of labelled rows on which the best checkpoint is scored at the end."""
    header: bool = True
    """False: the first line of a .tsv or .csv is a row, and columns are numbers from 0."""
    text_column: Column = "text"
    label_column: Column = "label"
    labels: tuple[str, ...] = ()
    """Label names in order; default: those seen in the training rows, sorted."""
    label_names: str | None = None
    """A file with a name a line: label `i` of the table is line i (from 0) of it."""
    max_length: Annotated[int, Field(ge=8, le=512)] = 128
    max_train_rows: Positive | None = None
    epochs: Positive = 3
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    """Of hidden states and attention, in fine-tuning and in the config of what it saves; default: as the model has."""
    metric: str | None = None
    """Score by which the best checkpoint is chosen; default: the task's own (classify: macro_f1, tag: f1)."""
    evaluate_every: Literal["epoch"] | Positive = "epoch"
    """`"epoch"` or a number of steps."""
    baselines: tuple[Literal["majority", "dictionary", "linear", "random-weights"], ...] = ()
    """Simple models scored on the same rows: most frequent label; dictionary of training words (tag); a linear model
    (classify: TF-IDF; tag: word, neighbours and shape); the same BERT from random weights."""
    literature: dict[str, str] = {}
    """Scores from elsewhere, quoted in the report: name -> text."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    eps: Annotated[float, Field(gt=0)] = 1e-8
    checkpoint_every_seconds: Annotated[float, Field(gt=0)] = 300.0


class RuntimeConfig(Section):
    """How to compute; nothing here changes what a stage's manifest says."""

    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: Positive | None = None
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that prepare text; 0: one for each processor."""
    engine: Literal["local", "ray"] = "local"
    """Where text is prepared: in processes of this machine, or on a Ray cluster. The same bytes come out."""
    ray_address: str | None = None
    """Of a cluster that runs, such as `10.0.0.1:6379`; `auto`: the one this machine belongs to. Default: a cluster of
    this machine alone, for as long as the command runs."""
    allow_pickle: bool = False
    """Read a checkpoint's pytorch_model.bin where it has no safetensors file (weights only; no code is run)."""


STAGES = ("corpus", "tokenizer", "examples", "pretrain", "finetune")
"""Sections of a recipe that are stages, in the order in which they run."""


class Recipe(Section):
    """A whole run: the stages whose sections are there are run, in this order."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    description: str = ""
    seed: int = 42
    data: Data = Data()
    corpus: CorpusConfig | None = None
    tokenizer: TokenizerConfig | None = None
    examples: ExamplesConfig | None = None
    model: ModelConfig | None = None
    pretrain: PretrainConfig | None = None
    finetune: FinetuneConfig | None = None
    fill_mask: tuple[str, ...] = ()
    """Sentences with [MASK], answered by the pre-trained model at the end."""
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _stages_have_what_they_read(self) -> "Recipe":
        needs = {"tokenizer": "corpus", "examples": "tokenizer", "pretrain": "examples"}
        for stage, needed in needs.items():
            if stage == "tokenizer" and self.tokenizer is not None and self.tokenizer.path is not None:
                continue
            if getattr(self, stage) is not None and getattr(self, needed) is None:
                raise ValueError(f"[{stage}] needs a [{needed}] section")
        if self.examples is not None and self.corpus is None:
            raise ValueError("[examples] needs a [corpus] section")
        if self.finetune is not None:
            if self.finetune.model is None and self.pretrain is None:
                raise ValueError("[finetune] needs model = DIRECTORY or a [pretrain] section")
            if self.finetune.code_words is not None and self.corpus is None:
                raise ValueError("[finetune.code_words] needs a [corpus] section")
        return self


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from TOML and apply `a.b=value` overrides (value in TOML; bare words are strings).

    Raises `RecipeError` naming file and key, with what is allowed.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"recipe {path} does not exist; see recipes/ for examples") from error
    except IsADirectoryError as error:
        raise RecipeError(f"{path} is a folder; give a recipe file such as recipes/quickstart.toml") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path} is not valid TOML: {error}") from error
    for override in overrides:
        _apply_override(raw, override)
    return parse_recipe(raw, where=str(path))


def parse_recipe(raw: Mapping[str, Any], *, where: str = "recipe") -> Recipe:
    """A recipe from plain dicts, such as those of a notebook; errors name the key."""
    _refuse_unknown_keys(raw, Recipe, prefix="", where=where)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("function", "tuple[")))
        message = str(first["msg"]).removeprefix("Value error, ")
        given = "" if first["type"] in ("missing", "value_error") else f", not {first['input']!r}"
        raise RecipeError(f"{where}: {key + ': ' if key else ''}{message}{given}") from error


def recipe_toml(recipe: Recipe) -> str:
    """The resolved recipe as TOML: every default written out, so that a run explains itself."""
    return tomli_w.dumps(json.loads(recipe.model_dump_json(exclude_none=True)))


def _apply_override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {override!r}: expected KEY=VALUE, such as finetune.epochs=4")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    node = raw
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise RecipeError(f"--set {override!r}: {parent!r} is not a section")
    node[last] = value


def _refuse_unknown_keys(raw: Mapping[str, Any], section: type[BaseModel], *, prefix: str, where: str) -> None:
    for key, value in raw.items():
        if key not in section.model_fields:
            near = difflib.get_close_matches(key, section.model_fields, n=1, cutoff=0.5)
            hint = f"did you mean {prefix + near[0]!r}?" if near else f"known keys: {', '.join(section.model_fields)}"
            raise RecipeError(f"{where}: unknown key {prefix + key!r}; {hint}")
        inner = _section_of(section.model_fields[key].annotation)
        if inner is None:
            continue
        for number, item in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(item, Mapping):
                place = f"{prefix}{key}[{number}]." if isinstance(value, list) else f"{prefix}{key}."
                _refuse_unknown_keys(item, inner, prefix=place, where=where)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The `Section` inside an annotation such as `Section`, `Section | None` or `tuple[Section, ...]`."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    for inner in typing.get_args(annotation):
        found = _section_of(inner)
        if found is not None:
            return found
    return None
