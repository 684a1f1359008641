"""AdamW that leaves the rows of a word table alone until they are needed: the same weights, without the work.

A batch of fine-tuning touches some hundred of 30,000 rows. Of all others the gradient is 0, and what AdamW would do to
them, step by step, is known beforehand: decay, and the rest of their running means. So it is done for a row in one go
when the row is next read, and for all rows before an evaluation.

In steps l + 1 ... t without a gradient a row with weights p and means m, v becomes

    p' = p prod_i (1 - lr_i d)  -  m sum_i a_i / (s b_i + eps),      m' = m beta1^(t-l),      v' = v beta2^(t-l)

    s = sqrt(v),  a_i = lr_i beta1^(i-l) / (1 - beta1^i) prod_{j>i} (1 - lr_j d),  b_i² = beta2^(i-l) / (1 - beta2^i)

With B = max b_i and x = s B / (s B + eps) the sum is 1 / (s B + eps) sum_n x^n sum_i a_i (1 - b_i / B)^n, a short
series with the same coefficients for all rows that were left at step l.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim import AdamW

Floats = npt.NDArray[np.float64]

_NEGLIGIBLE = 1e-8
"""Relative size of what a sum leaves out."""
_MOST_TERMS = 512


class LazyRowsAdamW(AdamW):
    """`torch.optim.AdamW` with one embedding of sparse gradients, whose untouched rows wait.

    Its state beside AdamW's: `last`, (rows,) the step up to which each row is done, and `rates`, (steps,) the learning
    rates since the first step. Weights are what AdamW's are after `catch_up`.
    """

    def __init__(self, groups: Any, embedding: nn.Embedding, **settings: Any):
        super().__init__(groups, **settings)
        self.embedding, self.table = embedding, embedding.weight
        (self._group,) = (group for group in self.param_groups if any(p is self.table for p in group["params"]))
        self._unfinished: tuple[Tensor, ...] | None = None
        self._history = _History()
        embedding.sparse = True
        embedding.register_forward_pre_hook(lambda _, inputs: self.catch_up(inputs[0]))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        gradient, self.table.grad = self.table.grad, None
        loss: float | None = super().step(closure)
        state = self._state()
        state["step"] += 1
        state["rates"] = torch.cat([state["rates"], torch.tensor([self._group["lr"]], dtype=torch.float64)])
        if gradient is not None:
            self._step_rows(gradient, state)
        self.table.grad = gradient
        return loss

    @torch.no_grad()
    def catch_up(self, ids: Tensor | None = None) -> None:
        """Do what the rows of `ids` (default: all) have waited for. A signal in the midst of it does no harm."""
        if self.table not in self.state:
            return
        self._settle()
        state = self._state()
        step = int(state["step"])
        rows = torch.arange(len(self.table)) if ids is None else torch.unique(ids.flatten())
        rows = rows[state["last"][rows] < step]
        if not len(rows):
            return
        table, mean, square = (held[rows] for held in (self.table, state["exp_avg"], state["exp_avg_sq"]))
        self._advance(table, mean, square, state["last"][rows].numpy(), step, state["rates"].numpy())
        self._unfinished = (rows, table, mean, square, torch.full((len(rows),), step, dtype=torch.int64))
        self._settle()

    def zero_grad(self, set_to_none: bool = True) -> None:
        self._settle()
        super().zero_grad(set_to_none)

    def _settle(self) -> None:
        """Write what was worked out, again where a signal came in between."""
        if self._unfinished is not None:
            rows, *values = self._unfinished
            state = self._state()
            with torch.no_grad():
                for held, value in zip(
                    (self.table, state["exp_avg"], state["exp_avg_sq"], state["last"]), values, strict=True
                ):
                    held[rows] = value
            self._unfinished = None

    def _state(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[self.table]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(self.table)
            state["exp_avg_sq"] = torch.zeros_like(self.table)
            state["last"] = torch.zeros(len(self.table), dtype=torch.int64)
            state["rates"] = torch.zeros(0, dtype=torch.float64)
        return state

    def _step_rows(self, gradient: Tensor, state: dict[str, Tensor]) -> None:
        """AdamW's own step, of the rows that have a gradient; they were caught up when they were read."""
        group, step = self._group, int(state["step"])
        beta1, beta2 = group["betas"]
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
        table, mean, square = (held[rows] for held in (self.table, state["exp_avg"], state["exp_avg_sq"]))
        table.mul_(1 - group["lr"] * group["weight_decay"])
        mean.lerp_(values, 1 - beta1)
        square.mul_(beta2).addcmul_(values, values, value=1 - beta2)
        scale = square.sqrt().div_(math.sqrt(1 - beta2**step)).add_(group["eps"])
        table.addcdiv_(mean, scale, value=-group["lr"] / (1 - beta1**step))
        self._unfinished = (rows, table, mean, square, torch.full((len(rows),), step, dtype=torch.int64))
        self._settle()

    def _advance(
        self, table: Tensor, mean: Tensor, square: Tensor, last: npt.NDArray[np.int64], step: int, rates: Floats
    ) -> None:
        """Put rows (rows, hidden), done up to `last` (rows,), in place to where they are after `step`."""
        group, history = self._group, self._history
        beta1, beta2 = group["betas"]
        history.go_on(rates, beta1=beta1, beta2=beta2, decay=group["weight_decay"])
        waited = step - last
        table.mul_(_column(np.exp(history.decays[step] - history.decays[last]), table))
        moving = np.flatnonzero(last > 0)  # the others have never had a gradient: their means are 0
        if not len(moving):
            return
        lasts, which = np.unique(last[moving], return_inverse=True)
        largest, coefficients = history.series(lasts, step)
        rows = torch.from_numpy(moving)
        spread = square[rows].sqrt_().mul_(_column(largest[which], table))
        x = spread / (spread + group["eps"])
        total = torch.zeros_like(x)
        for coefficient in reversed(coefficients):
            total.mul_(x).add_(_column(coefficient[which], table))
        table[rows] -= mean[rows] * total / (spread + group["eps"])
        mean.mul_(_column(beta1**waited, table))
        square.mul_(_column(beta2**waited, table))


class _History:
    """What the learning rates up to now make of rows without a gradient; worked out once for each step."""

    def __init__(self) -> None:
        self.decays: Floats = np.zeros(1)
        """(steps + 1,) log of what decay leaves of a weight from the beginning to after each step."""
        self.moves: Floats = np.zeros(0)
        """(steps,) lr_i / (1 - beta1^i)"""
        self.spreads: Floats = np.zeros(0)
        """(steps,) 1 / (1 - beta2^i)"""
        self.beta1_powers: Floats = np.zeros(0)
        self.beta2_powers: Floats = np.zeros(0)
        """beta^1, beta^2, ..., as long as they matter to a sum"""

    def go_on(self, rates: Floats, *, beta1: float, beta2: float, decay: float) -> None:
        """Add the steps that are not in it yet."""
        known = len(self.moves)
        if known > len(rates) or not known:  # a checkpoint was read
            known, self.decays, self.moves, self.spreads = 0, np.zeros(1), np.zeros(0), np.zeros(0)
            most = math.ceil(math.log(_NEGLIGIBLE) / math.log(beta1)) + 1 if beta1 > 0 else 1
            waited = np.arange(1, most + 1, dtype=np.float64)
            self.beta1_powers, self.beta2_powers = np.power(beta1, waited), np.power(beta2, waited)
        new = rates[known:]
        if len(new):
            steps = np.arange(known + 1, len(rates) + 1)
            self.decays = np.concatenate([self.decays, self.decays[-1] + np.cumsum(np.log1p(-new * decay))])
            self.moves = np.concatenate([self.moves, new / (1 - beta1**steps)])
            self.spreads = np.concatenate([self.spreads, 1 / (1 - beta2**steps)])

    def series(self, lasts: npt.NDArray[np.int64], step: int) -> tuple[Floats, list[Floats]]:
        """For each of `lasts`, (lasts,): B, and the coefficients of x^0, x^1, ..., as many as matter to any."""
        most = min(int((step - lasts).max()), len(self.beta1_powers))
        steps = lasts[:, None] + np.arange(1, most + 1)  # (lasts, waited)
        is_there = steps <= step
        steps = np.minimum(steps, step)
        left_of_it = np.exp(self.decays[step] - self.decays[lasts.min() :])[steps - lasts.min()]
        a = self.moves[steps - 1] * self.beta1_powers[:most] * left_of_it * is_there
        b = np.sqrt(self.spreads[steps - 1] * self.beta2_powers[:most]) * is_there
        largest = b.max(axis=1)
        falls = 1 - b / largest[:, None]
        coefficients: list[Floats] = []
        terms, total = a, a.sum(axis=1)
        for _ in range(_MOST_TERMS):
            coefficients.append(terms.sum(axis=1))
            terms = terms * falls
            left = (terms / np.maximum(1 - falls, _NEGLIGIBLE)).sum(axis=1)  # of all terms that follow, at x = 1
            if np.all(left <= _NEGLIGIBLE * total):
                break
        return largest, coefficients


def _column(values: Floats, like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.dtype)[:, None]
