"""Model directories that somebody made wrong, or on purpose: one sentence, and no memory for what they claim."""

import contextlib
import json
import shutil
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertsmith.errors import CheckpointError
from bertsmith.model import BertForSequenceClassification, BertModel, preset

TINY = preset("tiny", {"vocab_size": 40, "num_hidden_layers": 1})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "saved"
    torch.manual_seed(0)
    BertModel(TINY).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 10**9}, "missing from layer 1 on, and config.json asks for 1,000,000,000 layers"),
        ({"vocab_size": 10**12}, "word_embeddings.weight has shape"),
        ({"hidden_size": 2 * 10**9, "num_attention_heads": 2}, "word_embeddings.weight has shape"),
        ({"intermediate_size": 10**9}, "intermediate.dense.weight has shape"),
        ({"max_position_embeddings": 10**12}, "position_embeddings.weight has shape"),
        ({"type_vocab_size": 10**12}, "token_type_embeddings.weight has shape"),
        ({"num_labels": 10**11}, "a whole number of at most 1,000,000"),
    ],
)
def test_a_config_that_asks_for_more_than_there_is(
    saved: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=said):
            BertForSequenceClassification.from_pretrained(folder)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


@settings(max_examples=60)
@given(place=st.floats(0, 1), value=st.integers(0, 255), cut=st.booleans(), in_header=st.booleans())
def test_bytes_that_were_changed_load_or_are_refused(
    saved: Path, place: float, value: int, cut: bool, in_header: bool
) -> None:
    whole = (saved / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    at = int(place * ((header if in_header else len(whole)) - 1))
    changed = whole[:at] if cut else whole[:at] + bytes([value]) + whole[at + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_bytes((saved / "config.json").read_bytes())
        (Path(folder) / "model.safetensors").write_bytes(changed)
        with contextlib.suppress(CheckpointError):  # whatever else escapes is a defect
            BertModel.from_pretrained(folder)
