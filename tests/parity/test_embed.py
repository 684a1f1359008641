"""Sentence embeddings against sentence-transformers: equal vectors, from the directory as it is, and equal losses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertsmith.tasks.base import Columns
from bertsmith.tasks.batches import assemble
from bertsmith.tasks.finetune import finetune
from bertsmith.tasks.predict import Predictor
from finetune_case import CPU, partner_rows, quiet, recipe, write_tiny_model

sentence_transformers = pytest.importorskip("sentence_transformers")
losses = pytest.importorskip("sentence_transformers.losses")


def without_repeats(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """sentence-transformers counts a text that stands in two rows against itself; we do not."""
    seen: set[str] = set()
    kept = []
    for row in rows:
        texts = {row["text"], row["pair"], row["other"]}
        if len(texts) == 3 and not texts & seen:
            kept.append(row)
            seen |= texts
    return kept


ROWS = without_repeats(partner_rows(60, seed=3))
COLUMNS = {"pair_column": "pair", "label_column": "number", "negative_column": "other"}
OF_LOSS = {
    "in-batch": lambda model: losses.MultipleNegativesRankingLoss(model, scale=20.0),
    "cosine": lambda model: losses.CosineSimilarityLoss(model),
    "margin": lambda model: losses.TripletLoss(
        model, distance_metric=losses.TripletDistanceMetric.COSINE, triplet_margin=0.5
    ),
}


def fine_tuned(folder: Path, **settings: Any) -> Predictor:
    base = write_tiny_model(folder / "base")
    scores = {"score_range": (0, 10)} if settings.get("loss") == "cosine" else {}
    config = recipe(task="embed", epochs=1, **scores, **COLUMNS, **settings)
    finetune(config, folder / "run", model=base, train=ROWS, console=quiet(), runtime=CPU)
    return Predictor.load(folder / "run" / "model", runtime=CPU)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_sentence_transformers_reads_what_we_write(tmp_path: Path, pooling: str) -> None:
    ours = fine_tuned(tmp_path, pooling=pooling)
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "run" / "model"), device="cpu")
    texts = [row["text"] for row in ROWS]
    assert theirs.max_seq_length == 16
    found = np.stack([answer.vector for answer in ours.predict(texts)])
    np.testing.assert_allclose(found, theirs.encode(texts), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss", OF_LOSS)
def test_losses_and_gradients(tmp_path: Path, loss: str) -> None:
    ours = fine_tuned(tmp_path, loss=loss)
    ours.model.double()
    theirs = (
        sentence_transformers.SentenceTransformer(str(tmp_path / "run" / "model"), device="cpu").eval().double()
    )  # float32 rounds, 20-fold
    rows = ours.task.read(ROWS, Columns("text", "number", pair="pair", negative="other"), require_labels=True)
    batch = assemble(ours.encode(rows, labelled=True), np.arange(len(rows)), objective="x", pad_id=0)
    sides = ("text", "pair") if loss == "cosine" else ("text", "pair", "other")
    inputs = [theirs.preprocess([row[side] for row in ROWS]) for side in sides]
    scores = torch.tensor([row["number"] / 10 for row in ROWS], dtype=torch.float64)
    wanted = OF_LOSS[loss](theirs)(inputs, scores if loss == "cosine" else None)
    found = ours.task.outputs.losses(ours.task.item_outputs(ours.model, batch), batch.targets, batch.item_groups).mean()
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
    found.backward()
    wanted.backward()
    own = dict(ours.model.bert.named_parameters())
    compared = {}
    for name, parameter in theirs[0].auto_model.named_parameters():
        if parameter.grad is not None and not name.endswith("key.bias"):  # whose true gradient is 0
            compared[name] = torch.linalg.norm(own[name].grad - parameter.grad) / torch.linalg.norm(parameter.grad)
    assert len(compared) > 30
    assert max(compared.values()) < 1e-6
