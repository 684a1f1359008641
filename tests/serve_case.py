"""A server of tiny models of every head, in a process of its own, for tests that ask over HTTP."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import torch

from bertsmith.model.weights import write_card
from bertsmith.runtime import Runtime
from bertsmith.serve.app import Service, serve
from bertsmith.serve.gate import Keys
from bertsmith.serve.limits import Limits
from bertsmith.tasks.predict import TASKS
from bertsmith.tokenizer.encode import Tokenizer
from finetune_case import tiny_config, write_tiny_model

LABELS = {"classify": ("bad", "good"), "multilabel": ("kind", "loud", "new"), "tag": ("B-place", "I-place", "O")}
PAIRS = {"rate": True, "next": True, "classify": False}
NAMES = {
    "classify": "classify",
    "multilabel": "multilabel",
    "rate": "regress",
    "choose": "choose",
    "tag": "tag",
    "answer": "answer",
    "next": "next-sentence",
    "embed": "embed",
    "fill": "masked-word",
}
"""Of the served models -> their tasks; `pretrained` is one more."""
CPU = Runtime(device=torch.device("cpu"), dtype=torch.float32, threads=1)


def write_models(folder: Path) -> dict[str, str]:
    """Name -> directory of a model with random weights."""
    base = write_tiny_model(folder / "pretrained")
    tokenizer = Tokenizer.load(base)
    sources = {"pretrained": str(base)}
    with torch.random.fork_rng():
        torch.manual_seed(7)
        for name, task_name in NAMES.items():
            task, labels = TASKS[task_name], LABELS.get(task_name, ())
            config = tiny_config(tokenizer.vocab_size, problem_type=task.problem_type)
            config = config.with_labels(labels) if labels else config.replace(num_labels=1 if name == "rate" else 2)
            directory = folder / name
            task.head(config).save_pretrained(directory)
            tokenizer.save(directory)
            write_card(directory, {"task": task_name, "max_length": 32, "pairs": PAIRS.get(name)})
            sources[name] = str(directory)
    return sources


def service_of(sources: dict[str, str], **changes: Any) -> Service:
    """Loaded, and not listening; its `gate` is an ASGI app."""
    keys = Keys.of(changes.pop("keys", []))
    service = Service(sources, CPU, Limits(**changes), keys)
    service.shelf.load()
    return service


@contextlib.contextmanager
def running(folder: Path, seconds: float = 10.0) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a server of `write_models(folder)`, and its process."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    process = subprocess.Popen(
        [sys.executable, __file__, str(folder), str(port), str(seconds)],
        env=os.environ | {"PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        text=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{address}/ready").status_code == 200:
                    break
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < until, "it does not come up"
            time.sleep(0.05)
        yield address, process
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    models = write_models(Path(sys.argv[1]))
    serve(Service(models, CPU, Limits(sending_seconds=float(sys.argv[3]))), "127.0.0.1", int(sys.argv[2]))
