"""What a BERT is made of: Hugging Face's `BertConfig` fields, each honoured or refused by name.

A `config.json` found in the wild has three kinds of keys:
- those of `BertConfig` below: honoured;
- those that would change the answers in a way this network does not know (`REFUSED_UNLESS`): refused by name unless
  they have the value that changes nothing;
- all others (`transformers_version`, `_name_or_path`, generation settings ...): kept, and written back as they were.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bertsmith.errors import CheckpointError, UsageError

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish", "tanh")
MOST_LABELS = 1_000_000
"""More are a damaged config.json: each has a name, in memory."""
POOLINGS = ("cls", "mean", "max", "first-last")
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")

INT8 = "bertsmith-int8"
"""`quant_method` of our own 8-bit layers (`int8_files`), by which others know that they cannot read them."""
REFUSED_UNLESS: dict[str, tuple[Any, ...]] = {
    "model_type": ("bert",),
    "position_embedding_type": ("absolute", None),
    "add_cross_attention": (False, None),
    "cross_attention_hidden_size": (None,),
    "is_encoder_decoder": (False, None),
    "chunk_size_feed_forward": (0, None),
    "gradient_checkpointing": (False, None),
    "pruned_heads": ({}, [], None),
    "per_layer_config": ({}, None),
    "quantization_config": (None,),
    "pooler_type": ("first_token_transform", None),
    "torchscript": (False, None),
    "use_bfloat16": (False, None),
}
"""Key of a config.json -> the values it may have; anything else would need a network that this one is not."""


PLAIN_HEAD: dict[str, Any] = {"head_pooling": "cls", "head_layers": 0, "head_act": "gelu", "own_head": None}
"""Field -> what it is where a sequence classifier has the head of Hugging Face; theirs have no such keys."""


@dataclass(frozen=True)
class BertConfig:
    """Sizes and rates of a BERT, under the names and with the defaults of Hugging Face (bert-base-uncased).

    Raises `CheckpointError` naming the field when a value is out of bounds.
    """

    vocab_size: int = 30_522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    """Standard deviation of the normal from which fresh weights are drawn, truncated at two of them."""
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    """Its embedding starts as zeros and gets no gradient as an input."""
    classifier_dropout: float | None = None
    """Dropout before a task's classifier; None: `hidden_dropout_prob`."""
    is_decoder: bool = False
    """Each token attends only to itself and those before it."""
    tie_word_embeddings: bool = True
    """The masked-word decoder is the word embeddings."""
    num_labels: int = 2
    """Outputs of a sequence or token classifier; where label names are given, their number."""
    id2label: Mapping[int, str] = field(default_factory=dict)
    """Label names by output; empty: LABEL_0, LABEL_1, ..."""
    problem_type: str | None = None
    """Loss of a sequence classifier, one of `PROBLEM_TYPES`; None: told from the labels."""
    head_pooling: str = "cls"
    """How a sequence classifier makes one vector of a text, one of `POOLINGS`; "cls" is BERT's pooler."""
    head_layers: int = 0
    """Hidden layers of a sequence classifier, between that vector and its outputs."""
    head_act: str = "gelu"
    """What follows each of them."""
    own_head: str | None = None
    """Name of the class that a user's own head is of."""
    layer_heads: tuple[int, ...] | None = None
    """Attention heads of each layer, of which some were cut out; None: `num_attention_heads` each, as transformers
    wants it. A head's width stays `hidden_size / num_attention_heads`."""
    output_hidden_states: bool = False
    output_attentions: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Bookkeeping keys of a config.json that do not bear on the answers."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size"):
            self._check_whole(name, least=1)
        for name in ("max_position_embeddings", "type_vocab_size", "num_labels"):
            self._check_whole(name, least=1)
        if self.num_labels > MOST_LABELS:
            self._refuse("num_labels", f"a whole number of at most {MOST_LABELS:,}")
        for name in ("num_hidden_layers", "head_layers"):
            self._check_whole(name, least=0)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            if not (name == "classifier_dropout" and self.classifier_dropout is None):
                self._check_number(name, least=0.0, below=1.0)
        self._check_number("initializer_range", least=0.0)
        self._check_number("layer_norm_eps", least=0.0)
        for name in ("is_decoder", "tie_word_embeddings", "output_hidden_states", "output_attentions"):
            if not isinstance(getattr(self, name), bool):
                self._refuse(name, "true or false")
        if self.hidden_act not in ACTIVATIONS:
            self._refuse("hidden_act", "one of " + ", ".join(ACTIVATIONS))
        if self.head_act not in ACTIVATIONS:
            self._refuse("head_act", "one of " + ", ".join(ACTIVATIONS))
        if self.head_pooling not in POOLINGS:
            self._refuse("head_pooling", "one of " + ", ".join(POOLINGS))
        if self.problem_type is not None and self.problem_type not in PROBLEM_TYPES:
            self._refuse("problem_type", "one of " + ", ".join(PROBLEM_TYPES))
        if self.hidden_size % self.num_attention_heads:
            self._refuse("hidden_size", f"a multiple of num_attention_heads = {self.num_attention_heads}")
        if self.layer_heads is not None:
            self._check_layer_heads()
        if self.pad_token_id is not None:
            self._check_whole("pad_token_id", least=0)
            if self.pad_token_id >= self.vocab_size:
                self._refuse("pad_token_id", f"an id below vocab_size = {self.vocab_size}")
        if self.id2label and sorted(self.id2label) != list(range(self.num_labels)):
            self._refuse("id2label", f"a name for each of 0 to {self.num_labels - 1} (num_labels = {self.num_labels})")

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def heads(self) -> tuple[int, ...]:
        """Attention heads of each layer."""
        return self.layer_heads or (self.num_attention_heads,) * self.num_hidden_layers

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in the order of the outputs."""
        return tuple(self.id2label.get(index, f"LABEL_{index}") for index in range(self.num_labels))

    @property
    def has_plain_head(self) -> bool:
        """Whether a sequence classifier has the head that transformers knows: pooler, dropout and one linear layer."""
        return self.own_head is None and self.head_pooling == "cls" and self.head_layers == 0

    def replace(self, **changes: Any) -> "BertConfig":
        """A copy with some fields changed; a changed `num_labels` drops names that no longer fit."""
        if "num_labels" in changes and changes["num_labels"] != self.num_labels:
            changes.setdefault("id2label", {})
        return dataclasses.replace(self, **changes)

    def with_labels(self, labels: tuple[str, ...]) -> "BertConfig":
        """A copy whose classifier has these labels, in this order."""
        return dataclasses.replace(self, num_labels=len(labels), id2label=dict(enumerate(labels)))

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], *, where: str = "config") -> "BertConfig":
        """Read the keys of a Hugging Face `config.json`; `where` names it in errors.

        Raises `CheckpointError` for a value out of bounds and for a setting that would change the answers in a way
        this network does not know.
        """
        for key, allowed in REFUSED_UNLESS.items():
            if key in raw and raw[key] not in allowed and not _is_own_quantization(key, raw[key]):
                raise CheckpointError(f"{where}: {key} = {raw[key]!r} is not supported; only {allowed[0]!r} is")
        if raw.get("embedding_size") not in (None, raw.get("hidden_size", cls.hidden_size)):
            raise CheckpointError(
                f"{where}: embedding_size = {raw['embedding_size']!r} is not supported; only that of hidden_size is"
            )
        if isinstance(raw.get("layer_heads"), list):
            raw = {**raw, "layer_heads": tuple(raw["layer_heads"])}
        names = {f.name for f in dataclasses.fields(cls)} - {"extra", "id2label", "num_labels"}
        values = {key: raw[key] for key in names & raw.keys() if raw[key] is not None or key in _MAY_BE_NONE}
        extra = {key: value for key, value in raw.items() if key not in names | {"id2label", "label2id", "num_labels"}}
        try:
            id2label = {int(key): str(name) for key, name in (raw.get("id2label") or {}).items()}
        except (AttributeError, ValueError) as error:
            raise CheckpointError(
                f"{where}: id2label = {raw['id2label']!r} is not a table of output number -> name"
            ) from error
        num_labels = len(id2label) or raw.get("num_labels") or 2
        try:
            return cls(**values, id2label=id2label, num_labels=num_labels, extra=extra)
        except CheckpointError as error:
            raise CheckpointError(f"{where}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """The keys of a Hugging Face `config.json`; `from_dict` gives the same config back."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("extra", "id2label", "num_labels"):
            del values[name]
        if self.layer_heads is None:
            del values["layer_heads"]
        for name, usual in PLAIN_HEAD.items():
            if values[name] == usual:  # so that a usual model has the keys of Hugging Face and no others
                del values[name]
        values |= self.extra
        values["model_type"] = "bert"
        if self.id2label or self.num_labels != 2:  # as transformers: two unnamed labels are the default
            values["id2label"] = {str(index): name for index, name in enumerate(self.labels)}
            values["label2id"] = {name: index for index, name in enumerate(self.labels)}
        return values

    def _check_layer_heads(self) -> None:
        found = self.layer_heads
        most = self.num_attention_heads
        is_list = isinstance(found, tuple) and len(found) == self.num_hidden_layers
        if not is_list or not all(type(heads) is int and 1 <= heads <= most for heads in found or ()):
            self._refuse("layer_heads", f"{self.num_hidden_layers} whole numbers, one a layer, from 1 to {most}")

    def _check_whole(self, name: str, *, least: int) -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            self._refuse(name, f"a whole number of at least {least}")

    def _check_number(self, name: str, *, least: float, below: float = float("inf")) -> None:
        value = getattr(self, name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value < below:
            bound = "" if below == float("inf") else f" and below {below}"
            self._refuse(name, f"a number of at least {least}{bound}")

    def _refuse(self, name: str, allowed: str) -> None:
        raise CheckpointError(f"{name} = {getattr(self, name)!r} is not possible; it must be {allowed}")


def _is_own_quantization(key: str, value: object) -> bool:
    return key == "quantization_config" and isinstance(value, Mapping) and value.get("quant_method") == INT8


_MAY_BE_NONE = ("pad_token_id", "classifier_dropout", "problem_type", "own_head")


def override(config: BertConfig, overrides: Mapping[str, Any]) -> BertConfig:
    """`config` with the fields that a person named; an unknown one is refused with the nearest known one."""
    known = [f.name for f in dataclasses.fields(BertConfig) if f.name != "extra"]
    for key, value in overrides.items():
        if key in REFUSED_UNLESS and value not in REFUSED_UNLESS[key]:
            raise UsageError(f"{key} = {value!r} is not supported; only {REFUSED_UNLESS[key][0]!r} is")
        if key not in known and key not in REFUSED_UNLESS:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known fields: {', '.join(known)}"
            raise UsageError(f"unknown model field {key!r}; {hint}")
    try:
        return config.replace(**{key: value for key, value in overrides.items() if key in known})
    except CheckpointError as error:
        raise UsageError(str(error)) from error
