"""Search over a grid and seeds: chosen by validation, going on after a stop, begun anew for another recipe."""

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from bertsmith.errors import ArtifactError, RecipeError, UsageError
from bertsmith.tasks import finetune as finetune_room
from bertsmith.tasks import search as room
from bertsmith.tasks.search import PAPER_GRID, grid_of, search
from bertsmith.tasks.trials import made_from
from finetune_case import CPU, quiet, recipe, text_rows, write_tiny_model


class First(torch.nn.Module):
    """A head."""


class Second(torch.nn.Module):
    """Another."""


GRID = {"learning_rate": (1e-6, 1e-2), "epochs": (1, 8)}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's speed is not measured."""
    monkeypatch.setattr(finetune_room, "matmul_peak", lambda runtime: 1e9)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


def run(base: Path, folder: Path, **changes: Any) -> room.SearchResult:
    tables = {"model": base, "train": text_rows(160, seed=1), "test": {"new": text_rows(20, seed=2)}}
    settings = {"grid": GRID, "seeds": 2} | changes
    return search(recipe(), folder, console=quiet(), runtime=CPU, **tables, **settings)


def test_the_best_by_validation_is_scored_on_test(base: Path, tmp_path: Path) -> None:
    found = run(base, tmp_path)
    assert len(found.trials) == 8
    assert [one.seeds for one in found.standings] == [2] * 4
    means = [one.mean for one in found.standings]
    assert means == sorted(means, reverse=True)
    assert found.standings[0].settings["learning_rate"] == 1e-2
    assert set(found.final.scores) == {"new"}
    own = next(trial for trial in found.trials if trial.settings == found.standings[0].settings)
    assert max(row.score for row in found.final.table) == own.score
    assert sorted(path.name for path in tmp_path.iterdir()) == ["finetune", "search.jsonl"]


def test_it_goes_on_after_a_stop_and_a_torn_line(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = run(base, tmp_path / "straight")
    done: list[int] = []
    real = room.run_trial

    def stopping(*given: Any, **more: Any) -> room.Trial:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        return real(*given, **more)

    monkeypatch.setattr(room, "run_trial", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(base, tmp_path / "stopped")
    monkeypatch.setattr(room, "run_trial", real)
    log = tmp_path / "stopped" / "search.jsonl"
    log.write_text(log.read_text() + '{"settings": {"lea')
    resumed = run(base, tmp_path / "stopped")
    assert [trial.score for trial in resumed.trials] == [trial.score for trial in straight.trials]
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(rows) == 9


def test_another_recipe_begins_anew(base: Path, tmp_path: Path) -> None:
    small = {"grid": {"epochs": (1,)}, "seeds": 1}
    run(base, tmp_path, **small)
    text = (tmp_path / "search.jsonl").read_text()
    tables = {"model": base, "train": text_rows(60, seed=1)}
    search(recipe(weight_decay=0.5), tmp_path, console=quiet(), runtime=CPU, **tables, **small)
    assert (tmp_path / "search.jsonl").read_text().splitlines()[0] != text.splitlines()[0]


def test_other_rows_begin_anew_and_a_broken_log_is_said(base: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {"grid": {"epochs": (1,)}, "seeds": 1}
    run(base, tmp_path, **small)
    header = (tmp_path / "search.jsonl").read_text().splitlines()[0]
    search(recipe(), tmp_path, console=quiet(), runtime=CPU, model=base, train=text_rows(60, seed=9), **small)
    assert (tmp_path / "search.jsonl").read_text().splitlines()[0] != header
    (tmp_path / "search.jsonl").write_text("{}\n{}\n")
    with pytest.raises(ArtifactError, match=r"search\.jsonl cannot be read .*; remove it to begin the search anew"):
        run(base, tmp_path, **small)


def test_columns_of_test_tables_are_those_of_the_end(base: Path, tmp_path: Path) -> None:
    """Neither training nor validation rows need them, and other ones begin no search anew."""
    small: dict[str, Any] = {"grid": {"epochs": (1,)}, "seeds": 1, "model": base, "train": text_rows(60, seed=1)}
    test = {"new": [{"text": text, "label": label, "topic": "a"} for text, label in text_rows(8, seed=2)]}
    given = recipe(slice_columns=["topic"], calibrate=True)
    search(given, tmp_path, console=quiet(), runtime=CPU, test=test, **small)
    kept = json.loads((tmp_path / "finetune/scores.json").read_text())
    assert "topic" in {line["slice"] for line in kept["slices"]}
    assert kept["calibration"]["kept"]
    log = (tmp_path / "search.jsonl").read_text()
    search(recipe(), tmp_path, console=quiet(), runtime=CPU, test=test, **small)
    assert (tmp_path / "search.jsonl").read_text() == log


def test_another_head_or_model_that_proposes_words_begins_anew(base: Path, tmp_path: Path) -> None:
    config = recipe(augment={"methods": ["replace"], "model": str(base)})
    tables = {"model": base, "train": text_rows(20, seed=1)}
    found = [made_from(config, (), tables | more) for more in ({}, {"head": First}, {"head": Second})]
    assert found[0]["augment_model"]
    assert len({json.dumps(one["head"]) for one in found}) == 3


def test_what_cannot_be_searched_is_said_before_anything_runs(base: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"unknown key 'finetune\.epoch'; did you mean 'finetune\.epochs'"):
        run(base, tmp_path / "a", grid={"epochs": (1,), "epoch": (1,)})
    with pytest.raises(RecipeError, match=r"finetune\.epochs"):
        run(base, tmp_path / "b", grid={"epochs": (1, -1)})
    with pytest.raises(UsageError, match="at least one value for each key"):
        run(base, tmp_path / "c", grid={"epochs": ()})
    assert not list(tmp_path.iterdir())


def test_seeds_alone(base: Path, tmp_path: Path) -> None:
    found = run(base, tmp_path, grid={}, seeds=2)
    (standing,) = found.standings
    scores = [trial.score for trial in found.trials]
    assert (standing.settings, standing.seeds, standing.best) == ({}, 2, max(scores))
    assert standing.mean == pytest.approx(statistics.fmean(scores))
    assert standing.deviation == pytest.approx(statistics.stdev(scores))
    assert [trial.seed for trial in found.trials] == [42, 43]


def test_the_paper_s_grid() -> None:
    assert [len(values) for values in PAPER_GRID.values()] == [2, 3, 3]


def test_a_grid_on_the_command_line() -> None:
    assert grid_of(["epochs=[2, 3]", "finetune.r_drop=[0.0, 1.0]"]) == {"epochs": (2, 3), "r_drop": (0.0, 1.0)}
    for wrong in ("epochs", "epochs=2", "epochs=[2"):
        with pytest.raises(UsageError, match=r"write KEY=\[VALUE, ...\]"):
            grid_of([wrong])
