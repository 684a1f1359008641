"""Whether a search found something, or chance did."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from bertsmith.analysis.diagnose import thresholds as at
from bertsmith.analysis.diagnose.finding import Finding
from bertsmith.analysis.folder import RunFolder, mapping, read_lines
from bertsmith.analysis.markup import number
from bertsmith.tasks.predict import TASKS


def seeds_outweigh_gain(folder: RunFolder) -> Iterator[Finding]:
    """The best settings of a search are ahead of the next by less than their seeds differ."""
    path = folder.path / "search.jsonl"
    if not path.is_file():
        return
    scores: dict[str, list[float]] = defaultdict(list)
    rows = list(read_lines(path))
    sign = _sign(mapping(mapping(mapping(rows[0] if rows else None).get("search")).get("config")))
    for row in rows:
        value = number(row.get("score"))
        if value is not None and not row.get("pruned") and isinstance(row.get("settings"), dict):
            scores[json.dumps(mapping(row["settings"]), sort_keys=True)].append(value)
    known = {settings: found for settings, found in scores.items() if len(found) > 1}
    if len(known) < 2:
        return
    ranked = sorted(known, key=lambda settings: -sign * statistics.fmean(known[settings]))
    first, second = (known[settings] for settings in ranked[:2])
    gain = sign * (statistics.fmean(first) - statistics.fmean(second))
    error = (statistics.variance(first) / len(first) + statistics.variance(second) / len(second)) ** 0.5
    if error == 0 or gain > at.SEED_TIMES.value * error:
        return
    told = tuple(
        f"{_short(settings)}: {statistics.fmean(known[settings]):.4f} ± {statistics.stdev(known[settings]):.4f} "
        f"over {len(known[settings])} seeds"
        for settings in ranked[:5]
    )
    yield Finding(
        "seeds-outweigh-gain",
        "sure",
        f"the best settings are {gain:.4f} ahead of the next, and the standard error of that is {error:.4f}: "
        "another choice of seeds may rank them otherwise",
        (
            "more seeds (bertsmith search RECIPE --seeds 10), or take the cheaper of the two",
            "tell the mean and deviation over seeds, not the best seed",
        ),
        told,
    )


def _sign(config: Mapping[str, Any]) -> int:
    """-1 where the smaller score is the better one, as of an error; search.jsonl's first line names task and metric."""
    task = TASKS.get(str(config.get("task")))
    if task is None:
        return 1
    return -1 if (config.get("metric") or task.default_metric) in task.smaller_is_better else 1


def _short(settings: str) -> str:
    return ", ".join(f"{key} = {value}" for key, value in mapping(json.loads(settings)).items())


OF_FOLDERS = (seeds_outweigh_gain,)
