"""A model directory whose vocabulary has new words: the tokenizer, and weights with a row for each."""

import json
import os
import shutil
from pathlib import Path

from bertsmith.artifact import replace_directory
from bertsmith.errors import CheckpointError, UsageError
from bertsmith.model.vocabulary import check_tokenizer_fits, with_new_tokens
from bertsmith.model.weights import CARD, read_config, read_tensors, resolve_model_dir, save_tensors
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.tokenizer.extend import Extended


def model_or_tokenizer_dir(name: str | Path) -> tuple[Path, bool]:
    """The directory that `name` means, and whether a model is in it; if not, it has a tokenizer alone.

    A run without a model is its tokenizer. Raises `CheckpointError` where there is neither.
    """
    path = Path(name)
    for candidate in (path, path / "tokenizer"):
        has_tokenizer = any((candidate / file).is_file() for file in ("tokenizer.json", "vocab.txt"))
        if has_tokenizer and not (candidate / "config.json").is_file() and not (path / "model").is_dir():
            return candidate, False
    return resolve_model_dir(name), True


def save_extended(directory: Path, extended: Extended, out: Path, *, allow_pickle: bool = False) -> None:
    """Write the extended tokenizer to `out`, and where `directory` holds a model, that model with rows for new words.

    Weights keep their names and dtypes, `config.json` all but `vocab_size`, and `bertsmith.json` comes along. `out`
    appears whole or not at all. Raises `UsageError` where it exists, `CheckpointError` for a model that cannot be
    read, or whose tokenizer had more entries than it has embeddings.
    """
    if out.exists():
        raise UsageError(f"{out} exists already; give --out a name that is free")
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.parent / f".{out.name}.draft-{os.getpid()}"
    draft.mkdir()
    try:
        if (directory / "config.json").is_file():
            _save_model(directory, extended, draft, allow_pickle=allow_pickle)
        extended.tokenizer.save(draft)
        replace_directory(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _save_model(directory: Path, extended: Extended, draft: Path, *, allow_pickle: bool) -> None:
    config = read_config(directory)
    check_tokenizer_fits(Tokenizer.load(directory).vocab_size, config)
    tensors = read_tensors(directory, allow_pickle=allow_pickle)
    if not any(name.endswith("embeddings.word_embeddings.weight") for name in tensors):
        raise CheckpointError(f"{directory} holds no word embeddings; give the directory of a BERT model")
    facts = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    facts["vocab_size"] = max(config.vocab_size, extended.tokenizer.vocab_size)
    save_tensors(with_new_tokens(tensors, extended.old_ids), facts, draft)
    if (directory / CARD).is_file():
        shutil.copyfile(directory / CARD, draft / CARD)
