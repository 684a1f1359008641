"""What checkpoints cost: the same training with one after every 100 updates, and with none, in turn.

    checkpoint-4x256    4 layers, hidden 256, vocabulary 30,522: 33 million numbers with AdamW's two
    checkpoint-12x768   the base model: 328 million

The figure is time with checkpoints over time without, less 1; it must stay below 0.05. Each round trains both for as
many updates, with a save at its beginning, whose writing goes on beside the updates that follow. Weights must be equal
afterwards. Updates are of 1,024 and of 256 tokens, less work than in any real run, so that a save weighs more here.

    python bench/checkpoint.py --quick
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measure import Row, arguments, emit
from torch import nn

from bertsmith.config import PretrainConfig
from bertsmith.model import BertForMaskedLM, preset
from bertsmith.training.checkpoints import Checkpoints
from bertsmith.training.distributed import Ranks
from bertsmith.training.optimizer import make_optimizer

SHAPES = {"checkpoint-4x256": ("mini", 32), "checkpoint-12x768": ("base", 8)}
EVERY, LENGTH, VOCAB = 100, 32, 30_522


class Training:
    """A model, its optimizer, and updates on the same made-up ids."""

    def __init__(self, size: str, batch_size: int):
        torch.manual_seed(1)
        sizes = {"vocab_size": VOCAB, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        self.model = BertForMaskedLM(preset(size, sizes)).train()
        self.optimizer = make_optimizer(self.model, PretrainConfig(max_steps=1))
        self.ids = torch.randint(1, VOCAB, (batch_size, LENGTH), generator=torch.Generator().manual_seed(2))
        self.target = torch.randn(batch_size, LENGTH, self.model.config.hidden_size)
        self.step = 0

    def update(self) -> None:
        states = self.model.bert(self.ids).last_hidden_state  # (batch, seq, hidden)
        (states - self.target).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1


def seconds_of(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def measure(name: str, *, rounds: int, updates: int) -> Row:
    """`updates` stand for the 100 between two checkpoints: what a save adds to them is set against 100 of them."""
    size, batch_size = SHAPES[name]
    with_saves, without = Training(size, batch_size), Training(size, batch_size)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), keep=2)

        def saving() -> None:
            checkpoints.begin_save(with_saves.step, with_saves.model, with_saves.optimizer, {}, ranks=Ranks(0, 1))
            for _ in range(updates):
                with_saves.update()
            checkpoints.wait()  # all of its cost falls into this round

        def plain() -> None:
            for _ in range(updates):
                without.update()

        saving(), plain()  # warm: the first updates allocate the optimizer's state
        shares = []
        for number in range(rounds):
            first, second = (saving, plain) if number % 2 == 0 else (plain, saving)
            times = {first: seconds_of(first), second: seconds_of(second)}
            shares.append((times[saving] - times[plain]) / (times[plain] / updates * EVERY))
        assert equal(with_saves.model, without.model), "saving has changed the weights"
        num_bytes = sum(file.stat().st_size for file in checkpoints.path(checkpoints.steps()[-1]).iterdir())
    share = statistics.median(shares)
    note = f"{num_bytes:,} bytes a checkpoint, one for every {EVERY} updates of {batch_size} x {LENGTH}; at most 0.05"
    return Row(name, round(share, 4), 0.0, "share of run time", round(1 + share, 4), *bounds(shares), note)


def bounds(shares: list[float]) -> tuple[float, float]:
    return round(1 + min(shares), 4), round(1 + max(shares), 4)


def main() -> None:
    options = arguments(__doc__ or "")
    torch.set_num_threads(options.threads)
    for name, updates in {"checkpoint-4x256": 30, "checkpoint-12x768": 12}.items():
        if options.only in (None, name):
            emit(measure(name, rounds=5 if options.quick else 9, updates=updates), options)


if __name__ == "__main__":
    main()
