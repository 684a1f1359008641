"""Parts of a network that do not train, by name."""

import difflib
import re
from collections.abc import Iterator, Sequence

from torch import nn

from bertsmith.errors import UsageError

_ENCODER = "bert."
_RANGE = re.compile(r"(?<![^.])(\d+)-(\d+)(?![^.])")


def freeze(models: Sequence[nn.Module | None], names: Sequence[str]) -> None:
    """Let every parameter of `models` train but those in the modules, or of the tensors, that `names` gives.

    Names are those of a network, with or without the `bert.` of its encoder; a part that is a number may be a range,
    both ends included: `encoder.layer.0-3`. Of several networks with one encoder each name must be in one at least.
    Nothing else changes: dropout in a frozen part stays on in training. What is tied is one tensor: with the word
    embeddings the decoder that is tied to them is frozen too.

    Autograd makes no graph where nothing below needs a gradient, so frozen lowest layers cost no backward pass; and
    optimizers are made over what trains. Call this before `make_optimizer`.

    Raises `UsageError` for a name that there is not, with near ones, and where nothing is left to train.
    """
    networks = [model for model in models if model is not None]
    frozen = {id(parameter) for name in names for one in _each(name) for parameter in _parameters(networks, one)}
    parameters = [parameter for model in networks for parameter in model.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(id(parameter) not in frozen)
    if not any(parameter.requires_grad for parameter in parameters):
        raise UsageError(f"freeze = {list(names)} leaves nothing to train; freeze less")


def train_account(model: nn.Module) -> dict[str, int]:
    """How many tensors, and numbers in them, train and how many are frozen; each once however often it is tied."""
    sizes = {trains: [p.numel() for p in model.parameters() if p.requires_grad == trains] for trains in (True, False)}
    return {
        "trained_tensors": len(sizes[True]),
        "trained_parameters": sum(sizes[True]),
        "frozen_tensors": len(sizes[False]),
        "frozen_parameters": sum(sizes[False]),
    }


def _each(name: str) -> Iterator[str]:
    """encoder.layer.0-1 -> encoder.layer.0, encoder.layer.1"""
    found = _RANGE.search(name)
    if found is None:
        yield name
        return
    first, last = int(found[1]), int(found[2])
    if first > last:
        raise UsageError(f"freeze: {name!r} counts from {first} down to {last}; give the smaller number first")
    for number in range(first, last + 1):
        yield from _each(f"{name[: found.start()]}{number}{name[found.end() :]}")


def _parameters(models: Sequence[nn.Module], name: str) -> list[nn.Parameter]:
    modules = {part: module for model in models for part, module in model.named_modules()}
    tensors = [pair for model in models for pair in model.named_parameters(remove_duplicate=False)]
    known = [*modules, *(tensor for tensor, _ in tensors)]
    names = [part for part in (name, _ENCODER + name) if part and part in known]
    if not names:
        raise UsageError(f"freeze: this model has no {name!r}; {_hint(name, modules, known)}")
    inside = tuple(f"{part}." for part in names)
    parameters = [parameter for tensor, parameter in tensors if tensor in names or tensor.startswith(inside)]
    if not parameters:
        raise UsageError(f"freeze: {name!r} has no parameters")
    return parameters


def _hint(name: str, modules: dict[str, nn.Module], known: Sequence[str]) -> str:
    parent = name.rpartition(".")[0]
    siblings = modules.get(parent) or modules.get(_ENCODER + parent)
    if isinstance(siblings, nn.ModuleList):
        return f"{parent} has 0 to {len(siblings) - 1}"
    short = dict.fromkeys(other.removeprefix(_ENCODER) for other in known if other)
    near = difflib.get_close_matches(name.removeprefix(_ENCODER), short, n=2, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"its parts: {', '.join(other for other in short if '.' not in other and other != 'bert')}"
