"""Asking one's own notes: an index of passages and their vectors, and a model that marks the answer in what is found.

    INDEX/
        passages.jsonl        text, source, place
        vectors.safetensors   (passages, width) float32 of length 1
        manifest.json         which model made it, digests of the files that were read and of all above

Search is exact, by usearch: no graph to build, none to be wrong, and a file without code or pointers to trust.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from bertsmith.artifact import Artifact, open_artifact, write_artifact
from bertsmith.corpus.files import find_files
from bertsmith.errors import ArtifactError, DataError, MissingExtraError, UsageError
from bertsmith.model.weights import resolve_model_dir
from bertsmith.runtime import Runtime, detect, environment
from bertsmith.serve.passages import Passage, read_passages
from bertsmith.tasks.embed import Embed
from bertsmith.tasks.predict import Predictor
from bertsmith.training.run_dir import model_digest

Vectors = npt.NDArray[np.float32]
KIND = "index"
PASSAGE_TOKENS = 200
"""By default; a model that reads fewer sets it."""
SIMILARITY_WEIGHT = 20.0
"""What a cosine counts beside the logarithm of an answer's probability. Chosen on articles of XQuAD that neither the
reader nor the figures of bench/retrieve.py are of. With less, sure answers from far passages win."""
_AT_ONCE = 2048
PASSAGES = "passages.jsonl"


@dataclass(frozen=True)
class Found:
    """A passage, and how near it is to what was asked."""

    passage: Passage
    similarity: float
    """Cosine."""


@dataclass(frozen=True)
class Reply:
    """An answer and where it stands; without a QA model the passage alone."""

    text: str
    found: Found
    probability: float | None = None
    """That both ends are right, of this passage alone."""
    start: int = 0
    end: int = 0
    """Characters [start, end) of the passage."""


def build_index(
    files: Sequence[str],
    directory: str | Path,
    *,
    model: str | Path,
    passage_tokens: int | None = None,
    runtime: Runtime | None = None,
) -> Artifact:
    """Cut files into passages, embed them, and write an index.

    Raises `DataError` for files without text, `UsageError` for a model that makes no vectors.
    """
    embedder = _embedder(model, runtime)
    longest = embedder.max_length - 2  # [CLS] and [SEP]
    tokens = min(passage_tokens or PASSAGE_TOKENS, longest)
    inputs = {file.name: file.digest() for file in find_files(files)}
    config = {"model": str(model), "model_files": model_digest(embedder.directory), "passage_tokens": tokens}
    config["options"] = embedder.task.options
    counts: Counter[str] = Counter()
    with write_artifact(
        Path(directory), kind=KIND, config=config, inputs=inputs, environment=environment(embedder.runtime)
    ) as draft:
        passages = read_passages(files, embedder.tokenizer, max_tokens=tokens, counts=counts)
        number = _write(draft.path, passages, embedder)
        draft.counts = {**counts, "passages": number}
    return open_artifact(Path(directory), KIND)


@dataclass(frozen=True)
class Index:
    """An index in memory, and the model that made it."""

    passages: tuple[Passage, ...]
    vectors: Vectors
    """(passages, width)"""
    embedder: Predictor

    @classmethod
    def open(cls, directory: str | Path, *, model: str | Path | None = None, runtime: Runtime | None = None) -> "Index":
        """Open and verify; `model`: where the embedding model is now, if it was moved.

        Raises `ArtifactError` for files that are changed, torn or not as an index has them, or another model's.
        """
        artifact = open_artifact(Path(directory), KIND)
        name = model or artifact.config.get("model")
        if not isinstance(name, str | Path):
            raise _spoilt(artifact.path, "its manifest names no model")
        embedder = _embedder(name, runtime)
        if model_digest(embedder.directory) != artifact.config.get("model_files"):
            raise ArtifactError(
                f"{artifact.path} was made by another model than {embedder.directory} is now; build it again "
                "(bertsmith index), or name the model that made it (--embed-model)"
            )
        passages, vectors = _read(artifact.path)
        if vectors.shape != (len(passages), embedder.model.config.hidden_size):
            raise _spoilt(artifact.path, f"vectors of shape {vectors.shape} for {len(passages):,} passages")
        return cls(passages, vectors, embedder)

    def search(self, questions: Sequence[str], *, top: int = 5) -> list[list[Found]]:
        """The nearest passages to each question, the nearest first."""
        try:
            from usearch.index import MetricKind, search  # type: ignore[attr-defined]
        except ImportError as error:
            raise MissingExtraError("searching an index", "ask") from error
        top = min(top, len(self.passages))
        asked = _unit_vectors(self.embedder, questions)
        if not len(asked):
            return []
        matches = search(self.vectors, asked, top, MetricKind.IP, exact=True, threads=self.embedder.runtime.threads)
        keys = np.asarray(matches.keys).reshape(len(asked), top)
        distances = np.asarray(matches.distances).reshape(len(asked), top)
        return [
            [Found(self.passages[int(key)], float(1 - distance)) for key, distance in zip(*row, strict=True)]
            for row in zip(keys, distances, strict=True)
        ]

    def ask(self, questions: Sequence[str], reader: Predictor | None = None, *, top: int = 5) -> list[list[Reply]]:
        """Answers to each question, the best first: a part of each passage found, or without a `reader` the passage.

        They are ranked by the probability of the answer and the nearness of its passage together.
        """
        if reader is not None and reader.task.name != "answer":
            raise UsageError(f"{reader.directory} is a model of task {reader.task.name}; marking answers needs answer")
        found = self.search(questions, top=top)
        if reader is None:
            return [[Reply(one.passage.text, one, end=len(one.passage.text)) for one in some] for some in found]
        pairs = [(question, one) for question, some in zip(questions, found, strict=True) for one in some]
        spans = iter(reader.predict([(question, one.passage.text) for question, one in pairs]))
        replies = []
        for some in found:
            marked = [(one, next(spans)) for one in some]
            answers = [Reply(span.text, one, span.probability, span.start, span.end) for one, span in marked]
            replies.append(sorted((one for one in answers if one.text), key=_worth, reverse=True))
        return replies


def reader_of(model: str | Path, runtime: Runtime | None = None) -> Predictor:
    """A model that marks answers. Raises `UsageError` where it does something else."""
    reader = Predictor.load(model, runtime=runtime)
    if reader.task.name != "answer":
        raise UsageError(f"{model} is a model of task {reader.task.name}; marking answers needs one of task answer")
    return reader


def _worth(reply: Reply) -> float:
    return float(np.log(max(reply.probability or 0.0, 1e-30))) + SIMILARITY_WEIGHT * reply.found.similarity


def _embedder(model: str | Path, runtime: Runtime | None) -> Predictor:
    directory = resolve_model_dir(model)
    predictor = Predictor.load(directory, runtime=runtime or detect(dtype="float32"))
    if not isinstance(predictor.task, Embed):
        raise UsageError(f"{directory} is a model of task {predictor.task.name}; an index needs one of task embed")
    return predictor


def _unit_vectors(embedder: Predictor, texts: Sequence[str]) -> Vectors:
    """(texts, width) of length 1."""
    vectors = [answer.vector for answer in embedder.predict(list(texts))]
    found = np.stack(vectors).astype(np.float32) if vectors else np.zeros((0, 1), dtype=np.float32)
    unit: Vectors = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return unit


def _write(folder: Path, passages: Iterator[Passage], embedder: Predictor) -> int:
    parts: list[Vectors] = []
    with (folder / PASSAGES).open("w", encoding="utf-8") as file:
        while some := list(islice(passages, _AT_ONCE)):
            file.writelines(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in some)
            parts.append(_unit_vectors(embedder, [one.text for one in some]))
    if not parts:
        raise DataError("no passage in all the files; give files with text")
    save_file({"vectors": np.concatenate(parts)}, folder / "vectors.safetensors")
    return sum(map(len, parts))


def _read(folder: Path) -> tuple[tuple[Passage, ...], Vectors]:
    """What is read takes no more memory than its files are large, some times over."""
    try:
        lines = (folder / PASSAGES).read_text(encoding="utf-8").splitlines()
        passages = tuple(_passage(json.loads(line)) for line in lines)
        tensors = load_file(folder / "vectors.safetensors")
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise _spoilt(folder, str(error).partition("\n")[0]) from error
    vectors = tensors.get("vectors")
    if vectors is None or vectors.dtype != np.float32 or vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise _spoilt(folder, "vectors.safetensors holds no table of finite float32")
    return passages, vectors


def _passage(value: object) -> Passage:
    names = ("text", "source", "place")
    if not isinstance(value, dict) or not all(isinstance(value.get(name), str) for name in names):
        raise ValueError(f"a line of {PASSAGES} has not the texts {', '.join(names)}")
    return Passage(*(value[name] for name in names))


def _spoilt(path: Path, what: str) -> ArtifactError:
    return ArtifactError(f"{path} is no index as bertsmith writes it ({what}); build it again with bertsmith index")
