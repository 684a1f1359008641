"""Gradients of all ranks added up: whole copies of the model (data parallel), or a part of it on each rank (FSDP2).

Sums, never averages: each rank's loss is already divided by the count of the whole global batch.

Data parallel is done here rather than by DistributedDataParallel. That one averages unless a hook is written for it,
wants to wrap the one `forward` of a model (ours is called by parts), and fills up parameters without a gradient with
zeros, which decay then moves. Overlap with the backward pass is the same.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor, nn

from bertsmith.training.distributed import Ranks
from bertsmith.training.sharding import is_sharded, local

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

_BUCKET_BYTES = 25 << 20


class GradientSum(Protocol):
    """Called by the loop around the backward passes of an update."""

    def begin(self, *, last: bool) -> None:
        """Before each backward pass; `last`: nothing is accumulated after it."""

    def finish(self) -> None:
        """After the last one: each parameter's `grad` is the sum over all ranks and micro-batches (of its part)."""

    def close(self) -> None:
        """When training is over."""


def gradient_sum(model: nn.Module, parameters: Sequence[nn.Parameter], ranks: Ranks) -> GradientSum:
    """For a model as it is: whole, or sharded by `shard`."""
    if is_sharded(model):
        return _ShardedSum(cast("FSDPModule", model))
    return _NothingToSum() if ranks.is_alone else BucketSum(parameters, ranks)


class _NothingToSum:
    """Of one process."""

    def begin(self, *, last: bool) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


class _ShardedSum:
    """FSDP2 adds up by itself in the backward pass of the last micro-batch; before that, gradients stay whole."""

    def __init__(self, model: "FSDPModule"):
        self.model = model

    def begin(self, *, last: bool) -> None:
        self.model.set_requires_gradient_sync(last)
        self.model.set_is_last_backward(last)

    def finish(self) -> None: ...

    def close(self) -> None: ...


class BucketSum:
    """Adds up in buckets of 25 MB, each as soon as the last backward pass has filled it.

    Buckets are sent in one fixed order on all ranks, whatever the order in which they fill. A flag beside each gradient
    says on how many ranks it is there: one that is nowhere stays None, as with one process, and one that is missing
    here alone counts as zeros.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], ranks: Ranks, *, bucket_bytes: int = _BUCKET_BYTES):
        self.ranks = ranks
        self.buckets = _bucketed(list(reversed(parameters)), bucket_bytes)  # the last layers' gradients come first
        self._waiting: list[int] = []
        self._sent: list[tuple[Tensor, Callable[[], None]]] = []
        self._is_last = False
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(self._hook(number))  # type: ignore[no-untyped-call]
            for number, bucket in enumerate(self.buckets)
            for parameter in bucket
        ]

    def begin(self, *, last: bool) -> None:
        self._is_last, self._sent = last, []
        self._waiting = [len(bucket) for bucket in self.buckets]

    def finish(self) -> None:
        while len(self._sent) < len(self.buckets):
            self._send()
        for bucket, (flat, wait) in zip(self.buckets, self._sent, strict=True):
            wait()
            _unpack(flat, bucket)
        self._is_last, self._sent = False, []

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _hook(self, number: int) -> Callable[[Tensor], None]:
        def count(_: Tensor) -> None:
            if self._is_last:
                self._waiting[number] -= 1
                while len(self._sent) < len(self.buckets) and self._waiting[len(self._sent)] == 0:
                    self._send()

        return count

    def _send(self) -> None:
        flat = _packed(self.buckets[len(self._sent)])
        self._sent.append((flat, self.ranks.sum_later(flat)))


def _bucketed(parameters: Iterable[nn.Parameter], bucket_bytes: int) -> list[list[nn.Parameter]]:
    """Neighbours of one dtype together, up to that size."""
    buckets: list[list[nn.Parameter]] = []
    size = 0
    for parameter in parameters:
        if not buckets or buckets[-1][0].dtype != parameter.dtype or size + parameter.nbytes > bucket_bytes:
            buckets.append([])
            size = 0
        buckets[-1].append(parameter)
        size += parameter.nbytes
    return buckets


def _packed(bucket: Sequence[nn.Parameter]) -> Tensor:
    """(numbers + parameters,): all gradients, then a flag for each."""
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
    flags = torch.tensor([p.grad is not None for p in bucket], dtype=bucket[0].dtype, device=bucket[0].device)
    return torch.cat([*(gradient.flatten() for gradient in gradients), flags])


def _unpack(flat: Tensor, bucket: Sequence[nn.Parameter]) -> None:
    *sums, flags = torch.split(flat, [*(p.numel() for p in bucket), len(bucket)])
    gradients = [p.grad for p in bucket if p.grad is not None]
    if len(gradients) == len(bucket):  # no need to read the flags, for which a GPU would have to be awaited
        torch._foreach_copy_(gradients, [total.view_as(p) for total, p in zip(sums, bucket, strict=True)])
        return
    for parameter, total, flag in zip(bucket, sums, flags.tolist(), strict=True):
        if flag:
            parameter.grad = total.view_as(parameter).clone()


def gradients_of(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """The gradients that there are; of a sharded model this rank's parts, which in-place functions may change."""
    return [_numbers(p) for p in parameters if p.grad is not None]


def _numbers(parameter: nn.Parameter) -> Tensor:
    """A gradient's numbers; of a sparse one those of the rows that it has."""
    gradient = parameter.grad
    assert gradient is not None, "only of parameters that have one"
    if not gradient.is_sparse:
        return local(gradient)
    parameter.grad = gradient.coalesce()
    return parameter.grad.values()


def gradient_norm(gradients: Sequence[Tensor], model: nn.Module, ranks: Ranks, norm_type: float = 2.0) -> float:
    """Norm of the whole gradient, the same number on all ranks; `gradients` are those of `gradients_of`."""
    filled = [gradient for gradient in gradients if gradient.numel()]  # a rank may have no part of a small parameter
    norm = float(torch.nn.utils.get_total_norm(filled, norm_type)) if filled else 0.0
    if not is_sharded(model):
        return ranks.from_first(norm)
    norms = ranks.gather(norm)
    if not all(map(math.isfinite, norms)):
        return math.nan
    return max(norms) if norm_type == math.inf else sum(n**norm_type for n in norms) ** (1 / norm_type)
