"""`bertsmith export hf` and `export sentence-transformers`: a directory that others load by its name alone."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from bertsmith.artifact import write_json, write_text
from bertsmith.errors import UsageError
from bertsmith.export.card import README, card_of
from bertsmith.export.check import Checked, check_networks, check_predictors
from bertsmith.export.facts import Facts, read_facts
from bertsmith.export.folder import written_folder
from bertsmith.export.source import Exported, Source, in_float32, open_source
from bertsmith.model.weights import write_card
from bertsmith.tasks.embed import Embed
from bertsmith.tasks.own_rows import MADE_FROM
from bertsmith.tasks.predict import PRECISION, Predictor
from bertsmith.tokenizer.encode import Tokenizer

Layout = Literal["hf", "sentence-transformers"]
EXPORTED = "exported"
"""Key of bertsmith.json: how the directory was written and checked."""
_OF_THIS_MACHINE = (MADE_FROM, "onnx")
"""Keys of bertsmith.json that say nothing elsewhere."""
_SIMILARITY: dict[str, Any] = {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"}


def export_directory(
    model: str | Path,
    directory: str | Path,
    *,
    layout: Layout = "hf",
    task: str | None = None,
    texts: str | Path | Iterable[Any] = (),
    replace: bool = False,
    title: str | None = None,
    languages: Sequence[str] = (),
    licence: str | None = None,
) -> Exported:
    """Write a model as `transformers`, or sentence-transformers, loads it, and compare what was written with it.

    Args:
        model: a run, a model directory or a hub name; any head that Hugging Face's `BertConfig` can tell of.
        task: by default what the model says.
        texts: a file, or what `predict` takes, that both must answer alike, besides the run's own validation rows.
        replace: write over a directory that is there.
        title, languages, licence: what the model card says of them (`card.model_card`).

    Raises `UsageError` with the reason for a model that the layout cannot hold, and `BertsmithError`, and leaves
    nothing, where outputs differ by more than 1e-4.
    """
    source, target = open_source(model, task=task), Path(directory)
    _require_plain(source)
    is_embed = source.predictor is not None and isinstance(source.predictor.task, Embed)
    if layout == "sentence-transformers" and not is_embed:
        raise UsageError(
            f"{source.directory} is no model of task embed, and sentence-transformers is for those alone; "
            "use bertsmith export hf, or --task embed for the encoder's mean vectors"
        )
    card = _without_this_machine(source.card)
    with written_folder(target, replace=replace) as draft:
        _write(source, draft)
        if layout == "sentence-transformers":
            _write_modules(source, draft)  # and no bertsmith.json: what is checked is what others read
        else:
            write_card(draft, card)
        checked = _check(source, draft, texts, task=task)
        checked.require(target)
        write_text(
            draft / README,
            card_of(_facts(source), name=title, layout=layout, languages=languages, licence=licence),
        )
        write_card(draft, card | {EXPORTED: {"layout": layout, "checked": checked.to_card()}})
    return Exported(target, checked, (target / "model.safetensors").stat().st_size / 1e6)


def _facts(source: Source) -> Facts:
    """Of the model as what it is exported."""
    return dataclasses.replace(read_facts(source.directory), card=source.card)


def _without_this_machine(card: Mapping[str, Any]) -> dict[str, Any]:
    """bertsmith.json without the names of folders here."""
    kept = {key: value for key, value in card.items() if key not in _OF_THIS_MACHINE}
    if "columns" in kept:  # the names of labels themselves are in config.json
        kept["columns"] = {**kept["columns"], "label_names": None}
    if "compressed" in kept:
        kept["compressed"] = {key: value for key, value in kept["compressed"].items() if key != "from"}
    return kept


def _require_plain(source: Source) -> None:
    """Raise `UsageError` where a Hugging Face config cannot say what the network is."""
    config, onnx = source.network.config, "bertsmith export onnx can take it elsewhere"
    if config.layer_heads is not None:
        raise UsageError(
            f"{source.directory}: its layers have {', '.join(map(str, config.layer_heads))} attention heads, and a "
            f"Hugging Face config has one number for all; {onnx}"
        )
    if not config.has_plain_head:
        own = f"a head of its own, {config.own_head}" if config.own_head else "a head with pooling or layers of its own"
        raise UsageError(f"{source.directory} has {own}, which transformers has no class for; {onnx}")


def _write(source: Source, draft: Path) -> None:
    """Weights and tokenizer. Texts are cut by others where the model was taught to read no further."""
    if source.card.get(PRECISION) == "bfloat16":  # half the bytes, and no weight changes on the way there and back
        source.network.bfloat16().save_pretrained(draft)
        source.network.float()
    else:
        source.network.save_pretrained(draft)
    Tokenizer(source.tokenizer.backend, model_max_length=_length(source)).save(draft)


def _write_modules(source: Source, draft: Path) -> None:
    assert source.predictor is not None, "an embed model"
    width = source.network.config.hidden_size
    files = source.predictor.task.other_files(width=width, max_length=_length(source))
    for path, content in {**files, "config_sentence_transformers.json": _SIMILARITY}.items():
        (draft / path).parent.mkdir(exist_ok=True)
        write_json(draft / path, content)


def _length(source: Source) -> int:
    if source.predictor is not None:
        return source.predictor.max_length
    return min(source.tokenizer.model_max_length, source.network.config.max_position_embeddings)


def _check(source: Source, draft: Path, texts: str | Path | Iterable[Any], *, task: str | None) -> Checked:
    """What was written, read again, beside the model."""
    if source.predictor is None:
        return check_networks(source.network, type(source.network).from_pretrained(draft))
    theirs = in_float32(Predictor.load(draft, task=task, runtime=source.predictor.runtime))
    return check_predictors(source.predictor, theirs, texts=texts)
