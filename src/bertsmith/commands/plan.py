"""`bertsmith plan`: what a recipe's pre-training will take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from bertsmith.commands.options import AsJson, Overrides, RecipePath, RunsFolder, console_for, print_json, read_recipe
from bertsmith.errors import UsageError

if TYPE_CHECKING:
    from bertsmith.config import Recipe
    from bertsmith.training.estimate import Estimate, PhaseEstimate
    from bertsmith.training.gpus import GpuEstimate

Parameters = Annotated[bool, typer.Option("--parameters", help="List every tensor: shape, dtype, decay or frozen.")]
Schedule = Annotated[bool, typer.Option("--schedule", help="Draw the learning rate.")]
Seconds = Annotated[float, typer.Option(min=0, help="Try each phase for so long on this machine; 0: not at all.")]
Mfu = Annotated[
    float | None, typer.Option("--mfu", min=0.01, max=1, help="Share of their peak that the GPUs in the table reach.")
]
Efficiency = Annotated[float | None, typer.Option(min=0.01, max=1, help="Of several GPUs, over as many single ones.")]
Prices = Annotated[
    list[str] | None, typer.Option("--price", metavar="GPU=DOLLARS", help="Of an hour, e.g. H100=2.1; may be repeated.")
]
Counts = Annotated[str | None, typer.Option("--gpus", help="How many GPUs, e.g. 1,8,64.")]


def plan(
    recipe: RecipePath,
    overrides: Overrides = None,
    runs: RunsFolder = Path("runs"),
    parameters: Parameters = False,
    schedule: Schedule = False,
    seconds: Seconds = 4.0,
    mfu: Mfu = None,
    efficiency: Efficiency = None,
    prices: Prices = None,
    gpus: Counts = None,
    as_json: AsJson = False,
) -> None:
    """Say what pre-training will take: parameters, arithmetic, memory, time here, time and cost on GPUs.

    Example: bertsmith plan recipes/english.toml --schedule
    """
    from bertsmith.runtime import detect
    from bertsmith.training import gpus as table
    from bertsmith.training.estimate import estimate

    asked, counts = _prices(prices), _counts(gpus)
    chosen, console = read_recipe(recipe, overrides), console_for(as_json)
    settings = chosen.runtime
    runtime = detect(dtype=settings.dtype, threads=settings.threads, device=settings.device)
    found = estimate(chosen, runs / chosen.name, runtime=runtime, seconds=seconds, say=lambda text: _say(console, text))
    rows = []
    if found.flops is not None:
        rows = table.gpu_estimates(
            found.flops,
            memory_bytes=max(phase.gpu_memory_bytes for phase in found.phases),
            mfu=mfu or table.MFU,
            efficiency=efficiency or table.EFFICIENCY,
            counts=counts or table.COUNTS,
            prices=asked,
        )
    if as_json:
        print_json(found.to_dict(rows))
        return
    _show(console, found, runtime.device_name, runtime.dtype_name)
    if rows:
        _show_gpus(console, rows, mfu=mfu or table.MFU, efficiency=efficiency or table.EFFICIENCY)
    if parameters:
        _show_parameters(console, found)
    if schedule:
        _show_schedules(console, chosen, found)
    for note in found.notes:
        _say(console, f"note: {note}")


def _show(console: Console, found: Estimate, device: str, dtype: str) -> None:
    from bertsmith.model.flops import FORMULA
    from bertsmith.training.memory import FORMULA as MEMORY_FORMULA

    model, size = found.model, found.sizes
    rows = {
        "model": f"{model.num_hidden_layers} layers x {model.hidden_size}, {model.vocab_size:,} words",
        "parameters": f"{size['all']:,}, of which {size['trained']:,} train: embeddings {size['embeddings']:,}, "
        f"a layer {size['layer']:,}, head {size['head']:,}",
        "machine": f"{device}, {dtype}",
    }
    for phase in found.phases:
        rows |= {f"{phase.name}{' ' * bool(name)}{name}": text for name, text in _phase_rows(phase).items()}
    rows["flops/token"] = FORMULA
    rows["memory"] = MEMORY_FORMULA
    width = max(map(len, rows))
    for name, text in rows.items():
        _say(console, f"{name:<{width}}  {text}")


def _phase_rows(phase: PhaseEstimate) -> dict[str, str]:
    from bertsmith.training.view import clock_text

    steps = "as many steps as the budget holds" if phase.steps is None else f"{phase.steps:,} steps"
    epochs = "" if phase.epochs is None else f", {phase.epochs:.3g} epochs"
    flops = "" if phase.flops is None else f", {phase.flops:.3g} in all"
    memory = phase.memory
    rows = {
        "": f"{steps} of {phase.batch_size} x {phase.length} tokens{epochs} ({phase.source})",
        "flops": f"{phase.flops_per_token / 1e6:,.1f} M a token, {phase.tokens_per_step:,.0f} tokens a step{flops}",
        "memory": f"{_size(memory.total)} + PyTorch: weights {_size(memory.weights)}, gradients "
        f"{_size(memory.gradients)}, optimizer {_size(memory.optimizer)}, activations {_size(memory.activations)}, "
        f"vocabulary {_size(memory.vocabulary)}",
    }
    if phase.trial is not None and phase.seconds is not None and phase.evaluation_seconds is not None:
        trial = phase.trial
        rows["step"] = (
            f"{trial.step_seconds:.4f} s, the median of {trial.steps} ({trial.note}); "
            f"{phase.tokens_per_step / trial.step_seconds:,.0f} tokens/s"
        )
        rows["time"] = (
            f"{clock_text(phase.seconds)} on this machine, of which {phase.evaluations} evaluations of "
            f"{phase.evaluation_seconds:.1f} s; checkpoints and preparing text not counted"
        )
    return rows


def _show_gpus(console: Console, rows: list[GpuEstimate], *, mfu: float, efficiency: float) -> None:
    from bertsmith.training.gpus import ASSUMED, GPUS

    counts = list(dict.fromkeys(row.count for row in rows))
    table = [["GPU", "TFLOP/s", "$/h", *(f"x {count}" for count in counts)]]
    for name, gpu in GPUS.items():
        mine = [row for row in rows if row.gpu == name]
        price = mine[0].dollars / (mine[0].seconds / 3600 * mine[0].count) if mine[0].seconds else gpu.dollars_per_hour
        cells = [f"{_duration(row.seconds)} ${row.dollars:,.2f}" if row.fits else "too small" for row in mine]
        table.append([name, f"{gpu.teraflops:,.0f}", f"{price:.2f}", *cells])
    _say_table(console, table, left=1)
    _say(
        console,
        f"assumed: dense bf16 peaks of the makers' data sheets, {mfu:.0%} of them reached (--mfu), several GPUs "
        f"{efficiency:.0%} as good as single ones (--efficiency), prices of {ASSUMED} (--price GPU=DOLLARS); none of "
        "it is measured",
    )


def _show_parameters(console: Console, found: Estimate) -> None:
    rows = [[e.name, " x ".join(map(str, e.shape)), e.dtype, e.group, f"{e.size:,}"] for e in found.entries]
    _say_table(console, [["tensor", "shape", "dtype", "trains", "numbers"], *rows], left=4)


def _show_schedules(console: Console, recipe: Recipe, found: Estimate) -> None:
    from bertsmith.training.schedule import make_schedule
    from bertsmith.training.schedule_plot import draw_schedule

    assert recipe.pretrain is not None, "it was planned"
    for phase, planned in zip(recipe.pretrain.each_phase(), found.phases, strict=True):
        if len(found.phases) > 1:
            _say(console, planned.name)
        drawn = draw_schedule(make_schedule(phase), learning_rate=phase.learning_rate, total_steps=planned.steps)
        _say(console, drawn)


def _prices(given: list[str] | None) -> dict[str, float]:
    from bertsmith.training.gpus import GPUS

    found = {}
    for item in given or ():
        name, _, dollars = item.partition("=")
        try:
            found[name] = float(dollars)
        except ValueError as error:
            raise UsageError(f"--price {item!r}: give GPU=DOLLARS, such as H100=2.1") from error
        if name not in GPUS:
            raise UsageError(f"--price {item!r}: there is no such GPU in the table; it has {', '.join(GPUS)}")
    return found


def _counts(given: str | None) -> list[int]:
    parts = [part.strip() for part in (given or "").split(",") if part.strip()]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise UsageError(f"--gpus {given!r}: give whole numbers from 1, such as 1,8,64")
    return [int(part) for part in parts]


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def _duration(seconds: float) -> str:
    """Short, for a table: 40 s, 3.2 min, 5.1 h, 12 d."""
    if seconds < 1:
        return "< 1 s"
    for limit, unit, size in ((90, "s", 1), (90 * 60, "min", 60), (48 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:.3g} d"


def _say_table(console: Console, rows: list[list[str]], *, left: int) -> None:
    """In columns, the first `left` of them aligned at the left; however narrow the terminal, nothing is cut off."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        _say(console, "  ".join(cells).rstrip())


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
