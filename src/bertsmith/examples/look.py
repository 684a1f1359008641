"""Examples as a person would check them: decoded, with what is hidden and what is asked; and counts over many."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from bertsmith.artifact import open_artifact
from bertsmith.config import PretrainConfig, load_recipe
from bertsmith.errors import ArtifactError
from bertsmith.examples.assemble import PretrainBatch, maskable
from bertsmith.examples.batches import PretrainData
from bertsmith.examples.draws import Int64
from bertsmith.examples.mask import Flags, MaskBy
from bertsmith.examples.pairs import LABEL_NAMES
from bertsmith.examples.shards import KIND
from bertsmith.tokenizer.encode import Tokenizer

Pairs = Literal["nsp", "sop", "none"]
How = Literal["mask", "random", "kept"]


@dataclass(frozen=True)
class Piece:
    """A token as the model gets it."""

    text: str
    hidden: str | None = None
    """What stood there, where it is to be guessed."""
    how: How | None = None
    """Behind `[MASK]`, behind a random token, or left as it was."""


@dataclass(frozen=True)
class Example:
    """One example of one epoch."""

    id: int
    label: str | None
    """What is asked of the pair, answered: `follows` or `random`, `in order` or `swapped`; None without a pair."""
    same_document: bool
    """B is from elsewhere in the same document."""
    a: tuple[Piece, ...]
    b: tuple[Piece, ...]

    @property
    def num_hidden(self) -> int:
        return sum(piece.hidden is not None for piece in (*self.a, *self.b))


@dataclass(frozen=True)
class Counts:
    """Masks, words and labels of so many examples."""

    examples: int
    tokens: int
    """Tokens that may be hidden: those of the text, unknown ones left out."""
    nothing_hidden: int
    """Examples in which nothing is hidden."""
    hidden_share: float
    """Of these tokens."""
    furthest_in_words: float
    """The largest distance of what is hidden in an example from its share, in words as long as its longest."""
    words_hidden_in_part: float
    """Share of the words with a hidden token that also have one in sight."""
    how: dict[str, float]
    """Shares of `mask`, `random` and `kept` in what is hidden."""
    labels: dict[str, float]
    """Shares of the labels in all pairs."""
    shorter_than_half: float
    """Share of examples less than half as long as allowed."""


def open_examples(
    path: Path, *, split: str = "train", mask_by: MaskBy | None = None, pairs: Pairs | None = None
) -> PretrainData:
    """The examples at `path`, or of the run that it is, as that run's recipe would train on them.

    `mask_by` and `pairs` go before what the recipe says. Raises `ArtifactError` where there are none.
    """
    folder = path if (path / "manifest.json").is_file() else path / "examples"
    artifact = open_artifact(folder, KIND, verify=False)
    tokenizer = folder.parent / "tokenizer"
    if not tokenizer.is_dir():
        raise ArtifactError(f"{folder} has no tokenizer beside it; put the one it was made with at {tokenizer}")
    config, seed = PretrainConfig(max_steps=1), int(artifact.config["seed"])
    if (folder.parent / "recipe.toml").is_file():
        recipe = load_recipe(folder.parent / "recipe.toml")
        config = recipe.pretrain or config
        seed = recipe.seed if config.seed is None else config.seed
    objectives = config.objectives if pairs is None else ("mlm", *(() if pairs == "none" else (pairs,)))
    return PretrainData(
        folder,
        split=split,
        tokenizer=Tokenizer.load(tokenizer),
        objectives=objectives,
        mask_share=config.mask_share_at(0.0),
        mask_by=mask_by or config.mask_by,
        window_tokens=config.window_tokens,
        seed=seed,
    )


def look(data: PretrainData, positions: Sequence[int]) -> list[Example]:
    """The examples at these positions of the order."""
    batch = data.at(positions)
    truth, hidden = _truth(batch), _is_hidden(batch)
    shown = batch.input_ids.numpy()
    second, real = batch.token_type_ids.numpy() == 1, batch.attention_mask.numpy() == 1
    special = np.array([data.tokenizer.cls_id, data.tokenizer.sep_id])
    found = []
    for row, number in enumerate(batch.example_ids):
        text = real[row] & ~np.isin(truth[row], special)
        parts = []
        for part in (text & ~second[row], text & second[row]):
            columns = np.flatnonzero(part)
            now = data.tokenizer.tokens(shown[row, columns].tolist())
            then = data.tokenizer.tokens(truth[row, columns].tolist())
            parts.append(
                tuple(
                    Piece(a, b, _how(a, b)) if is_hidden else Piece(a)
                    for a, b, is_hidden in zip(now, then, hidden[row, columns].tolist(), strict=True)
                )
            )
        label = int(batch.next_sentence_label[row])
        names = LABEL_NAMES.get(data.pair_objective or "", ())
        same = bool(batch.same_document_negative[row])
        found.append(Example(number, names[label] if label >= 0 else None, same, parts[0], parts[1]))
    return found


def count(data: PretrainData, positions: Sequence[int]) -> Counts:
    """Counts over the examples at these positions."""
    rows, batch = data.rows(positions), data.at(positions)
    truth, hidden, shown = _truth(batch), _is_hidden(batch), batch.input_ids.numpy()
    in_text, source = rows.layout(hidden.shape[1])
    may_be = maskable(truth, in_text, data.tokenizer)
    word = np.cumsum(rows.word_starts[source]) - 1  # counted through all rows
    size = np.bincount(word, weights=may_be[in_text])
    hits = np.bincount(word, weights=hidden[in_text])
    num_tokens, num_hidden = may_be.sum(axis=1), hidden.sum(axis=1)
    longest = np.ones(len(rows))
    np.maximum.at(longest, np.nonzero(in_text)[0], size[word])
    distance = np.abs(num_hidden - num_tokens * (data.mask_share or 0.0)) / longest
    masked = shown[hidden] == data.tokenizer.mask_id
    kept = shown[hidden] == truth[hidden]
    labels = batch.next_sentence_label.numpy()
    names = LABEL_NAMES.get(data.pair_objective or "", ())
    return Counts(
        examples=len(rows),
        tokens=int(num_tokens.sum()),
        nothing_hidden=int((num_hidden == 0).sum()),
        hidden_share=_share(num_hidden.sum(), num_tokens.sum()),
        furthest_in_words=round(float(distance.max()), 2),
        words_hidden_in_part=_share(((hits > 0) & (hits < size)).sum(), (hits > 0).sum()),
        how={
            "mask": _share(masked.sum(), masked.size),
            "random": _share((~masked & ~kept).sum(), masked.size),
            "kept": _share(kept.sum(), masked.size),
        },
        labels={name: _share((labels == label).sum(), (labels >= 0).sum()) for label, name in enumerate(names)},
        shorter_than_half=_share((rows.segments.lengths < data.max_length / 2).sum(), len(rows)),
    )


def _share(part: float, whole: float) -> float:
    return round(float(part) / max(1.0, float(whole)), 4)


def _how(shown: str, truth: str) -> How:
    return "mask" if shown == "[MASK]" else "kept" if shown == truth else "random"


def _is_hidden(batch: PretrainBatch) -> Flags:
    """(batch, seq) True where a token is to be guessed."""
    hidden = np.zeros(batch.input_ids.numel(), dtype=np.bool_)
    hidden[batch.masked_positions[batch.masked_labels >= 0].numpy()] = True
    return hidden.reshape(batch.input_ids.shape)


def _truth(batch: PretrainBatch) -> Int64:
    """(batch, seq) ids with what was hidden put back."""
    ids = batch.input_ids.numpy().copy().reshape(-1)
    known = batch.masked_labels >= 0
    ids[batch.masked_positions[known].numpy()] = batch.masked_labels[known].numpy()
    return ids.reshape(batch.input_ids.shape)
