"""Attention maps and the token-length histogram: computed once, drawn from files alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_run import make_classify_run
from typer.testing import CliRunner

from bertsmith.analysis.attention import FILE, MOST_TOKENS, habit, read_attention, write_attention
from bertsmith.analysis.report import write_report
from bertsmith.cli import app
from bertsmith.errors import CheckpointError, UsageError
from bertsmith.model.encoder import BertModel
from bertsmith.tasks.lengths import histogram
from bertsmith.tokenizer.encode import Tokenizer
from finetune_case import write_tiny_model

HOSTILE = "the day <img src=x onerror=alert(1)>"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    root = make_classify_run(tmp_path / "run")
    write_tiny_model(root / "finetune" / "model")
    return root


def test_the_maps_are_the_model_s(run: Path) -> None:
    path = write_attention(run, "the day was lovely")
    assert path == run / "finetune" / FILE
    found = read_attention(path)
    assert found is not None
    _, tokens, layers = found
    assert tokens == ["[CLS]", "the", "day", "was", "lovely", "[SEP]"]
    tokenizer = Tokenizer.load(run / "finetune" / "model")
    ids = [tokenizer.cls_id, *tokenizer.encode_ids(["the day was lovely"])[0], tokenizer.sep_id]
    model = BertModel.from_pretrained(run / "finetune" / "model").eval()
    with torch.no_grad():
        attentions = model(torch.tensor([ids]), output_attentions=True).attentions
    assert attentions is not None
    for layer, expected in zip(layers, attentions, strict=True):
        assert np.stack(layer) == pytest.approx(expected[0].numpy(), abs=0.003)


def test_the_command_draws_it_and_later_reports_too(run: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(run), "--attention", HOSTILE])
    assert done.exit_code == 0, done.output
    page = write_report(run).read_text(encoding="utf-8")
    assert page.count('<figure class="head"') == 2 * 2
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror" in page
    assert "img-src data:" in page


def test_a_long_text_is_cut_and_the_page_says_so(run: Path) -> None:
    write_attention(run, "the day " * 100)
    found = read_attention(run / "finetune" / FILE)
    assert found is not None
    assert len(found[1]) == min(MOST_TOKENS, 32)
    assert "The last 170 tokens were cut off." in write_report(run).read_text(encoding="utf-8")


def test_wrong_input(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="empty"):
        write_attention(run, "  ")
    (tmp_path / "none").mkdir()
    with pytest.raises(CheckpointError, match="has no model yet"):
        write_attention(tmp_path / "none", "the day")
    done = CliRunner().invoke(app, ["report", str(run), str(tmp_path), "--attention", "the day"])
    assert isinstance(done.exception, UsageError) or done.exit_code != 0


@pytest.mark.parametrize(
    "written",
    ["{", "[]", '{"tokens": ["a"], "layers": [["x"]]}', '{"tokens": ["a", "b"], "layers": [["AA=="]]}',
     '{"tokens": [], "layers": []}', '{"tokens": ["a"], "layers": [[null]]}'],
)  # fmt: skip
def test_a_file_that_is_not_as_it_is_written_is_left_out(run: Path, written: str) -> None:
    (run / "finetune" / FILE).write_text(written)
    assert "layer 1" not in write_report(run).read_text(encoding="utf-8")


def test_habits_of_heads() -> None:
    tokens = ["[CLS]", "a", "b", "[SEP]"]
    assert habit(np.eye(4), tokens) == "100 % at the same token"
    assert habit(np.eye(4, k=1), tokens) == "75 % at the next token"
    assert habit(np.tile([0.5, 0.0, 0.0, 0.5], (4, 1)), tokens) == "100 % at [CLS] and [SEP]"


def test_a_histogram_counts_all_rows_and_no_bar_is_half_cut() -> None:
    counts = np.array([1, 2, 3, 64, 65, 300])
    found = histogram(counts, max_length=64)
    assert sum(found["counts"]) == len(counts)
    assert 64 % found["width"] == 0
    behind = sum(found["counts"][64 // found["width"] :])
    assert behind == 2


def test_the_histogram_is_drawn(run: Path) -> None:
    log = run / "finetune" / "metrics.jsonl"
    first, *others = log.read_text(encoding="utf-8").splitlines()
    start = json.loads(first)
    start["data"]["token_lengths"] = {"train": histogram(np.array([3, 4, 5, 70]), max_length=64)}
    log.write_text("\n".join([json.dumps(start), *others]) + "\n", encoding="utf-8")
    page = write_report(run).read_text(encoding="utf-8")
    assert "4 train rows" in page
    assert "at least 25.0 % of the rows are cut" in page
