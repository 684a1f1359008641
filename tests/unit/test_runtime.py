"""Which device, dtype and rank a process has."""

import os
from typing import Any

import pytest
import torch

from bertsmith.errors import UsageError
from bertsmith.runtime import detect, peak_memory_bytes


def test_an_apple_gpu_is_refused() -> None:
    with pytest.raises(UsageError, match="on a Mac use 'cpu'"):
        detect(device="mps")


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_dtype_that_is_asked_for_is_taken(name: Any) -> None:
    runtime = detect(dtype=name, device="cpu")
    assert runtime.dtype_name == name
    with runtime.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == runtime.dtype


def _gpus(monkeypatch: pytest.MonkeyPatch, *, number: int, bfloat16: bool) -> list[torch.device]:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: bfloat16 or including_emulation
    )
    return chosen


def test_cublas_is_told_of_determinism_before_its_first_product(monkeypatch: pytest.MonkeyPatch) -> None:
    _gpus(monkeypatch, number=1, bfloat16=True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "to be put back")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    detect(device="cpu")
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    detect(device="cuda")
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_memory_is_that_of_the_processor_while_no_gpu_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    _gpus(monkeypatch, number=1, bfloat16=True)
    assert peak_memory_bytes() > 10_000_000


def test_a_gpu_that_only_emulates_bfloat16_gets_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    _gpus(monkeypatch, number=1, bfloat16=False)
    assert detect().dtype == torch.float16
    _gpus(monkeypatch, number=1, bfloat16=True)
    assert detect().dtype == torch.bfloat16


def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = _gpus(monkeypatch, number=2, bfloat16=True)
    for name, value in {"RANK": "5", "WORLD_SIZE": "6", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    runtime = detect()
    assert (runtime.rank, runtime.world_size, runtime.device) == (5, 6, torch.device("cuda", 1))
    assert chosen == [torch.device("cuda", 1)]
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(UsageError, match="3 processes were started on this machine, which has 2 GPUs"):
        detect()
