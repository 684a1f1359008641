"""FSDP2: each rank keeps a part of every parameter, gradient and optimizer state (ZeRO stage 3, arXiv:1910.02054).

PyTorch's FSDP2 takes half a second to import, so only a run that shards does.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeGuard, cast

from torch import Tensor, nn

from bertsmith.training.distributed import Ranks

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor


def shard(model: nn.Module, blocks: Iterable[nn.Module], ranks: Ranks, *, methods: Sequence[str] = ()) -> None:
    """Leave on each rank its part of every parameter, in place; gradients are summed over ranks, never averaged.

    Args:
        blocks: modules, such as layers, whose parameters are gathered, used and dropped together; the rest of them
            stays gathered from the forward to the backward pass.
        methods: those of `model` that are called in place of `forward`.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(next(model.parameters()).device.type, (ranks.size,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    for module in _sharded_modules(model):
        _sum_gradients(module)
    for name in methods:
        register_fsdp_forward_method(model, name)


def is_sharded(model: nn.Module) -> bool:
    """True for a model, or one of its blocks, given to `shard`."""
    return hasattr(model, "unshard")


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor, in the same memory; any other as it is."""
    return tensor.to_local() if is_part(tensor) else tensor


def full(tensor: Tensor) -> Tensor:
    """A sharded tensor put together, which all ranks must ask for; any other as it is."""
    return tensor.full_tensor() if is_part(tensor) else tensor


def block(tensor: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where this rank's part of a sharded tensor begins in it, and the part's shape; of any other, all of it."""
    start = [0] * tensor.ndim
    if is_part(tensor):
        from torch.distributed.tensor import Shard

        for placement in tensor.placements:
            if isinstance(placement, Shard):
                dimension, mesh = placement.dim, tensor.device_mesh
                rows = -(-tensor.shape[dimension] // mesh.size())
                start[dimension] = min(rows * mesh.get_local_rank(), tensor.shape[dimension])
    return tuple(start), tuple(local(tensor).shape)


def of_part(part: Tensor, model: Tensor) -> Tensor:
    """A tensor that is sharded as `model` is, of which this rank's part is `part`."""
    if not is_part(model):
        return part
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        part, model.device_mesh, model.placements, run_check=False, shape=model.shape, stride=model.stride()
    )


@contextlib.contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Inside, the parameters of a sharded `model` are whole on every rank; all ranks must enter."""
    modules = list(_sharded_modules(model))
    for module in modules:
        module.unshard()
    try:
        yield
    finally:
        for module in modules:
            module.reshard()


def is_part(tensor: Tensor) -> "TypeGuard[DTensor]":
    """True for a tensor of which each rank has a part."""
    return hasattr(tensor, "to_local")


def _sharded_modules(model: nn.Module) -> "Iterator[FSDPModule]":
    return (cast("FSDPModule", module) for module in model.modules() if is_sharded(module))


def _sum_gradients(module: "FSDPModule") -> None:
    """FSDP2 divides by the number of ranks; how to be rid of that depends on PyTorch's version."""
    divide = getattr(module, "set_gradient_divide_factor", None)  # 2.8 and later
    (divide or module.set_reduce_scatter_divide_factor)(1.0)
    force = getattr(module, "set_force_sum_reduction_for_comms", None)  # 2.9 and later; gloo has no other way
    if force is not None:
        force(True)
