"""How frequent each token is in the training text, and what somebody who knows only that would lose."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from bertsmith.artifact import open_artifact
from bertsmith.examples.blocks import map_block
from bertsmith.examples.shards import KIND
from bertsmith.examples.spans import open_index

_MOST_BLOCKS = 32


def unigram_losses(examples: Path, *, vocab_size: int) -> npt.NDArray[np.float32]:
    """(vocab,) -log p(token), in nats, with p(v) = (c(v) + 1) / (N + V).

    c counts the N training tokens of at most 32 blocks (128 million tokens), evenly taken from all. One block is open
    at a time and what is kept is as large as the vocabulary, so memory does not grow with the text. One is added to
    each count, so that a word which training never saw does not cost an infinite loss.
    """
    artifact = open_artifact(examples, KIND, verify=False)
    counts = np.ones(vocab_size, dtype=np.int64)
    for number in chosen_blocks(len(open_index(artifact, "train").spans)):
        counts += np.bincount(map_block(artifact.path, "train", number).tokens, minlength=vocab_size)
    return np.asarray(np.log(counts.sum()) - np.log(counts), dtype=np.float32)


def chosen_blocks(num_blocks: int) -> list[int]:
    """All of them, or 32 at equal distances."""
    return [round(float(number)) for number in np.linspace(0, num_blocks - 1, min(num_blocks, _MOST_BLOCKS))]
