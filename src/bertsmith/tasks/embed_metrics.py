"""Scores of vectors of texts: whether cosines rise with people's numbers, and whether a text finds its partner.

    spearman, pearson   of the cosine of each pair with its number (Reimers & Gurevych 2019, section 4)
    recall@k            share of texts whose partner is among the k nearest partners of the table
    mrr                 mean of 1 / rank of the partner

Equal partners count as one; of partners equally near, the right one comes last.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]

NUMBERED = ("spearman", "pearson")
"""Scores where pairs have numbers."""
RECALL_AT = (1, 10)
RANKED = (*(f"recall@{k}" for k in RECALL_AT), "mrr")
"""Scores where they have none."""
_ROWS_AT_ONCE = 1024


def unit(vectors: Vectors) -> Vectors:
    """(rows, width) of length 1; a vector of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    found: Vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return found


def partner_ranks(vectors: Vectors, partners: Vectors, partner_texts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(rows,) rank of each text's own partner, from 1, by cosine.

    vectors, partners: (rows, width); partner_texts: (rows,) a number for each partner's text, equal for equal ones.
    """
    _, first, number = np.unique(partner_texts, return_index=True, return_inverse=True)
    texts, candidates = unit(vectors), unit(partners[first])  # (rows, width), (different partners, width)
    ranks = np.empty(len(texts), dtype=np.int64)
    for start in range(0, len(texts), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        cosines = texts[rows] @ candidates.T
        own = np.take_along_axis(cosines, number[rows, None], axis=1)
        ranks[rows] = (cosines >= own).sum(axis=1)
    return ranks


def rank_values(ranks: npt.NDArray[np.int64], metric: str) -> Floats:
    """(rows,) of which the metric, one of `RANKED`, is the mean."""
    if metric == "mrr":
        return 1.0 / ranks
    return (ranks <= int(metric.removeprefix("recall@"))).astype(np.float64)
