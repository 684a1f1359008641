"""What all nine classes share: fresh weights, `from_pretrained`, `save_pretrained`, `resize_token_embeddings`."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from bertsmith.errors import UsageError
from bertsmith.model import weights
from bertsmith.model.config import BertConfig, override

logger = logging.getLogger("bertsmith.model")


def init_weights(root: nn.Module, std: float, *, only: Callable[[str], bool] | None = None) -> None:
    """Fresh weights: matrices and embeddings from a normal of `std` truncated at 2 std, biases 0, LayerNorm 1 and 0.

    Truncated as in the paper's own code; transformers draws from the whole normal, whose rare far values serve no
    purpose. The embedding of [PAD] is 0, as in transformers. `only` chooses modules by name.
    """
    for name, module in root.named_modules():
        if only is not None and not only(name):
            continue
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter):
            nn.init.zeros_(bias)


class Pretrained(nn.Module):
    """A network that reads and writes Hugging Face model directories."""

    load_report: weights.LoadReport | None = None
    """What `from_pretrained` found; None for a network made from a config."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.config = config

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        num_labels: int | None = None,
        labels: Sequence[str] | None = None,
        overrides: Mapping[str, Any] | None = None,
        allow_pickle: bool = False,
    ) -> Self:
        """A network with the weights of a model directory, a run, or a model of the Hugging Face hub.

        Args:
            name: a directory, a run, `RUN/best`, `RUN/last`, or a hub name such as `bert-base-uncased`; a directory
                that exists goes before a hub name.
            num_labels, labels: outputs of the classifier, or their names; a classifier of another size is fresh.
            overrides: fields of `BertConfig` that differ from the checkpoint's, such as `hidden_dropout_prob`.
            allow_pickle: read a `pytorch_model.bin` where there is no safetensors file (with `weights_only`).

        Weights are float32 whatever the file has; the network is in evaluation mode. What was fresh or surplus is
        logged in one line and kept in `.load_report`. Raises `CheckpointError` where the directory does not fit.
        """
        directory = weights.resolve_model_dir(name, allow_pickle=allow_pickle)
        config = override(weights.read_config(directory), overrides or {})
        if labels is not None:
            if num_labels not in (None, len(labels)):
                raise UsageError(f"num_labels = {num_labels}, but {len(labels)} labels were given")
            config = config.with_labels(tuple(labels))
        elif num_labels is not None:
            config = config.replace(num_labels=num_labels)
        checkpoint = weights.read_weights(directory, allow_pickle=allow_pickle)
        checkpoint.check(config)
        with torch.device("meta"):  # no time spent on numbers that the checkpoint replaces
            model = cls(checkpoint.settle_tying(config))
        model.to_empty(device="cpu")
        model.start_fresh()
        model.load_report = checkpoint.load_into(model)
        if line := str(model.load_report):
            logger.warning(line)
        return model.eval()

    def start_fresh(self) -> None:
        """Fresh weights of all that is not the encoder, in memory that has no numbers yet."""
        init_weights(self, self.config.initializer_range, only=lambda module: not weights.is_encoder(module))

    def forget_labels(self) -> None:
        """Fresh weights of what gives a score for each label, because the labels are others now."""
        init_weights(self, self.config.initializer_range, only=lambda module: module == "classifier")

    @property
    def architecture(self) -> str:
        """What config.json calls it."""
        return type(self).__name__

    def save_pretrained(self, directory: str | Path) -> None:
        """Write `config.json` and `model.safetensors` as Hugging Face has them, each whole or not at all.

        Other files of the directory, such as the tokenizer's, are left as they are.
        """
        weights.save(self, self.config, Path(directory), architecture=self.architecture)

    def resize_token_embeddings(self, vocab_size: int) -> None:
        """Keep the first embeddings (and decoder weights and biases) and draw new ones as fresh weights are.

        The decoder's new biases are 0. Make the optimizer afterwards: the parameters are new ones.
        """
        raise NotImplementedError

    @property
    def num_parameters(self) -> int:
        """Number of weights; tied ones count once."""
        return sum(parameter.numel() for parameter in self.parameters())
