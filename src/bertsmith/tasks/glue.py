"""GLUE (Wang et al. 2019, arXiv:1804.07461): its nine tasks as rows of one table.

A row says where the official files keep what, how a task is scored, and what the leaderboard wants to be handed in; all
else is the fine-tuning of any other table. The files are those of gluebenchmark.com: tabs between columns, no quoting.
The labels of the test files are kept by the leaderboard, so scores here are those of the development rows, which choose
the best checkpoint too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bertsmith.artifact import write_text
from bertsmith.config import Recipe, parse_recipe
from bertsmith.errors import DataError, UsageError
from bertsmith.tasks.predict import Predictor
from bertsmith.tasks.records import find_data_file, numbered_lines, read_text

SUITE = "glue"


@dataclass(frozen=True)
class Files:
    """Names of a task's files in its folder."""

    train: str = "train.tsv"
    validation: str | None = "dev.tsv"
    """None: a share of the training rows."""
    scored: Mapping[str, str] | None = None
    """Split -> labelled file; None: the validation file, as `dev`."""
    handed_in: Mapping[str, str] | None = None
    """File of the submission -> file of test rows; None: TASK.tsv of test.tsv."""


@dataclass(frozen=True)
class Benchmark:
    """One task of GLUE."""

    folder: str
    text: str | int
    label: str | int
    metric: str
    """By which the best checkpoint is chosen."""
    also: tuple[str, ...] = ()
    """What the leaderboard has besides."""
    pair: str | None = None
    labels: tuple[str, ...] = ("0", "1")
    """Spelled as in the files and on the leaderboard; none: the label is a number from 0 to 5."""
    header: bool = True
    """Of the labelled files; those of test rows have one always."""
    test_text: str | None = None
    """The text's column in the test file, where that is another."""
    files: tuple[Files, ...] = (Files(),)
    """Layouts, of which the first is taken whose training file is there."""
    has_torn_rows: bool = False
    """Whether rows that a line break tore in two, or without a text, are left out and counted."""

    @property
    def task(self) -> str:
        return "classify" if self.labels else "regress"


_ENTAILMENT = ("entailment", "not_entailment")
BENCHMARKS: dict[str, Benchmark] = {
    "cola": Benchmark("CoLA", text=3, label=1, metric="matthews", header=False, test_text="sentence"),
    "sst2": Benchmark("SST-2", text="sentence", label="label", metric="accuracy"),
    "mrpc": Benchmark(
        "MRPC",
        text="#1 String",
        pair="#2 String",
        label="Quality",
        metric="positive_f1",
        also=("accuracy",),
        files=(
            Files(),
            Files(
                train="msr_paraphrase_train.txt",
                validation=None,
                scored={"test": "msr_paraphrase_test.txt"},
                handed_in={"MRPC.tsv": "msr_paraphrase_test.txt"},
            ),
        ),
    ),
    "stsb": Benchmark(
        "STS-B", text="sentence1", pair="sentence2", label="score", labels=(), metric="pearson", also=("spearman",)
    ),
    "qqp": Benchmark(
        "QQP",
        text="question1",
        pair="question2",
        label="is_duplicate",
        metric="positive_f1",
        also=("accuracy",),
        has_torn_rows=True,
    ),
    "mnli": Benchmark(
        "MNLI",
        text="sentence1",
        pair="sentence2",
        label="gold_label",
        labels=("contradiction", "entailment", "neutral"),
        metric="accuracy",
        files=(
            Files(
                validation="dev_matched.tsv",
                scored={"dev-matched": "dev_matched.tsv", "dev-mismatched": "dev_mismatched.tsv"},
                handed_in={"MNLI-m.tsv": "test_matched.tsv", "MNLI-mm.tsv": "test_mismatched.tsv"},
            ),
        ),
    ),
    "qnli": Benchmark("QNLI", text="question", pair="sentence", label="label", labels=_ENTAILMENT, metric="accuracy"),
    "rte": Benchmark("RTE", text="sentence1", pair="sentence2", label="label", labels=_ENTAILMENT, metric="accuracy"),
    "wnli": Benchmark("WNLI", text="sentence1", pair="sentence2", label="label", metric="accuracy"),
}
"""Name after `glue/` -> task."""


@dataclass(frozen=True)
class Found:
    """A benchmark whose files are there."""

    name: str
    row: Benchmark
    files: Files
    folder: Path

    def recipe(self, model: str, overrides: Sequence[str] = ()) -> Recipe:
        """A recipe for it, of the BERT paper's middle settings; `overrides` are `KEY=VALUE` as of `--set`."""
        row, files = self.row, self.files
        finetune: dict[str, Any] = {
            "task": row.task,
            "model": model,
            "train": str(self.folder / files.train),
            "text_column": row.text,
            "label_column": row.label,
            "header": row.header,
            "labels": row.labels,
            "metric": row.metric,
            "max_length": 128,
            "batch_size": 32,
            "learning_rate": 3e-5,
            "epochs": 3,
            "test": {split: str(path) for split, path in self.scored.items()},
        }
        if files.validation is not None:
            finetune["validation"] = str(self.folder / files.validation)
        if row.pair is not None:
            finetune["pair_column"] = row.pair
        raw = {"name": f"{SUITE}-{self.name}", "description": f"GLUE: {row.folder}", "finetune": finetune}
        return parse_recipe(raw, where=f"--benchmark {SUITE}/{self.name}", overrides=overrides)

    def tables(self) -> tuple[dict[str, Any], dict[Path, int]]:
        """Rows for `bertsmith.finetune` where files have torn ones, and file -> how many were left out."""
        if not self.row.has_torn_rows:
            return {}, {}
        validation = None if self.files.validation is None else self.folder / self.files.validation
        paths = {self.folder / self.files.train, *([validation] if validation else []), *self.scored.values()}
        read = {path: self._whole_rows(path) for path in sorted(paths)}
        tables = {
            "train": read[self.folder / self.files.train][0],
            "validation": read[validation][0] if validation else None,
            "test": {split: read[path][0] for split, path in self.scored.items()},
        }
        return tables, {path: torn for path, (_, torn) in read.items() if torn}

    @property
    def scored(self) -> dict[str, Path]:
        """Split -> file of labelled rows that are scored at the end."""
        named = self.files.scored or {"dev": str(self.files.validation)}
        return {split: self.folder / name for split, name in named.items()}

    def _whole_rows(self, path: Path) -> tuple[list[dict[str, str]], int]:
        lines = [text.split("\t") for _, text in numbered_lines(read_text(path)) if text]
        header, texts = lines[0], (self.row.text, self.row.pair)
        rows = [dict(zip(header, fields, strict=True)) for fields in lines[1:] if len(fields) == len(header)]
        kept = [row for row in rows if all(str(row.get(str(name), "")).strip() for name in texts)]
        if not kept:
            raise DataError(f"no rows with {len(header)} columns, as its first line has", path=path)
        return kept, len(lines) - 1 - len(kept)

    def hand_in(self, model: str | Path, folder: Path) -> list[Path]:
        """Answer the test files that are there, and write them as the leaderboard wants them; the files written."""
        predictor = Predictor.load(model)
        text = self.row.test_text or self.row.text
        columns = replace(predictor.columns, text=text, label="prediction", header=True, label_names=None)
        written = []
        for name, file in (self.files.handed_in or {f"{self.row.folder}.tsv": "test.tsv"}).items():
            path = self.folder / file
            if path.is_file():
                rows = predictor.task.read(path, columns, require_labels=False)
                said = [self._spelled(answer) for _, answer in predictor.stream(rows)]
                lines = ["index\tprediction", *(f"{number}\t{answer}" for number, answer in enumerate(said))]
                folder.mkdir(parents=True, exist_ok=True)
                write_text(folder / name, "\n".join(lines) + "\n")
                written.append(folder / name)
        return written

    def _spelled(self, answer: Any) -> str:
        """A label as it is; a number within the bounds of STS-B's, with three digits."""
        return str(answer.label) if self.row.labels else f"{min(max(answer.value, 0.0), 5.0):.3f}"


def find_benchmark(name: str, data: Path) -> Found:
    """The task that `glue/NAME` means, below the folder `data`.

    Raises `UsageError` for a name that is none, `DataError` with the places looked at where its files are not there.
    """
    suite, _, own = name.partition("/")
    if suite != SUITE or own not in BENCHMARKS:
        known = ", ".join(f"{SUITE}/{known}" for known in BENCHMARKS)
        raise UsageError(f"there is no benchmark {name!r}; use one of {known}")
    row = BENCHMARKS[own]
    missing: DataError | None = None
    for files in row.files:
        try:
            train = find_data_file(data / row.folder / files.train)
        except DataError as error:
            missing = missing or error
            continue
        return Found(own, row, files, train.parent)
    assert missing is not None, "a task has a layout"
    raise missing
