"""Sections on tables: labelled rows in files, and what their columns are."""

from typing import Annotated

from pydantic import Field

from bertsmith.config.section import Column, Positive, Section, Share


class TableConfig(Section):
    """Labelled rows in files."""

    train: str = ""
    """File of labelled rows: .tsv, .csv, .jsonl or CoNLL; looked up in the current folder, then in each data folder."""
    validation: str | None = None
    """File of labelled rows by which the best checkpoint is chosen."""
    validation_share: Share = 0.1
    """Without a validation file: the share of training rows split off for it, stratified by label."""
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

    train: str
    """File of labelled rows: .tsv, .csv or .jsonl; looked up in the current folder, then in each data folder."""
    validation: str | None = None
    """File of labelled rows by which it is measured."""
    batch_size: Positive = 16
    """Labelled rows in an update, beside its other examples."""
