"""Fill in the blank: what a pre-trained model puts in the place of [MASK]."""

from pathlib import Path

import torch

from bertsmith.errors import CheckpointError, UsageError
from bertsmith.model.language import BertForMaskedLM
from bertsmith.model.weights import resolve_model_dir
from bertsmith.runtime import Runtime, detect
from bertsmith.tasks.predict import check_max_length, check_tokenizer
from bertsmith.tokenizer.encode import Tokenizer

MASK = "[MASK]"


def fill_mask(
    name: str | Path, sentence: str, *, top: int = 5, runtime: Runtime | None = None
) -> list[tuple[str, float]]:
    """The `top` most probable pieces of the vocabulary for the [MASK] in `sentence`, and their probabilities.

    `name` is a model directory, a run or a hub name. Example:

        fill_mask("runs/quickstart/pretrain", "Return a [MASK] of strings.")
        [("list", 0.61), ("tuple", 0.12), ...]

    Raises `UsageError` for a sentence without one [MASK], `CheckpointError` for a model without a trained language
    head.
    """
    if (found := sentence.count(MASK)) != 1:
        raise UsageError(f"{sentence!r} has {found or 'no'} {MASK}; write one, where a word is to be filled in")
    directory = resolve_model_dir(name)
    model, tokenizer = BertForMaskedLM.from_pretrained(directory), Tokenizer.load(directory)
    check_tokenizer(tokenizer, model.config, directory)
    if model.load_report is not None and model.load_report.fresh:
        raise CheckpointError(
            f"{directory} has no trained language head ({', '.join(model.load_report.fresh[:3])} missing); "
            "give a pre-trained model that was not fine-tuned"
        )
    runtime = runtime or detect(dtype="float32")
    ids = [tokenizer.cls_id, *tokenizer.encode_batch([sentence])[0].ids, tokenizer.sep_id]
    check_max_length(len(ids), model.config, directory)
    input_ids = torch.tensor([ids], device=runtime.device)  # (1, seq)
    position = torch.tensor([ids.index(tokenizer.mask_id)], device=runtime.device)
    with torch.no_grad(), runtime.autocast():
        logits = model.to(runtime.device)(input_ids=input_ids, masked_positions=position).logits  # (1, vocab)
    best = logits[0].float().softmax(dim=-1).topk(min(top, logits.shape[-1]))
    return list(zip(tokenizer.tokens(best.indices.tolist()), best.values.tolist(), strict=True))
