"""Promise 4 for each optimizer, and with frozen parts: two ranks, sharded or not, have the weights of one process."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertsmith.config import OptimizerConfig
from bertsmith.runtime import Runtime
from bertsmith.training.distributed import Ranks
from bertsmith.training.freeze import freeze
from bertsmith.training.sharding import full, shard
from ranks_case import ONE_THREAD, on_ranks
from training_case import PLAN, TinyModel, make_batch, run

CASES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "lamb": ({"optimizer": "lamb", "weight_decay": 0.1}, ()),
    "adamw without bias correction": ({"bias_correction": False}, ()),
    "sgd": ({"optimizer": "sgd"}, ()),
    "frozen": ({}, ("embedding", "dense.weight")),
    "frozen lamb": ({"optimizer": "lamb"}, ("norm", "dense")),
}


def trained(ranks: Ranks, runtime: Runtime, directory: Path, name: str) -> dict[str, Any]:
    """Weights after five updates."""
    settings, frozen = CASES[name]
    torch.manual_seed(3)
    model = TinyModel(dropout=0.0).to(torch.float64)
    freeze([model], frozen)
    if runtime.parallel == "fsdp" and not ranks.is_alone:
        shard(model, [model.dense], ranks)
    run(
        directory,
        plan=replace(PLAN, batch_size=16, total_steps=5),
        model=model,
        runtime=runtime,
        next_batches=lambda due: [make_batch(due.step, 16).split([16 // ranks.size] * ranks.size)[ranks.rank]],
        evaluates=False,
        config=OptimizerConfig(**settings),
        ranks=ranks,
    )
    return {key: full(tensor.detach()).clone().numpy() for key, tensor in model.named_parameters()}


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", CASES)
def test_two_ranks_are_equal_to_one_process(tmp_path: Path, name: str, parallel: Any) -> None:
    one = trained(Ranks(0, 1), ONE_THREAD, tmp_path / "one", name)
    for found in on_ranks(2, trained, tmp_path / "two", name, parallel=parallel):
        assert isinstance(found, dict), found
        assert found.keys() == one.keys()
        for key, expected in one.items():
            np.testing.assert_allclose(found[key], expected, rtol=1e-9, atol=1e-9, err_msg=key)
