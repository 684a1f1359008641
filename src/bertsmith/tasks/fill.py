"""Fill in the blank: what a pre-trained model puts in the place of [MASK]."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from bertsmith.errors import UsageError
from bertsmith.model.language import BertForMaskedLM, BertForPreTraining, LanguageModel
from bertsmith.model.weights import read_config, resolve_model_dir
from bertsmith.runtime import Runtime, detect
from bertsmith.tasks.masked_word import MASK
from bertsmith.tasks.predict import check_max_length, check_tokenizer, check_trained
from bertsmith.tokenizer.encode import Tokenizer


@dataclass(frozen=True)
class MaskFiller:
    """A pre-trained model, ready to fill in blanks: MaskFiller.load(RUN).predict("Return a [MASK] of strings.")"""

    model: LanguageModel
    tokenizer: Tokenizer
    runtime: Runtime

    @classmethod
    def load(cls, name: str | Path, *, runtime: Runtime | None = None) -> "MaskFiller":
        """Load a model directory, a run or a hub name; `CheckpointError` where its language head was never trained."""
        directory = resolve_model_dir(name)
        head = BertForPreTraining if is_language_model(directory, BertForPreTraining) else BertForMaskedLM
        model, tokenizer = head.from_pretrained(directory), Tokenizer.load(directory)
        check_tokenizer(tokenizer, model.config, directory)
        hint = "give a pre-trained model, or one fine-tuned with task = 'masked-word'"
        check_trained(model, directory, "language head", hint)
        runtime = runtime or detect(dtype="float32")
        return cls(model.to(runtime.device), tokenizer, runtime)

    def __call__(self, given: Any) -> Any:
        """The guesses for one sentence, or, of a list of sentences, those for all."""
        return [self.predict(one) for one in given] if isinstance(given, list) else self.predict(given)

    def predict(self, sentence: str, *, top: int = 5) -> list[tuple[str, float]]:
        """The `top` most probable pieces of the vocabulary for the one [MASK] in `sentence`, and their probabilities.

        Raises `UsageError` for a sentence without one [MASK], or longer than the model has positions.
        """
        if (found := sentence.count(MASK)) != 1:
            raise UsageError(f"{sentence!r} has {found or 'no'} {MASK}; write one, where a word is to be filled in")
        tokenizer, device = self.tokenizer, self.runtime.device
        ids = [tokenizer.cls_id, *tokenizer.encode_batch([sentence])[0].ids, tokenizer.sep_id]
        check_max_length(len(ids), self.model.config, "the model")
        input_ids = torch.tensor([ids], device=device)  # (1, seq)
        position = torch.tensor([ids.index(tokenizer.mask_id)], device=device)
        with torch.no_grad(), self.runtime.autocast():
            hidden = self.model.masked_states(input_ids, position).hidden  # (1, hidden)
            logits = F.linear(hidden, self.model.decoder_weight, self.model.decoder_bias)  # (1, vocab)
        best = logits[0].float().softmax(dim=-1).topk(min(top, logits.shape[-1]))
        return list(zip(tokenizer.tokens(best.indices.tolist()), best.values.tolist(), strict=True))


def is_language_model(directory: Path, *heads: type[LanguageModel]) -> bool:
    """True where config.json names one of `heads` (by default any that fills in masks) as its architecture."""
    names = {head.__name__ for head in heads or (BertForMaskedLM, BertForPreTraining)}
    return not names.isdisjoint(read_config(directory).extra.get("architectures") or [])


def fill_mask(
    name: str | Path, sentence: str, *, top: int = 5, runtime: Runtime | None = None
) -> list[tuple[str, float]]:
    """`MaskFiller.load(name).predict(sentence)`, for one sentence. Example:

    fill_mask("runs/quickstart/pretrain", "Return a [MASK] of strings.")
    [("list", 0.61), ("tuple", 0.12), ...]
    """
    return MaskFiller.load(name, runtime=runtime).predict(sentence, top=top)


def in_words(predictions: Sequence[tuple[str, float]]) -> str:
    """Guesses at a hidden word as a person reads them."""
    return "  ".join(f"{word} {share:.0%}" for word, share in predictions)
