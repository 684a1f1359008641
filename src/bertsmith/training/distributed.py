"""All processes (ranks) of one run: what they add up, what they agree on, and how they end together.

Started by `torchrun`, each rank reads its share of the global batch. Three rules make n processes equal to one
(promise 4 of the design):

    denominators    items are counted over all ranks and micro-batches before the first forward pass
    gradients       each rank's loss is its own sum over that count, and gradients are summed, never averaged
    decisions       whatever a clock, a signal or a file says is said by all ranks, or by the first, to all

What ranks tell one another is JSON, over gloo also where gradients go over NCCL, so that no GPU waits for it.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NoReturn, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from bertsmith.errors import BertsmithError, Stopped, UsageError
from bertsmith.runtime import Runtime
from bertsmith.training.interrupts import Interrupted, Interrupts
from bertsmith.training.track import Track

_MESSAGE_BYTES = 512
_LENGTH_BYTES = 8
_SECONDS_BETWEEN_LOOKS = 0.05
_SECONDS_TO_STOP = 3.0
_BEAT_SECONDS = 1.0
_BEATS_MISSED = 3
_SECONDS_TO_ASK = 2 * _BEATS_MISSED * _BEAT_SECONDS
_ENDED = "bertsmith/ended"

T = TypeVar("T")


class LostRank(BertsmithError):  # noqa: N818 - what is lost, as people say it
    """Another process has ended, or does not answer within `runtime.timeout_seconds`."""


@dataclass
class Ranks:
    """The processes of a run as one of them sees them; made by `joined`, or `alone`."""

    rank: int
    size: int
    store: Any = None
    _turns: int = field(default=0, repr=False)

    @property
    def is_first(self) -> bool:
        """The one that prints, logs and writes files."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        return self.size == 1

    def gather(self, value: T) -> list[T]:
        """What every rank gives (plain JSON), in their order, on all ranks."""
        if self.is_alone:
            return [value]
        message = json.dumps(value).encode()
        size = _MESSAGE_BYTES  # most fit into it, so that one collective is enough
        while True:
            padded = (len(message).to_bytes(_LENGTH_BYTES) + message)[:size].ljust(size, b"\0")
            found = [
                bytes(f.tolist()) for f in self._all_gather(torch.frombuffer(bytearray(padded), dtype=torch.uint8))
            ]
            lengths = [int.from_bytes(f[:_LENGTH_BYTES]) for f in found]
            if _LENGTH_BYTES + max(lengths) <= size:
                return [json.loads(f[_LENGTH_BYTES:][:n]) for f, n in zip(found, lengths, strict=True)]
            size = _LENGTH_BYTES + max(lengths)

    def gather_rows(self, tensor: Tensor) -> list[Tensor]:
        """(rows, ...) of every rank, in their order, on all ranks; a rank may have other numbers of rows, or none."""
        if self.is_alone:
            return [tensor]
        shapes = self.gather(list(tensor.shape))
        most = max(shapes)
        padded = tensor.new_zeros(most)
        if len(tensor):
            padded[: len(tensor)] = tensor
        return [found[: shape[0]] for found, shape in zip(self._all_gather(padded), shapes, strict=True)]

    def from_first(self, value: T) -> T:
        """What the first rank gives (plain JSON), on all ranks."""
        return value if self.is_alone else self.gather(value if self.is_first else None)[0]  # type: ignore[return-value]

    def totals(self, numbers: Mapping[str, T]) -> dict[str, T]:
        """Sums over all ranks by name; a rank may lack some names."""
        sums: dict[str, Any] = {}
        for each in self.gather(dict(numbers)):
            for name, number in each.items():
                sums[name] = sums.get(name, 0) + number
        return sums

    def check(self, interrupts: Interrupts) -> None:
        """Raise `Interrupted` on all ranks if a signal has arrived at any of them."""
        number = max(self.gather(interrupts.signal_number or 0))
        if number:
            raise Interrupted(number)

    def on_first(self, function: Callable[[], T]) -> T:
        """Call it on the first rank alone and give what it returns (plain JSON) to all, who wait as long as it takes.

        Where it raises there, the others raise `LostRank`.
        """
        if self.is_alone:
            return function()
        self._turns += 1
        key = f"bertsmith/turn/{self._turns}"
        if self.is_first:
            value = function()  # if it raises, `joined` says so to the others
            self.store.set(key, json.dumps(value))
            return value
        while not self._has(key):
            if self._has(_ENDED):
                self._lost("")
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        found: T = json.loads(self.store.get(key))
        return found

    def wait_for_all(self, word: str, seconds: float) -> None:
        """Say `word`, and wait until all ranks have said it, but no longer than that."""
        self.store.set(f"bertsmith/{word}/{self.rank}", "")
        deadline = time.monotonic() + seconds
        missing = {f"bertsmith/{word}/{rank}" for rank in range(self.size)}
        while missing and time.monotonic() < deadline:
            missing = {key for key in missing if not self._has(key)}
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite each with that of the first rank."""
        if not self.is_alone:
            with self._told(), torch.no_grad():
                for tensor in tensors:
                    dist.broadcast(tensor, src=0)

    def same_weights(self, model: nn.Module) -> None:
        """Give all ranks the parameters and buffers of the first, whatever each has made."""
        self.broadcast([tensor.detach() for tensor in model.state_dict().values()])

    def sum_later(self, tensor: Tensor) -> Callable[[], None]:
        """Begin to add up `tensor` over ranks in place; a function that waits until that is done."""
        with self._told():
            work = dist.all_reduce(tensor, op=dist.ReduceOp.SUM, async_op=True)

        def wait() -> None:
            with self._told():
                work.wait()

        return wait

    def _all_gather(self, tensor: Tensor) -> list[Tensor]:
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        with self._told():
            dist.all_gather(found, tensor)
        return found

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What a collective raises, in words."""
        try:
            yield
        except RuntimeError as error:
            self._lost(str(error))

    def _lost(self, said: str) -> NoReturn:
        """Find out who is missing, tell the others, and raise."""
        if not self._has(_ENDED):
            silent = self._silent()
            if not self._has(_ENDED):  # somebody else may have found out meanwhile, and be gone by now
                names = ", ".join(map(str, silent)) or "another one"
                reason = " ".join(said.split())[:160] or "no word from it"
                self.tell(
                    f"process {names} of {self.size} (from 0) has ended or does not answer ({reason}); see what it said"
                    " last, then run the same command again: it goes on from the newest checkpoint"
                )
        raise LostRank(self.store.get(_ENDED).decode())

    def tell(self, message: str) -> None:
        """Leave word for the others of how this run ends."""
        self.store.set(_ENDED, message)

    def _silent(self) -> list[int]:
        """Ranks whose heart does not beat."""
        keys = [f"bertsmith/beat/{rank}" for rank in range(self.size)]
        before = [self.store.get(key) if self._has(key) else None for key in keys]
        time.sleep(_BEATS_MISSED * _BEAT_SECONDS)
        after = [self.store.get(key) if self._has(key) else None for key in keys]
        pairs = enumerate(zip(before, after, strict=True))
        return [rank for rank, (old, new) in pairs if old == new and rank != self.rank]

    def _has(self, key: str) -> bool:
        try:
            return bool(self.store.check([key]))
        except RuntimeError as error:
            raise LostRank(
                f"the first process or its launcher has ended ({' '.join(str(error).split())[:160]})"
            ) from None


def silent() -> Track:
    """The track of a rank that is not the first: it takes everything and writes nothing."""
    return cast(Track, _Silent())


class _Silent:
    def __enter__(self) -> Track:
        return cast(Track, self)

    def __exit__(self, *_: object) -> None: ...

    def place(self) -> tuple[int, str]:
        return 0, ""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_args, **_named: None


def alone(runtime: Runtime) -> Ranks:
    """The one process of a run that is not under torchrun; raises `UsageError` where there are several."""
    if runtime.world_size > 1:
        raise UsageError(
            f"{runtime.world_size} processes were started, but they do not know of one another; "
            "from Python, train inside `with training.distributed.joined(runtime) as ranks` and hand on `ranks`"
        )
    return Ranks(0, 1)


@contextlib.contextmanager
def joined(runtime: Runtime) -> Iterator[Ranks]:
    """All processes that torchrun started, joined for as long as the block lasts; a single one needs nobody."""
    if runtime.world_size == 1:
        yield alone(runtime)
        return
    ranks = _join(runtime)
    stop = threading.Event()
    threading.Thread(target=_beat, args=(ranks, stop), daemon=True).start()
    together_seconds = 0.0
    try:
        yield ranks
        together_seconds = runtime.timeout_seconds
    except LostRank:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        with contextlib.suppress(RuntimeError):
            ranks.tell(f"process {ranks.rank} of {ranks.size} (from 0) has stopped: {reason}")
        together_seconds = _SECONDS_TO_STOP if isinstance(error, Stopped) else 0.0
        raise
    finally:
        _leave(ranks, together_seconds, can_destroy=together_seconds > 0.0 or runtime.device.type == "cpu")
        stop.set()


def _leave(ranks: Ranks, together_seconds: float, *, can_destroy: bool) -> None:
    """Part from the others: where all goes well together, since who closes a connection early disturbs one who reads.

    The first rank goes last, since the store goes with it where no launcher keeps it, and the others ask the store how
    the run ended.
    """
    with contextlib.suppress(RuntimeError, LostRank):
        ranks.wait_for_all("done", together_seconds)
    if can_destroy:  # NCCL would wait for ranks that are gone
        dist.destroy_process_group()
    with contextlib.suppress(RuntimeError, LostRank):
        ranks.wait_for_all("gone", _SECONDS_TO_ASK if ranks.is_first else 0.0)


def _join(runtime: Runtime) -> Ranks:
    timeout = timedelta(seconds=runtime.timeout_seconds)
    backend = "cpu:gloo,cuda:nccl" if runtime.device.type == "cuda" else "gloo"
    try:
        found = rendezvous("env://", runtime.rank, runtime.world_size, timeout=timeout)
        store, rank, size = next(found)
        store.set_timeout(timeout)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        raise LostRank(
            f"process {runtime.rank} of {runtime.world_size} (from 0) did not find the others ({error}); start all of "
            "them with one torchrun command for each machine"
        ) from error
    return Ranks(rank, size, store)


def _beat(ranks: Ranks, stop: threading.Event) -> None:
    """Say that this process lives, until it ends."""
    number = 0
    with contextlib.suppress(RuntimeError):
        while not stop.wait(_BEAT_SECONDS):
            number += 1
            ranks.store.set(f"bertsmith/beat/{ranks.rank}", str(number))
