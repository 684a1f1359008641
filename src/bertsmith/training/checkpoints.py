"""The checkpoints of a run: saved beside training, a torn one passed over for the one before, the best one kept."""

import contextlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from bertsmith.artifact import remove_drafts, write_json
from bertsmith.errors import CheckpointError
from bertsmith.training.checkpoint import Checkpoint, OtherFormatError, finish, open_checkpoint, pieces_of, write_part
from bertsmith.training.distributed import Ranks
from bertsmith.training.sharding import is_sharded
from bertsmith.training.tensor_files import Piece

_NAME = re.compile(r"step-(\d{8,})")
_SECONDS_FOR_A_PART = 600.0
_SECONDS_BETWEEN_LOOKS = 0.02


class Checkpoints:
    """The checkpoints of one run: the newest `keep` are kept, and one more that is named when saving."""

    def __init__(self, directory: Path, *, keep: int = 2):
        self.directory = directory
        self.keep = keep
        self._copies = _Copies()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def path(self, step: int) -> Path:
        return self.directory / f"step-{step:08d}"

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """`begin_save` of one process, and wait until it is on the disk."""
        self.begin_save(step, model, optimizer, state, ranks=Ranks(0, 1))
        self.wait()

    def begin_save(
        self,
        step: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: Mapping[str, Any],
        *,
        ranks: Ranks,
        keep_step: int | None = None,
    ) -> None:
        """Copy the tensors in memory and return; a thread writes them, and then removes what is no longer to be kept.

        All ranks call it. Of a sharded model each writes its part, to one file system; else the first writes it whole.
        What stood before goes only when this one is whole and on the disk. The checkpoint of `keep_step`, the best one,
        stays. One save is at work at a time: where one is, this waits for it, and raises what `wait` raises.
        """
        self.wait()
        size = ranks.size if is_sharded(model) else 1
        if ranks.rank >= size:
            return
        pieces = pieces_of(model, optimizer, rank=ranks.rank)
        num_bytes = sum(piece.tensor.nbytes for named in pieces.values() for piece in named.values())
        draft = self._begin_draft(step, num_bytes) if ranks.is_first else None
        name = None if draft is None else draft.name
        name = name if size == 1 else ranks.from_first(name)
        if name is None:
            return
        copies = self._copies.of(pieces)
        save = _Save(
            self.path(step), step, self.directory / name, copies, num_bytes, state, keep_step, ranks.rank, size
        )
        self._thread = threading.Thread(target=self._write, args=(save,), name=f"checkpoint of step {step}")
        self._thread.start()

    def wait(self) -> None:
        """Return when no save is at work.

        Raises `CheckpointError`, once, with the path and the bytes needed, where the disk did not take the last one.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    @property
    def is_saving(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def latest(self, *, up_to: int | None = None) -> tuple[Checkpoint | None, tuple[str, ...]]:
        """The newest checkpoint (up to a step) whose files are whole, and a line on each newer one that is not.

        Raises `CheckpointError` where there is none, but some that another version of bertsmith wrote.
        """
        skipped: list[CheckpointError] = []
        for step in sorted(self.steps(), reverse=True):
            if up_to is not None and step > up_to:
                continue
            try:
                return open_checkpoint(self.path(step)), tuple(map(str, skipped))
            except CheckpointError as error:
                skipped.append(error)
        for reason in skipped:
            if isinstance(reason, OtherFormatError):
                raise reason
        return None, tuple(map(str, skipped))

    def steps(self) -> list[int]:
        """Steps of which there is a directory, whole or not, in ascending order."""
        if not self.directory.is_dir():
            return []
        matches = (_NAME.fullmatch(entry.name) for entry in self.directory.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def remove_after(self, step: int) -> None:
        """Remove what is there from beyond `step`: torn ones, once the run goes on from that step."""
        for other in self.steps():
            if other > step:
                shutil.rmtree(self.path(other), ignore_errors=True)

    def _begin_draft(self, step: int, num_bytes: int) -> Path | None:
        """An empty folder for the files of all ranks; None where there is no room, which `wait` will say."""
        draft = self.directory / f".{self.path(step).name}.draft-{os.getpid()}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._clean()
            draft.mkdir()
        except OSError as error:
            self._error = _not_written(self.path(step), num_bytes, error)
            return None
        return draft

    def _write(self, save: "_Save") -> None:
        """In the thread. Whatever is raised belongs into the loop, which asks for it."""
        try:
            save.write()
        except Exception as error:
            if save.rank == 0:  # which hears of the others' errors
                self._error = error
            return
        if save.rank == 0:
            for old in self.steps()[: -self.keep]:
                if old != save.keep_step:
                    shutil.rmtree(self.path(old), ignore_errors=True)

    def _clean(self) -> None:
        """Remove what a killed run left half-written."""
        for left in self.directory.glob(".step-*"):
            name, _, ending = left.name[1:].partition(".")
            if ending == "old":
                shutil.rmtree(left, ignore_errors=True)
            else:
                remove_drafts(self.directory / name)


@dataclass(frozen=True)
class _Save:
    """What one rank's thread has to write."""

    path: Path
    step: int
    draft: Path
    pieces: Mapping[str, Mapping[str, Piece]]
    num_bytes: int
    state: Mapping[str, Any]
    keep_step: int | None
    rank: int
    size: int

    def write(self) -> None:
        """Write this rank's part; on the first rank, wait for the others' and make a checkpoint of them all."""
        try:
            part = write_part(self.draft, self.pieces, rank=self.rank, world_size=self.size)
            if self.rank:
                write_json(self._part_file(self.rank), part)
                return
            parts = [part, *map(self._part_of, range(1, self.size))]
            finish(self.draft, self.path, step=self.step, parts=parts, state=self.state)
        except (OSError, SafetensorError) as error:
            if self.rank:
                with contextlib.suppress(OSError):
                    write_json(self._part_file(self.rank), {"error": str(error)})
            raise _not_written(self.path, self.num_bytes, error) from error
        finally:
            if self.rank == 0:
                shutil.rmtree(self.draft, ignore_errors=True)

    def _part_file(self, rank: int) -> Path:
        return self.draft / f"part-{rank}.json"

    def _part_of(self, rank: int) -> dict[str, Any]:
        file, started = self._part_file(rank), time.monotonic()
        while not file.exists():
            if time.monotonic() - started > _SECONDS_FOR_A_PART:
                raise OSError(f"nothing came from process {rank} in {_SECONDS_FOR_A_PART:.0f} s")
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        part: dict[str, Any] = json.loads(file.read_bytes())
        file.unlink()
        if "error" in part:
            raise OSError(f"process {rank}: {part['error']}")
        return part


class _Copies:
    """Copies of tensors in main memory; those of a GPU's lie pinned, and are used again, since pinning is slow."""

    def __init__(self) -> None:
        self._pinned: dict[tuple[str, str], Tensor] = {}

    def of(self, pieces: Mapping[str, Mapping[str, Piece]]) -> dict[str, dict[str, Piece]]:
        copies = {
            kind: {name: replace(piece, tensor=self._copy((kind, name), piece.tensor)) for name, piece in named.items()}
            for kind, named in pieces.items()
        }
        if self._pinned:
            torch.cuda.synchronize()
        return copies

    def _copy(self, key: tuple[str, str], tensor: Tensor) -> Tensor:
        if not tensor.is_cuda:
            return tensor.detach().to("cpu", copy=True).contiguous()
        buffer = self._pinned.get(key)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = self._pinned[key] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return buffer.copy_(tensor.detach(), non_blocking=True)


def _not_written(path: Path, needed_bytes: int, error: Exception) -> CheckpointError:
    existing = next(parent for parent in path.parents if parent.exists())
    free_bytes = shutil.disk_usage(existing).free
    return CheckpointError(
        f"checkpoint {path} was not written ({error}): it needs about {needed_bytes:,} bytes, {free_bytes:,} are free; "
        "earlier checkpoints are intact; make room"
    )
