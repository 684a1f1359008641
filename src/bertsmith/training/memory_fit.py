"""`micro_batch_size = "auto"`: the largest micro-batch that fits into memory, found without a crash.

On a GPU: half of what did not fit, until it does. On a CPU, where the kernel kills instead of raising, by prediction.
Real steps with one example, two, four, ... are taken until the last two differ measurably, and what they took at their
peak gives

    bytes(examples) = fixed + per_example * examples

The largest micro-batch with bytes(examples) below what the tightest limit leaves, a reserve set aside, is the answer.
Where steps are cheap, half and a quarter of it are timed too, and the fastest is taken: on a CPU a smaller micro-batch
may stay in the processor's caches. On a GPU it only leaves cores idle, so there the largest is taken.

The steps change nothing: no optimizer step, gradients given back, the generator put back. They go through code that is
not compiled, since each size would be compiled for itself; compiled code needs less.
"""

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bertsmith.errors import BertsmithError
from bertsmith.runtime import Runtime
from bertsmith.training.batch_size import equal_parts
from bertsmith.training.memory_limit import MemoryLimit, can_measure_peak, forget_peak, memory_limits, peak_since
from bertsmith.training.plan import LossSums

_RESERVE_BYTES = 256 << 20
_RESERVE_SHARE = 0.1
_MEASURABLE_BYTES = 64 << 20
_CHEAP_SECONDS = 2.0
_TIMED_STEPS = 2
_CLEARLY_FASTER = 0.95
_FLOATS_OF_OPTIMIZER = 2  # a parameter, as of AdamW: two running means
_COPIES_WHILE_SAVING = 1 + _FLOATS_OF_OPTIMIZER  # a checkpoint is written beside training, from copies in memory


@dataclass(frozen=True)
class Need:
    """Bytes that a step takes beside what is there between steps."""

    fixed_bytes: float
    bytes_per_example: float

    @staticmethod
    def between(first: tuple[int, int], second: tuple[int, int]) -> "Need":
        """The line through two measurements, each (examples, peak bytes), the second with more examples."""
        per_example = max(second[1] - first[1], 1) / (second[0] - first[0])
        return Need(max(second[1] - per_example * second[0], 0.0), per_example)

    def of(self, examples: int) -> float:
        return self.fixed_bytes + self.bytes_per_example * examples

    def most_examples(self, room_bytes: float) -> int:
        """How many fit; may be less than one."""
        return math.floor((room_bytes - self.fixed_bytes) / self.bytes_per_example)


@dataclass(frozen=True)
class MicroBatchFit:
    """Finds the micro-batch for one model, optimizer and device.

    `make_batch(examples)` gives a batch of so many examples, as long as any of the run's; `loss_sums` is the loop's
    step function, not compiled.
    """

    optimizer: torch.optim.Optimizer
    make_batch: Callable[[int], Any]
    loss_sums: LossSums
    runtime: Runtime
    limits: Callable[[], Sequence[MemoryLimit]] = memory_limits

    def __call__(self, most: int) -> tuple[int, str]:
        """Examples in a micro-batch, at most `most`, and why. Raises `BertsmithError` where not even one fits."""
        devices = [self.runtime.device] if self.runtime.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            try:
                return self._by_trying(most) if devices else self._by_predicting(most)
            finally:
                self._clear()

    def _by_trying(self, most: int) -> tuple[int, str]:
        """On a GPU."""
        optimizer_state = self._missing_optimizer_state()  # held while trying: it will be there in every real step
        failed: list[str] = []
        size = most
        while size:
            if self._fits(size):
                del optimizer_state
                because = "it fits" if not failed else f"{', '.join(failed)} did not fit"
                return equal_parts(most, size), f"{because} into the memory of {self.runtime.device_name}"
            failed.append(f"{size}")
            size //= 2
        raise BertsmithError(_too_large(f"the memory of {self.runtime.device_name}"))

    def _fits(self, size: int) -> bool:
        try:
            self._step(size)
        except torch.OutOfMemoryError:
            fits = False
        else:
            fits = True
        self._clear()  # outside the handler: what was raised holds on to the step's tensors
        return fits

    def _by_predicting(self, most: int) -> tuple[int, str]:
        """On a CPU."""
        if not can_measure_peak() or not self.limits():
            return most, "the whole batch: this system does not tell what memory a step takes"
        need, limit, room = self._measure(most)
        largest = min(need.most_examples(room), most)
        if largest < 1:
            raise BertsmithError(_too_large(f"{max(room, 0.0) / 1e9:.2f} GB ({limit.name})", need))
        found = equal_parts(most, largest)
        because = (
            f"a step takes {need.fixed_bytes / 1e6:,.0f} MB and {need.bytes_per_example / 1e6:,.1f} MB an example; "
            f"{room / 1e9:,.2f} GB are left ({limit.name}), which holds {need.most_examples(room):,}"
        )
        fastest, timings = self._fastest(found)
        return fastest, because + timings

    def _measure(self, most: int) -> tuple[Need, MemoryLimit, float]:
        """What steps take, the tightest limit, and what it leaves with the reserve and what comes later set aside."""
        self._step(1)  # threads, kernels and caches come once
        self._clear()
        before = forget_peak()
        limit = self.limits()[0]
        weights_bytes = sum(p.nbytes for group in self.optimizer.param_groups for p in group["params"])
        later_bytes = sum(tensor.nbytes for tensor in self._missing_optimizer_state())
        later_bytes += _COPIES_WHILE_SAVING * weights_bytes
        left_bytes = limit.left_bytes / self.runtime.world_size  # other ranks on this machine take as much
        room = left_bytes - later_bytes - max(_RESERVE_BYTES, _RESERVE_SHARE * left_bytes)
        size, peak_bytes = 1, self._peak(1, before)
        need = Need(0.0, max(peak_bytes, 1.0))  # too much an example, until there are two points for a line
        while 2 * size <= most and need.of(2 * size) <= room:
            last = (size, peak_bytes)
            size, peak_bytes = 2 * size, self._peak(2 * size, before)
            need = Need.between(last, (size, peak_bytes))
            if peak_bytes - last[1] >= _MEASURABLE_BYTES:
                break
        return need, limit, room

    def _peak(self, size: int, before: int) -> int:
        """Most bytes beside `before` in this step or an earlier, smaller one."""
        self._step(size)
        self._clear()
        return peak_since() - before

    def _fastest(self, largest: int) -> tuple[int, str]:
        """`largest`, or its half or quarter if that is clearly faster; these only where a step is cheap."""
        sizes = [size for size in (largest, largest // 2, largest // 4) if size]
        seconds = {largest: self._seconds_per_example(largest)}
        if seconds[largest] * largest > _CHEAP_SECONDS or len(sizes) == 1:
            return largest, ""
        seconds |= {size: self._seconds_per_example(size) for size in sizes[1:]}
        best = largest
        for size in sizes[1:]:
            if seconds[size] < _CLEARLY_FASTER * seconds[best]:
                best = size
        told = ", ".join(f"{1e3 * value:.2f} ms by {size}" for size, value in seconds.items())
        return best, f"; an example takes {told}"

    def _seconds_per_example(self, size: int) -> float:
        """The best of a few steps after one that does not count."""
        self._step(size)
        best = math.inf
        for _ in range(_TIMED_STEPS):
            self._clear()
            started = time.monotonic()
            self._step(size)
            best = min(best, time.monotonic() - started)
            if best > _CHEAP_SECONDS:
                break
        self._clear()
        return best / size

    def _step(self, size: int) -> None:
        """Forward and backward of one micro-batch, as the loop takes it."""
        batch = self.make_batch(size).to(self.runtime.device)
        with self.runtime.autocast():
            sums = self.loss_sums(batch)
        loss = torch.stack([value / max(batch.counts[name], 1) for name, value in sums.items()]).sum()
        torch.autograd.backward(loss)

    def _clear(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        if self.runtime.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()

    def _missing_optimizer_state(self) -> list[Tensor]:
        """Tensors as large as what the optimizer's first step will add; none where it has taken steps."""
        return [
            torch.empty_like(parameter)
            for group in self.optimizer.param_groups
            for parameter in group["params"]
            if parameter.requires_grad and not self.optimizer.state.get(parameter)
            for _ in range(_FLOATS_OF_OPTIMIZER)
        ]


def _too_large(room: str, need: Need | None = None) -> str:
    takes = "" if need is None else f" takes {need.of(1) / 1e9:.2f} GB and"
    return (
        f"a step with a single example{takes} does not fit into {room}; "
        "take a smaller model or a smaller max_length, or allow more memory"
    )
