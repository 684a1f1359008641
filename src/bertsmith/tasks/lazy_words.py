"""Whether a fine-tuning's word table may wait: of most vocabularies a batch of labelled rows reads next to nothing."""

from torch import nn

from bertsmith.config import FinetuneConfig
from bertsmith.errors import UsageError
from bertsmith.model.language import LanguageModel
from bertsmith.model.pretrained import Pretrained
from bertsmith.runtime import Runtime
from bertsmith.tasks.batches import TrainingBatches
from bertsmith.training.distributed import Ranks

LAZY_BELOW = 0.1
"""Share of the word table that a batch reads, below which untouched rows wait: an update of the table is then 1.6 times
as fast, 9 times at 0.01, and half as fast at 0.3 (`bench/lazy_rows.py`)."""
_LOOKED_AT_BATCHES = 20


def lazy_words(
    model: Pretrained, batches: TrainingBatches, config: FinetuneConfig, *, ranks: Ranks, runtime: Runtime
) -> nn.Embedding | None:
    """The word table for `LazyRowsAdamW`; None where it is to be trained as everything else.

    A function of recipe and rows, so that a resumed run decides alike. Raises `UsageError` where the recipe insists and
    it cannot be.
    """
    if config.lazy_embeddings == "off":
        return None
    words = model.get_submodule("bert.embeddings.word_embeddings")
    assert isinstance(words, nn.Embedding)
    hindrances = {
        "the optimizer is not plain AdamW": config.optimizer != "adamw" or not config.bias_correction,
        "they are the decoder too, whose gradient reaches all rows": _are_decoder(model, words),
        "the word embeddings are frozen": not words.weight.requires_grad,
        "l2_start reads all weights": config.l2_start > 0,
        "learn_on.ewc reads all weights": config.learn_on is not None and config.learn_on.ewc > 0,
        "the step is compiled": config.compile == "on",
        "micro_batch_size is 'auto'": config.fits_micro_batch,
        "there are several processes, or no CPU": not ranks.is_alone or runtime.device.type != "cpu",
    }
    if found := [because for because, is_there in hindrances.items() if is_there]:
        if config.lazy_embeddings == "on":
            raise UsageError(f"lazy_embeddings = 'on' cannot be: {found[0]}")
        return None
    share = batches.distinct_tokens(_LOOKED_AT_BATCHES) / words.num_embeddings
    return words if config.lazy_embeddings == "on" or share < LAZY_BELOW else None


def _are_decoder(model: Pretrained, words: nn.Embedding) -> bool:
    return isinstance(model, LanguageModel) and model.decoder_weight is words.weight
