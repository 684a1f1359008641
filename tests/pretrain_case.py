"""A tiny corpus, its tokenizer and examples, for tests of pre-training."""

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bertsmith.config import Recipe, parse_recipe
from bertsmith.corpus.build import build_corpus
from bertsmith.examples.shards import build_examples
from bertsmith.tokenizer.train import train_tokenizer
from bertsmith.training.pretrain import PretrainResult, pretrain
from training_case import CPU


@dataclass(frozen=True)
class Made:
    """Artifacts and the recipe they come from."""

    raw: dict[str, Any]
    examples: Path
    tokenizer: Path

    def recipe(self, **pretrain: Any) -> Recipe:
        return parse_recipe({**self.raw, "pretrain": {**self.raw["pretrain"], **pretrain}})


def make_examples(folder: Path) -> Made:
    """A hundred documents of a little grammar, so that a tiny model can learn something from them."""
    draw = random.Random(1)
    nouns, verbs = ["cat", "dog", "bird", "horse", "fish"], ["sees", "hears", "likes", "follows"]
    documents = []
    for _ in range(100):
        noun = draw.choice(nouns)
        sentences = [f"The {noun} {draw.choice(verbs)} the {draw.choice(nouns)} today." for _ in range(15)]
        documents.append("\n".join(sentences))
    sizes = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    settings = {
        "max_steps": 12,
        "batch_size": 8,
        "micro_batch_size": 4,
        "evaluate_every_steps": 5,
        "evaluation_examples": 48,
        "log_every_steps": 4,
        "learning_rate": 3e-3,
    }
    return made_of(folder, documents, vocab_size=200, sizes=sizes, pretrain=settings)


def made_of(
    folder: Path, documents: Sequence[str], *, vocab_size: int, sizes: dict[str, int], pretrain: dict[str, Any]
) -> Made:
    """The artifacts of these documents (a sentence a line), beside each other in the folder."""
    (folder / "text.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    raw: dict[str, Any] = {
        "name": "tiny",
        "corpus": {
            "sources": [{"kind": "text", "paths": [str(folder / "text.txt")], "layout": "sentences"}],
            "validation_share": 0.2,
            "deduplicate": False,
        },
        "tokenizer": {"vocab_size": vocab_size},
        "examples": {"max_length": 32},
        "model": {"preset": "tiny", "overrides": {**sizes, "max_position_embeddings": 32}},
        "pretrain": pretrain,
    }
    recipe = parse_recipe(raw)
    assert recipe.corpus is not None
    assert recipe.tokenizer is not None
    assert recipe.examples is not None
    corpus, tokenizer, examples = folder / "corpus", folder / "tokenizer", folder / "examples"
    build_corpus(recipe.corpus, corpus, environment={})
    train_tokenizer(recipe.tokenizer, corpus, tokenizer, environment={})
    build_examples(recipe.examples, corpus, tokenizer, examples, seed=1, environment={})
    return Made(raw, examples, tokenizer)


def run(made: Made, directory: Path, recipe: Recipe | None = None, **more: Any) -> tuple[PretrainResult, str]:
    """Pre-train; the result, and what was printed."""
    output = io.StringIO()
    result = pretrain(
        recipe or made.recipe(),
        directory,
        examples=made.examples,
        tokenizer=made.tokenizer,
        runtime=CPU,
        console=Console(file=output, width=200),
        **more,
    )
    return result, output.getvalue()
