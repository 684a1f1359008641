"""The heads of the tasks: what stands on the encoder for each, and its loss, as transformers has them.

Every `forward` takes what `BertModel.forward` takes, and labels. A loss is the mean over labels that are not -100, and
None where no labels were given. The heads that predict words are in `language`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.errors import CheckpointError, UsageError
from bertsmith.model.config import BertConfig
from bertsmith.model.dropout import Dropout
from bertsmith.model.encoder import BertModel, EncoderOutputs
from bertsmith.model.pooled_head import PooledHead, make_own_head
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

    def __init__(self, config: BertConfig, *, has_pooler: bool | None = None):
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=self.has_pooler if has_pooler is None else has_pooler)

    def resize_token_embeddings(self, vocab_size: int) -> None:
        self.bert.resize_token_embeddings(vocab_size)
        self.config = self.bert.config


class SimpleHead(Head):
    """A head with one kind of logits and one kind of labels, which says how it makes the logits and their loss."""

    @property
    def reads_first_layer(self) -> bool:
        """Whether `logits` needs the states of all layers."""
        return False

    def logits(self, outputs: EncoderOutputs, attention_mask: Tensor | None) -> Tensor:
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
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        outputs: EncoderOutputs = self.bert(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            wanted or self.reads_first_layer,
            output_attentions,
        )
        logits = self.logits(outputs, attention_mask)
        loss = None if labels is None else self.loss(logits, labels)
        return HeadOutputs(loss, logits, outputs.hidden_states if wanted else None, outputs.attentions)


class Classifier(SimpleHead):
    """Dropout and one linear layer; the base of two classes."""

    def __init__(self, config: BertConfig, *, num_outputs: int):
        super().__init__(config)
        self.dropout, self.classifier = classifier_of(config, num_outputs)

    def classify(self, hidden: Tensor | None) -> Tensor:
        """(..., hidden) -> (..., outputs)"""
        scores: Tensor = self.classifier(self.dropout(hidden))
        return scores


class BertForSequenceClassification(SimpleHead):
    """A label, several, or numbers for an example, from [CLS]. Logits: (batch, num_labels).

    Labels: (batch,) label numbers for a cross entropy; (batch, num_labels) floats 0 or 1 for a binary cross entropy of
    each label; with one output, or `problem_type` "regression", floats of the logits' shape for a mean squared error.

    Where the config asks for another pooling or for hidden layers, or a class of one's own is given (`with_own_head`),
    `head` takes the place of dropout and classifier; transformers finds no classifier in such a directory, and says so.
    """

    own_head: ClassVar[type[nn.Module] | None] = None
    """A user's class, made as `own_head(config)`; its `forward(hidden, attention_mask)` turns states
    (batch, seq, hidden) and a mask (batch, seq), 1 for a token and 0 for padding, into (batch, num_labels) scores."""

    def __init__(self, config: BertConfig):
        self._check_own_head(config)
        super().__init__(config, has_pooler=self.own_head is None and config.head_pooling == "cls")
        if self.own_head is not None:
            self.head = make_own_head(self.own_head, config)
        elif not config.has_plain_head:
            self.head = PooledHead(config)
        else:
            self.dropout, self.classifier = classifier_of(config, config.num_labels)

    @property
    def reads_first_layer(self) -> bool:
        return self.own_head is None and self.config.head_pooling == "first-last"

    @property
    def architecture(self) -> str:
        return super().architecture if self.config.has_plain_head else "BertWithHead"

    def logits(self, outputs: EncoderOutputs, attention_mask: Tensor | None) -> Tensor:
        scores: Tensor
        if self.config.has_plain_head:
            scores = self.classifier(self.dropout(outputs.pooler_output))
            return scores
        hidden = outputs.last_hidden_state
        if self.own_head is not None:
            mask = hidden.new_ones(hidden.shape[:2]) if attention_mask is None else attention_mask
            scores = self.head(hidden, mask)
            self._check_shape(scores, len(hidden))
            return scores
        if self.reads_first_layer:
            assert outputs.hidden_states is not None, "they were asked for"
            hidden = (hidden + outputs.hidden_states[min(1, len(outputs.hidden_states) - 1)]) / 2
        scores = self.head(hidden, attention_mask, outputs.pooler_output)
        return scores

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return sequence_loss(logits, labels, self.config.problem_type)

    def start_fresh(self) -> None:
        super().start_fresh()
        if self.own_head is not None:  # as its author begins it, and not as BERT's layers begin
            self.head = make_own_head(self.own_head, self.config)

    def forget_labels(self) -> None:
        """Of a head of other layers nothing is kept: only its maker knows which of them are for labels."""
        if self.config.has_plain_head:
            super().forget_labels()
        elif self.own_head is not None:
            self.head = make_own_head(self.own_head, self.config)
        else:
            init_weights(self.head, self.config.initializer_range)

    def _check_shape(self, scores: Tensor, batch: int) -> None:
        given, wanted = tuple(scores.shape), (batch, self.config.num_labels)
        if given != wanted:
            name = type(self.head).__name__
            raise UsageError(f"head {name} gives shape {given}; it must be (batch, labels) = {wanted}")

    def _check_own_head(self, config: BertConfig) -> None:
        """The class is never looked up by its name, which any file could say: it is given, and must be the same."""
        given = None if self.own_head is None else self.own_head.__name__
        if given != config.own_head:
            theirs = "no head of its own" if config.own_head is None else f"a head of its own, {config.own_head}"
            todo = "leave head out" if config.own_head is None else f"give its class: head={config.own_head}"
            raise CheckpointError(f"the model has {theirs}, and head is {given}; {todo}")


def with_own_head(head: type[nn.Module]) -> type[BertForSequenceClassification]:
    """`BertForSequenceClassification` with a head of this class."""
    return type("BertWithHead", (BertForSequenceClassification,), {"own_head": head})


class BertForMultipleChoice(Classifier):
    """Which of several texts? Inputs are (batch, choices, seq), logits (batch, choices), labels (batch,)."""

    def __init__(self, config: BertConfig):
        super().__init__(config, num_outputs=1)

    def logits(self, outputs: EncoderOutputs, attention_mask: Tensor | None) -> Tensor:  # noqa: ARG002
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
        logits = self.logits(outputs, None).view(given.shape[:2])
        loss = None if labels is None else self.loss(logits, labels)
        return HeadOutputs(loss, logits, outputs.hidden_states, outputs.attentions)


class BertForTokenClassification(Classifier):
    """A label for each token. Logits: (batch, seq, num_labels); labels: (batch, seq) label numbers."""

    has_pooler = False

    def __init__(self, config: BertConfig):
        super().__init__(config, num_outputs=config.num_labels)

    def logits(self, outputs: EncoderOutputs, attention_mask: Tensor | None) -> Tensor:  # noqa: ARG002
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


def classifier_of(config: BertConfig, num_outputs: int) -> tuple[Dropout, nn.Linear]:
    rate = config.classifier_dropout
    classifier = nn.Linear(config.hidden_size, num_outputs)
    init_weights(classifier, config.initializer_range)
    return Dropout(config.hidden_dropout_prob if rate is None else rate), classifier


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
