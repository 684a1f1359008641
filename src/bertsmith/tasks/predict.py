"""The one predictor: a model directory or a run, loaded once, answers texts in batches of like length.

predictor = Predictor.load("runs/cola/finetune")
predictor.predict(["They drank the pub dry.", "They drank the pub."])
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bertsmith.artifact import write_text
from bertsmith.errors import CheckpointError, UsageError
from bertsmith.model.config import BertConfig
from bertsmith.model.int8_files import is_int8, load_int8
from bertsmith.model.onnx_network import OnnxNetwork, is_onnx
from bertsmith.model.pretrained import Pretrained
from bertsmith.model.vocabulary import check_tokenizer_fits
from bertsmith.model.weights import read_card, read_config, resolve_model_dir
from bertsmith.runtime import Runtime, cpu_has_bfloat16, detect
from bertsmith.tasks.answer import Answer
from bertsmith.tasks.base import Columns, Task
from bertsmith.tasks.batches import evaluation_batches
from bertsmith.tasks.choose import Choose
from bertsmith.tasks.classify import Classify
from bertsmith.tasks.embed import Embed, card_of_sentence_transformer
from bertsmith.tasks.features import Features, Floats
from bertsmith.tasks.generate import Generate
from bertsmith.tasks.masked_word import MaskedWord
from bertsmith.tasks.multilabel import Multilabel
from bertsmith.tasks.next_sentence import NextSentence
from bertsmith.tasks.records import located, numbered_lines, read_text, suffix_of
from bertsmith.tasks.regress import Regress
from bertsmith.tasks.rows import TextRow
from bertsmith.tasks.tag import Tag
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.distributed import Ranks

TASKS: dict[str, Task[Any, Any]] = {
    task.name: task
    for task in (
        *(Classify(), Multilabel(), Regress(), Choose(), Tag(), Answer(), Embed()),
        *(NextSentence(), MaskedWord(), Generate()),
    )
}
_TASK_OF_HEAD = {(task.head.__name__, task.problem_type): name for name, task in TASKS.items()}

PRECISION = "precision"
"""Key of bertsmith.json: "bfloat16" for a model that is computed so where the CPU can."""
ROWS_AT_ONCE = 4096
"""Texts tokenised and sorted by length together: memory stays bounded however many there are."""
BATCH_TOKENS = {"cpu": 1024, "cuda": 65_536}
"""Tokens in one forward pass, padding included. On a CPU few enough that a layer's states stay in its cache: MiniLM
answers 1.4 times as many sentences, and 1.2 times as many long texts, as in batches of 4,096."""


@dataclass(frozen=True)
class Predictor:
    """A task's model, ready to answer."""

    directory: Path
    task: Task[Any, Any]
    model: Pretrained
    tokenizer: Tokenizer
    labels: tuple[str, ...]
    max_length: int
    """Tokens read of a text, [CLS] and [SEP] included; the rest is cut off."""
    runtime: Runtime
    reads_pairs: bool | None = None
    """Whether it was fine-tuned on pairs of texts; None where nothing says so."""
    columns: Columns = field(default_factory=Columns)
    """Where the tables that it was fine-tuned on keep what it reads."""
    temperature: float = 1.0
    """By which outputs are divided before they become probabilities; it changes no answer."""

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        task: str | None = None,
        max_length: int | None = None,
        head: type[nn.Module] | None = None,
        runtime: Runtime | None = None,
    ) -> "Predictor":
        """Load a model directory, a run (its best model), RUN/last, or a hub name.

        Args:
            task: a name of `TASKS`; by default what bertsmith.json says, else the architecture of config.json.
            max_length: by default what it was fine-tuned with, else as many as the model has positions.
            head: the class that it was fine-tuned with, where it has a head of its own.
            runtime: by default this machine's best device, in float32.

        Raises `CheckpointError` for a directory that holds no trained classifier or tagger.
        """
        directory = resolve_model_dir(name)
        card, config = own_card(directory), read_config(directory)
        try:
            chosen = TASKS[_task_name(task, card, config, directory)].with_options(**card.get("options", {}))
            columns = Columns.of_card(card.get("columns", {}))
            temperature = float(card.get("temperature", 1.0))
            if not 0 < temperature < math.inf:
                raise ValueError(f"temperature is {temperature}; expected a number above 0")
        except (TypeError, AttributeError, ValueError) as error:
            raise CheckpointError(f"{directory / 'bertsmith.json'} is not as bertsmith writes it: {error}") from error
        if head is not None:
            chosen = chosen.with_head(head)
        tokenizer = Tokenizer.load(directory)
        check_tokenizer(tokenizer, config, directory)
        longest = min(config.max_position_embeddings, tokenizer.model_max_length)
        max_length = max_length or int(card.get("max_length") or longest)
        check_max_length(max_length, config, directory)
        runtime = runtime or detect(dtype="float32")
        if is_onnx(directory) or is_int8(config):
            runtime = replace(runtime, device=torch.device("cpu"), dtype=torch.float32)
        model = _network(directory, chosen, runtime)
        if card.get(PRECISION) == "bfloat16" and runtime.device.type == "cpu" and cpu_has_bfloat16():
            model, runtime = model.bfloat16(), replace(runtime, dtype=torch.bfloat16)
        pairs = card.get("pairs")
        labels = chosen.own_labels or config.labels
        return cls(directory, chosen, model, tokenizer, labels, max_length, runtime, pairs, columns, temperature)

    def predict(self, texts: Iterable[Any]) -> list[Any]:
        """Answers in the order of `texts`, of the task's own kind (`Classification`, `Tagging`, `Span`, ...).

        A text is what the task takes (`Task.expected`): a string, for models of pairs (text, second text), for taggers
        also a list of words, (question, text), or (text, question, choices).
        """
        if isinstance(texts, str):
            raise UsageError("predict takes several texts; put the one into a list: predict([text])")
        return [answer for _, answer in self.stream(self.row(text, number) for number, text in enumerate(texts, 1))]

    def __call__(self, given: Any) -> Any:
        """The answer to one text, or, of a list of texts, those to all."""
        return self.predict(given) if isinstance(given, list) else self.predict([given])[0]

    def stream(self, rows: Iterable[Any], *, on_rows: Callable[[int], None] | None = None) -> Iterator[tuple[Any, Any]]:
        """Yield (row, answer) in order, `ROWS_AT_ONCE` rows at a time; on_rows: called now and then with those read."""
        rows, before = map(self._checked, rows), 0
        while some := list(islice(rows, ROWS_AT_ONCE)):
            features = self.encode(some)

            def on_examples(done: int, before: int = before, rows_per_example: float = _ratio(some, features)) -> None:
                if on_rows is not None:
                    on_rows(before + int(done * rows_per_example))

            outputs = self.outputs(features, on_examples=on_examples)
            before += len(some)
            answers = self.task.decode(some, features, outputs / self.temperature, self.labels)
            yield from zip(some, answers, strict=True)

    def encode(self, rows: Sequence[Any], *, labelled: bool = False) -> Features:
        """Rows as the model reads them, with targets where they are `labelled`."""
        labels = self.labels if labelled else None
        rows = [self._checked(row) for row in rows] if labelled else rows
        return self.task.encode(rows, self.tokenizer, labels=labels, max_length=self.max_length)

    def outputs(
        self,
        features: Features,
        *,
        ranks: Ranks | None = None,
        on_examples: Callable[[int], None] | None = None,
    ) -> Floats:
        """The task's results of all items, (all items, ...), before they are divided by `temperature`."""
        return compute_outputs(
            self.model,
            features,
            self.task,
            pad_id=self.tokenizer.pad_id,
            runtime=self.runtime,
            ranks=ranks,
            on_examples=on_examples,
        )

    def _checked(self, row: Any) -> Any:
        """The row, if it is a pair where the model reads pairs, and none where it does not."""
        if self.reads_pairs is not None and isinstance(row, TextRow) and (row.pair is not None) != self.reads_pairs:
            reads = "pairs of texts; give (text, second text), or name the second's column (pair_column)"
            raise UsageError(f"{self.directory} was fine-tuned on {reads if self.reads_pairs else 'single texts'}")
        return row

    def row(self, given: object, line: int) -> Any:
        """What a caller gives, such as a string, as a row; `line` is its number, from 1."""
        found = self.task.row(given, line)
        if found is None:
            was = repr(given[:60]) if isinstance(given, str) else type(given).__name__
            raise UsageError(f"text {line} is {was}; expected {self.task.expected}")
        return found


def predict(
    model: str | Path | Predictor,
    source: str | Path | Iterable[Any],
    *,
    columns: Columns | None = None,
    runtime: Runtime | None = None,
    on_rows: Callable[[int, int], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield one JSON-ready record a row, in order: row, line, text (or words), prediction(s), probabilities.

    `source` is the path of a file, or texts. Without `columns` a .txt file is a text a line; any other is a table as
    the model was fine-tuned on (.tsv, .csv, .jsonl, CoNLL), labels not needed.

    on_rows: called now and then with the rows answered and, where they are known, all there are, else 0.
    """
    predictor = model if isinstance(model, Predictor) else Predictor.load(model, runtime=runtime)
    rows = rows_to_answer(predictor, source, columns)
    total = len(rows) if isinstance(rows, list) else 0
    on_some = None if on_rows is None else partial(_tell, on_rows, total)
    yield from records_of(predictor, predictor.stream(rows, on_rows=on_some))


def rows_to_answer(
    predictor: Predictor, source: str | Path | Iterable[Any], columns: Columns | None = None
) -> Iterable[Any]:
    """Rows of a file, as `predict` reads it, or of texts."""
    if not isinstance(source, str | Path):
        return (predictor.row(text, number) for number, text in enumerate(source, 1))
    path = located(source)
    if columns is None and suffix_of(path) == ".txt":
        return [predictor.row(text, line) for line, text in numbered_lines(read_text(path)) if text.strip()]
    columns = columns or replace(predictor.columns, label_names=None)  # labels are not needed
    rows: list[Any] = predictor.task.read(path, columns, require_labels=False)
    return rows


def records_of(
    predictor: Predictor, answered: Iterable[tuple[Any, Any]], *, first: int = 0
) -> Iterator[dict[str, Any]]:
    """A record for each (row, answer), numbered from `first`; what nobody knows is left out."""
    for number, (row, answer) in enumerate(answered, start=first):
        record = predictor.task.record(number, row, answer)
        yield {key: value for key, value in record.items() if value is not None}


def _tell(on_rows: Callable[[int, int], None], total: int, done: int) -> None:
    on_rows(done, total)


def _ratio(rows: Sequence[Any], features: Features) -> float:
    return len(rows) / max(1, len(features))


def write_predictions(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """JSON Lines, whole or not at all."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def compute_outputs(
    model: nn.Module,
    features: Features,
    task: Task[Any, Any],
    *,
    pad_id: int,
    runtime: Runtime,
    batch_tokens: int | None = None,
    ranks: Ranks | None = None,
    on_examples: Callable[[int], None] | None = None,
) -> Floats:
    """The task's results of all items, (all items, ...), in the order of the rows; the mode is put back.

    ranks: where there are several and all of them call this, each reads every so-manieth batch, and all get the whole.
    The batches are those of one process, so the answers are too.
    on_examples: called after each batch with the examples done.
    """
    batch_tokens = batch_tokens or BATCH_TOKENS.get(runtime.device.type, 4096)
    batches = evaluation_batches(features, objective=task.name, pad_id=pad_id, batch_tokens=batch_tokens)
    rank, size = (0, 1) if ranks is None else (ranks.rank, ranks.size)
    outputs: Floats | None = None
    was_training, done = model.training, 0
    model.eval()
    try:
        with torch.no_grad(), runtime.autocast():
            for examples, batch in islice(batches, rank, None, size):
                found = task.item_results(model, batch.to(runtime.device)).float().cpu().numpy()
                if outputs is None:
                    outputs = np.zeros((len(features.items.values), found.shape[-1]), dtype=np.float32)
                outputs[features.items.indices(features.sequences(examples)[0])[0]] = found
                done += len(examples)
                if on_examples is not None:
                    on_examples(done)
    finally:
        model.train(was_training)
    if ranks is not None and not ranks.is_alone:
        return _together(outputs, len(features.items.values), ranks, runtime)
    return np.zeros((0, 1), dtype=np.float32) if outputs is None else outputs


def _together(mine: Floats | None, num_items: int, ranks: Ranks, runtime: Runtime) -> Floats:
    """The sum of what ranks have, each of them 0 where another one's answers stand; None of one that had no batch."""
    num_outputs = max(ranks.gather(0 if mine is None else mine.shape[1]))
    table = torch.zeros(num_items, num_outputs) if mine is None else torch.from_numpy(mine)
    table = table.to(runtime.device)
    ranks.sum_later(table)()
    found: Floats = table.cpu().numpy()
    return found


def own_card(directory: Path) -> dict[str, Any]:
    """What a model directory says of its task: bertsmith.json, or what sentence-transformers wrote in its place."""
    return read_card(directory) or card_of_sentence_transformer(directory)


def check_tokenizer(tokenizer: Tokenizer, config: BertConfig, directory: str | Path) -> None:
    """Raise `CheckpointError` naming the directory where the tokenizer has ids for which the model has no embedding."""
    try:
        check_tokenizer_fits(tokenizer.vocab_size, config)
    except CheckpointError as error:
        raise CheckpointError(f"{directory}: {error}") from error


def check_trained(model: Pretrained, directory: str | Path, what: str, hint: str) -> None:
    """Raise `CheckpointError` naming the first weights that the directory lacked, and so were drawn at random."""
    fresh = () if model.load_report is None else model.load_report.fresh
    if fresh:
        missing = ", ".join(fresh[:3]) + (", ..." if len(fresh) > 3 else "")
        raise CheckpointError(f"{directory} has no trained {what} ({missing} missing); {hint}")


def check_max_length(max_length: int, config: BertConfig, directory: str | Path) -> None:
    """Raise `UsageError` where the model has fewer positions than `max_length`."""
    if max_length > config.max_position_embeddings:
        raise UsageError(
            f"max_length = {max_length}, but the model {directory} has {config.max_position_embeddings} positions; "
            f"set max_length to at most {config.max_position_embeddings}"
        )


def _network(directory: Path, task: Task[Any, Any], runtime: Runtime) -> Pretrained:
    if is_onnx(directory):
        return OnnxNetwork.load(directory, threads=runtime.threads)
    if is_int8(read_config(directory)):
        return load_int8(directory, task.head)
    model = task.head.from_pretrained(directory)
    check_trained(model, directory, "head", "fine-tune it first: bertsmith finetune RECIPE")
    return model.to(runtime.device)


def _task_name(task: str | None, card: Mapping[str, Any], config: BertConfig, directory: Path) -> str:
    if task is not None:
        if task not in TASKS:
            raise UsageError(f"task {task!r} is unknown; tasks: {', '.join(TASKS)}")
        return task
    architectures = config.extra.get("architectures") or []
    problem_type = None if config.problem_type == "single_label_classification" else config.problem_type
    heads = [(name, problem_type) for name in architectures]
    found = card.get("task") or next((_TASK_OF_HEAD[head] for head in heads if head in _TASK_OF_HEAD), None)
    if found not in TASKS:
        raise CheckpointError(
            f"{directory} holds {', '.join(architectures) or 'a model without a head'}, which has no head of a task; "
            "give a fine-tuned model or run (bertsmith finetune RECIPE makes one)"
        )
    return str(found)
