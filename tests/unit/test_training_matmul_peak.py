"""The machine's matrix products are measured at a size that they can do in a moment."""

from collections.abc import Callable

import pytest
import torch

from bertsmith.training import matmul_peak as room


@pytest.mark.parametrize(("flops", "size"), [(1e12, 2048), (6e10, 1024), (1e9, 256)])
def test_slow_processors_multiply_smaller_matrices(monkeypatch: pytest.MonkeyPatch, flops: float, size: int) -> None:
    sizes = []

    def product(size: int, device: torch.device, dtype: torch.dtype) -> Callable[[], float]:
        sizes.append(size)
        return lambda: 2 * size**3 / flops

    monkeypatch.setattr(room, "_product", product)
    measured = room._measured.__wrapped__(torch.device("cpu"), torch.bfloat16, 1)
    assert measured == pytest.approx(flops)
    assert sizes == [256 * 2**power for power in range(len(sizes))]
    assert sizes[-1] == size


def test_the_largest_size_is_measured_for_real() -> None:
    assert 1e6 < room._measured(torch.device("cpu"), torch.float32, 1) < 1e15
