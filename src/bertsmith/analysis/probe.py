"""What a layer knows: linear probes on frozen layers, and the neighbours of a word in the word table.

A probe is a linear classifier of what a layer says, trained on some rows and scored on others: what it finds is there
to be read off (Alain and Bengio 2017, arXiv:1610.01644). A figure means something beside what is found without the
model: the most frequent label, and a linear model on words. Of tags also a control task (Hewitt and Liang 2019,
arXiv:1909.03368): each kind of word gets one label by chance, and a probe that learns that too has memory, not
knowledge; selectivity is what it does better on the true task.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bertsmith.errors import DataError, UsageError
from bertsmith.model.encoder import BertModel
from bertsmith.model.pooling import pooled
from bertsmith.model.weights import read_config, resolve_model_dir
from bertsmith.runtime import Runtime, derive_seed, detect
from bertsmith.tasks.base import Columns, Task
from bertsmith.tasks.batches import evaluation_batches
from bertsmith.tasks.features import Features
from bertsmith.tasks.partition import held_out
from bertsmith.tasks.predict import BATCH_TOKENS, TASKS, check_max_length, check_tokenizer
from bertsmith.tasks.records import find_data_file, suffix_of
from bertsmith.tasks.resampling import interval, mean
from bertsmith.tokenizer.encode import SPECIAL_TOKENS, Tokenizer

TAG_FILES = (".conll", ".conllu", ".bio")
TEST_SHARE = 0.25
ROWS_A_LABEL = 5
"""On average, at least."""
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LayerProbe:
    """What can be read off one layer."""

    layer: int
    """0: the embeddings."""
    accuracy: float
    low: float
    high: float
    """Bounds of the 95 % bootstrap interval over the rows (of tags: the words) that were held out."""
    control: float | None
    """Accuracy on the control task, tags only."""

    @property
    def selectivity(self) -> float | None:
        return None if self.control is None else self.accuracy - self.control


@dataclass(frozen=True)
class Probing:
    """All layers of a model on one file."""

    model: str
    file: str
    task: str
    """"classify" or "tag"."""
    trained_on: int
    scored_on: int
    """Rows, or words."""
    labels: tuple[str, ...]
    majority: float
    """Accuracy of the most frequent label."""
    words: float
    """Of a linear model on words and pairs of words; of tags, of each word's most frequent tag."""
    layers: tuple[LayerProbe, ...]


def probe_layers(
    model: str | Path,
    file: str | Path,
    *,
    columns: Columns | None = None,
    task_name: Literal["classify", "tag"] | None = None,
    max_rows: int = 2000,
    max_length: int = 128,
    seed: int = 42,
    runtime: Runtime | None = None,
) -> Probing:
    """Probe every layer of any model directory, run or hub name on a labelled file: texts or pairs of texts with a
    class, or words with tags (CoNLL).

    Args:
        columns: where a table keeps text and label; default: `text`, `label`.
        task_name: what the file holds; default: tags in a file of CoNLL's endings, else classes.
        max_rows: so many rows are drawn at most, always the same for a seed. A quarter is held out, stratified by
            label; sentences are never parted.
        max_length: tokens read of a text.

    Raises `DataError` for a file without labels, or with one label; `UsageError` for too few rows.
    """
    path = find_data_file(str(file))
    task = TASKS[task_name or ("tag" if suffix_of(path) in TAG_FILES else "classify")]
    directory = resolve_model_dir(model)
    config, tokenizer = read_config(directory), Tokenizer.load(directory)
    check_tokenizer(tokenizer, config, directory)
    max_length = min(max_length, config.max_position_embeddings)
    check_max_length(max_length, config, directory)
    rows = _drawn(task.read(path, columns or Columns(), require_labels=True), max_rows, seed)
    labels = task.labels_in(rows, where=path, declared=())
    if len(rows) < 20:
        raise UsageError(f"{path} has {len(rows)} rows; a probe needs 20 or more")
    if task.name == "classify" and len(labels) > len(rows) // ROWS_A_LABEL:
        raise UsageError(
            f"{path} has {len(labels)} labels in {len(rows)} rows; a probe needs {ROWS_A_LABEL} rows of each, or more"
        )
    features = task.encode(rows, tokenizer, labels=labels, max_length=max_length)
    tested = set(held_out(rows, TEST_SHARE, seed, what="probe"))
    encoder = BertModel.from_pretrained(directory)
    states = _states(encoder, features, task, tokenizer.pad_id, runtime or detect(dtype="float32"))
    owners = np.repeat(np.arange(len(rows)), features.items.lengths)
    assert features.targets is not None, "rows have labels"
    targets, is_test = features.targets.astype(np.int64), np.isin(owners, sorted(tested))
    if len(set(targets[~is_test].tolist())) < 2:
        raise DataError("all rows to train on have one label; a probe needs two or more", path=path)
    control = _control(_words(rows, features, owners), targets, seed) if task.name == "tag" else None
    found = []
    for layer, vectors in enumerate(states):
        right = _right(vectors, targets, is_test)
        low, high = interval(mean(right.astype(np.float64)), seed=seed)
        known = None if control is None else float(_right(vectors, control, is_test).mean())
        found.append(LayerProbe(layer, float(right.mean()), low, high, known))
    most = Counter(targets[~is_test].tolist()).most_common(1)[0][0]
    return Probing(
        model=str(model),
        file=str(file),
        task=task.name,
        trained_on=int((~is_test).sum()),
        scored_on=int(is_test.sum()),
        labels=tuple(labels),
        majority=float((targets[is_test] == most).mean()),
        words=_by_words(task, rows, features, owners, targets, is_test),
        layers=tuple(found),
    )


@dataclass(frozen=True)
class Neighbours:
    """Pieces of the vocabulary whose vectors point most nearly where a word's does."""

    word: str
    pieces: tuple[str, ...]
    """That the word consists of; of several, the mean of their vectors is looked up."""
    nearest: tuple[tuple[str, float], ...]
    """(piece, cosine), nearest first."""


def neighbours(model: str | Path, word: str, *, top: int = 10) -> Neighbours:
    """The nearest in the word table of any model directory, run or hub name.

    Raises `UsageError` for a word that the vocabulary does not know.
    """
    directory = resolve_model_dir(model)
    tokenizer = Tokenizer.load(directory)
    table = BertModel.from_pretrained(directory).get_submodule("embeddings.word_embeddings").get_parameter("weight")
    ids = tokenizer.encode_batch([word])[0].ids
    pieces = tuple(tokenizer.tokens(ids))
    if not ids or "[UNK]" in pieces:
        raise UsageError(f"{word!r} has no pieces in the vocabulary of {directory}; ask for another word")
    with torch.no_grad():
        normed = torch.nn.functional.normalize(table.float(), dim=-1)  # (vocab, hidden)
        wanted = torch.nn.functional.normalize(table[ids].float().mean(0), dim=0)  # (hidden,)
        cosines = normed @ wanted
    hidden = {*ids, *(number for token in SPECIAL_TOKENS if (number := tokenizer.token_id(token)) is not None)}
    order = cosines.argsort(descending=True).tolist()
    best = [number for number in order if number not in hidden and number < tokenizer.vocab_size]
    names = tokenizer.tokens(best[: 3 * top + 100])
    kept = [(name, float(cosines[number])) for name, number in zip(names, best, strict=False) if not _unused(name)]
    return Neighbours(word, pieces, tuple(kept[:top]))


def _unused(token: str) -> bool:
    """BERT's vocabularies keep places for words to come."""
    return token.startswith("[unused") and token.endswith("]")


def _drawn(rows: Sequence[Any], most: int, seed: int) -> list[Any]:
    order = sorted(range(len(rows)), key=lambda number: derive_seed("probe rows", seed, number))
    return [rows[number] for number in sorted(order[:most])]


def _states(model: BertModel, features: Features, task: Task[Any, Any], pad_id: int, runtime: Runtime) -> list[Vectors]:
    """Of each layer, embeddings first: (items, hidden), a text's mean over its tokens, or a word at its first piece."""
    model = model.to(runtime.device).eval()
    found = [
        np.zeros((len(features.items.values), model.config.hidden_size), dtype=np.float32)
        for _ in range(model.config.num_hidden_layers + 1)
    ]
    most = BATCH_TOKENS.get(runtime.device.type, 4096)
    for examples, batch in evaluation_batches(features, objective="", pad_id=pad_id, batch_tokens=most):
        batch = batch.to(runtime.device)
        with torch.no_grad(), runtime.autocast():
            states = model(
                batch.input_ids, batch.attention_mask, batch.token_type_ids, output_hidden_states=True
            ).hidden_states
            assert states is not None
        places = features.items.indices(features.sequences(examples)[0])[0]
        for layer, state in enumerate(states):
            read = (
                state.flatten(0, 1)[batch.items] if task.name == "tag" else pooled(state, batch.attention_mask, "mean")
            )
            found[layer][places] = read.float().cpu().numpy()
    return found


def _right(vectors: Vectors, targets: npt.NDArray[np.int64], is_test: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(held out,) whether a linear classifier of the others answers rightly."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, C=0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe that is nearly fitted is a probe
        classifier.fit(vectors[~is_test], targets[~is_test])
    right: npt.NDArray[np.bool_] = classifier.predict(vectors[is_test]) == targets[is_test]
    return right


def _words(rows: Sequence[Any], features: Features, owners: npt.NDArray[np.int64]) -> list[str]:
    """(items,) the word of each."""
    starts = np.concatenate([[0], np.cumsum(features.items.lengths)])
    return [rows[owner].words[item - starts[owner]] for item, owner in enumerate(owners.tolist())]


def _control(words: Sequence[str], targets: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """(items,) a label for each kind of word, drawn from the labels as they are frequent."""
    return np.array([targets[derive_seed("control", seed, word) % len(targets)] for word in words])


def _by_words(
    task: Task[Any, Any],
    rows: Sequence[Any],
    features: Features,
    owners: npt.NDArray[np.int64],
    targets: npt.NDArray[np.int64],
    is_test: npt.NDArray[np.bool_],
) -> float:
    """Accuracy of what knows only which words there are."""
    if task.name == "tag":
        words = _words(rows, features, owners)
        by_word: dict[str, Counter[int]] = {}
        for word, target, tested in zip(words, targets.tolist(), is_test.tolist(), strict=True):
            if not tested:
                by_word.setdefault(word, Counter())[target] += 1
        most = Counter(targets[~is_test].tolist()).most_common(1)[0][0]
        guesses = [by_word[word].most_common(1)[0][0] if word in by_word else most for word in words]
        return float((np.array(guesses)[is_test] == targets[is_test]).mean())
    texts = np.array([task.text_of(row) for row in rows], dtype=object)
    by_character = sum(map(len, texts)) > 12 * sum(len(text.split()) for text in texts)  # no spaces: Chinese, say
    kind: dict[str, Any] = {"analyzer": "char", "ngram_range": (1, 2)} if by_character else {"ngram_range": (1, 2)}
    try:
        classifier = make_pipeline(TfidfVectorizer(**kind, sublinear_tf=True), LogisticRegression(max_iter=300, C=10.0))
        classifier.fit(texts[~is_test], targets[~is_test])
    except ValueError:  # no words at all
        return float("nan")
    return float((classifier.predict(texts[is_test]) == targets[is_test]).mean())
