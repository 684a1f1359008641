"""What a run would take on other machines: arithmetic from stated assumptions, every one of which can be changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ASSUMED = "2026-06"
"""When the prices below were looked up."""

MFU = 0.35
"""Share of the peak that training reaches. BERT base at 128 tokens on one GPU; small networks reach less."""

EFFICIENCY = 0.9
"""Of several GPUs, over as many single ones."""

COUNTS = (1, 8, 16)


@dataclass(frozen=True)
class Gpu:
    """Peak in dense bf16 (of the maker's data sheet, without sparsity), memory, and a price for an hour."""

    teraflops: float
    gigabytes: int
    dollars_per_hour: float
    """A round figure of what specialised clouds asked on demand at `ASSUMED`; others ask up to three times that."""


GPUS: dict[str, Gpu] = {
    "B200": Gpu(2250, 180, 5.00),
    "H200": Gpu(989, 141, 3.50),
    "H100": Gpu(989, 80, 3.00),
    "A100": Gpu(312, 80, 1.30),
    "L40S": Gpu(362, 48, 0.90),
    "RTX 4090": Gpu(165, 24, 0.45),
    "L4": Gpu(121, 24, 0.70),
}


@dataclass(frozen=True)
class GpuEstimate:
    """A run on `count` GPUs of one kind."""

    gpu: str
    count: int
    seconds: float
    dollars: float
    fits: bool
    """A micro-batch's memory, on one of them."""


def gpu_estimates(
    flops: float,
    *,
    memory_bytes: int,
    mfu: float = MFU,
    efficiency: float = EFFICIENCY,
    counts: Sequence[int] = COUNTS,
    prices: Mapping[str, float] | None = None,
) -> list[GpuEstimate]:
    """seconds = flops / (count x peak x mfu x (efficiency if count > 1)), dollars = count x hours x price."""
    prices = prices or {}
    found = []
    for name, gpu in GPUS.items():
        for count in counts:
            rate = count * gpu.teraflops * 1e12 * mfu * (efficiency if count > 1 else 1.0)
            seconds = flops / rate
            dollars = count * seconds / 3600 * prices.get(name, gpu.dollars_per_hour)
            found.append(GpuEstimate(name, count, seconds, dollars, memory_bytes <= 0.9e9 * gpu.gigabytes))
    return found
