"""Peak memory of pre-training steps: ours against `transformers`, each in a process of its own.

    4x256-vs-default    4 layers of 256, batches of 32 x 128; the peer in float32, eager
    4x256-vs-best       the peer compiled, in bfloat16 where the CPU has it

Model, batches, optimizer and peers are those of bench/pretrain.py, which checks first that both compute the same loss.
After warming up, what compiling took included, the kernel's mark of the peak is set back, and some steps are taken. A
figure is that peak less what the process held before the model was made: weights, gradients, optimizer, activations.
The whole process, PyTorch and its libraries with it, is in the row as well. `ratio` is ours over the peer's. On Linux.

    python bench/training_memory.py
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from measure import Row, arguments, emit
from pretrain import CASES, check_losses_agree, make_examples, our_model, our_step, peer_model, peer_step, real_batches

from bertsmith.runtime import cpu_has_bfloat16, detect
from bertsmith.training.memory_limit import forget_peak, peak_since

NAMES = ("4x256-vs-default", "4x256-vs-best")
WARM_UP, STEPS = 3, 6


def one_side(folder: Path, name: str, side: str, threads: int) -> dict[str, float]:
    """In a process of its own: megabytes."""
    runtime, case = detect(threads=threads), CASES[name]
    ours, padded = real_batches(folder, batch_size=case.batch_size, count=WARM_UP + STEPS)
    torch.manual_seed(0)
    before = forget_peak()
    compile_ours = cpu_has_bfloat16()
    if side == "ours":
        batches = padded if compile_ours else ours
        model = our_model(case, dropout=0.0)
        step = our_step(model, batches, runtime, steps=STEPS, compile_it=compile_ours)
    else:
        step = peer_step(peer_model(case, dropout=0.0), padded, best=case.best, steps=STEPS)
    step()
    forget_peak()
    step()
    return {"training": (peak_since() - before) / 1e6, "process": peak_since() / 1e6}


def measured(folder: Path, name: str, side: str, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, f"--side={side}", f"--only={name}", f"--folder={folder}"]
    done = subprocess.run(
        [*command, f"--threads={options.threads}"], check=True, stdout=subprocess.PIPE, text=True, timeout=900
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    if any(word.startswith("--side=") for word in sys.argv):
        parser = argparse.ArgumentParser()
        for flag in ("--side", "--only", "--folder", "--threads"):
            parser.add_argument(flag)
        asked = parser.parse_args()
        print(json.dumps(one_side(Path(asked.folder), asked.only, asked.side, int(asked.threads))), flush=True)
        return
    options = arguments(__doc__ or "")
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        make_examples(folder)
        check_losses_agree(*real_batches(folder, batch_size=32, count=2), folder / "weights")
        for name in NAMES if options.only is None else (options.only,):
            ours, peer = (measured(folder, name, side, options) for side in ("ours", "peer"))
            ratio = round(ours["training"] / peer["training"], 3)
            row = Row(name, round(ours["training"]), round(peer["training"]), "MB", ratio, ratio, ratio)
            whole = {f"{side}_process_mb": round(found["process"]) for side, found in (("our", ours), ("peer", peer))}
            emit(row, options, **whole)


if __name__ == "__main__":
    main()
