"""Sections on tables: labelled rows in files, and what their columns are."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from bertsmith.config.section import Column, Positive, Section, Share, refuse_passwords


class RowSource(Section):
    """Labelled rows that lie in no file of this machine: those of a query, or of a dataset of the hub."""

    kind: Literal["sql", "hub"]
    """The rows of a database query, or a dataset of the hub."""
    url: str = ""
    """sql: the database, as SQLAlchemy writes it: sqlite:///FILE, postgresql://USER:${NAME}@HOST/DATABASE. ${NAME} is
    an environment variable, read when connecting; a password in plain text is refused, since recipes are kept."""
    query: str = ""
    """sql: the query whose rows these are; order it (ORDER BY), since errors name a row by its number."""
    dataset: str = ""
    """hub: OWNER/NAME of a dataset, or OWNER/NAME@REVISION."""
    paths: tuple[str, ...] = ()
    """hub: which of the dataset's files, such as `data/train-*.parquet`; default: every Parquet file, or every file of
    the first kind there is."""

    @field_validator("url")
    @classmethod
    def _holds_no_password(cls, value: str) -> str:
        refuse_passwords([value])
        return value

    @model_validator(mode="after")
    def _names_its_rows(self) -> "RowSource":
        own = {"sql": ("url", "query"), "hub": ("dataset", "paths")}
        if missing := [key for key in own[self.kind] if key != "paths" and not getattr(self, key)]:
            raise ValueError(f"rows of kind {self.kind!r} need {' and '.join(missing)}")
        others = [key for kind, keys in own.items() if kind != self.kind for key in keys if getattr(self, key)]
        if others:
            raise ValueError(f"rows of kind {self.kind!r} take no {others[0]}")
        return self


def _form(value: Any) -> str:
    """Of rows in a recipe, so that an error is of the form that was meant."""
    if isinstance(value, str):
        return "rows:file"
    return "rows:files" if isinstance(value, list | tuple) else "rows:source"


Rows = Annotated[
    Annotated[str, Tag("rows:file")]
    | Annotated[tuple[str, ...], Tag("rows:files"), Field(min_length=1)]
    | Annotated[RowSource, Tag("rows:source")],
    Discriminator(_form),
]
"""Where labelled rows are: a file or glob, several of these, or what is no file."""


class TableConfig(Section):
    """Labelled rows in files."""

    train: Rows = ""
    """File of labelled rows: .tsv, .csv, .jsonl or CoNLL; looked up in the current folder, then in each data folder.
    Several as a list, globs and fsspec URLs too, plain or .gz, .bz2, .xz, .zst; or a table: a query, a dataset."""
    validation: Rows | None = None
    """Labelled rows by which the best checkpoint is chosen, named as those of `train`."""
    validation_share: Share = 0.1
    """Without a validation file: the share of training rows split off for it, stratified by label."""
    group_column: Column | None = None
    """Rows that have the same value here are never parted by a split that is made: one author, one patient."""
    header: bool = True
    """False: the first line of a .tsv or .csv is a row, and columns are numbers from 0."""
    text_column: Column = "text"
    label_column: Column = "label"
    pair_column: Column | None = None
    """The second text of each row, where rows are pairs of texts; both are read together. Name, or number from 0."""
    negative_column: Column | None = None
    """embed: a text that does not belong with the first, where rows have one."""
    label_columns: tuple[Column, ...] = ()
    """multilabel: a column for each label, 1 where the row has it and 0 where not, in place of `label_column`."""
    label_separator: Annotated[str, Field(min_length=1)] = ","
    """multilabel: what stands between a row's labels in `label_column`, where they are not a list."""
    question_column: Column = "question"
    """choose, answer: the question on the text."""
    choice_columns: tuple[Column, ...] = ("choices",)
    """choose: one column with lists of choices, or a column for each choice."""
    labels: tuple[str, ...] = ()
    """Label names in order; default: those seen in the training rows, sorted."""
    label_names: str | None = None
    """A file with a name a line: label `i` of the table is line i (from 0) of it."""
    max_length: Annotated[int, Field(ge=8, le=512)] = 128
    """Tokens read of a row, [CLS] and [SEP] included; the rest is cut off and counted."""
    max_train_rows: Positive | None = None
    """Train on so many rows, drawn at random; for trials."""


class LabelledConfig(TableConfig):
    """Labelled texts for the objective `label`."""

    train: Rows
    """Labelled rows: .tsv, .csv or .jsonl, named as those of [finetune] are."""
    validation: Rows | None = None
    """Labelled rows by which it is measured, named in the same way."""
    batch_size: Positive = 16
    """Labelled rows in an update, beside its other examples."""
