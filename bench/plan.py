"""`bertsmith plan` against the run that it predicts.

4 layers x 256 on the documentation of the standard library, batches of 32 x 128, MLM + NSP. Three times:
predict the time (a few seconds of measuring), then run. The row is the median of predicted over real seconds, which
must be within 15 % of 1; the script fails where it is not. Real seconds are those of the run's own log, with
evaluations and without checkpoints (none is due but the last), as the prediction says. Other work on the machine makes
it worthless: the load is in the row.

    python bench/plan.py --quick
"""

import io
import statistics
import tempfile
from pathlib import Path

from measure import Row, arguments, emit
from rich.console import Console

import bertsmith
from bertsmith.config import PretrainConfig, Recipe, parse_recipe
from bertsmith.runtime import detect
from bertsmith.training.estimate import estimate
from bertsmith.training.track import read_metrics

ROUNDS = 3
WITHIN = 0.15


def recipe(*, steps: int, threads: int) -> Recipe:
    return parse_recipe(
        {
            "name": "planned",
            "corpus": {"sources": [{"kind": "python-docs"}], "max_documents": 1000},
            "tokenizer": {"vocab_size": 8192},
            "examples": {"max_length": 128},
            "model": {"preset": "mini"},
            "pretrain": {
                "max_steps": steps,
                "evaluate_every_steps": steps // 2,
                "evaluation_examples": 128,
                "compile": "off",
                "checkpoint_every_seconds": 1e6,
            },
            "runtime": {"threads": threads},
        }
    )


def real_seconds(planned: Recipe, runs: Path, console: Console) -> float:
    """Of a run from the start to its last evaluation: what was logged before the last checkpoint began."""
    bertsmith.pretrain(planned, runs=runs, console=console)
    events = list(read_metrics(runs / planned.name / "pretrain" / "metrics.jsonl"))
    return float(next(event["elapsed_seconds"] for event in reversed(events) if event["event"] == "evaluation"))


def main() -> None:
    options = arguments(__doc__ or "")
    steps = 40 if options.quick else 200
    ratios, predictions, reals = [], [], []
    console = Console(file=io.StringIO())
    with tempfile.TemporaryDirectory() as name:
        runs = Path(name)
        planned = recipe(steps=steps, threads=options.threads)
        bertsmith.run(planned, runs=runs, until="examples", console=console)
        runtime = detect(threads=options.threads)
        for number in range(ROUNDS):
            predicted = estimate(planned, runs / planned.name, runtime=runtime, seconds=4.0).seconds
            assert predicted is not None, "it was measured"
            fresh = planned.model_copy(update={"pretrain": _with_seed(planned, number)})
            real = real_seconds(fresh, runs, console)
            predictions.append(predicted)
            reals.append(real)
            ratios.append(predicted / real)
    row = Row(
        name="plan-4x256",
        ours=round(statistics.median(predictions), 1),
        peer=round(statistics.median(reals), 1),
        unit="s",
        ratio=round(statistics.median(ratios), 3),
        min=round(min(ratios), 3),
        max=round(max(ratios), 3),
        note=f"predicted over real seconds of {steps} steps, median of {ROUNDS}; must be within {WITHIN:.0%}",
    )
    emit(row, options)
    if abs(row.ratio - 1) > WITHIN:
        raise SystemExit(f"the prediction is off by {abs(row.ratio - 1):.0%}, more than {WITHIN:.0%}")


def _with_seed(planned: Recipe, number: int) -> PretrainConfig:
    """The same settings with another seed, so that the run is not one that was done before."""
    assert planned.pretrain is not None, "it is there"
    return planned.pretrain.model_copy(update={"seed": number})


if __name__ == "__main__":
    main()
