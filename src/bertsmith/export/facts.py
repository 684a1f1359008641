"""What a run's files say of its model, for the model card; what they do not say is None or empty."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertsmith.errors import ArtifactError
from bertsmith.model.config import BertConfig
from bertsmith.model.weights import read_config
from bertsmith.tasks.predict import own_card
from bertsmith.tasks.scoring import Scores

_TASKS = {
    "BertForSequenceClassification": "classify",
    "BertForMultipleChoice": "choose",
    "BertForTokenClassification": "tag",
    "BertForQuestionAnswering": "answer",
    "BertForNextSentencePrediction": "next-sentence",
    "BertForMaskedLM": "masked-word",
    "BertLMHeadModel": "language-model",
}
"""What a model of another maker is for."""
_STEP = b'{"event": "step"'


@dataclass(frozen=True)
class Facts:
    """Of a model directory, and of the run that it is the model of."""

    directory: Path
    config: BertConfig
    card: Mapping[str, Any]
    """bertsmith.json."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    start: Mapping[str, Any] = field(default_factory=dict)
    """The last start event of the log: environment, data, plan."""
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    """The last evaluation of the log."""
    stop: Mapping[str, Any] = field(default_factory=dict)
    scores: Scores | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    """state.json: digests of what the run was made from."""
    corpus: Mapping[str, Any] = field(default_factory=dict)
    """Counts of the corpus that was pre-trained on in the same chain."""

    @property
    def task(self) -> str | None:
        name = self.card.get("task") or _TASKS.get(self.architecture)
        return name if isinstance(name, str) else None

    @property
    def architecture(self) -> str:
        names = self.config.extra.get("architectures")
        return str(names[0]) if isinstance(names, list) and names else ""

    @property
    def section(self) -> Mapping[str, Any]:
        """Of the recipe, what trained the model."""
        return table(self.recipe.get(str(self.start.get("kind") or "finetune")))

    @property
    def compressed(self) -> Mapping[str, Any]:
        """What was lost where the model was made from a larger one, whose run's scores are not its own."""
        return table(self.card.get("compressed"))


def read_facts(directory: Path) -> Facts:
    """Of a model directory; a run is told of only where the directory is that run's own `model`."""
    config, card = read_config(directory), own_card(directory)
    run = directory.resolve().parent
    if directory.resolve().name != "model" or not (run / "metrics.jsonl").is_file():
        return Facts(directory, config, card)
    start: Mapping[str, Any] = {}
    evaluation: Mapping[str, Any] = {}
    stop: Mapping[str, Any] = {}
    for event in _events(run / "metrics.jsonl"):
        kind = event.get("event")
        if kind == "start":
            start = event
        elif kind == "evaluation":
            evaluation = event
        elif kind == "stop":
            stop = event
    return Facts(
        directory,
        config,
        card,
        recipe=_toml(run / "recipe.toml"),
        start=start,
        evaluation=evaluation,
        stop=stop,
        scores=_scores(run / "scores.json"),
        state=_json(run / "state.json"),
        corpus=table(_json(run.parent / "corpus" / "manifest.json").get("counts")),
    )


def table(value: object) -> Mapping[str, Any]:
    """`value` where it is one, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def _events(path: Path) -> Iterator[Mapping[str, Any]]:
    """All but step lines; a torn line is passed over."""
    with path.open("rb") as lines:
        for line in lines:
            if not line.startswith(_STEP):
                try:
                    yield table(json.loads(line))
                except ValueError:
                    continue


def _scores(path: Path) -> Scores | None:
    try:
        return Scores.read(path)
    except ArtifactError:
        return None


def _json(path: Path) -> Mapping[str, Any]:
    try:
        return table(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _toml(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
