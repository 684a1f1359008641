"""An update of a word table of 30,522 x 384: rows that wait (`LazyRowsAdamW`) against AdamW over all of them.

Each row names the share of the table that a batch reads; ids are drawn as often as words are (Zipf). Counted is all
that hangs on the table: the gradient, its norm and clipping, the update, catching up. Both sides are first fed the same
gradients for 30 updates; weights must then agree to 1e-6.

    python bench/lazy_rows.py --quick
"""

import copy
from collections.abc import Callable

import numpy as np
import torch
from measure import arguments, compare, emit
from torch import nn
from torch.nn.utils import get_total_norm

from bertsmith.runtime import detect
from bertsmith.training.gradients import gradients_of
from bertsmith.training.lazy_rows import LazyRowsAdamW

ROWS, WIDTH, UPDATES = 30_522, 384, 10
SHARES = (0.003, 0.01, 0.03, 0.1, 0.3)


def drawn(share: float, number: int) -> torch.Tensor:
    """Ids of a batch: enough tokens, drawn by rank, that so many rows are read."""
    draw = np.random.default_rng([number, round(share * 1e4)])
    ids: set[int] = set()
    while len(ids) < share * ROWS:
        ids.update((np.minimum(draw.zipf(1.3, 4 * int(share * ROWS)), ROWS) - 1).tolist())
        ids.update(draw.integers(0, ROWS, max(1, int(share * ROWS / 8))).tolist())
    return torch.tensor(sorted(ids)[: int(share * ROWS)])


def update(words: nn.Embedding, optimizer: torch.optim.Optimizer, ids: torch.Tensor, slope: torch.Tensor) -> None:
    (words(ids) * slope).sum().backward()
    gradients = gradients_of([words.weight])
    norm = float(get_total_norm(gradients))
    torch._foreach_mul_(gradients, min(1.0, 1.0 / norm))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def sides(share: float) -> tuple[Callable[[], float], Callable[[], float]]:
    torch.manual_seed(0)
    words = nn.Embedding(ROWS, WIDTH)
    nn.init.normal_(words.weight, std=0.02)
    plain = copy.deepcopy(words)
    settings = {"lr": 5e-5, "weight_decay": 0.01, "fused": True}
    pairs = (
        (words, LazyRowsAdamW([{"params": [words.weight]}], words, **settings)),
        (plain, torch.optim.AdamW(plain.parameters(), **settings)),
    )
    batches = [drawn(share, number) for number in range(30)]
    slopes = [torch.randn(len(ids), WIDTH) for ids in batches]
    for ids, slope in zip(batches, slopes, strict=True):
        for module, optimizer in pairs:
            update(module, optimizer, ids, slope)
    pairs[0][1].catch_up()
    if (apart := float((words.weight - plain.weight).detach().abs().max())) > 1e-6:
        raise SystemExit(f"weights differ by {apart}; nothing is measured")

    def work(module: nn.Embedding, optimizer: torch.optim.Optimizer) -> Callable[[], float]:
        numbers = iter(range(10**9))

        def some() -> float:
            for _ in range(UPDATES):
                number = next(numbers) % len(batches)
                update(module, optimizer, batches[number], slopes[number])
            return UPDATES

        return some

    return work(*pairs[0]), work(*pairs[1])


def main() -> None:
    options = arguments(__doc__ or "")
    detect(threads=options.threads)
    for share in SHARES:
        name = f"{share:g}"
        if options.only in (None, name):
            ours, peer = sides(share)
            emit(compare(name, ours, peer, rounds=4 if options.quick else 8, unit="updates/s"), options)


if __name__ == "__main__":
    main()
