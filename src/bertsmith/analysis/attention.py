"""Where each head of each layer looks in one sentence: computed once by a model, kept as attention.json, drawn here.

A head gives each token a share of its attention to every token; the shares of a row are 1 in all. A map is an image
whose rows look and whose columns are looked at. Attention tells where a head gathers from, not why a model answers as
it does (Jain and Wallace 2019, arXiv:1902.10186): for that the report hides words.
"""

import base64
import binascii
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bertsmith.analysis.folder import RunFolder, mapping, sequence
from bertsmith.analysis.markup import Html, details, percent, tag
from bertsmith.artifact import write_json
from bertsmith.errors import CheckpointError, UsageError
from bertsmith.tasks.extract import FeatureExtractor

FILE = "attention.json"
MOST_TOKENS = 64
"""Of the sentence, [CLS] and [SEP] included: the rest is cut off, and the page says so."""
_LEVELS = 255
_BLUE = (29, 91, 191)
Shares = npt.NDArray[np.float64]


def write_attention(run: Path, text: str) -> Path:
    """Compute the attention of the run's model in `text` and keep it beside its log.

    Raises `UsageError` for an empty text, `CheckpointError` where the run has no model yet.
    """
    if not text.strip():
        raise UsageError("--attention needs a sentence; the text is empty")
    folder = _with_model(run)
    extractor = FeatureExtractor.load(folder)
    tokenizer = extractor.tokenizer
    ids = tokenizer.encode_ids([text])[0]
    room = min(MOST_TOKENS, extractor.max_length) - 2
    read = [tokenizer.cls_id, *ids[:room], tokenizer.sep_id]
    with torch.no_grad():
        given = torch.tensor([read], device=extractor.runtime.device)
        found = extractor.model(given, output_attentions=True).attentions
    assert found is not None, "it was asked for"
    layers = [
        [_packed(head) for head in layer[0].float().cpu().numpy().astype(np.float64)]  # (heads, seq, seq)
        for layer in found
    ]
    told = {"text": text, "tokens": tokenizer.tokens(read), "cut_tokens": max(0, len(ids) - room), "layers": layers}
    write_json(folder / FILE, told)
    return folder / FILE


def _with_model(run: Path) -> Path:
    """The run's folder, or the stage of it that has a model: the fine-tuned one goes before the pre-trained one."""
    stages = [
        run,
        run / "finetune",
        run / "pretrain",
        *sorted(path.parent.parent for path in run.glob("*/model/config.json")),
    ]
    for folder in stages:
        if (folder / "model" / "config.json").is_file():
            return folder
    raise CheckpointError(f"{run} has no model yet, and --attention asks one; wait for its first evaluation")


def _packed(shares: Shares) -> str:
    return base64.b64encode(np.rint(shares * _LEVELS).astype(np.uint8).tobytes()).decode()


def attention_section(folder: RunFolder) -> list[Html]:
    places = dict.fromkeys([folder.path, *(training.path for training in folder.trainings)])
    return [part for part in map(_of_folder, places) if part is not None]


def read_attention(path: Path) -> tuple[Mapping[str, Any], list[str], list[list[Shares]]] | None:
    """The whole, its tokens, and layer -> head -> (tokens, tokens) shares; None where it is not as it is written."""
    try:
        told = mapping(json.loads(path.read_text(encoding="utf-8")))
        tokens = [str(token) for token in sequence(told.get("tokens"))][:MOST_TOKENS]
        size = len(tokens)
        layers = [
            [
                np.frombuffer(base64.b64decode(head, validate=True), np.uint8).reshape(size, size) / _LEVELS
                for head in sequence(layer)
            ]
            for layer in sequence(told.get("layers"))
        ]
    except (OSError, ValueError, TypeError, binascii.Error, RecursionError):
        return None
    return (told, tokens, layers) if size and layers and all(layers) else None


def _of_folder(folder: Path) -> Html | None:
    found = read_attention(folder / FILE)
    if found is None:
        return None
    told, tokens, layers = found
    cut = told.get("cut_tokens")
    said = (
        "Each small map is a head: a row for each token that looks, a column for each that is looked at, darker for "
        "more. It says where a head gathers from, not why the model answers as it does."
    )
    said += f" The last {cut:,} tokens were cut off." if isinstance(cut, int) and cut > 0 else ""
    rows = [
        tag(
            "tr",
            None,
            tag("th", {"scope": "row"}, f"layer {number}"),
            [tag("td", None, _head(head, tokens, number, i)) for i, head in enumerate(heads, 1)],
        )
        for number, heads in enumerate(layers, 1)
    ]
    grid = tag("div", {"class": "scroll"}, tag("table", {"class": "heads"}, tag("tbody", None, rows)))
    means = [
        details(f"Layer {number}, mean of its heads, with words", _labelled(np.mean(heads, axis=0), tokens))
        for number, heads in enumerate(layers, 1)
    ]
    return tag(
        "div",
        {"class": "part"},
        tag("h3", None, folder.resolve().name),
        tag("p", {"class": "sentence"}, str(told.get("text", ""))),
        tag("p", {"class": "said"}, said),
        grid,
        means,
    )


def _head(shares: Shares, tokens: Sequence[str], layer: int, head: int) -> Html:
    said = f"layer {layer}, head {head}: {habit(shares, tokens)}"
    return tag(
        "figure", {"class": "head", "title": said, "tabindex": 0}, _image(shares, said), tag("small", None, head)
    )


def habit(shares: Shares, tokens: Sequence[str]) -> str:
    """Where most of the attention goes, of a few places that heads are known for (Clark et al. 2019,
    arXiv:1906.04341, section 3).
    """
    size = len(tokens)
    special = [i for i, token in enumerate(tokens) if token in ("[CLS]", "[SEP]")]
    places = {
        "at [CLS] and [SEP]": shares[:, special].sum() / size,
        "at the same token": np.trace(shares) / size,
        "at the token before": np.trace(shares, -1) / size,
        "at the next token": np.trace(shares, 1) / size,
    }
    best = max(places, key=lambda place: places[place])
    return f"{percent(float(places[best]))} {best}"


def _labelled(shares: Shares, tokens: Sequence[str]) -> Html:
    head = tag(
        "tr", None, tag("th", None, ""), [tag("th", {"scope": "col"}, tag("span", None, token)) for token in tokens]
    )
    body = [
        tag(
            "tr",
            None,
            tag("th", {"scope": "row"}, token),
            [
                tag("td", {"style": f"--share:{100 * share:.0f}%", "title": f"{token} → {other}: {percent(share)}"})
                for share, other in zip(row.tolist(), tokens, strict=True)
            ],
        )
        for token, row in zip(tokens, shares, strict=True)
    ]
    return tag(
        "div",
        {"class": "scroll"},
        tag("table", {"class": "attention"}, tag("thead", None, head), tag("tbody", None, body)),
    )


def _image(shares: Shares, said: str) -> Html:
    """A PNG of one pixel a pair of tokens, blue and as opaque as the share, so that it is at home in light and dark."""
    size = len(shares)
    pixels = np.zeros((size, 1 + 4 * size), dtype=np.uint8)  # each row begins with its filter, 0: none
    inside = pixels[:, 1:].reshape(size, size, 4)
    inside[..., :3] = _BLUE
    inside[..., 3] = np.rint(np.sqrt(np.clip(shares, 0, 1)) * 255)  # by the root, so that small shares are seen
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 6, 0, 0, 0)),
        (b"IDAT", zlib.compress(pixels.tobytes(), 9)),
        (b"IEND", b""),
    )
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    address = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return tag("img", {"src": address, "alt": said, "width": 64, "height": 64})
