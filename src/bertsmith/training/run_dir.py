"""The folder of a training: whose it is, whether it is finished, and the models in it.

RUN/
    recipe.toml               the recipe, every default written out
    state.json                what the run is made from, and whether it is finished
    metrics.jsonl             what happened, line by line (docs/metrics.md)
    trackers.json             the run's id with trackers, where there are any; tensorboard/, wandb/, mlflow.db: theirs
    checkpoints/              to go on from
    model/                    best weights (pre-training: the final ones): Hugging Face directory with bertsmith.json

of a pre-training with labelled text
    classifier/               the final classifier, a directory that predicts

and of a fine-tuning besides
    last/                     the final weights
    refit/                    of a second training on all rows: metrics.jsonl, checkpoints/; its model is model/
    evaluations.csv           a line an evaluation: losses, score, times
    followed.jsonl            validation rows that metrics.jsonl follows over the evaluations
    predictions-SPLIT.jsonl   answers of the best weights on each test split
    mistakes-SPLIT.jsonl      of a classification: the surest mistakes, and the words that drove them
    scores.json               their scores, with 95 % bootstrap intervals
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from bertsmith.artifact import canonical, file_sha256, remove_drafts, replace_directory, write_json, write_text
from bertsmith.errors import UsageError
from bertsmith.model.pretrained import Pretrained
from bertsmith.model.weights import write_card
from bertsmith.tokenizer.encode import Tokenizer

_OURS = (
    "recipe.toml",
    "state.json",
    "metrics.jsonl",
    "trackers.json",
    "tensorboard",
    "wandb",
    "mlflow.db",
    "checkpoints",
    "model",
    "classifier",
    "last",
    "refit",
    "evaluations.csv",
    "followed.jsonl",
    "scores.json",
)


@dataclass(frozen=True)
class RunDir:
    """A run's folder."""

    path: Path
    kind: str
    """"pre-training" or "fine-tuning", for messages."""
    made_from: Mapping[str, Any]
    """Everything that the weights depend on."""
    scored_on: Mapping[str, Any] = field(default_factory=dict)
    """What the scores depend on besides; where only this changed, nothing is trained again."""
    results: tuple[str, ...] = ("model",)
    """What a finished run must have left in it."""

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def scores(self) -> Path:
        return self.path / "scores.json"

    def is_finished(self) -> bool:
        """True where this very run was done before."""
        state = self._state()
        same = self._is_same(state) and canonical(state.get("scored_on")) == canonical(self.scored_on)
        whole = all((self.path / name).exists() for name in self.results)
        return same and whole and state.get("finished") is True

    def begin(self, recipe_text: str, *, console: Console) -> None:
        """Make the folder, or go on in it; what a different run left there is removed.

        Raises `UsageError` where it holds a run's files but no run's state: they may be somebody's.
        """
        state = self._state()
        if not self._is_same(state):
            self._clear(known=bool(state), console=console)
            self.path.mkdir(parents=True, exist_ok=True)
        for stale in (self.scores, *self.path.glob("predictions-*.jsonl"), *self.path.glob("mistakes-*.jsonl")):
            stale.unlink(missing_ok=True)
        write_text(self.path / "recipe.toml", recipe_text)
        self._write_state(finished=False)

    def finish(self) -> None:
        """The last thing written: everything is there."""
        self._write_state(finished=True)

    def save_model(
        self,
        name: str,
        model: Pretrained,
        tokenizer: Tokenizer,
        card: Mapping[str, Any],
        other_files: Mapping[str, Any] | None = None,
    ) -> None:
        """Weights, tokenizer, card and other JSON files (path -> content) appear together or not at all."""
        remove_drafts(self.path / name)
        draft = self.path / f".{name}.draft-{os.getpid()}"
        try:
            model.save_pretrained(draft)
            tokenizer.save(draft)
            write_card(draft, card)
            for path, content in (other_files or {}).items():
                (draft / path).parent.mkdir(exist_ok=True)
                write_json(draft / path, content)
            replace_directory(draft, self.path / name)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _is_same(self, state: Mapping[str, Any]) -> bool:
        return canonical(state.get("made_from")) == canonical(self.made_from)

    def _write_state(self, *, finished: bool) -> None:
        facts = {"made_from": self.made_from, "scored_on": self.scored_on, "finished": finished}
        write_json(self.path / "state.json", facts)

    def _state(self) -> Mapping[str, Any]:
        try:
            state = json.loads((self.path / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def _clear(self, *, known: bool, console: Console) -> None:
        entries = list(self.path.iterdir()) if self.path.is_dir() else []
        ours = [
            entry for entry in entries if entry.name in _OURS or entry.name.startswith(("predictions-", "mistakes-"))
        ]
        if ours and not known:
            raise UsageError(f"{self.path} holds {ours[0].name}, but is no {self.kind}'s folder; give another one")
        if ours:
            console.print(f"{self.path}: recipe, data or model changed; starting again", markup=False, highlight=False)
        for entry in ours:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def model_digest(directory: Path) -> dict[str, str]:
    """Hash of each file of a model directory on which a training from it depends."""
    files = sorted(path for path in directory.iterdir() if path.suffix in (".safetensors", ".bin", ".json", ".txt"))
    return {path.name: file_sha256(path) for path in files if path.name != "bertsmith.json"}
