"""Memory: a worker that prepares examples, and one that draws batches, stay far under 800 MB, whatever the corpus."""

import subprocess
import sys
from pathlib import Path

import pytest

from bertsmith.config import CorpusConfig, Source, TokenizerConfig
from bertsmith.corpus.build import build_corpus
from bertsmith.tokenizer.train import train_tokenizer
from examples_case import made_up_text

LIMIT_KB = 800_000
BUILD = """
from bertsmith.config import ExamplesConfig
from bertsmith.examples.shards import build_examples
build_examples(ExamplesConfig(), here / "corpus", here / "tokenizer", here / "examples", seed=1, environment={})
assert "torch" not in sys.modules, "a worker that prepares text needs no PyTorch"
"""
DRAW = """
from bertsmith.examples.batches import PretrainData
from bertsmith.tokenizer.encode import Tokenizer
tokenizer = Tokenizer.load(here / "tokenizer")
data = PretrainData(here / "examples", split="train", tokenizer=tokenizer, mask_by="word", seed=1)
for step in range(0, 4000, 40):
    data.batch(step, 64, 64)
"""
WATCH = """
import sys, threading, time
from pathlib import Path
here, peak = Path(sys.argv[1]), 0
def watch():
    global peak
    while True:
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))])
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 40 MB, in parts as large as they get."""
    folder = tmp_path_factory.mktemp("large")
    with (folder / "text.txt").open("w", encoding="utf-8") as file:
        for seed in range(8):
            text = made_up_text(documents=3500, seed=seed)
            file.write(text + "\n")
    source = Source(kind="text", paths=(str(folder / "text.txt"),), layout="sentences")
    build_corpus(CorpusConfig(sources=(source,)), folder / "corpus", environment={})
    train_tokenizer(TokenizerConfig(vocab_size=500), folder / "corpus", folder / "tokenizer", environment={})
    return folder


def peak_kb(script: str, folder: Path) -> int:
    """Peak RssAnon of a process that runs this."""
    text = f"{WATCH}{script}\nprint(peak)"
    done = subprocess.run([sys.executable, "-c", text, str(folder)], check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_building_and_drawing(made: Path) -> None:
    assert (made / "text.txt").stat().st_size > 30e6
    assert peak_kb(BUILD, made) < LIMIT_KB
    assert peak_kb(DRAW, made) < LIMIT_KB
