"""How much memory this process may still take, and how much it took at most.

On Linux a process that takes too much is killed without a word, so what is left must be known before. The limits are
the machine's (MemAvailable), the control group's (what containers and job schedulers set, version 1 or 2, its parents'
too), and the process's own (`ulimit -v` and `ulimit -d`). Elsewhere nothing is known, and there are no limits here.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED_BYTES = 1 << 60  # version 1 says "no limit" by a huge number


@dataclass(frozen=True)
class MemoryLimit:
    """One limit: how much is left below it."""

    name: str
    left_bytes: int


def memory_limits(root: Path = Path("/")) -> list[MemoryLimit]:
    """Every limit that is known, the one with the least left first; `root` is where proc and sys are mounted."""
    limits = [*_of_machine(root), *_of_group(root), *_of_process(root)]
    return sorted(limits, key=lambda limit: limit.left_bytes)


def can_measure_peak() -> bool:
    """True where `peak_since` can tell one step's peak from an earlier one's."""
    return os.access("/proc/self/clear_refs", os.W_OK)


def forget_peak() -> int:
    """Give back what the C library holds unused, begin a new peak, and return the resident bytes now.

    Without the first, a step would take what an earlier one freed, and would seem to need nothing.
    """
    if hasattr(library := ctypes.CDLL(None), "malloc_trim"):  # glibc
        library.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM, see proc(5)
    return status_bytes("VmRSS")


def peak_since() -> int:
    """Most resident bytes since `forget_peak`."""
    return status_bytes("VmHWM")


def status_bytes(name: str, root: Path = Path("/")) -> int:
    """A figure of /proc/self/status, such as VmRSS."""
    return _kilobyte_lines(root / "proc/self/status")[name] * 1024


def _of_machine(root: Path) -> Iterator[MemoryLimit]:
    file = root / "proc/meminfo"
    if file.exists():
        yield MemoryLimit("free memory of the machine", _kilobyte_lines(file)["MemAvailable"] * 1024)


def _of_process(root: Path) -> Iterator[MemoryLimit]:
    if not sys.platform.startswith("linux"):
        return
    import resource

    kinds = {
        "address space (ulimit -v)": (resource.RLIMIT_AS, "VmSize"),
        "data (ulimit -d)": (resource.RLIMIT_DATA, "VmData"),
    }
    for name, (kind, used) in kinds.items():
        most, _ = resource.getrlimit(kind)
        if most != resource.RLIM_INFINITY:
            yield MemoryLimit(name, most - status_bytes(used, root))


def _of_group(root: Path) -> Iterator[MemoryLimit]:
    """Limits of the control group that this process is in, and of those above it."""
    file = root / "proc/self/cgroup"
    if not file.exists():
        return
    for line in file.read_text(encoding="utf-8").splitlines():
        number, controllers, path = line.split(":", 2)
        inside = path.strip("/")
        if number == "0":
            yield from _walk(root / "sys/fs/cgroup", inside, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _walk(root / "sys/fs/cgroup/memory", inside, *names)


def _walk(mount: Path, inside: str, most_name: str, used_name: str, cache_name: str) -> Iterator[MemoryLimit]:
    # In a container the path may be that of the host, which is not mounted: then the mount itself is the group.
    group = mount / inside if (mount / inside).is_dir() else mount
    for folder in (group, *group.parents):
        if (folder / most_name).exists():
            most = (folder / most_name).read_text(encoding="ascii").strip()
            if most != "max" and int(most) < _UNLIMITED_BYTES:
                used = int((folder / used_name).read_text(encoding="ascii"))
                used -= _cache_bytes(folder / "memory.stat", cache_name)
                yield MemoryLimit("memory of the control group", int(most) - used)
        if folder == mount:
            return


def _cache_bytes(stat: Path, name: str) -> int:
    """File cache that goes as soon as memory is needed."""
    if not stat.exists():
        return 0
    pairs = (line.split() for line in stat.read_text(encoding="ascii").splitlines())
    return next((int(pair[1]) for pair in pairs if pair[0] == name), 0)


def _kilobyte_lines(file: Path) -> dict[str, int]:
    """`Name:   123 kB` lines."""
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            found[name] = int(value.removesuffix(" kB"))
    return found
