"""What memory is left, and the micro-batch that fits into it: found without a crash, and without changing anything."""

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bertsmith.config import OptimizerConfig
from bertsmith.errors import BertsmithError
from bertsmith.training.memory_fit import MicroBatchFit, Need
from bertsmith.training.memory_limit import (
    MemoryLimit,
    can_measure_peak,
    forget_peak,
    memory_limits,
    peak_since,
)
from bertsmith.training.optimizer import make_optimizer
from training_case import CPU, TinyModel, loss_sums_of, make_batch

MB = 1 << 20
on_linux = pytest.mark.skipif(not can_measure_peak(), reason="peaks are measured by way of /proc")


def _write(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_machine_and_a_group_of_version_2(tmp_path: Path) -> None:
    """The least room counts, wherever above the process it is set; file cache is room."""
    group = "sys/fs/cgroup/jobs/one"
    root = _write(
        tmp_path,
        {
            "proc/meminfo": "MemTotal:  9000 kB\nMemAvailable:  5000 kB\nHugePages_Total:  0\n",
            "proc/self/cgroup": "0::/jobs/one\n",
            f"{group}/memory.max": "max\n",
            f"{group}/memory.current": "100000\n",
            "sys/fs/cgroup/jobs/memory.max": "3000000\n",
            "sys/fs/cgroup/jobs/memory.current": "2500000\n",
            "sys/fs/cgroup/jobs/memory.stat": "anon 1900000\ninactive_file 500000\nactive_file 1\n",
        },
    )
    assert memory_limits(root) == [
        MemoryLimit("memory of the control group", 1_000_000),
        MemoryLimit("free memory of the machine", 5000 * 1024),
    ]


def test_a_group_of_version_1_and_one_whose_path_is_the_host_s(tmp_path: Path) -> None:
    unlimited = _write(
        tmp_path / "none",
        {
            "proc/self/cgroup": "4:cpu,memory:/job\n1:name=systemd:/job\n",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "5\n",
        },
    )
    assert memory_limits(unlimited) == []
    inside = _write(
        tmp_path / "container",
        {
            "proc/self/cgroup": "4:memory:/docker/0123/unseen\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "800\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "500\n",
            "sys/fs/cgroup/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 100\n",
        },
    )
    assert memory_limits(inside) == [MemoryLimit("memory of the control group", 400)]


@on_linux
def test_this_machine_has_memory_and_peaks_are_forgotten() -> None:
    machine = [limit for limit in memory_limits() if limit.name == "free memory of the machine"]
    assert len(machine) == 1
    assert machine[0].left_bytes > 100 * MB
    before = forget_peak()
    torch.ones(64 * MB // 4)
    assert 60 * MB < peak_since() - before < 100 * MB
    before = forget_peak()
    assert peak_since() - before < 32 * MB


@on_linux
def test_the_process_s_own_limits_count() -> None:
    script = (
        "import json, resource; from bertsmith.training.memory_limit import memory_limits, status_bytes;"
        "used = [status_bytes('VmSize'), status_bytes('VmData')];"
        "resource.setrlimit(resource.RLIMIT_AS, (used[0] + (300 << 20), resource.RLIM_INFINITY));"
        "resource.setrlimit(resource.RLIMIT_DATA, (used[1] + (200 << 20), resource.RLIM_INFINITY));"
        "print(json.dumps([[limit.name, limit.left_bytes] for limit in memory_limits()[:2]]))"
    )
    found = json.loads(_python(["-c", script]))
    assert [name for name, _ in found] == ["data (ulimit -d)", "address space (ulimit -v)"]
    assert [left / MB for _, left in found] == pytest.approx([200, 300], abs=5)


def test_two_measurements_make_a_line() -> None:
    need = Need.between((4, 500), (8, 700))
    assert need == Need(300.0, 50.0)
    assert need.of(10) == 800
    assert need.most_examples(1000) == 14
    assert need.most_examples(349) == 0
    assert Need.between((1, 100), (2, 100)).bytes_per_example > 0, "a flat line still ends somewhere"
    assert Need.between((1, 10), (2, 100)).fixed_bytes == 0, "nothing is less than nothing"


class _Wide(nn.Module):
    """About 2.5 MB of activations an example."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[nn.Sequential(nn.Linear(256, 256), nn.GELU()) for _ in range(5)])

    def forward(self, batch: Any) -> Tensor:
        out: Tensor = self.layers(torch.ones(len(batch.input_ids), 256, 256))
        return out


def _fit(model: nn.Module, left_bytes: int, **changes: Any) -> MicroBatchFit:
    fit = MicroBatchFit(
        optimizer=make_optimizer(model, OptimizerConfig()),
        make_batch=lambda size: make_batch(0, size),
        loss_sums=lambda batch: {"mlm": model(batch).square().sum()},
        runtime=CPU,
        limits=lambda: [MemoryLimit("a test's", left_bytes), MemoryLimit("more", 1 << 50)],
    )
    return replace(fit, **changes)


@on_linux
def test_less_fits_under_a_lower_limit_and_the_reason_has_the_figures() -> None:
    reserve = 256 * MB
    found = {}
    for left in (20, 80, 320):
        need, limit, room = _fit(_Wide(), reserve + left * MB)._measure(256)
        assert limit.name == "a test's"
        found[left] = need.most_examples(room)
    assert found[20] < found[80] < found[320]
    for left in (80, 320):
        assert 0.3 * left / 2.5 < found[left] < left / 2.5, "2.5 MB an example and gradients, and no more than fits"
    size, because = _fit(_Wide(), reserve + 80 * MB)(256)
    assert 1 <= size <= found[80] * 1.5
    assert "MB an example" in because
    assert "GB are left (a test's)" in because


@on_linux
def test_where_not_even_one_fits_it_says_so() -> None:
    with pytest.raises(BertsmithError, match=r"example takes 0\.\d\d GB and does not fit into 0\.00 GB \(a test"):
        _fit(_Wide(), 256 * MB)(8)


def test_where_nothing_is_known_the_batch_stays_whole() -> None:
    size, because = _fit(_Wide(), 0, limits=list)(8)
    assert size == 8
    assert "does not tell" in because


def _out_of_memory_above(largest: int, model: nn.Module, tried: list[int]) -> Any:
    loss_sums = loss_sums_of(model)

    def raising(batch: Any) -> Mapping[str, Tensor]:
        tried.append(len(batch.input_ids))
        if tried[-1] > largest:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return loss_sums(batch)

    return raising


def test_a_gpu_that_is_too_small_is_tried_with_half() -> None:
    model, tried = TinyModel(), list[int]()
    fit = _fit(model, 0, loss_sums=_out_of_memory_above(9, model, tried))
    size, because = fit._by_trying(48)
    assert tried == [48, 24, 12, 6]
    assert size == 6
    assert because.startswith("48, 24, 12 did not fit into the memory of")
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(BertsmithError, match="a step with a single example does not fit"):
        _fit(model, 0, loss_sums=_out_of_memory_above(0, model, tried))._by_trying(4)


def test_while_a_gpu_is_tried_the_optimizer_s_state_to_come_is_there() -> None:
    model = TinyModel()
    fit = _fit(model, 0)
    bytes_of_weights = sum(parameter.nbytes for parameter in model.parameters())
    assert sum(tensor.nbytes for tensor in fit._missing_optimizer_state()) == 2 * bytes_of_weights
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    fit.optimizer.step()
    assert fit._missing_optimizer_state() == []


@on_linux
@pytest.mark.parametrize("has_stepped", [False, True])
def test_finding_out_changes_nothing(has_stepped: bool) -> None:
    torch.manual_seed(4)
    model = TinyModel(dropout=0.3)
    fit = _fit(model, 1 << 40, loss_sums=loss_sums_of(model))
    if has_stepped:
        sum(loss_sums_of(model)(make_batch(0, 8)).values()).backward()  # type: ignore[union-attr]
        fit.optimizer.step()
        fit.optimizer.zero_grad()
    weights = copy.deepcopy(model.state_dict())
    optimizer = copy.deepcopy(fit.optimizer.state_dict())
    generator = torch.get_rng_state()
    fit(64)
    with torch.random.fork_rng(devices=[]):
        fit._by_trying(64)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert _same(optimizer, fit.optimizer.state_dict())
    assert all(parameter.grad is None for parameter in model.parameters())


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


SCRIPT = """
import json, resource, sys
import torch
from bertsmith.config import OptimizerConfig
from bertsmith.model.config import BertConfig
from bertsmith.model.heads import BertForSequenceClassification
from bertsmith.training.memory_fit import MicroBatchFit
from bertsmith.training.memory_limit import status_bytes
from bertsmith.training.optimizer import make_optimizer
from training_case import CPU, TinyBatch

torch.manual_seed(0)
model = BertForSequenceClassification(
    BertConfig(vocab_size=500, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512)
)

def make_batch(size):
    ids = torch.randint(5, 500, (size, 128))
    labels = torch.zeros(size, dtype=torch.long)
    return TinyBatch(ids, labels[:, None], labels, tuple(range(size)))

def loss_sums(batch):
    return {"nsp": torch.nn.functional.cross_entropy(model(batch.input_ids).logits, batch.pair_labels, reduction="sum")}

optimizer = make_optimizer(model, OptimizerConfig())

def step(size):
    sum(loss_sums(make_batch(size)).values()).backward()
    optimizer.step()
    optimizer.zero_grad()

room = int(sys.argv[1]) << 20
resource.setrlimit(resource.RLIMIT_AS, (status_bytes("VmSize") + room, resource.RLIM_INFINITY))
size, because = MicroBatchFit(optimizer, make_batch, loss_sums, CPU)(int(sys.argv[2]))
for _ in range(3):
    step(size)
try:
    step(int(sys.argv[2]))
    failed = False
except (RuntimeError, MemoryError) as error:
    failed = True
print(json.dumps({"size": size, "because": because, "failed": failed}))
"""


def _python(arguments: list[str]) -> str:
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=True
    )
    return done.stdout


@on_linux
def test_under_a_limited_address_space_what_is_found_trains_and_more_does_not() -> None:
    """2,048 examples would take some 15 GB."""
    found = {room: json.loads(_python(["-c", SCRIPT, str(room), "2048"])) for room in (450, 900)}
    assert all(result["failed"] for result in found.values()), "the whole batch does not fit"
    assert all("address space" in result["because"] for result in found.values())
    holds = {room: int(re.search(r"which holds ([\d,]+)", result["because"])[1]) for room, result in found.items()}  # type: ignore[index]
    assert 1 <= holds[450] < holds[900] < 2048, found
    for room, result in found.items():  # as much as memory holds, or its half or quarter where that was faster
        assert holds[room] // 8 <= result["size"] <= holds[room], found
