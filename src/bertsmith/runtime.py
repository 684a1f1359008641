"""What this process runs on: device, dtype, threads, seeds, rank. Nothing else asks the environment.

PyTorch is imported where it is asked, so that processes which only prepare text begin at once and stay small.
"""

from __future__ import annotations

import functools
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import xxhash

from bertsmith.errors import UsageError

if TYPE_CHECKING:
    import torch

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
ParallelName = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class Runtime:
    """Where and how tensors are computed in this process."""

    device: torch.device
    dtype: torch.dtype
    """Dtype of matrix products: float32, or bfloat16 or float16 under autocast; weights stay float32."""
    threads: int
    rank: int = 0
    world_size: int = 1
    parallel: ParallelName = "ddp"
    """Several processes hold whole copies of the model (ddp), or a part of it each (fsdp)."""
    timeout_seconds: float = 600.0
    """How long a process waits for the others before it gives up."""

    @property
    def device_name(self) -> str:
        import torch

        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else cpu_name()

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def autocast(self) -> torch.autocast:
        """Run matrix products in `dtype`; does nothing for float32."""
        import torch

        enabled = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype if enabled else torch.bfloat16, enabled=enabled)


def environment_variable(name: str, *, needed_by: str) -> str:
    """Value of a variable of the environment. Raises `UsageError` where it is not set."""
    if name not in os.environ:
        raise UsageError(f"{needed_by} names the environment variable {name}, which is not set; export {name}=...")
    return os.environ[name]


def detect(
    *,
    dtype: DtypeName = "auto",
    threads: int | None = None,
    device: str = "auto",
    parallel: ParallelName = "ddp",
    timeout_seconds: float = 600.0,
) -> Runtime:
    """Choose device and dtype by what the hardware has, set PyTorch's thread count, read what torchrun says of ranks.

    bfloat16 is chosen on a GPU that supports it and on a CPU with AVX512-BF16 or AMX. Elsewhere bfloat16 is emulated
    and slower than what is chosen then: float16 (with loss scaling) on a GPU, float32 on a CPU. Each process of a
    machine has a GPU of its own.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"device {device!r} is unknown; use 'auto', 'cpu' or 'cuda'") from error
    if chosen.type not in ("cpu", "cuda"):
        raise UsageError(
            f"device {device!r}: training runs on 'cpu' and 'cuda', where it is tested to be exact; on a Mac use 'cpu'"
        )
    if chosen.type == "cuda":
        chosen = _gpu(chosen)
    if threads is not None:
        torch.set_num_threads(threads)
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return Runtime(
        device=chosen,
        dtype=_best_dtype(chosen) if dtype == "auto" else dtypes[dtype],
        threads=torch.get_num_threads(),
        rank=process_rank(),
        world_size=world_size(),
        parallel=parallel,
        timeout_seconds=timeout_seconds,
    )


def process_rank() -> int:
    """Number of this process among those that torchrun started, over all machines; 0 without it."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Processes that torchrun started, over all machines; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def processes_here() -> int:
    """Processes that torchrun started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _gpu(device: torch.device) -> torch.device:
    """The GPU of this process. Raises `UsageError` where there is none for it."""
    import torch

    if not torch.cuda.is_available():
        raise UsageError("device 'cuda' was asked for, but this PyTorch sees no GPU; use device 'cpu' or 'auto'")
    # cuBLAS refuses determinism without it, and PyTorch looks once, at the first matrix product of a process.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if device.index is None and "LOCAL_RANK" in os.environ:
        number = int(os.environ["LOCAL_RANK"])
        if number >= torch.cuda.device_count():
            raise UsageError(
                f"{processes_here()} processes were started on this machine, which has {torch.cuda.device_count()} "
                "GPUs; start one for each: torchrun --nproc-per-node gpu"
            )
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
    return device


def _best_dtype(device: torch.device) -> torch.dtype:
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if cpu_has_bfloat16() else torch.float32


def cpu_has_bfloat16() -> bool:
    """True where the CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX)."""
    return cpu_has("avx512_bf16", "amx_bf16")


def cpu_has_int8() -> bool:
    """True where the CPU multiplies 8-bit integers in hardware (VNNI or AMX)."""
    return cpu_has("avx512_vnni", "avx_vnni", "amx_int8")


@functools.cache
def cpu_has(*instructions: str) -> bool:
    """True where the CPU has any of these, by the names that Linux gives them."""
    import torch

    capabilities = torch.backends.cpu.get_capabilities() if hasattr(torch.backends.cpu, "get_capabilities") else {}
    if capabilities:
        return any(capabilities.get(name) for name in instructions)
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(name in flags for name in instructions)


@functools.cache
def cpu_name() -> str:
    """The processor's name as its maker gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def environment(runtime: Runtime | None = None) -> dict[str, object]:
    """Facts for `run.json` and the report: versions, machine, devices."""
    import numpy
    import tokenizers
    import torch

    import bertsmith

    facts: dict[str, object] = {
        "bertsmith": bertsmith.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "tokenizers": tokenizers.__version__,
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cpu_count": available_cpus(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
    if runtime is not None:
        facts |= {k: str(v) if k in ("device", "dtype") else v for k, v in asdict(runtime).items()}
    return facts


def available_cpus() -> int:
    """Processors this process may use (not those of the whole machine)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far (once it uses a GPU: the allocator's peak), in bytes."""
    import torch

    if torch.cuda.is_available() and (allocated := int(torch.cuda.max_memory_allocated())):
        return allocated
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a pure function of its parts, the same on every machine.

    Every random choice of the project is seeded by this from names and numbers, such as
    `derive_seed("mask", seed, epoch, example_id)`, never by how many random numbers came before it.
    """
    return xxhash.xxh3_64_intdigest("\x1f".join(map(str, parts)).encode()) >> 1


def data_roots() -> tuple[Path, ...]:
    """Folders in which recipes look for their data, besides the current one."""
    named = os.environ.get("BERTSMITH_DATA")
    return (Path(named),) if named else (Path("data"), Path("../shared/data"))
