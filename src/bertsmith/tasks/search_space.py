"""What a guided search may choose from, and what it proposes next.

Proposals are those of the tree-structured Parzen estimator (Bergstra et al. 2011), as Optuna has it: the first ten at
random, then where good trials have been. A trial is hopeless where its best score so far is worse than the median of
what the trials before it had after as many evaluations (Golovin et al. 2017; from the sixth trial on).

Nothing is remembered but the trials themselves: each proposal comes from a study made anew of them, with a sampler
seeded by the search's seed and the trial's number. So a search that goes on proposes what it would have proposed.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bertsmith.artifact import canonical
from bertsmith.errors import MissingExtraError, UsageError
from bertsmith.runtime import derive_seed
from bertsmith.tasks.trials import Trial

if TYPE_CHECKING:
    import optuna

RANDOM_TRIALS = 10
"""Before proposals follow what was found."""
UNPRUNED_TRIALS = 5
"""Before any is ended early."""
_FORM = re.compile(r"\s*(range|log)\s*\((.*)\)\s*", re.DOTALL)


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`, both allowed; whole ones where both are."""

    low: float
    high: float
    log: bool = False
    """Whether their logarithms are spread evenly."""

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            above = "0 < LOW < HIGH" if self.log else "LOW < HIGH"
            raise UsageError(f"an interval from {self.low:g} to {self.high:g} holds nothing; it needs {above}")


Space = Mapping[str, Interval | tuple[Any, ...]]
"""Key of [finetune] -> an interval, or the values it may have."""
USUAL_SPACE: Space = {
    "learning_rate": Interval(1e-5, 1e-4, log=True),
    "batch_size": (16, 32),
    "epochs": Interval(2, 4),
}
"""Around the grid of the BERT paper."""


def space_of(texts: Sequence[str]) -> dict[str, Interval | tuple[Any, ...]]:
    """`KEY=log(LOW, HIGH)`, `KEY=range(LOW, HIGH)` or `KEY=[VALUES]`; raises `UsageError` for what is none of them."""
    found: dict[str, Interval | tuple[Any, ...]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        form = _FORM.fullmatch(values)
        listed = _toml_list(f"[{form[2]}]" if form else values) if equals else None
        if form and listed is not None and len(listed) == 2 and all(map(_is_number, listed)):
            chosen: Interval | tuple[Any, ...] = Interval(listed[0], listed[1], form[1] == "log")
        elif not form and listed:
            chosen = tuple(listed)
        else:
            raise UsageError(
                f"--space {text!r}: write KEY=log(LOW, HIGH), KEY=range(LOW, HIGH) or KEY=[VALUE, ...], such as "
                "learning_rate=log(1e-5, 1e-4)"
            )
        found[key.strip().removeprefix("finetune.")] = chosen
    return found


def bounds_of(space: Space) -> list[dict[str, Any]]:
    """Settings at the ends of each interval, and with each value, so that all can be looked at before a search."""
    if not space:
        raise UsageError("a search needs keys, and what each may be")
    ends = {key: (some.low, some.high) if isinstance(some, Interval) else some for key, some in space.items()}
    first = {key: some[0] for key, some in ends.items()}
    return [{**first, key: value} for key, some in ends.items() for value in some]


@dataclass
class Proposal:
    """Settings to try, and whether the trial is still worth its time."""

    settings: Mapping[str, Any]
    prunes: bool
    _trial: "optuna.Trial"
    told: int = 0
    is_hopeless: bool = False
    """Since some evaluation."""

    def tell(self, scores: Sequence[float]) -> bool:
        """All scores of the trial so far, an evaluation each, of which new ones count; whether it is hopeless."""
        for score in scores[self.told :]:
            self.told += 1
            self._trial.report(score, self.told)
            self.is_hopeless = self.is_hopeless or (self.prunes and bool(self._trial.should_prune()))
        return self.is_hopeless


@dataclass(frozen=True)
class Guide:
    """Proposes settings of a space from the trials before."""

    space: Space
    seed: int
    smaller_is_better: bool = False
    prunes: bool = True
    _optuna: Any = field(default_factory=lambda: _import_optuna(), repr=False)

    def propose(self, past: Sequence[Trial]) -> Proposal:
        """The next settings after these trials."""
        optuna = self._optuna
        study = optuna.create_study(
            study_name="search",
            direction="minimize" if self.smaller_is_better else "maximize",
            sampler=optuna.samplers.TPESampler(
                n_startup_trials=RANDOM_TRIALS, seed=derive_seed("tpe", self.seed, len(past)) % 2**32
            ),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED_TRIALS),
        )
        for trial in past:
            study.add_trial(self._as_known(trial))
        asked = study.ask(self._distributions())
        return Proposal({key: self._value(key, asked.params[key]) for key in self.space}, self.prunes, asked)

    def _distributions(self) -> dict[str, Any]:
        """Values are told apart by their number, since they may be anything."""
        kinds = self._optuna.distributions
        found: dict[str, Any] = {}
        for key, some in self.space.items():
            if not isinstance(some, Interval):
                found[key] = kinds.CategoricalDistribution(tuple(range(len(some))))
            elif _is_whole(some):
                found[key] = kinds.IntDistribution(some.low, some.high, log=some.log)
            else:
                found[key] = kinds.FloatDistribution(some.low, some.high, log=some.log)
        return found

    def _value(self, key: str, found: Any) -> Any:
        some = self.space[key]
        return found if isinstance(some, Interval) else some[found]

    def _number(self, key: str, value: Any) -> Any:
        some = self.space[key]
        return value if isinstance(some, Interval) else [canonical(one) for one in some].index(canonical(value))

    def _as_known(self, trial: Trial) -> Any:
        states = self._optuna.trial.TrialState
        return self._optuna.trial.create_trial(
            state=states.PRUNED if trial.pruned else states.COMPLETE,
            value=None if trial.pruned else trial.score,
            params={key: self._number(key, trial.settings[key]) for key in self.space},
            distributions=self._distributions(),
            intermediate_values=dict(enumerate(trial.scores, start=1)),
        )


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("a search of a space (--space, --trials)", "search") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _toml_list(text: str) -> list[Any] | None:
    try:
        found = tomllib.loads(f"values = {text}")["values"]
    except tomllib.TOMLDecodeError:
        return None
    return found if isinstance(found, list) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(some: Interval) -> bool:
    return isinstance(some.low, int) and isinstance(some.high, int)
