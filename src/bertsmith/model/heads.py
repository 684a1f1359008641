"""The heads of the tasks: what stands on the encoder for each, and its loss, as transformers has them.

Every `forward` takes what `BertModel.forward` takes, and labels. A loss is the mean over labels that are not -100, and
None where no labels were given. The heads that predict words are in `language`.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.errors import UsageError
from bertsmith.model.config import BertConfig
from bertsmith.model.dropout import Dropout
from bertsmith.model.encoder import BertModel, EncoderOutputs
from bertsmith.model.pretrained import Pretrained, init_weights


@dataclass(frozen=True)
class HeadOutputs:
    """What most heads give; the shape of `logits` stands at each class."""

    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


@dataclass(frozen=True)
class QuestionAnsweringOutputs:
    """What `BertForQuestionAnswering` gives."""

    loss: Tensor | None
    start_logits: Tensor
    """(batch, seq)"""
    end_logits: Tensor
    """(batch, seq)"""
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


class Head(Pretrained):
    """A network that is an encoder, `bert`, and something on top."""

    has_pooler = True

    def __init__(self, config: BertConfig):
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=self.has_pooler)

    def resize_token_embeddings(self, vocab_size: int) -> None:
        self.bert.resize_token_embeddings(vocab_size)
        self.config = self.bert.config


class SimpleHead(Head):
    """A head with one kind of logits and one kind of labels, which says how it makes the logits and their loss."""

    def logits(self, outputs: EncoderOutputs) -> Tensor:
        """From what the encoder gives to a score for each label."""
        raise NotImplementedError

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A scalar."""
        return cross_entropy(logits, labels)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> HeadOutputs:
        """See `BertModel.forward`; the shapes of labels and logits stand at each class."""
        outputs: EncoderOutputs = self.bert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            output_hidden_states,
            output_attentions,
        )
        logits = self.logits(outputs)
        loss = None if labels is None else self.loss(logits, labels)
        return HeadOutputs(loss, logits, outputs.hidden_states, outputs.attentions)


class Classifier(SimpleHead):
    """Dropout and one linear layer; the base of three classes."""

    def __init__(self, config: BertConfig, *, num_outputs: int):
        super().__init__(config)
        rate = config.classifier_dropout
        self.dropout = Dropout(config.hidden_dropout_prob if rate is None else rate)
        self.classifier = nn.Linear(config.hidden_size, num_outputs)
        init_weights(self.classifier, config.initializer_range)

    def classify(self, hidden: Tensor | None) -> Tensor:
        """(..., hidden) -> (..., outputs)"""
        scores: Tensor = self.classifier(self.dropout(hidden))
        return scores


class BertForSequenceClassification(Classifier):
    """A label, several, or numbers for an example, from [CLS]. Logits: (batch, num_labels).

    Labels: (batch,) label numbers for a cross entropy; (batch, num_labels) floats 0 or 1 for a binary cross entropy of
    each label; with one output, or `problem_type` "regression", floats of the logits' shape for a mean squared error.
    """

    def __init__(self, config: BertConfig):
        super().__init__(config, num_outputs=config.num_labels)

    def logits(self, outputs: EncoderOutputs) -> Tensor:
        return self.classify(outputs.pooler_output)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return sequence_loss(logits, labels, self.config.problem_type)


class BertForMultipleChoice(Classifier):
    """Which of several texts? Inputs are (batch, choices, seq), logits (batch, choices), labels (batch,)."""

    def __init__(self, config: BertConfig):
        super().__init__(config, num_outputs=1)

    def logits(self, outputs: EncoderOutputs) -> Tensor:
        return self.classify(outputs.pooler_output)  # (batch * choices, 1)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> HeadOutputs:
        """See `BertModel.forward`, with choices between batch and seq."""
        given = input_ids if input_ids is not None else inputs_embeds
        if given is None:
            raise UsageError("give either input_ids or inputs_embeds")
        flat = [None if x is None else x.flatten(0, 1) for x in (input_ids, attention_mask, token_type_ids)]
        flat += [None if x is None else x.flatten(0, 1) for x in (position_ids, inputs_embeds)]
        outputs: EncoderOutputs = self.bert(*flat, output_hidden_states, output_attentions)
        logits = self.logits(outputs).view(given.shape[:2])
        loss = None if labels is None else self.loss(logits, labels)
        return HeadOutputs(loss, logits, outputs.hidden_states, outputs.attentions)


class BertForTokenClassification(Classifier):
    """A label for each token. Logits: (batch, seq, num_labels); labels: (batch, seq) label numbers."""

    has_pooler = False

    def __init__(self, config: BertConfig):
        super().__init__(config, num_outputs=config.num_labels)

    def logits(self, outputs: EncoderOutputs) -> Tensor:
        return self.classify(outputs.last_hidden_state)


class BertForQuestionAnswering(Head):
    """Where in the text the answer starts and ends: two scores for each token."""

    has_pooler = False

    def __init__(self, config: BertConfig):
        super().__init__(config.replace(num_labels=2))  # start and end, whatever classifier the checkpoint had
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        init_weights(self.qa_outputs, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> QuestionAnsweringOutputs:
        """`start_positions`, `end_positions` (batch,): token numbers; those past the end of the text are ignored and
        negative ones count as 0, as in transformers. The loss is the mean of the two, where both are given.
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
        start_logits, end_logits = self.qa_outputs(outputs.last_hidden_state).unbind(-1)  # (batch, seq) each
        loss = None
        if start_positions is not None and end_positions is not None:
            start_loss = position_loss(start_logits, start_positions)
            loss = (start_loss + position_loss(end_logits, end_positions)) / 2
        return QuestionAnsweringOutputs(loss, start_logits, end_logits, outputs.hidden_states, outputs.attentions)


class SentenceEncoder(Head):
    """The encoder alone, whose states are pooled to a vector of the text; a directory of it is a plain `BertModel`."""

    has_pooler = False

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(batch, seq, hidden) states of (batch, seq) tokens."""
        states: Tensor = self.bert(input_ids, attention_mask).last_hidden_state
        return states

    def save_pretrained(self, directory: str | Path) -> None:
        self.bert.save_pretrained(directory)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over labels that are not -100. `logits` (..., classes), `labels` (...) of the same leading shape."""
    if logits.shape[:-1] != labels.shape:
        raise UsageError(
            f"labels have shape {tuple(labels.shape)}, but logits of shape {tuple(logits.shape)} need "
            f"{tuple(logits.shape[:-1])}"
        )
    return F.cross_entropy(at_least_float32(logits).flatten(0, -2), labels.flatten())


def sequence_loss(logits: Tensor, labels: Tensor, problem_type: str | None) -> Tensor:
    """The loss of a sequence classifier; without a `problem_type` told from `logits` (batch, num_labels) and labels."""
    if problem_type is None:
        whole = not labels.is_floating_point()
        problem_type = "single_label_classification" if whole else "multi_label_classification"
        problem_type = "regression" if logits.shape[-1] == 1 else problem_type
    logits = at_least_float32(logits)
    if problem_type == "single_label_classification":
        return cross_entropy(logits, labels.view(-1))
    labels = labels.view(logits.shape).to(logits.dtype)
    return (
        F.mse_loss(logits, labels)
        if problem_type == "regression"
        else F.binary_cross_entropy_with_logits(logits, labels)
    )


def position_loss(logits: Tensor, positions: Tensor) -> Tensor:
    """Cross entropy over the tokens, (batch, seq), of positions (batch,) or (batch, 1); those past the end ignored."""
    past_the_end = logits.shape[1]
    positions = positions.view(-1).clamp(0, past_the_end)
    return F.cross_entropy(at_least_float32(logits), positions, ignore_index=past_the_end)


def at_least_float32(logits: Tensor) -> Tensor:
    """Losses are computed in float32 even where the network runs in bfloat16."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
