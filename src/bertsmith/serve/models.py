"""The models of one server: loaded, warmed, found by name, replaced while they answer."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bertsmith.errors import BertsmithError, UsageError
from bertsmith.model.language import BertForPreTraining
from bertsmith.model.weights import read_card, resolve_model_dir
from bertsmith.runtime import Runtime
from bertsmith.serve.batching import Batcher, Sized, Told
from bertsmith.serve.faults import Fault
from bertsmith.serve.limits import Limits
from bertsmith.tasks.fill import MaskFiller, is_language_model
from bertsmith.tasks.masked_word import MASK
from bertsmith.tasks.predict import Predictor
from bertsmith.tasks.rows import TextRow

FILL = "fill-mask"
_TASK_NAMES = {"masked-word": FILL}
SERVED_TASKS = ("classify", "multilabel", "regress", "choose", "tag", "answer", "next-sentence", "embed", FILL)
TOP_GUESSES = 5
"""At a hidden word."""
_STAGE_FOLDERS = {"finetune", "pretrain", "model", "best", "last", "onnx"}
_WARM_TEXTS = ("a short text", "a text that is somewhat longer, so that more than one length has been met " * 3)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the model reads it."""

    rows: list[Sized]
    cut: int
    """Texts that were longer than the model reads, whose rest was cut off."""

    @property
    def tokens(self) -> int:
        return sum(row.tokens for row in self.rows)


class Model:
    """One loaded model: what it takes, and answers to it."""

    def __init__(self, name: str, source: str, runtime: Runtime):
        self.name, self.source = name, source
        self.loaded_at = time.time()
        directory = resolve_model_dir(source)
        self.directory = directory
        self.predictor: Predictor | None = None
        self.filler: MaskFiller | None = None
        if is_language_model(directory, BertForPreTraining) and "task" not in read_card(directory):
            self.filler, self.task = MaskFiller.load(directory, runtime=runtime), FILL
        else:
            self.predictor = Predictor.load(directory, runtime=runtime)
            found = self.predictor.task.name
            self.task = _TASK_NAMES.get(found, found)
        if self.task not in SERVED_TASKS:
            raise UsageError(
                f"{source} is of task {self.task!r}, which is not served; served: {', '.join(SERVED_TASKS)}"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        has = self.predictor is not None and self.predictor.task.outputs_are_classes
        return self.predictor.labels if has and self.predictor is not None else ()

    @property
    def reads_pairs(self) -> bool | None:
        """Whether each input is two texts; None: as one likes."""
        if self.predictor is None:
            return False
        return True if self.task == "next-sentence" else self.predictor.reads_pairs

    @property
    def max_length(self) -> int:
        """Tokens read of a text, [CLS] and [SEP] included."""
        if self.predictor is not None:
            return self.predictor.max_length
        assert self.filler is not None
        return self.filler.model.config.max_position_embeddings

    def read(self, inputs: Sequence[Any]) -> Asked:
        """Inputs as the task takes them (`Task.expected`), tokenised to be measured. `Fault` 422 where one is wrong."""
        if self.filler is not None:
            return self._read_blanks(inputs, self.filler)
        assert self.predictor is not None
        rows = [self._row(given, place) for place, given in enumerate(inputs)]
        try:
            features = self.predictor.encode(rows)
        except BertsmithError as error:
            raise Fault(422, self._without_path(error)) from error
        lengths = np.zeros(len(rows), dtype=np.int64)
        sequences = np.zeros(len(rows), dtype=np.int64)
        np.maximum.at(lengths, features.row_of_example, features.lengths)
        np.add.at(sequences, features.row_of_example, features.widths)
        sized = [
            Sized(row, max(1, n), max(1, m))
            for row, n, m in zip(rows, lengths.tolist(), sequences.tolist(), strict=True)
        ]
        return Asked(sized, 0 if features.are_windows else int(np.count_nonzero(features.cut_tokens)))

    def answer(self, rows: list[Any]) -> list[Any]:
        """Answers to rows of `read`, of the task's own kind; of a pre-trained model, its guesses at the [MASK]."""
        try:
            if self.filler is not None:
                return [self.filler.predict(text, top=top) for text, top in rows]
            assert self.predictor is not None
            return [answer for _, answer in self.predictor.stream(rows)]
        except BertsmithError as error:
            raise Fault(422, self._without_path(error)) from error

    def warm(self) -> None:
        """Answer a few texts, so that the first request finds everything in place."""
        for text in _WARM_TEXTS:
            self.answer([row.row for row in self.read([self._example(text)]).rows])

    def _example(self, text: str) -> Any:
        if self.task == FILL:
            return f"{text[:40]} {MASK}"
        if self.task == "choose":
            return (text, [text[:12], text[:6]])
        return (text, text) if self.task == "answer" or self.reads_pairs else text

    def _row(self, given: Any, place: int) -> Any:
        assert self.predictor is not None
        row = self.predictor.task.row(given, place + 1)
        if row is None:
            raise Fault(422, f"inputs[{place}] is not what {self.name!r} takes: {self.predictor.task.expected}")
        if isinstance(row, TextRow) and self.reads_pairs is not None and (row.pair is not None) != self.reads_pairs:
            takes = "pairs; give an object with text and pair" if self.reads_pairs else "single texts; leave pair out"
            raise Fault(422, f"inputs[{place}]: {self.name!r} reads {takes}")
        return row

    def _read_blanks(self, inputs: Sequence[Any], filler: MaskFiller) -> Asked:
        sized = []
        for place, text in enumerate(inputs):
            if (found := text.count(MASK)) != 1:
                raise Fault(422, f"inputs[{place}] has {found or 'no'} {MASK}; {self.name!r} fills in one")
            length = len(filler.tokenizer.encode_ids([text])[0]) + 2
            if length > self.max_length:
                raise Fault(
                    422, f"inputs[{place}] has {length:,} tokens; {self.name!r} reads at most {self.max_length}"
                )
            sized.append(Sized((text, TOP_GUESSES), length))
        return Asked(sized, 0)

    def _without_path(self, error: BertsmithError) -> str:
        return str(error).replace(str(self.directory), repr(self.name))


@dataclass
class Served:
    """A model and its queue."""

    model: Model
    batcher: Batcher

    async def ask(self, asked: Asked, *, deadline_seconds: float | None = None) -> list[Any]:
        return await self.batcher.submit(asked.rows, deadline_seconds=deadline_seconds)


@dataclass
class Shelf:
    """All models of a server, by name, in the order in which they were given.

    Args:
        sources: name -> what `Predictor.load` takes.
        told: what the batches of the model of a name are told to.
    """

    sources: dict[str, str]
    runtime: Runtime
    limits: Limits
    told: Callable[[str], Told] = lambda _: Told()
    served: dict[str, Served] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._turn, self._loading = threading.Lock(), threading.Lock()

    def load(self) -> None:
        """Load and warm all. Raises the `BertsmithError` of the first that cannot be."""
        for name in self.sources:
            self.served[name] = self._loaded(name)

    def reload(self) -> dict[str, str | None]:
        """Load all anew. Name -> None, or why the model that was there goes on answering."""
        with self._loading:
            return {name: self._replaced(name) for name in self.sources}

    def close(self) -> None:
        for served in self.served.values():
            served.batcher.close()

    def find(self, name: str | None, tasks: Sequence[str]) -> Served:
        """The model of that name, or the first of one of `tasks`. `Fault` 404 for an unknown name, 422 for its task."""
        if name is not None:
            served = self.served.get(name)
            if served is None:
                raise Fault(404, f"no model of that name is served; served: {', '.join(self.served)}")
            if served.model.task not in tasks:
                raise Fault(422, f"{name!r} is a model of task {served.model.task}; needed: {' or '.join(tasks)}")
            return served
        for served in self.served.values():
            if served.model.task in tasks:
                return served
        raise Fault(404, f"no model of task {' or '.join(tasks)} is served; served: {self._in_words()}")

    def _in_words(self) -> str:
        return ", ".join(f"{name} ({served.model.task})" for name, served in self.served.items())

    def _loaded(self, name: str) -> Served:
        model = Model(name, self.sources[name], self.runtime)
        model.warm()
        batcher = Batcher(model.answer, self.limits, self._turn, self.told(name), name)
        return Served(model, batcher)

    def _replaced(self, name: str) -> str | None:
        try:
            fresh = self._loaded(name)
        except Exception as error:  # whatever is wrong with it, the old one is right
            return str(error) or type(error).__name__
        old, self.served[name] = self.served[name], fresh
        old.batcher.close()
        return None


def named_sources(models: Sequence[str]) -> dict[str, str]:
    """Name -> source of `MODEL` or `NAME=MODEL`. Raises `UsageError` where two have one name."""
    sources: dict[str, str] = {}
    for given in models:
        name, is_named, source = given.partition("=")
        if not is_named or "/" in name or "\\" in name:
            name, source = _name_of(given), given
        if not name or not source:
            raise UsageError(f"{given!r} names no model; write MODEL, or NAME=MODEL")
        if name in sources:
            raise UsageError(f"two models are called {name!r}; name them: one={sources[name]} other={source}")
        sources[name] = source
    return sources


def _name_of(source: str) -> str:
    """The last part of a path that is not the name of a stage: runs/cola/finetune is cola."""
    parts = [part for part in Path(source.removeprefix("package:")).parts if part not in ("/", ".", "..")]
    while len(parts) > 1 and parts[-1] in _STAGE_FOLDERS:
        parts.pop()
    return parts[-1] if parts else Path(source).resolve().name
