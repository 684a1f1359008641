"""What `compare_runs` found, as tables."""

from collections.abc import Iterator, Sequence

from bertsmith.analysis.compare import Comparison
from bertsmith.analysis.markup import duration, words
from bertsmith.analysis.paper_tables import PaperTable
from bertsmith.analysis.runs_compared import Against, Cost, RunsCompared
from bertsmith.tasks.resampling import Difference

SIGNIFICANT = 0.05
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def tables(found: RunsCompared) -> Iterator[PaperTable]:
    """Scores, held-out figures, recipes, costs: those that there are. Runs have letters, told by the first."""
    letters = [_letter(place) for place in range(len(found.names))]
    yield PaperTable("Runs", ("", "run"), tuple(zip(letters, found.names, strict=True)), is_text=True)
    for split in dict.fromkeys(one.split for other in found.others for one in other.splits):
        yield _scores(split, found, letters)
    if found.held_out:
        yield _held_out(found, letters)
    if found.recipes:
        rows = tuple((key, *("–" if value is None else value for value in values)) for key, values in found.recipes)
        yield PaperTable("What differs in the recipes", ("key", *letters), rows, is_text=True)
    for kind, costs in found.costs.items():
        yield _costs(kind, costs, letters)


def _scores(split: str, found: RunsCompared, letters: Sequence[str]) -> PaperTable:
    """A row for each metric, and of several other runs for each of them."""
    several = len(found.others) > 1
    known = [
        (letter, other, one)
        for letter, other in zip(letters[1:], found.others, strict=True)
        for one in other.splits
        if one.split == split
    ]
    metrics = dict.fromkeys(metric for _, _, one in known for metric in one.metrics)
    rows = [
        (metric, *_cells(one.metrics[metric], one, other, letter, several=several, metric=metric))
        for metric in metrics
        for letter, other, one in known
        if metric in one.metrics
    ]
    sides = ("A", "other", "its score", "A - other") if several else ("A", "B", "A - B")
    adjusted = ("p by Holm",) if several else ()
    notes = [note for letter, _, one in known for note in _notes(one, letter)]
    notes.append(
        "p: how often models that are equally good would differ as much; of 20 such tests one is below 0.05"
        + ("; by Holm: of all these runs together" if several else "")
    )
    columns = ("metric", *sides, "95 % interval", "p bootstrap", "p randomized", *adjusted, "")
    return PaperTable(f"{split}: {known[0][2].rows:,} rows", columns, tuple(rows), tuple(notes))


def _cells(
    result: Difference, one: Comparison, other: Against, letter: str, *, several: bool, metric: str
) -> tuple[str, ...]:
    adjusted = other.adjusted[one.split, metric]
    better = ""
    if not result.low <= 0 <= result.high and not (several and adjusted > SIGNIFICANT):
        is_first = (result.difference > 0) != (metric in one.smaller_is_better)
        better = f"{'A' if is_first else letter} is better"
    return (
        f"{result.first:.4f}",
        *((letter,) if several else ()),
        f"{result.second:.4f}",
        f"{result.difference:+.4f}",
        f"[{result.low:+.4f}, {result.high:+.4f}]",
        f"{result.bootstrap_p:.4f}",
        "–" if result.randomization_p is None else f"{result.randomization_p:.4f}",
        *((f"{adjusted:.4f}",) if several else ()),
        better,
    )


def _notes(one: Comparison, letter: str) -> list[str]:
    told = []
    if one.runs != (1, 1):
        told.append(f"{one.runs[0]} runs of A and {one.runs[1]} of {letter}: their mean scores")
    if one.disagreement is not None:
        apart = one.disagreement
        shares = [f"{count / one.rows:.1%} ({count:,} rows)" for count in (apart.only_first, apart.only_second)]
        told.append(
            f"right with A alone {shares[0]}, with {letter} alone {shares[1]}; McNemar's exact test: p {apart.p:.4f}"
        )
    return told


def _held_out(found: RunsCompared, letters: Sequence[str]) -> PaperTable:
    figures = [{} if one is None else {"loss": one.loss, **one.figures} for one in found.held_out]
    names = dict.fromkeys(name for one in figures for name in one)
    rows = [(words(name), *(f"{one[name]:.4f}" if name in one else "–" for one in figures)) for name in names]
    note = "of the evaluation with the lowest loss; single evaluations are not kept, so there is no paired test"
    return PaperTable("Pre-training, held out", ("", *letters), tuple(rows), (note,))


def _costs(kind: str, costs: Sequence[Cost | None], letters: Sequence[str]) -> PaperTable:
    told = [{} if cost is None else _told(cost) for cost in costs]
    names = dict.fromkeys(name for one in told for name in one)
    rows = tuple((name, *(one.get(name, "–") for one in told)) for name in names)
    title = {"pretrain": "Cost of pre-training", "finetune": "Cost of fine-tuning"}[kind]
    return PaperTable(title, ("", *letters), rows)


def _told(cost: Cost) -> dict[str, str]:
    """What is known of it."""
    flops, memory = cost.flops, cost.peak_memory_bytes
    found = {
        "time": None if cost.seconds is None else duration(cost.seconds),
        "updates": _count(cost.steps),
        "tokens": _count(cost.tokens),
        "FLOPs": None if flops is None else f"{flops:.3g}",
        "parameters": _count(cost.parameters),
        "peak memory": None if memory is None else f"{memory / 1e6:,.0f} MB",
    }
    return {name: value for name, value in found.items() if value is not None}


def _count(value: float | None) -> str | None:
    return None if value is None else f"{value:,.0f}"


def _letter(place: int) -> str:
    return _LETTERS[place] if place < len(_LETTERS) else f"R{place + 1}"
