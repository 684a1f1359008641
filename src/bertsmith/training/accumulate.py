"""The gradient of an update: of all its micro-batches, on all ranks, in the parameters' `grad`.

    loss = sum_o weight_o * (sum_b loss_sum_{o,b}) / (sum_b count_{o,b})        micro-batches b, objectives o

The denominators are counted over the whole batch before the first forward pass. Dropout is seeded afresh for every
micro-batch from (seed, step, micro-batch, rank).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bertsmith.errors import BertsmithError, UsageError
from bertsmith.runtime import Runtime, derive_seed
from bertsmith.training.distributed import Ranks
from bertsmith.training.gradients import gradient_sum, gradients_of
from bertsmith.training.interrupts import Interrupts
from bertsmith.training.loss_scale import scale_of, unscale
from bertsmith.training.noise_scale import first_share, rotated
from bertsmith.training.plan import LossSums, Plan
from bertsmith.training.rollback import problem
from bertsmith.training.sharding import is_sharded
from bertsmith.training.state import State

# Summed over ranks beside the objectives.
_TOKENS, _SLOTS, _FLOPS, _BATCHES, _RIGHT = "#tokens", "#slots", "#flops", "#micro-batches", "#right "
_FIRST_SHARE, _FIRST_NORM = "#first share", "#first norm"  # said by the first rank alone


@dataclass(frozen=True)
class Gradient:
    """What is known of a gradient beside the gradient itself; but for `batches`, over all ranks."""

    batches: Sequence[Any]
    """Micro-batches of this rank."""
    counts: Mapping[str, int]
    """Objective -> items its loss is a mean over."""
    tokens: int
    slots: int
    """Tokens and padding; 0 where no example is left in the update."""
    flops: int
    losses: Mapping[str, float]
    """Objective -> mean loss."""
    right: Mapping[str, int]
    """Objective -> items answered rightly, where an answer can be."""
    scale: float
    """By which the loss was multiplied, and the gradient is."""
    first_share: float
    """Share of the batch that the first rank's first micro-batch was; 0 where that was not measured."""
    first_norm: float
    """Norm of what that micro-batch added."""


@runtime_checkable
class OfWholeBatch(Protocol):
    """A step function in which an example's loss hangs on the outputs of all examples of an update, whichever
    micro-batch and rank they are in.
    """

    def look(self, batch: Any) -> Tensor:
        """(items, width) what the loss reads of a micro-batch; called for each, without a graph, before any step."""

    def expect(self, batches: Sequence[Any], outputs: Sequence[Tensor], ranks: Ranks) -> None:
        """Take note of what was seen of this rank's micro-batches; called on all ranks."""

    def forget(self) -> None:
        """The update is over."""


class Accumulator:
    """Adds up gradients; `close` it when training is over."""

    def __init__(
        self,
        model: nn.Module,
        parameters: Sequence[nn.Parameter],
        loss_sums: LossSums,
        plan: Plan,
        runtime: Runtime,
        ranks: Ranks,
    ):
        self.model, self.parameters, self.loss_sums = model, parameters, loss_sums
        self.plan, self.runtime, self.ranks = plan, runtime, ranks
        self._over_ranks = gradient_sum(model, parameters, ranks)

    def close(self) -> None:
        self._over_ranks.close()

    def loss(self, losses: Mapping[str, float]) -> float:
        """The weighted sum that is minimised."""
        return sum(self._weight(name) * value for name, value in losses.items())

    def gradient(self, batches: Sequence[Any], state: State, interrupts: Interrupts) -> Gradient | None:
        """That of an update; None where a GPU's memory did not suffice for it, which leaves a part of it in `grad`.

        Raises `BertsmithError` for that where other ranks wait, `UsageError` for ranks of a sharded model with unlike
        numbers of micro-batches, and what `interrupts` raise, between micro-batches.
        """
        totals = self.ranks.totals(_totals(batches, self.plan.flops))
        tokens, slots, flops, num_batches = (totals.pop(name) for name in (_TOKENS, _SLOTS, _FLOPS, _BATCHES))
        if is_sharded(self.model) and num_batches != self.ranks.size * len(batches):
            has = f"this one has {len(batches)} of {num_batches} in step {state.step + 1:,}"
            raise UsageError(
                f"runtime.parallel = 'fsdp' needs as many micro-batches on each process, but {has}; "
                "give sizes that the number of processes divides, or use 'ddp'"
            )
        scale = scale_of(state, self.runtime.dtype)
        try:
            values = self._sums(batches, totals, scale, state, interrupts)
        except torch.OutOfMemoryError as error:
            if not self.ranks.is_alone:  # the others are in the midst of their own
                raise BertsmithError(
                    f"step {state.step + 1:,} does not fit into the GPU's memory ({error}); "
                    f"set a micro_batch_size below {state.due().micro_batch_size}, and it goes on from the newest "
                    "checkpoint"
                ) from error
            return None
        first = [values.pop(name, 0.0) for name in (_FIRST_SHARE, _FIRST_NORM)]
        right = {name: int(values.pop(name)) for name in list(values) if name.startswith(_RIGHT)}
        right = {name.removeprefix(_RIGHT): count for name, count in right.items()}
        return Gradient(batches, totals, tokens, slots, flops, values, right, scale, *first)

    def is_spoiled(self, batch: Any, state: State, *, limit: float) -> bool:
        """True where loss or gradient of a micro-batch alone is not as it should be. The gradients are dropped."""
        scale = scale_of(state, self.runtime.dtype)
        sums = self._backward(batch, batch.counts, 0, scale, state.step, last=False)
        losses = {name: float(value.detach()) / max(batch.counts[name], 1) for name, value in sums.items()}
        gradients = gradients_of(self.parameters)
        unscale(gradients, scale)
        norm = float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0
        for parameter in self.parameters:
            parameter.grad = None
        return problem(losses, norm=norm, loss=self.loss(losses), limit=limit) is not None

    def _sums(
        self, batches: Sequence[Any], totals: Mapping[str, int], scale: float, state: State, interrupts: Interrupts
    ) -> dict[str, float]:
        """Over all micro-batches and ranks: mean loss of each objective, and what stands beside them."""
        losses: dict[str, Tensor] = {}
        right: dict[str, Tensor] = {}
        first_norm: Tensor | None = None  # read at the end, so that a GPU need not be waited for
        order = rotated(len(batches), state.step)
        self._look(batches, state.step)
        share_of_first = self._first_share([batches[number].counts for number in order], totals)
        for done, number in enumerate(order, start=1):
            sums = self._backward(batches[number], totals, number, scale, state.step, last=done == len(batches))
            for name, value in sums.items():
                losses[name] = losses.get(name, 0) + value.detach() / max(totals[name], 1)
            for name, count in getattr(sums, "right", {}).items():
                right[name] = right.get(name, 0) + count
            if done == 1 and share_of_first is not None:
                first_norm = torch.nn.utils.get_total_norm(gradients_of(self.parameters))
            if interrupts.pending and self.ranks.is_alone and done < len(batches):
                interrupts.check()
        if isinstance(self.loss_sums, OfWholeBatch):
            self.loss_sums.forget()
        self._over_ranks.finish()  # before anything else is exchanged, since some ranks have begun to already
        answers = {_RIGHT + name: int(count) for name, count in right.items()}
        own: dict[str, float] = {name: value.item() for name, value in losses.items()} | answers
        if share_of_first is not None and first_norm is not None:
            own |= {_FIRST_SHARE: share_of_first, _FIRST_NORM: first_norm.item() / scale}
        return dict(self.ranks.totals(own))

    def _backward(
        self, batch: Any, totals: Mapping[str, int], number: int, scale: float, step: int, *, last: bool
    ) -> Mapping[str, Tensor]:
        """Add a micro-batch's part to the gradients; its loss sums."""
        self._seed(step, number)
        with self.runtime.autocast():
            sums = self.loss_sums(batch.to(self.runtime.device))
        shares = [self._weight(name) * (value / max(totals[name], 1)) for name, value in sums.items()]
        self._over_ranks.begin(last=last)
        loss = torch.stack(shares).sum()
        if loss.requires_grad:  # not where all that this objective reads is frozen
            torch.autograd.backward(loss * scale if scale != 1.0 else loss)
        return sums

    def _look(self, batches: Sequence[Any], step: int) -> None:
        """Where examples' losses hang on one another over micro-batches, show all of them to the step function, with
        the dropout that each will have: gradient caching (Gao et al. 2021, arXiv:2101.06983).
        """
        if not isinstance(self.loss_sums, OfWholeBatch) or (len(batches) < 2 and self.ranks.is_alone):
            return
        outputs = []
        with torch.no_grad(), self.runtime.autocast():
            for number, batch in enumerate(batches):
                self._seed(step, number)
                outputs.append(self.loss_sums.look(batch.to(self.runtime.device)))
        self.loss_sums.expect(batches, outputs, self.ranks)

    def _seed(self, step: int, number: int) -> None:
        torch.manual_seed(derive_seed("dropout", self.plan.seed, step, number, self.runtime.rank))

    def _first_share(self, counts: Sequence[Mapping[str, int]], totals: Mapping[str, int]) -> float | None:
        """What share of the batch this rank's first micro-batch is; None where that is of no use."""
        if not self.ranks.is_first or is_sharded(self.model):  # of a sharded model, a part of a batch has no gradient
            return None
        return first_share(counts, totals)

    def _weight(self, name: str) -> float:
        return self.plan.weights.get(name, 1.0)


def _totals(batches: Sequence[Any], flops: Callable[[Any], float] | None) -> dict[str, int]:
    """Items of each objective, tokens, slots for tokens, FLOPs, and micro-batches."""
    totals = {_TOKENS: 0, _SLOTS: 0, _FLOPS: 0, _BATCHES: len(batches)}
    for batch in batches:
        totals[_TOKENS] += batch.num_tokens
        totals[_SLOTS] += batch.input_ids.numel() if hasattr(batch, "input_ids") else batch.num_tokens
        totals[_FLOPS] += 0 if flops is None else round(flops(batch))
        for name, count in batch.counts.items():
            totals[name] = totals.get(name, 0) + count
    return totals
