"""The chain of a recipe's stages: each reads what the ones before it wrote, and is skipped when that is done.

runs/NAME/
    recipe.toml                         the recipe with every default written out
    corpus/ tokenizer/ examples/        artifacts; examples-512/ for a phase of another length
    pretrain/                           a run: metrics.jsonl, checkpoints/, model/
    labels/                             artifact: labelled sentences made from the corpus
    finetune/                           a run: metrics.jsonl, checkpoints/, model/, last/, predictions, scores
    finetune-random-weights/            the same from random weights
    scores.json fill_mask.json report.html
    rejects.jsonl                       documents that the corpus left out, where they are to be kept
"""

import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import nn

from bertsmith.analysis.diagnose.diagnose import diagnose
from bertsmith.analysis.diagnose.told import short
from bertsmith.analysis.report import write_report
from bertsmith.artifact import Artifact, is_current, open_artifact, write_json, write_text
from bertsmith.config import CodeWords, ExamplesConfig, FinetuneConfig, ModelConfig, Recipe, recipe_toml
from bertsmith.corpus import build as corpora
from bertsmith.errors import BertsmithError, UsageError
from bertsmith.examples import shards
from bertsmith.model.presets import preset
from bertsmith.model.weights import read_card
from bertsmith.progress import Report, shown
from bertsmith.ray_engine import engine_for
from bertsmith.runtime import Runtime, detect, environment
from bertsmith.tasks import code_words
from bertsmith.tasks.evaluate import ScoreRow
from bertsmith.tasks.fill import MaskFiller, in_words
from bertsmith.tasks.finetune import FinetuneResult, finetune
from bertsmith.tasks.labelled import LabelledRows
from bertsmith.tasks.predict import TASKS
from bertsmith.tasks.row_sources import check_files
from bertsmith.tokenizer import train as tokenizers
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.distributed import joined
from bertsmith.training.pretrain import PretrainResult, pretrain

PRETRAINED, RANDOM = "BERT, pre-trained here", "BERT, random weights"


@dataclass(frozen=True)
class RunResult:
    """What a recipe led to; `None` for stages it does not have."""

    folder: Path
    pretrained: PretrainResult | None
    finetuned: FinetuneResult | None
    table: tuple[ScoreRow, ...]
    """Scores of every model on every test split, by every metric of the task."""
    report: Path

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "folder": str(self.folder),
            "pretrain": None if self.pretrained is None else asdict(self.pretrained),
            "model": None if self.model is None else str(self.model),
            "table": [asdict(row) for row in self.table],
            "report": str(self.report),
        }

    @property
    def model(self) -> Path | None:
        """Directory of the model that came of it: the fine-tuned one, else the pre-trained one."""
        if self.finetuned is not None:
            return self.finetuned.run_dir / "model"
        return None if self.pretrained is None else self.folder / "pretrain" / "model"


@dataclass(frozen=True)
class Tables:
    """What a fine-tuning takes from memory: labelled rows that go before the recipe's files, and a head of its own."""

    train: object = None
    validation: object = None
    test: Mapping[str, object] | None = None
    head: type[nn.Module] | None = None


class Chain:
    """One recipe, its folder, and where to speak."""

    def __init__(self, recipe: Recipe, runs: Path, console: Console, *, tables: Tables, keep_rejects: bool):
        self.recipe = recipe
        self.tables = tables
        self.keep_rejects = keep_rejects
        self.folder = runs / recipe.name
        runtime = recipe.runtime
        self.runtime: Runtime = detect(
            dtype=runtime.dtype,
            threads=runtime.threads,
            device=runtime.device,
            parallel=runtime.parallel,
            timeout_seconds=runtime.timeout_seconds,
        )
        self.console = console if self.runtime.rank == 0 else Console(quiet=True)
        self.engine = engine_for(runtime)
        self.started = time.monotonic()

    def run(self, stages: tuple[str, ...]) -> RunResult:
        """Under torchrun every process comes here: all of them train, and the first does everything else. A run that is
        refused before it made anything leaves nothing behind.
        """
        is_new = not self.folder.exists()
        try:
            return self._run(stages)
        except BertsmithError:
            if is_new and self.runtime.rank == 0 and [path.name for path in self.folder.glob("*")] == ["recipe.toml"]:
                shutil.rmtree(self.folder)
            raise

    def _run(self, stages: tuple[str, ...]) -> RunResult:
        recipe, folder = self.recipe, self.folder
        self._check_before_long_work(stages)
        with joined(self.runtime) as self.ranks:
            self.ranks.on_first(lambda: self._prepare(stages))
            pretrained = self._pretrain() if recipe.pretrain is not None and "pretrain" in stages else None
            finetuned = self._finetune() if recipe.finetune is not None and "finetune" in stages else None
            table = self._random_beside(finetuned) if finetuned is not None else ()
            if pretrained is not None and recipe.fill_mask:
                self.ranks.on_first(self._fill_mask)
            report = self.ranks.on_first(lambda: str(write_report(folder)))
        result = RunResult(folder, pretrained, finetuned, table, Path(report))
        self._summary(result)
        return result

    def _prepare(self, stages: tuple[str, ...]) -> None:
        """The stages before training."""
        recipe, folder = self.recipe, self.folder
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "recipe.toml", recipe_toml(recipe))
        with self.engine:
            if recipe.corpus is not None and "corpus" in stages:
                self._corpus()
            if recipe.tokenizer is not None and "tokenizer" in stages:
                self._tokenizer()
            if recipe.examples is not None and "examples" in stages:
                self._examples()

    def _check_before_long_work(self, stages: tuple[str, ...]) -> None:
        """What a late stage would stumble over is said before the first one begins."""
        recipe, config = self.recipe, self.recipe.finetune
        if recipe.pretrain is not None and recipe.pretrain.init is None:
            preset((recipe.model or ModelConfig()).preset, recipe.model.overrides if recipe.model else {})
        if recipe.pretrain is not None and recipe.pretrain.labelled is not None and "pretrain" in stages:
            for rows in (recipe.pretrain.labelled.train, recipe.pretrain.labelled.validation):
                if rows:
                    check_files(rows)
        if config is not None and "finetune" in stages:
            if not config.train and config.code_words is None and self.tables.train is None:
                raise UsageError("finetune: needs train = FILE or [finetune.code_words]")
            metrics = TASKS[config.task].metrics
            if config.metric is not None and config.metric not in metrics:
                raise UsageError(f"finetune.metric: {config.metric!r} is not one of {', '.join(metrics)}")
            if config.code_words is None and self.tables.train is None:
                for rows in (config.train, config.validation, config.label_names, *config.test.values()):
                    if rows:
                        check_files(rows)

    def _corpus(self) -> None:
        config = self.recipe.corpus
        assert config is not None
        rejects = self.folder / "rejects.jsonl" if self.keep_rejects else None
        self._artifact(
            corpora.KIND,
            config=config.model_dump(mode="json"),
            inputs=corpora.corpus_inputs(config),
            build=lambda out, report: corpora.build_corpus(
                config, out, environment=environment(), engine=self.engine, rejects=rejects, progress=report
            ),
            also=rejects,
            says=lambda c: (
                f"{c['documents']:,} documents, {c['sentences']:,} sentences, {c['characters']:,} characters"
            ),
        )

    def _tokenizer(self) -> None:
        config, corpus = self.recipe.tokenizer, self.folder / "corpus"
        assert config is not None
        self._artifact(
            tokenizers.KIND,
            config=config.model_dump(mode="json"),
            inputs=tokenizers.tokenizer_inputs(config, corpus),
            build=lambda out, _: tokenizers.train_tokenizer(
                config, corpus, out, environment=environment(), engine=self.engine
            ),
            says=tokenizers.size_in_words,
        )

    def _examples(self) -> None:
        """Of each length that a phase of pre-training asks for; without one, of that of [examples]."""
        config, pretraining = self.recipe.examples, self.recipe.pretrain
        assert config is not None
        phases = () if pretraining is None else pretraining.each_phase()
        for length in dict.fromkeys(phase.max_length for phase in phases) or [None]:
            update = {} if length is None else {"max_length": length}
            self._examples_of_length(length, config.model_copy(update=update))

    def _examples_of_length(self, length: int | None, config: ExamplesConfig) -> None:
        corpus, vocabulary = self.folder / "corpus", self.folder / "tokenizer"
        seed = self.recipe.seed
        self._artifact(
            shards.KIND,
            name=shards.beside(self.folder / shards.KIND, length).name,
            config={**config.model_dump(mode="json"), "seed": seed},
            inputs=shards.examples_inputs(corpus, vocabulary),
            build=lambda out, report: shards.build_examples(
                config,
                corpus,
                vocabulary,
                out,
                seed=seed,
                environment=environment(),
                engine=self.engine,
                progress=report,
            ),
            says=lambda c: f"{c['train']['spans']:,} training spans, {c['train']['tokens']:,} tokens",
        )

    def _pretrain(self) -> PretrainResult:
        self._title("pretrain")
        return pretrain(
            self.recipe,
            self.folder / "pretrain",
            examples=self.folder / "examples",
            tokenizer=self.folder / "tokenizer",
            runtime=self.runtime,
            labelled=self._labelled(),
            on_evaluation=lambda *_: self._report_on_the_way(),
            console=self.console,
            ranks=self.ranks,
        )

    def _labelled(self) -> LabelledRows | None:
        """Rows for an objective of pre-training, where there are."""
        config = self.recipe.pretrain
        if config is None or config.labelled is None:
            return None
        tokenizer = Tokenizer.load(self.folder / "tokenizer")
        seed = self.recipe.seed if config.seed is None else config.seed
        return LabelledRows(config.labelled, tokenizer, seed, self.runtime)

    def _finetune(self) -> FinetuneResult:
        config = self.recipe.finetune
        assert config is not None
        if config.code_words is not None:
            words = config.code_words
            self.ranks.on_first(lambda: self._labels(words))
        return self._finetune_one("finetune", name=PRETRAINED if config.model is None else _short(config.model))

    def _labels(self, words: CodeWords) -> None:
        seed, corpus = self.recipe.seed, self.folder / "corpus"
        self._artifact(
            code_words.KIND,
            config=code_words.code_words_config(words, seed),
            inputs={"corpus": open_artifact(corpus, corpora.KIND, verify=False).digest},
            build=lambda out, _: code_words.build_code_words(words, corpus, out, seed=seed, environment=environment()),
            says=lambda c: f"{c['train']['sentences']:,} sentences to train on, {c['test']['sentences']:,} to test",
        )

    def _random_beside(self, finetuned: FinetuneResult) -> tuple[ScoreRow, ...]:
        """The score table, with the same network from random weights as a row where the recipe asks for it."""
        config = self.recipe.finetune
        assert config is not None
        table = finetuned.score_table
        if "random-weights" in config.baselines:
            beside = self._finetune_one("finetune-random-weights", name=RANDOM, random_weights=True)
            ours = [row for row in table if row.name.startswith("BERT")]
            table = (*(row for row in table if row not in ours), *beside.score_table, *ours)
        scores = {"metric": _metric(config), "table": [asdict(row) for row in table]}
        self.ranks.on_first(lambda: write_json(self.folder / "scores.json", scores))
        return table

    def _finetune_one(self, folder: str, *, name: str, random_weights: bool = False) -> FinetuneResult:
        config = self.recipe.finetune
        assert config is not None
        self._title(folder)
        return finetune(
            self.recipe,
            self.folder / folder,
            model=config.model or self.folder / "pretrain" / "model",
            random_weights=random_weights,
            labels_dir=self.folder / "labels" if config.code_words is not None else None,
            train=self.tables.train,
            validation=self.tables.validation,
            test=self.tables.test,
            head=self.tables.head,
            name=name,
            on_evaluation=lambda *_: self._report_on_the_way(),
            console=self.console,
            runtime=self.runtime,
            ranks=self.ranks,
        )

    def _fill_mask(self) -> None:
        filler = MaskFiller.load(self.folder / "pretrain", runtime=self.runtime)
        answers = [(text, filler.predict(text)) for text in self.recipe.fill_mask]
        write_json(self.folder / "fill_mask.json", [{"text": text, "predictions": found} for text, found in answers])
        self._title("fill-mask")
        for text, found in answers:
            self.console.print(f"{text}\n    {in_words(found)}", highlight=False, markup=False)

    def _artifact(
        self,
        kind: str,
        *,
        config: Mapping[str, Any],
        inputs: Mapping[str, str],
        build: Callable[[Path, Report], Artifact],
        says: Callable[[Mapping[str, Any]], str],
        name: str | None = None,
        also: Path | None = None,
    ) -> None:
        """Build one artifact, and the file `also` beside it, or say that it is there already; `name` where its folder
        is not called as its kind.
        """
        path = self.folder / (name or kind)
        started = time.monotonic()
        self._title(path.name)
        if is_current(path, kind=kind, config=config, inputs=inputs) and (also is None or also.is_file()):
            self.console.print(f"done before: {says(open_artifact(path, kind, verify=False).counts)}", highlight=False)
            return
        with shown(kind, self.console) as report:
            counts = build(path, report).counts
        self.console.print(f"{says(counts)} in {time.monotonic() - started:.0f} s", highlight=False)
        for warning in counts.get("warnings", ()):
            self.console.print(f"note: {warning}", highlight=False, markup=False)

    def _title(self, name: str) -> None:
        self.console.rule(f"{name}", align="left", characters="-", style="bold")

    def _report_on_the_way(self) -> None:
        write_report(self.folder)

    def _summary(self, result: RunResult) -> None:
        console = self.console
        if result.finetuned is not None:
            self._title("scores")
            assert self.recipe.finetune is not None
            console.print(_score_table(result.table, _metric(self.recipe.finetune)))
        if told := list(short(diagnose(self.folder))):
            self._title("diagnosis")
            for line in told:
                console.print(line, highlight=False, markup=False)
        self._title("done")
        lines = [
            ("report", result.report),
            ("model", result.model),
            ("time", f"{time.monotonic() - self.started:.0f} s"),
        ]
        for label, value in lines:
            if value is not None:
                console.print(f"{label:<8} {value}", highlight=False, markup=False)
        console.print("next", highlight=False)
        for command in _next_commands(result):
            console.print(f"  {command}", highlight=False, markup=False)


def _short(model: str) -> str:
    """A model's name in a narrow table: without what only says where it lies."""
    return "BERT, " + model.removeprefix("package:").removesuffix("/model")


def _metric(config: FinetuneConfig) -> str:
    return config.metric or TASKS[config.task].default_metric


def _score_table(rows: tuple[ScoreRow, ...], metric: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model")
    table.add_column("split")
    table.add_column(metric, justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("rows", justify="right")
    for row in rows:
        if row.metric == metric:
            table.add_row(row.name, row.split, f"{row.score:.3f}", f"{row.low:.3f} to {row.high:.3f}", f"{row.rows:,}")
    return table


_INPUTS = {
    "classify": ("'a text of your own'", "YOUR_TEXTS.txt"),
    "pairs": ("'a text' --pair 'and a second'", "YOUR_PAIRS.tsv"),
    "answer": ("'a question' --pair 'a text with the answer'", "YOUR_QUESTIONS.json"),
    "choose": ("", "YOUR_QUESTIONS.jsonl"),
    "masked-word": ("'a text with a [MASK] in it'", "YOUR_TEXTS.txt"),
}
"""Kind of model -> what `predict` takes at the terminal, and from a file."""


def _next_commands(result: RunResult) -> list[str]:
    folder = result.folder
    if result.finetuned is not None:
        finetuned = shlex.quote(str(result.finetuned.run_dir))
        card = read_card(result.finetuned.run_dir / "model")
        given, file = _INPUTS.get("pairs" if card.get("pairs") else str(card.get("task")), _INPUTS["classify"])
        return [
            *([f"bertsmith generate {finetuned} 'how a text begins'"] if card.get("task") == "language-model" else []),
            *([f"bertsmith predict {finetuned} {given}"] if given else []),
            f"bertsmith predict {finetuned} --file {file}",
            f"bertsmith run {folder}/recipe.toml --set name=second --set finetune.learning_rate=1e-4",
        ]
    if result.pretrained is not None:
        model = shlex.quote(str(folder / "pretrain"))
        return [
            f"bertsmith fill-mask {model} 'a sentence with one [MASK] in it.'",
            f"bertsmith finetune recipes/cola.toml --set finetune.model={model}",
        ]
    return [f"bertsmith run {folder}/recipe.toml"]
