"""Sources to a corpus: clean, split into sentences, drop duplicates, hold documents out, write Parquet.

    part-00000.parquet ...   id, text, source, sentences (list of string), split

Parts end where enough text is in them, so that what is written depends on the text alone, not on the machine.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from bertsmith.artifact import Artifact, open_artifact, write_artifact
from bertsmith.config import CorpusConfig
from bertsmith.corpus.clean import clean_text
from bertsmith.corpus.dedup import Seen
from bertsmith.corpus.document import Document, RawDocument, Split
from bertsmith.corpus.sentences import split_sentences
from bertsmith.corpus.sources import read_source, source_inputs
from bertsmith.errors import DataError
from bertsmith.runtime import available_cpus

KIND = "corpus"
_PART_CHARACTERS = 32_000_000
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("source", pa.string()),
        ("sentences", pa.list_(pa.string())),
        ("split", pa.string()),
    ]
)


def corpus_inputs(config: CorpusConfig) -> dict[str, str]:
    """Digest of each file, or version of each package, that `build_corpus` reads."""
    return {
        f"source {number}: {name}": digest
        for number, source in enumerate(config.sources)
        for name, digest in source_inputs(source).items()
    }


def build_corpus(config: CorpusConfig, out: Path, *, environment: Mapping[str, Any], workers: int = 0) -> Artifact:
    """Read all sources and write the corpus artifact; `workers` processes read code (0: one for each processor).

    Raises `DataError` with file and line for a source that cannot be read, and when no document is left.
    """
    with write_artifact(
        out,
        kind=KIND,
        config=config.model_dump(mode="json"),
        inputs=corpus_inputs(config),
        environment=environment,
    ) as draft:
        dropped: Counter[str] = Counter()
        kept = _KeptCounts()
        writer = _PartWriter(draft.path)
        for document in _documents(config, dropped, workers or available_cpus()):
            kept.add(document)
            writer.add(document)
            if config.max_documents is not None and kept.documents >= config.max_documents:
                break
        if not kept.documents:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())) or "none was read"
            raise DataError(f"no document is left in the corpus ({reasons}); check its sources and min_characters")
        writer.finish(shares={"validation": config.validation_share, "test": config.test_share}, kept=kept)
        draft.counts.update(kept.summary(), dropped=dict(sorted(dropped.items())))
    return open_artifact(out, KIND, verify=False)


def read_documents(corpus_dir: Path, split: str | None = None) -> Iterator[Document]:
    """Documents in the order in which they were written; of one split, or of all."""
    open_artifact(corpus_dir, KIND, verify=False)
    for path in sorted(corpus_dir.glob("part-*.parquet")):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    if split is None or row["split"] == split:
                        yield Document(row["id"], row["text"], row["source"], tuple(row["sentences"]), row["split"])


def draw_split(name: str, *, validation_share: float, test_share: float) -> Split:
    """The split of a document, from a hash of its id alone: the same whatever else is in the corpus."""
    draw = xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass")) / 2**64
    if draw < validation_share:
        return "validation"
    return "test" if draw < validation_share + test_share else "train"


def _documents(config: CorpusConfig, dropped: Counter[str], workers: int) -> Iterator[Document]:
    seen = Seen()
    for source in config.sources:
        for raw in read_source(source, dropped, workers=workers):
            text, sentences = _clean(raw)
            if len(text) < config.min_characters:
                dropped["too short"] += 1
            elif not sentences:
                dropped["no sentences"] += 1
            elif config.deduplicate and seen.add(text):
                dropped["duplicate"] += 1
            else:
                split = draw_split(raw.id, validation_share=config.validation_share, test_share=config.test_share)
                yield Document(raw.id, text, raw.source, sentences, split)


def _clean(raw: RawDocument) -> tuple[str, tuple[str, ...]]:
    if raw.sentences is None:
        text = clean_text(raw.text)
        return text, split_sentences(text)
    sentences = tuple(filter(None, (clean_text(sentence).replace("\n", " ") for sentence in raw.sentences)))
    return "\n".join(sentences), sentences


class _KeptCounts:
    """What the manifest says of the documents that were kept."""

    def __init__(self) -> None:
        self.documents = self.sentences = self.characters = 0
        self.splits: Counter[str] = Counter()
        self.sources: dict[str, Counter[str]] = {}

    def add(self, document: Document) -> None:
        self.documents += 1
        self.sentences += len(document.sentences)
        self.characters += len(document.text)
        self.splits[document.split] += 1
        source = self.sources.setdefault(document.source, Counter())
        source["documents"] += 1
        source["characters"] += len(document.text)

    def summary(self) -> dict[str, Any]:
        return {
            "documents": self.documents,
            "sentences": self.sentences,
            "characters": self.characters,
            "splits": dict(sorted(self.splits.items())),
            "sources": {name: dict(counts) for name, counts in sorted(self.sources.items())},
        }


class _PartWriter:
    """Writes a part whenever enough text has come together."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows: list[Document] = []
        self.characters = self.num_parts = 0
        self.lowest: list[tuple[int, int, int]] = []
        """(hash of id, part, row) of the two documents that come first if a split has to be given one."""

    def add(self, document: Document) -> None:
        draw = xxhash.xxh3_64_intdigest(document.id.encode("utf-8", "surrogatepass"))
        self.lowest = sorted([*self.lowest, (draw, self.num_parts, len(self.rows))])[:2]
        self.rows.append(document)
        self.characters += len(document.text)
        if self.characters >= _PART_CHARACTERS:
            self._write()

    def _write(self) -> None:
        columns = {name: [getattr(row, name) for row in self.rows] for name in _SCHEMA.names}
        table = pa.table(columns, schema=_SCHEMA)
        pq.write_table(
            table, self.folder / f"part-{self.num_parts:05d}.parquet", compression="zstd", row_group_size=8192
        )
        self.rows, self.characters, self.num_parts = [], 0, self.num_parts + 1

    def finish(self, *, shares: Mapping[str, float], kept: _KeptCounts) -> None:
        """Write the rest; a small corpus in which no document fell into a wanted split gives it one."""
        if self.rows:
            self._write()
        for split, share in shares.items():
            if share > 0 and not kept.splits[split] and kept.splits["train"] > 1:
                self._move(split, kept)

    def _move(self, split: str, kept: _KeptCounts) -> None:
        for _, part, row in self.lowest:
            path = self.folder / f"part-{part:05d}.parquet"
            table = pq.read_table(path, schema=_SCHEMA)
            splits = table["split"].to_pylist()
            if splits[row] == "train":
                splits[row] = split
                table = table.set_column(_SCHEMA.names.index("split"), "split", pa.array(splits, pa.string()))
                pq.write_table(table, path, compression="zstd", row_group_size=8192)
                kept.splits["train"] -= 1
                kept.splits[split] += 1
                return
