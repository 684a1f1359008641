"""The four heads of pre-training and word prediction, and their losses, as transformers has them.

A loss is the mean over labels that are not -100, and None where no labels were given.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.model.config import BertConfig
from bertsmith.model.encoder import ACTIVATION_FUNCTIONS, EncoderOutputs
from bertsmith.model.heads import Head, HeadOutputs, SimpleHead, cross_entropy
from bertsmith.model.pretrained import init_weights
from bertsmith.model.vocabulary import resized_bias, resized_decoder


@dataclass(frozen=True)
class PreTrainingOutputs:
    """What `BertForPreTraining` gives."""

    loss: Tensor | None
    prediction_logits: Tensor
    """(batch, seq, vocab), or (masks, vocab) where masked positions were given"""
    seq_relationship_logits: Tensor
    """(batch, 2): B follows A, B is from elsewhere"""
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


class PredictionTransform(nn.Module):
    """LayerNorm(activation(dense(x))), before the vocabulary."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACTIVATION_FUNCTIONS[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        normed: Tensor = self.LayerNorm(self.activation(self.dense(hidden)))
        return normed


class Predictions(nn.Module):
    """A score for each word of the vocabulary: transform(x) · embeddingsᵀ + bias (paper, section 3.1, task 1).

    The decoder is the word embeddings, or a matrix of its own where the config does not tie them. Its width is the
    vocabulary's: rounding it up to a multiple of 64 inside gained nothing on a CPU.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.transform = PredictionTransform(config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        tied = config.tie_word_embeddings
        self.decoder = None if tied else nn.Linear(config.hidden_size, config.vocab_size, bias=False)


class MaskedStates(NamedTuple):
    """The forward pass of pre-training up to the vocabulary."""

    hidden: Tensor
    """(masks, hidden) transformed states at the masked positions: their product with `decoder_weight`, plus
    `decoder_bias`, is `prediction_logits`"""
    next_sentence_logits: Tensor | None
    """(batch, 2); None for a class without that head"""
    states: Tensor
    """(batch, seq, hidden) of all tokens, as the encoder leaves them"""


class PreTrainingHeads(nn.Module):
    """The heads of pre-training: predictions, next sentence, or both."""

    def __init__(self, config: BertConfig, *, predictions: bool, next_sentence: bool):
        super().__init__()
        self.predictions = Predictions(config) if predictions else None
        self.seq_relationship = nn.Linear(config.hidden_size, 2) if next_sentence else None
        init_weights(self, config.initializer_range)


class LanguageModel(Head):
    """A head that predicts words; the base of three classes.

    In training only masked tokens matter, about one in seven, and the vocabulary is by far the widest matrix: give
    `masked_positions`, (masks,) indices into the flattened (batch * seq), and only those are predicted. For a loss
    that never holds (masks, vocab) whole, `masked_states` gives what goes into that product, `decoder_weight`
    (vocab, hidden) and `decoder_bias` (vocab,) the rest of it.
    """

    has_next_sentence = False

    def __init__(self, config: BertConfig):
        super().__init__(config)
        self.cls = PreTrainingHeads(config, predictions=True, next_sentence=self.has_next_sentence)

    @property
    def decoder_weight(self) -> Tensor:
        """(vocab, hidden); the word embeddings themselves where they are tied."""
        decoder = self._predictions.decoder
        return self.bert.embeddings.word_embeddings.weight if decoder is None else decoder.weight

    @property
    def decoder_bias(self) -> Tensor:
        """(vocab,)"""
        return self._predictions.bias

    def prediction_hidden(self, hidden: Tensor, masked_positions: Tensor | None = None) -> Tensor:
        """(batch, seq, hidden) -> transformed, (masks, hidden) where positions are given, else (batch, seq, hidden)."""
        if masked_positions is not None:
            hidden = hidden.flatten(0, 1).index_select(0, masked_positions)
        transformed: Tensor = self._predictions.transform(hidden)
        return transformed

    def masked_states(
        self,
        input_ids: Tensor,
        masked_positions: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> MaskedStates:
        """Everything of the forward pass but the vocabulary."""
        outputs = self.bert(input_ids, attention_mask, token_type_ids)
        states = outputs.last_hidden_state
        return MaskedStates(self.prediction_hidden(states, masked_positions), self._next_sentence(outputs), states)

    def resize_token_embeddings(self, vocab_size: int) -> None:
        super().resize_token_embeddings(vocab_size)
        predictions = self._predictions
        predictions.bias = resized_bias(predictions.bias, vocab_size)
        if predictions.decoder is not None:
            predictions.decoder = resized_decoder(predictions.decoder, vocab_size, std=self.config.initializer_range)

    @property
    def _predictions(self) -> Predictions:
        assert self.cls.predictions is not None, "made with predictions"
        return self.cls.predictions

    def predict(self, hidden: Tensor, masked_positions: Tensor | None = None) -> Tensor:
        return F.linear(self.prediction_hidden(hidden, masked_positions), self.decoder_weight, self.decoder_bias)

    def _next_sentence(self, outputs: EncoderOutputs) -> Tensor | None:
        return None if self.cls.seq_relationship is None else self.cls.seq_relationship(outputs.pooler_output)


class BertForPreTraining(LanguageModel):
    """Masked words and next sentence together (paper, section 3.1)."""

    has_next_sentence = True

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        masked_positions: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> PreTrainingOutputs:
        """`labels` (batch, seq), or (masks,) beside `masked_positions`: the words; -100 is ignored.
        `next_sentence_label` (batch,): 0 where B follows A, 1 where it is from elsewhere. The loss is the sum of the
        two, or the one whose labels were given.
        """
        outputs: EncoderOutputs = self.bert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            output_hidden_states,
            output_attentions,
        )
        prediction_logits = self.predict(outputs.last_hidden_state, masked_positions)
        next_sentence_logits = self._next_sentence(outputs)
        assert next_sentence_logits is not None, "made with a next-sentence head"
        losses = []
        if labels is not None:
            losses.append(cross_entropy(prediction_logits, labels))
        if next_sentence_label is not None:
            losses.append(cross_entropy(next_sentence_logits, next_sentence_label))
        return PreTrainingOutputs(
            loss=torch.stack(losses).sum() if losses else None,
            prediction_logits=prediction_logits,
            seq_relationship_logits=next_sentence_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class BertForMaskedLM(LanguageModel):
    """Masked words alone. Logits: (batch, seq, vocab), or (masks, vocab) where masked positions were given."""

    has_pooler = False

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        masked_positions: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> HeadOutputs:
        """`labels` (batch, seq), or (masks,) beside `masked_positions`: the words; -100 is ignored."""
        outputs: EncoderOutputs = self.bert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            output_hidden_states,
            output_attentions,
        )
        logits = self.predict(outputs.last_hidden_state, masked_positions)
        loss = None if labels is None else cross_entropy(logits, labels)
        return HeadOutputs(loss, logits, outputs.hidden_states, outputs.attentions)


class BertLMHeadModel(LanguageModel, SimpleHead):
    """Left to right: each token attends only to itself and those before it, and predicts the next.

    Logits: (batch, seq, vocab); labels: (batch, seq), the tokens themselves, which are shifted here.
    """

    has_pooler = False

    def __init__(self, config: BertConfig):
        super().__init__(config.replace(is_decoder=True))

    def logits(self, outputs: EncoderOutputs, attention_mask: Tensor | None) -> Tensor:  # noqa: ARG002
        return self.predict(outputs.last_hidden_state)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits[:, :-1], labels[:, 1:])


class BertForNextSentencePrediction(SimpleHead):
    """Does B follow A? Logits: (batch, 2), B follows A and B is from elsewhere; labels: (batch,), 0 and 1 for these."""

    def __init__(self, config: BertConfig):
        super().__init__(config)
        self.cls = PreTrainingHeads(config, predictions=False, next_sentence=True)

    def logits(self, outputs: EncoderOutputs, attention_mask: Tensor | None) -> Tensor:  # noqa: ARG002
        assert self.cls.seq_relationship is not None, "made with a next-sentence head"
        logits: Tensor = self.cls.seq_relationship(outputs.pooler_output)
        return logits
