"""`bertsmith import`: checkpoints in other forms become Hugging Face directories, compared as they are written."""

import re
from dataclasses import dataclass
from pathlib import Path

from bertsmith import model as nine
from bertsmith.errors import CheckpointError, UsageError
from bertsmith.export.check import Checked, check_networks
from bertsmith.export.folder import written_folder
from bertsmith.model.config import BertConfig
from bertsmith.model.pretrained import Pretrained
from bertsmith.model.tf1 import read_tf1
from bertsmith.model.weights import read_card, read_config, read_json, resolve_model_dir, write_card
from bertsmith.tasks.predict import check_tokenizer, check_trained
from bertsmith.tokenizer.encode import Tokenizer, make_backend, read_vocabulary

_CASED_SHARE = 0.005
"""A vocabulary with fewer pieces in capitals than that was made of lower-case text."""


@dataclass(frozen=True)
class BroughtIn:
    """A directory that was written."""

    directory: Path
    architecture: str
    parameters: int
    lowercase: bool
    """Whether the tokenizer makes text lower-case."""
    left_out: int
    """Variables of an optimizer."""
    unexpected: tuple[str, ...]
    """Weights for which there is no place."""
    checked: Checked


def import_tf1(
    checkpoint: str | Path, directory: str | Path, *, lowercase: bool | None = None, replace: bool = False
) -> BroughtIn:
    """A checkpoint of Google's TensorFlow 1 code, read without TensorFlow, as a Hugging Face directory.

    Args:
        checkpoint: the folder with bert_config.json, vocab.txt and one checkpoint; or PREFIX, PREFIX.index, of one of
            several, such as model/bert_model.ckpt.
        lowercase: whether text is made lower-case; no file of a checkpoint says it, so by default the vocabulary does.
        replace: write over a directory that is there.

    Raises `CheckpointError` naming the file that is missing, damaged or of another model; nothing is left then.
    """
    prefix, target = _prefix(Path(checkpoint)), Path(directory)
    settings = prefix.parent / "bert_config.json"
    config = BertConfig.from_dict(read_json(settings), where=str(settings))
    found = read_tf1(prefix, config)
    words = prefix.parent / "vocab.txt"
    if not words.is_file():
        raise CheckpointError(f"{words} is missing; a checkpoint of BERT comes with it")
    vocabulary = read_vocabulary(words)
    lowercase = _is_lowercase(vocabulary) if lowercase is None else lowercase
    tokenizer = Tokenizer(
        make_backend(vocabulary, lowercase=lowercase), model_max_length=config.max_position_embeddings
    )
    check_tokenizer(tokenizer, config, prefix.parent)
    return _written(found.network, tokenizer, target, replace=replace, left_out=found.left_out, unknown=found.unknown)


def import_bin(
    model: str | Path, directory: str | Path, *, allow_pickle: bool = False, replace: bool = False
) -> BroughtIn:
    """A directory with `pytorch_model.bin` as one with `model.safetensors`.

    Raises `CheckpointError` where it is not whole, and without `allow_pickle`: a pickle can carry code, and even the
    reading of weights alone (`weights_only`) is for files whose source is trusted.
    """
    source, target = resolve_model_dir(model, allow_pickle=allow_pickle), Path(directory)
    if any(source.glob("model*.safetensors")):
        raise UsageError(f"{source} has safetensors weights already; nothing is to be done")
    names = read_config(source).extra.get("architectures")
    name = names[0] if isinstance(names, list) and names else "BertModel"
    head = getattr(nine, name, None) if isinstance(name, str) and name.startswith("Bert") else None
    if not (isinstance(head, type) and issubclass(head, Pretrained)):
        raise CheckpointError(
            f"{source / 'config.json'}: architectures = {name!r} is no BERT of the nine known classes"
        )
    network, tokenizer = head.from_pretrained(source, allow_pickle=allow_pickle), Tokenizer.load(source)
    check_trained(network, source, name, "config.json names another class than the weights are of")
    check_tokenizer(tokenizer, network.config, source)
    return _written(network, tokenizer, target, replace=replace, source=source)


def _written(
    network: Pretrained,
    tokenizer: Tokenizer,
    target: Path,
    *,
    replace: bool,
    left_out: int = 0,
    unknown: tuple[str, ...] = (),
    source: Path | None = None,
) -> BroughtIn:
    with written_folder(target, replace=replace) as draft:
        network.save_pretrained(draft)
        tokenizer.save(draft)
        if source is not None and (card := read_card(source)):
            write_card(draft, card)
        checked = check_networks(network, type(network).from_pretrained(draft))
        checked.require(target)
    unexpected = unknown if network.load_report is None else network.load_report.unexpected
    return BroughtIn(
        target, network.architecture, network.num_parameters, tokenizer.lowercase, left_out, unexpected, checked
    )


def _prefix(checkpoint: Path) -> Path:
    """The checkpoint that is meant, without `.index`."""
    if not checkpoint.is_dir():
        return checkpoint.with_suffix("") if checkpoint.suffix == ".index" else checkpoint
    found = sorted(checkpoint.glob("*.index"))
    usual = [path for path in found if path.name == "bert_model.ckpt.index"]
    if len(usual or found) == 1:
        return (usual or found)[0].with_suffix("")
    if not found:
        raise CheckpointError(f"{checkpoint} holds no TensorFlow checkpoint (no *.index); give its folder or prefix")
    raise UsageError(f"{checkpoint} holds {len(found)} checkpoints; give one: {found[-1].with_suffix('')}")


def _is_lowercase(vocabulary: dict[str, int]) -> bool:
    capitals = sum(re.search("[A-Z]", word) is not None and not word.startswith("[") for word in vocabulary)
    return capitals < _CASED_SHARE * len(vocabulary)
