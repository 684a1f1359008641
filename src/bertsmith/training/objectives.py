"""What is learned in pre-training: a batch to the loss sums of its objectives.

    mlm         cross-entropy of each hidden token (Devlin et al. 2018, arXiv:1810.04805)
    nsp, sop    cross-entropy of each pair's label (the same; Lan et al. 2019, arXiv:1909.11942)
    agreement   1 - cos(h_t, c) of each token
    smoothness  ||h_{t+1} - h_t||^2 of each two neighbouring tokens
    label       cross-entropy of a classifier on [CLS], on labelled rows (`labelled`)

In agreement and smoothness h_t are the encoder's states of the masked text, (hidden,), and c is the state of [CLS] of
the same text unmasked, from the same weights without dropout and without a gradient. All sums go over the global
batch's items and are divided by their number there (the loop does), so that no split of a batch changes anything.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.examples.assemble import PretrainBatch
from bertsmith.model.language import LanguageModel, MaskedStates
from bertsmith.training.labelled import OBJECTIVE, LabelledText
from bertsmith.training.losses import IGNORED, masked_token_sums, next_sentence_loss_sum, next_sentence_right
from bertsmith.training.plan import LossSums, Sums


def loss_sums_of(model: LanguageModel, forward: Callable[..., MaskedStates], *, skips_mask: bool) -> LossSums:
    """The step function: `forward` is `model.masked_states`, compiled or not; the vocabulary's part stays outside it.

    With `skips_mask`, a batch without padding gets no attention mask; compiled code rather sees one form of input.
    """

    def loss_sums(batch: PretrainBatch) -> Sums:
        is_full = skips_mask and batch.num_tokens == batch.input_ids.numel()
        attention_mask = None if is_full else batch.attention_mask
        found = forward(batch.input_ids, batch.masked_positions, attention_mask, batch.token_type_ids)
        sums = Sums()
        if "mlm" in batch.counts:
            masks = slice(batch.counts["mlm"])  # what is filled up comes last
            hidden, labels = found.hidden[masks], batch.masked_labels[masks]
            weight, bias = model.decoder_weight, model.decoder_bias
            sums["mlm"], sums.right["mlm"] = masked_token_sums(hidden, weight, bias, labels)
        for objective in {"nsp", "sop"} & batch.counts.keys():
            assert found.next_sentence_logits is not None, "a model with a next-sentence head"
            sums[objective] = next_sentence_loss_sum(found.next_sentence_logits, batch.next_sentence_label)
            sums.right[objective] = next_sentence_right(found.next_sentence_logits, batch.next_sentence_label)
        is_real = batch.attention_mask == 1
        if "agreement" in batch.counts:
            sums["agreement"] = agreement_loss_sum(found.states, cls_of_unmasked(model, batch), is_real)
        if "smoothness" in batch.counts:
            sums["smoothness"] = smoothness_loss_sum(found.states, is_real)
        return sums

    return loss_sums


def with_labels(loss_sums: LossSums, labelled: LabelledText, classifier: nn.Module) -> LossSums:
    """The same for text, and the classifier's loss for micro-batches of labelled rows."""

    def both(batch: Any) -> Mapping[str, Tensor]:
        if isinstance(batch, PretrainBatch):
            return loss_sums(batch)
        return {OBJECTIVE: labelled.loss_sum(classifier, batch)}

    return both


def agreement_loss_sum(states: Tensor, cls: Tensor, is_real: Tensor) -> Tensor:
    """sum_t (1 - cos(h_t, c)) over real tokens: `states` (batch, seq, hidden), `cls` (batch, hidden), `is_real`
    (batch, seq) bool.
    """
    precise = torch.promote_types(states.dtype, torch.float32)
    cosines = F.cosine_similarity(states.to(precise), cls[:, None].to(precise), dim=-1)  # (batch, seq)
    return ((1 - cosines) * is_real).sum()


def smoothness_loss_sum(states: Tensor, is_real: Tensor) -> Tensor:
    """sum_t ||h_{t+1} - h_t||^2 over neighbours that are both real: `states` (batch, seq, hidden), `is_real`
    (batch, seq) bool.
    """
    precise = states.to(torch.promote_types(states.dtype, torch.float32))
    squares = (precise[:, 1:] - precise[:, :-1]).square().sum(dim=-1)  # (batch, seq - 1)
    return (squares * (is_real[:, 1:] & is_real[:, :-1])).sum()


def cls_of_unmasked(model: LanguageModel, batch: PretrainBatch) -> Tensor:
    """(batch, hidden) state of [CLS] where nothing is hidden: without dropout, without a gradient."""
    was_training = model.bert.training
    model.bert.eval()
    try:
        with torch.no_grad():
            outputs = model.bert(unmasked(batch), batch.attention_mask, batch.token_type_ids)
    finally:
        model.bert.train(was_training)
    cls: Tensor = outputs.last_hidden_state[:, 0]
    return cls


def unmasked(batch: PretrainBatch) -> Tensor:
    """(batch, seq) ids with every hidden word put back."""
    ids = batch.input_ids.flatten().clone()
    is_masked = batch.masked_labels != IGNORED
    ids[batch.masked_positions[is_masked]] = batch.masked_labels[is_masked]
    return ids.view_as(batch.input_ids)
