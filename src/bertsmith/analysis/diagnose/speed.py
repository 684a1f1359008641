"""Illnesses that cost time, not quality."""

from collections.abc import Iterator

import numpy as np

from bertsmith.analysis.diagnose import thresholds as at
from bertsmith.analysis.diagnose.facts import Facts, series, values
from bertsmith.analysis.diagnose.finding import Finding
from bertsmith.analysis.folder import mapping
from bertsmith.analysis.markup import number


def loader_bound(facts: Facts) -> Iterator[Finding]:
    """A step that waits for its batch."""
    waits = facts.steps.column("loader_wait_seconds")
    waited = float(np.nansum(waits))
    elapsed = facts.training.elapsed_seconds or 0.0
    if elapsed < 1.0 or waited < at.LOADER_SHARE.value * elapsed:
        return
    yield Finding(
        "loader-bound",
        "sure",
        f"{waited:,.1f} of {elapsed:,.1f} seconds ({waited / elapsed:.0%}) were spent waiting for batches",
        (
            "put the examples on a local disk; on a network file system each block is fetched",
            "leave a processor core free for reading",
        ),
        series=(series("seconds waited", facts.column("loader_wait_seconds")),),
    )


def thread_bound(facts: Facts) -> Iterator[Finding]:
    """More threads than processors, or most processors idle."""
    environment = mapping(facts.training.start.get("environment"))
    threads, cores = number(environment.get("threads")), number(environment.get("cpu_count"))
    ranks = number(environment.get("world_size")) or 1.0
    if threads is None or cores is None or not str(environment.get("device")).startswith("cpu"):
        return
    told = f"{ranks:.0f} processes with {threads:.0f} threads each on {cores:.0f} processors"
    told = told if ranks > 1 else f"{threads:.0f} threads on {cores:.0f} processors"
    share = _share_of_peak(facts)
    measured = "" if share is None else f"; the step reached {share:.1%} of the machine's matrix products"
    if threads * ranks > cores:
        advice = (
            f"runtime.threads = {max(1, int(cores // ranks))}: threads that share a processor wait for each other",
        )
        yield Finding("thread-bound", "likely", f"{told}: too many{measured}", advice)
    elif threads * ranks < cores / 2:
        advice = (f"runtime.threads = {int(cores // ranks)} (and OMP_NUM_THREADS, where it is set)",)
        yield Finding("thread-bound", "likely", f"{told}: most are idle{measured}", advice)
    elif share is not None and share < at.PEAK_SHARE.value and (facts.training.elapsed_seconds or 0) > 60:
        hints = (
            "look whether something else keeps the machine busy",
            "larger micro-batches or longer texts; tiny ones cost more than they compute",
        )
        yield Finding(
            "thread-bound", "possible", f"the step reached {share:.1%} of the machine's matrix products", hints
        )


def _share_of_peak(facts: Facts) -> float | None:
    peak = number(mapping(facts.training.start.get("environment")).get("matmul_flops_per_second"))
    speeds, costs = (values(facts.column(key)) for key in ("tokens_per_second", "flops_per_token"))
    if not peak or not speeds or not costs:
        return None
    return sorted(speeds)[len(speeds) // 2] * sorted(costs)[len(costs) // 2] / peak


CHECKS = (loader_bound, thread_bound)
