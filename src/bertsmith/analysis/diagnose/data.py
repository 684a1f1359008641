"""Illnesses that show in the data: what was read, and how it became tokens."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from bertsmith.analysis.diagnose import thresholds as at
from bertsmith.analysis.diagnose.facts import Facts, points, values
from bertsmith.analysis.diagnose.finding import Finding
from bertsmith.analysis.folder import RunFolder, mapping, read_lines, step_of
from bertsmith.analysis.markup import number
from bertsmith.errors import BertsmithError
from bertsmith.tokenizer.encode import Tokenizer

SPAN = 16
"""Tokens of a piece of text that is looked for again."""
MOST_TOKENS = 2_000_000
"""Read of the examples, at most."""
MOST_TEXTS = 500


def repeated_text(folder: RunFolder) -> Iterator[Finding]:
    """The same passages again and again in what was pre-trained on."""
    if "examples" not in {stage.name for stage in folder.stages}:
        return
    tokens = _tokens(folder.path / "examples")
    if len(tokens) < 100 * SPAN:
        return
    # Repeats may be shifted, so runs at all places are hashed, and one hash in 16 is kept, by its own value.
    windows = np.lib.stride_tricks.sliding_window_view(tokens, SPAN)
    weights = np.random.default_rng(0).integers(1, 2**62, SPAN, dtype=np.uint64) | np.uint64(1)
    hashes = (windows.astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64)
    chosen = hashes[(hashes >> np.uint64(32)) % np.uint64(16) == 0]
    if len(chosen) < 50:
        return
    _, counts = np.unique(chosen, return_counts=True)
    share = 1 - len(counts) / len(chosen)
    if share < at.REPEATED_SHARE.value:
        return
    yield Finding(
        "repeated-text",
        "sure" if share > 2 * at.REPEATED_SHARE.value else "likely",
        f"{share:.0%} of the runs of {SPAN} tokens in {len(tokens):,} tokens of the examples stand there before",
        (
            "corpus.deduplicate = true removes equal documents, corpus.clean.near_duplicates those that are nearly "
            "equal",
            "boilerplate lines: corpus.clean.boilerplate (docs/corpus.md)",
        ),
    )


def unknown_tokens(folder: RunFolder) -> Iterator[Finding]:
    """Words for which the vocabulary has no pieces."""
    for stage in folder.stages:
        share = number(mapping(stage.counts.get("train")).get("unknown_share"))
        if stage.name == "examples" and share is not None and share > at.UNKNOWN_SHARE.value:
            yield _unknown(f"{share:.1%} of the tokens of the training text are [UNK]")
            return
    for training in folder.trainings:
        for split, path in training.predictions[:1]:
            found = _unknown_in(training.path / "model", path)
            if found is not None and found[0] > at.UNKNOWN_SHARE.value:
                share, examples = found
                yield _unknown(f"{share:.1%} of the tokens of the {split} rows are [UNK]", examples)
                return


def _unknown(seen: str, examples: tuple[str, ...] = ()) -> Finding:
    return Finding(
        "unknown-tokens",
        "sure",
        seen,
        (
            "train the vocabulary on text like this, or start from a model that knows the script "
            "(bert-base-chinese, multilingual)",
            "bertsmith tokenizer report MODEL --corpus RUN tells which characters are missing; bertsmith tokenizer "
            "extend adds words",
        ),
        examples,
    )


def truncation(facts: Facts) -> Iterator[Finding]:
    """Text that the model never sees."""
    cut = values(points(facts.evaluations, "truncation_share")) or values(facts.column("truncation_share"))
    if not cut or cut[-1] < at.TRUNCATED_SHARE.value:
        return
    length = facts.settings.get("max_length")
    now = "" if length is None else f" (now {length})"
    yield Finding(
        "truncation",
        "sure",
        f"{cut[-1]:.0%} of the tokens of the held-out rows are cut off by max_length{now}",
        (
            f"raise {facts.section}.max_length{now}; bertsmith data show FILE --model DIR tells what each length costs",
            "or read long texts in windows: finetune.windows = 'mean' (docs/tasks.md)",
        ),
    )


def padding(facts: Facts) -> Iterator[Finding]:
    """Work on tokens that are none."""
    shares = values(facts.column("padding_share"))
    mean = sum(shares) / len(shares) if shares else 0.0
    if mean < at.PADDING_SHARE.value:
        return
    yield Finding(
        "padding",
        "sure",
        f"{mean:.0%} of the tokens computed are padding",
        (
            "larger batches sort better by length; a smaller micro_batch_size pads less",
            "examples of one length: a shorter max_length, or longer documents",
        ),
    )


def next_sentence_by_topic(facts: Facts) -> Iterator[Finding]:
    """Pairs of one document, where topic does not tell, are answered as if they were neighbours."""
    for event in reversed(facts.evaluations):
        scores = mapping(event.get("scores"))
        whole, same = number(scores.get("nsp_accuracy")), number(scores.get("nsp_accuracy_same_document"))
        if whole is None or same is None:
            continue
        if whole >= 0.6 and whole - same >= at.BY_TOPIC_GAP.value:
            yield Finding(
                "next-sentence-by-topic",
                "likely",
                f"at step {step_of(event):,} {whole:.0%} of the pairs are told rightly, but of random pairs from "
                f"one document only {same:.0%}: topic decides, not what follows",
                (
                    "sentence order instead (pretrain.objectives = ['mlm', 'sop']), which topic does not tell",
                    "for a model of single texts leave next sentences out: pretrain.objectives = ['mlm']",
                ),
            )
        return


def _tokens(examples: Path) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Of the training shards, in their order, up to `MOST_TOKENS`; none where they cannot be read."""
    parts: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
    total = 0
    for path in sorted(examples.glob("train-*.arrow")):
        try:
            with pa.memory_map(str(path)) as source:
                for batch in pa.ipc.open_file(source).read_all().to_batches():
                    column = batch.column("tokens")
                    flat = (
                        column.flatten()
                        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
                        else column
                    )
                    parts.append(flat.to_numpy(zero_copy_only=False).astype(np.int64))
                    total += len(parts[-1])
        except (OSError, pa.ArrowException, KeyError):
            continue
        if total >= MOST_TOKENS:
            break
    return np.concatenate(parts)[:MOST_TOKENS] if parts else np.zeros(0, dtype=np.int64)


def _unknown_in(model: Path, predictions: Path) -> tuple[float, tuple[str, ...]] | None:
    """Share of [UNK] in the texts of a predictions file, and the words that became it most often."""
    try:
        tokenizer = Tokenizer.load(model)
        texts = [
            str(row["text"]) for row in islice(read_lines(predictions), MOST_TEXTS) if isinstance(row.get("text"), str)
        ]
    except (BertsmithError, OSError):
        return None
    unknown = tokenizer.token_id("[UNK]")
    ids = [one for some in tokenizer.encode_ids(texts) for one in some] if texts else []
    if unknown is None or not ids:
        return None
    words: Counter[str] = Counter()
    for word in {word for text in texts for word in text.split()}:
        if unknown in tokenizer.encode_ids([word])[0]:
            words[word] += sum(text.count(word) for text in texts)
    return ids.count(unknown) / len(ids), tuple(f"{word} ({count})" for word, count in words.most_common(8))


CHECKS = (truncation, padding, next_sentence_by_topic)
OF_FOLDERS = (repeated_text, unknown_tokens)
