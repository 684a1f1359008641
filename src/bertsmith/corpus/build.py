"""Sources to a corpus: read and clean in chunks, drop duplicates over all of them, hold documents out, write Parquet.

    part-00000.parquet ...   id, text, source, sentences (list of string), split

Each chunk is a task of its own (see `prepare`) and becomes a part, or some where it is large; chunks end where the
files say, so what is written depends on the text alone, not on the machine or the number of processes. Memory holds a
chunk for each process, and some bytes a document.
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import xxhash

from bertsmith.artifact import (
    Artifact,
    Piece,
    forget_other_pieces,
    kept_pieces,
    make_piece,
    open_artifact,
    write_artifact,
)
from bertsmith.config import CorpusConfig
from bertsmith.corpus.boilerplate import common_lines
from bertsmith.corpus.document import Document
from bertsmith.corpus.finish import KeptCounts, finish_chunk
from bertsmith.corpus.heavy import HeavyLines, describe
from bertsmith.corpus.overlap import EVALUATION, overlap_inputs
from bertsmith.corpus.prepare import PrepareTask, count_chunk_lines, heavy_lines, prepare_chunk, save_boilerplate
from bertsmith.corpus.python_docs import REPEATED_PARAGRAPH
from bertsmith.corpus.select import select
from bertsmith.corpus.sources import plan_chunks, source_inputs
from bertsmith.engine import IN_THIS_PROCESS, Engine
from bertsmith.errors import DataError
from bertsmith.progress import Report

KIND = "corpus"
_MOST_SOURCES = 1000
"""The manifest counts so many sources by name, the largest; the rest together."""


def corpus_inputs(config: CorpusConfig) -> dict[str, str]:
    """Digest of each file, or version of each package, that `build_corpus` reads."""
    sources = {
        f"source {number}: {name}": digest
        for number, source in enumerate(config.sources)
        for name, digest in source_inputs(source).items()
    }
    return sources | overlap_inputs(config.evaluation)


def build_corpus(
    config: CorpusConfig,
    out: Path,
    *,
    environment: Mapping[str, Any],
    engine: Engine = IN_THIS_PROCESS,
    rejects: Path | None = None,
    progress: Report | None = None,
) -> Artifact:
    """Read all sources and write the corpus artifact. Begun again after a stop, it goes on with the next chunk.

    rejects: write every dropped document with its reason to this file, as JSON Lines.

    Raises `DataError` with file and line for a source that cannot be read, and when no document is left.
    """
    inputs = corpus_inputs(config)
    with kept_pieces(out) as work:
        tasks = _prepare_tasks(config, inputs, work, engine, keep_rejects=rejects is not None)
        tasks = _without_boilerplate(tasks, work, engine)
        wanted = {name for task in tasks for name in (task.key, task.lines_key)}
        forget_other_pieces(work, wanted | {task.boilerplate.name for task in tasks if task.boilerplate is not None})
        with write_artifact(
            out, kind=KIND, config=config.model_dump(mode="json"), inputs=inputs, environment=environment
        ) as draft:
            pieces = _prepare(tasks, engine, config.max_documents, progress)
            selection = select(config, [task.chunk for task in tasks[: len(pieces)]], pieces, work)
            dropped = sum((Counter(piece.counts["dropped"]) for piece in pieces), selection.dropped)
            if not selection.num_taken:
                shutil.rmtree(work, ignore_errors=True)
                reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
                raise DataError(
                    f"no document is left in the corpus ({reasons or 'none was read'}); "
                    "check its sources and min_characters"
                )
            kept = KeptCounts()
            for counts in engine.map(finish_chunk, list(selection.tasks(pieces, draft.path, rejects))):
                kept.add(counts)
            cleaned = sum((Counter(piece.counts["cleaned"]) for piece in pieces), Counter[str]())
            documents = {reason: count for reason, count in dropped.items() if reason != REPEATED_PARAGRAPH}
            heavy = HeavyLines()
            for piece in pieces:
                heavy.merge(heavy_lines(piece.path))
            draft.counts.update(
                kept.summary(most_sources=_MOST_SOURCES),
                dropped=dict(sorted(dropped.items())),
                cleaned=dict(sorted(cleaned.items())),
                warnings=describe(heavy, kept=kept.documents, dropped=documents),
            )
        if rejects is not None:
            _join_rejects(rejects, pieces)
    return open_artifact(out, KIND, verify=False)


def read_documents(corpus_dir: Path, split: str | None = None) -> Iterator[Document]:
    """Documents in the order in which they were written; of one split, or of all."""
    open_artifact(corpus_dir, KIND, verify=False)
    for path in corpus_parts(corpus_dir):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    if split is None or row["split"] == split:
                        yield Document(row["id"], row["text"], row["source"], tuple(row["sentences"]), row["split"])


def corpus_parts(corpus_dir: Path) -> list[Path]:
    return sorted(corpus_dir.glob("part-*.parquet"))


def _prepare_tasks(
    config: CorpusConfig, inputs: Mapping[str, str], work: Path, engine: Engine, *, keep_rejects: bool
) -> list[PrepareTask]:
    """A task for each chunk, in the order of the corpus."""
    tasks = []
    for number, source in enumerate(config.sources):
        own = f"source {number}: "
        read = {name.removeprefix(own): digest for name, digest in inputs.items() if name.startswith((own, EVALUATION))}
        tasks += [
            PrepareTask(chunk, config, work, read, keep_rejects=keep_rejects, workers=engine.workers)
            for chunk in plan_chunks(source)
        ]
    return tasks


def _without_boilerplate(tasks: Sequence[PrepareTask], work: Path, engine: Engine) -> list[PrepareTask]:
    """The tasks with the lines that they leave out, which are looked for first, in all chunks."""
    config = tasks[0].config if tasks else CorpusConfig()
    if config.clean.boilerplate_documents is None:
        return list(tasks)
    counted = [piece.path / "lines.npy" for piece in engine.map(count_chunk_lines, tasks)]
    found = common_lines(counted, min_documents=config.clean.boilerplate_documents)
    digest = xxhash.xxh3_128_hexdigest(found.tobytes())
    lines = make_piece(work, f"boilerplate-{digest}", lambda folder: save_boilerplate(folder, found))
    return [replace(task, boilerplate=lines.path) for task in tasks]


def _prepare(
    tasks: Sequence[PrepareTask], engine: Engine, max_documents: int | None, progress: Report | None
) -> list[Piece]:
    """The pieces of all chunks, or of as many as hold `max_documents`."""
    total, done, documents = sum(task.chunk.size for task in tasks), 0, 0
    pieces: list[Piece] = []
    for piece, task in zip(engine.map(prepare_chunk, tasks), tasks, strict=True):  # the map first: it is to end
        pieces.append(piece)
        done += task.chunk.size
        documents += piece.counts["documents"]
        if progress is not None:
            progress(done, total)
        if max_documents is not None and documents >= max_documents:
            break
    return pieces


def _join_rejects(out: Path, pieces: Sequence[Piece]) -> None:
    draft = out.with_name(f".{out.name}.draft")
    with draft.open("wb") as joined:
        for piece in pieces:
            for name in ("rejects.jsonl", "not-taken.jsonl"):
                with (piece.path / name).open("rb") as part:
                    shutil.copyfileobj(part, joined)
    draft.replace(out)
