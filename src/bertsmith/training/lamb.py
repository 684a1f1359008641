"""LAMB: an optimizer for batches of thousands."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lamb(Optimizer):
    """Layer-wise adaptive moments (You et al. 2020, arXiv:1904.00962, algorithm 2), all tensors of a group at a time.

    Of a tensor x with gradient g, at its t-th update:

        m = b1 m + (1 - b1) g              v = b2 v + (1 - b2) g^2
        r = m' / (sqrt(v') + eps) + decay x,     m' = m / (1 - b1^t), v' = v / (1 - b2^t)
        x = x - rate * ratio * r,                ratio = |x| / |r|, or 1 where one of them is 0

    Without `bias_correction`, m' = m and v' = v. As in the authors' code the ratio is 1 in groups that do not decay
    (`decays` false): biases and LayerNorm. State of a parameter: `step`, `exp_avg`, `exp_avg_sq`, tensors all.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        bias_correction: bool,
    ):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "bias_correction": bias_correction, "decays": True}
        super().__init__(groups, {**defaults, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient. `closure` is called for the loss where it is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._step(group, parameters)
        return loss

    def _step(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        states = [self._state_of(parameter) for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        means = [state["exp_avg"] for state in states]
        squares = [state["exp_avg_sq"] for state in states]
        steps = [state["step"].add_(1).item() for state in states]
        beta1, beta2 = group["betas"]
        torch._foreach_lerp_(means, gradients, 1.0 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1.0 - beta2)
        if group["bias_correction"]:
            updates = torch._foreach_div(means, [1.0 - beta1**step for step in steps])
            scales = torch._foreach_div(squares, [1.0 - beta2**step for step in steps])
            torch._foreach_sqrt_(scales)
        else:
            updates, scales = torch._foreach_mul(means, 1.0), torch._foreach_sqrt(squares)
        torch._foreach_add_(scales, group["eps"])
        torch._foreach_div_(updates, scales)
        if group["weight_decay"]:
            torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
        if group["decays"]:
            torch._foreach_mul_(updates, _trust_ratios(parameters, updates))
        torch._foreach_add_(parameters, updates, alpha=-group["lr"])

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state


def _trust_ratios(parameters: list[Tensor], updates: Iterable[Tensor]) -> list[Tensor]:
    """|x| / |r| of each tensor, 1 where one of the norms is 0; no number leaves the device."""
    norms = torch.stack(list(torch._foreach_norm(parameters)))
    update_norms = torch.stack(list(torch._foreach_norm(list(updates))))
    return list(torch.where((norms > 0) & (update_norms > 0), norms / update_norms, 1.0).unbind())
