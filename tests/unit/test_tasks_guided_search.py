"""Search of a space: proposals from the trials alone, hopeless trials ended and logged, a stop that leaves no trace."""

import builtins
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bertsmith.cli import app
from bertsmith.errors import MissingExtraError, RecipeError, UsageError
from bertsmith.tasks import finetune as finetune_room
from bertsmith.tasks import search_space
from bertsmith.tasks.guided_search import guided_search
from bertsmith.tasks.search import SearchResult
from bertsmith.tasks.search_space import Guide, Interval, space_of
from bertsmith.tasks.trials import Trial, standings_of
from finetune_case import CPU, partner_rows, quiet, recipe, spoken, text_rows, write_tiny_model
from training_case import events

SPACE: dict[str, Any] = {"learning_rate": Interval(1e-6, 2e-2, log=True), "label_smoothing": (0.0, 0.1)}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer random trials; and this machine's speed is not measured."""
    monkeypatch.setattr(finetune_room, "matmul_peak", lambda runtime: 1e9)
    monkeypatch.setattr(search_space, "RANDOM_TRIALS", 3)
    monkeypatch.setattr(search_space, "UNPRUNED_TRIALS", 2)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


def run(base: Path, folder: Path, trials: int = 6, console: Any = None, **changes: Any) -> SearchResult:
    return guided_search(
        recipe(epochs=3),
        folder,
        **{"space": SPACE, "trials": trials} | changes,
        console=console or quiet(),
        runtime=CPU,
        model=base,
        train=text_rows(60, seed=1),
        validation=text_rows(40, seed=3),
        test={"new": text_rows(20, seed=2)},
    )


def told(trials: Sequence[Trial]) -> list[tuple[Any, ...]]:
    return [(dict(one.settings), one.score, one.step, list(one.scores), one.pruned) for one in trials]


def test_hopeless_trials_end_early_and_a_stop_leaves_no_trace(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of the fourth trial, after one of its evaluations."""
    console = quiet()
    straight = run(base, tmp_path / "straight", console=console)
    rows = [json.loads(line) for line in (tmp_path / "straight" / "search.jsonl").read_text().splitlines()[1:]]
    assert [row["settings"] for row in rows] == [dict(one.settings) for one in straight.trials]
    ended = [one for one in straight.trials if one.pruned]
    assert ended, "some settings are far too slow"
    assert all(len(one.scores) < 3 for one in ended)
    assert all(len(one.scores) == 3 for one in straight.trials if not one.pruned)
    assert {json.dumps(one.settings) for one in straight.standings}.isdisjoint(json.dumps(o.settings) for o in ended)
    assert straight.standings[0].mean == max(one.score for one in straight.trials if not one.pruned)
    assert set(straight.final.scores) == {"new"}
    assert spoken(console).count("ended after") == len(ended)
    assert sorted(path.name for path in (tmp_path / "straight").iterdir()) == ["finetune", "search.jsonl"]

    real, calls = finetune_room._Run._keep, [0]

    def stopping(self: Any, *given: Any) -> Any:
        calls[0] += 1
        if calls[0] == 1 + sum(len(one.scores) for one in straight.trials[:3]):
            real(self, *given)
            raise KeyboardInterrupt
        return real(self, *given)

    monkeypatch.setattr(finetune_room._Run, "_keep", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(base, tmp_path / "stopped")
    monkeypatch.setattr(finetune_room._Run, "_keep", real)
    assert (tmp_path / "stopped" / "trial").is_dir()
    assert told(run(base, tmp_path / "stopped").trials) == told(straight.trials)


def test_more_trials_go_on_and_another_space_begins_anew(base: Path, tmp_path: Path) -> None:
    first = run(base, tmp_path, 1)
    assert told(run(base, tmp_path, 2).trials[:1]) == told(first.trials)
    head = (tmp_path / "search.jsonl").read_text().splitlines()[0]
    run(base, tmp_path, 1, space={"learning_rate": (1e-3, 1e-2)})
    lines = (tmp_path / "search.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert lines[0] != head


def test_the_metric_is_that_of_the_rows(base: Path, tmp_path: Path) -> None:
    """Vectors of sentences are scored by what the rows have: here no numbers."""
    tables = {"train": partner_rows(20, seed=1), "validation": partner_rows(8, seed=2)}
    given = recipe(task="embed", pair_column="pair", epochs=1)
    found = guided_search(
        given, tmp_path, space={"dropout": (0.0, 0.1)}, trials=1, console=quiet(), runtime=CPU, model=base, **tables
    )
    assert found.final.scores["validation"][found.metric] == found.trials[0].score


def made_up(settings: dict[str, Any], scores: tuple[float, ...], *, pruned: bool = False) -> Trial:
    return Trial(settings, 1, max(scores), 1, 1.0, scores, pruned)


def test_proposals_are_a_function_of_seed_and_trials_and_follow_the_good_ones() -> None:
    space: dict[str, Any] = {"learning_rate": Interval(0.0, 1.0), "epochs": Interval(2, 5), "freeze": ([], ["pooler"])}
    past: list[Trial] = []
    for _ in range(35):
        proposal = Guide(space, 7).propose(past)
        assert proposal.settings == Guide(space, 7).propose(past).settings
        assert isinstance(proposal.settings["epochs"], int)
        assert 2 <= proposal.settings["epochs"] <= 5
        assert proposal.settings["freeze"] in ([], ["pooler"])
        past.append(made_up(dict(proposal.settings), (-abs(proposal.settings["learning_rate"] - 0.3),)))
    late = statistics.median(abs(trial.settings["learning_rate"] - 0.3) for trial in past[15:])
    assert late < 0.15, "of uniform draws it is 0.25"
    other = Guide(space, 8).propose(past).settings
    assert other != Guide(space, 7).propose(past).settings


@pytest.mark.parametrize("smaller", [False, True])
def test_a_trial_is_hopeless_where_its_best_is_worse_than_the_median_so_far(smaller: bool) -> None:
    sign = -1.0 if smaller else 1.0
    space: dict[str, Any] = {"learning_rate": Interval(0.0, 1.0)}
    past = [made_up({"learning_rate": 0.5}, (sign * 0.2 * n, sign * 0.3 * n)) for n in (1, 2, 3)]
    guide = Guide(space, 7, smaller_is_better=smaller)
    proposal = guide.propose(past)
    assert not proposal.tell([sign * 0.41])
    assert proposal.tell([sign * 0.41, sign * 0.59]), "the median is 0.6"
    assert guide.propose(past).tell([sign * 0.39])
    assert not guide.propose(past[:1]).tell([-sign]), "too few to say"
    assert not Guide(space, 7, smaller_is_better=smaller, prunes=False).propose(past).tell([-sign])


def test_those_that_ended_early_have_no_standing() -> None:
    trials = [made_up({"epochs": 2}, (0.5, 0.6)), made_up({"epochs": 3}, (0.9,), pruned=True)]
    assert [one.settings for one in standings_of(trials, 1)] == [{"epochs": 2}]


def test_a_space_on_the_command_line() -> None:
    given = ["learning_rate=log(1e-5, 1e-4)", "finetune.epochs = range(2, 4)", "dropout=[0.0, 0.1]"]
    assert space_of(given) == {
        "learning_rate": Interval(1e-5, 1e-4, log=True),
        "epochs": Interval(2, 4),
        "dropout": (0.0, 0.1),
    }
    for wrong in ("epochs", "epochs=2", "epochs=[]", "epochs=range(2)", "epochs=log(1, 'x')", "epochs=normal(1, 2)"):
        with pytest.raises(
            UsageError, match=r"write KEY=log\(LOW, HIGH\), KEY=range\(LOW, HIGH\) or KEY=\[VALUE, ...\]"
        ):
            space_of([wrong])
    with pytest.raises(UsageError, match=r"from 4 to 2 holds nothing; it needs LOW < HIGH"):
        space_of(["epochs=range(4, 2)"])
    with pytest.raises(UsageError, match=r"from 0 to 1 holds nothing; it needs 0 < LOW < HIGH"):
        space_of(["dropout=log(0.0, 1.0)"])


def test_what_cannot_be_searched_is_said_before_anything_runs(base: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"unknown key 'finetune\.epoch'; did you mean 'finetune\.epochs'"):
        run(base, tmp_path, space={"epochs": (1,), "epoch": (1,)})
    with pytest.raises(RecipeError, match=r"finetune\.dropout"):
        run(base, tmp_path, space={"dropout": Interval(0.0, 1.5)})
    with pytest.raises(UsageError, match="a search needs keys"):
        run(base, tmp_path, space={})
    assert not list(tmp_path.iterdir())


def test_grid_and_space_are_two_ways(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text('name = "tiny"\n[finetune]\nmodel = "none"\ntrain = "none.tsv"\n')
    done = CliRunner().invoke(app, ["search", str(tmp_path / "tiny.toml"), "--trials", "3", "--seeds", "2"])
    assert isinstance(done.exception, UsageError)
    assert "give the one or the other" in str(done.exception)


@pytest.mark.parametrize("options", [["--trials", "2"], ["--grid", "epochs=[1]"]])
def test_the_recipe_says_what_is_computed_on(tmp_path: Path, options: list[str]) -> None:
    text = 'name = "tiny"\n[runtime]\ndevice = "abacus"\n[finetune]\nmodel = "none"\ntrain = "none.tsv"\n'
    (tmp_path / "tiny.toml").write_text(text)
    done = CliRunner().invoke(app, ["search", str(tmp_path / "tiny.toml"), *options, "--runs", str(tmp_path / "runs")])
    assert "device 'abacus' is unknown" in str(done.exception)
    assert not (tmp_path / "runs").exists()


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "optuna":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r'pip install "bertsmith\[search\]"'):
        Guide({"epochs": Interval(1, 2)}, 1)


def test_a_callback_ends_a_run(base: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    result = finetune_room.finetune(
        recipe(epochs=4),
        tmp_path,
        model=base,
        train=text_rows(60, seed=1),
        on_evaluation=lambda step, _: bool(seen.append(step)) or len(seen) == 2,
        console=quiet(),
        runtime=CPU,
    )
    assert len(result.table) == len(seen) == 2
    (stop,) = events(tmp_path, "stop")
    assert stop["reason"] == "done"
