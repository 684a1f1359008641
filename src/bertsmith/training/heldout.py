"""Held-out loss and scores of a model in pre-training, its guesses at hidden words, and the words it finds hardest."""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bertsmith.examples.assemble import PretrainBatch
from bertsmith.examples.batches import PretrainData
from bertsmith.examples.pairs import LABEL_NAMES, NO_PAIR
from bertsmith.model.language import LanguageModel
from bertsmith.runtime import Runtime
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.losses import IGNORED
from bertsmith.training.objectives import agreement_loss_sum, cls_of_unmasked, smoothness_loss_sum, unmasked
from bertsmith.training.plan import Evaluation

_BATCH_SIZE = 32
_HARDEST = 10
_SAMPLES = 4
_SAMPLE_WORDS = 3
_SAMPLE_LENGTHS = range(10, 48)
_TOP = 5


@dataclass
class _Sums:
    """Over all held-out batches."""

    losses: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    correct: dict[str, int] = field(default_factory=dict)
    unigram_loss: float = 0.0
    same_document: int = 0
    same_document_correct: int = 0
    predicted: list[int] = field(default_factory=lambda: [0, 0])
    hardest: list[tuple[float, int, dict[str, Any]]] = field(default_factory=list)

    def add(self, objective: str, *, loss: Tensor, correct: Tensor) -> None:
        """`loss` and `correct` (items,) of one batch."""
        self.losses[objective] = self.losses.get(objective, 0.0) + float(loss.double().sum())
        self.counts[objective] = self.counts.get(objective, 0) + len(loss)
        self.correct[objective] = self.correct.get(objective, 0) + int(correct.sum())

    def add_sum(self, objective: str, loss: Tensor, batch: PretrainBatch) -> None:
        """An objective whose items are neither right nor wrong."""
        self.losses[objective] = self.losses.get(objective, 0.0) + float(loss)
        self.counts[objective] = self.counts.get(objective, 0) + batch.counts[objective]


class HeldOut:
    """Evaluates `model` on the first examples of the validation split, with the same masks and pairs each time.

    `unigram_losses` (vocab,): what a guess by frequency alone loses at each word; its mean over the hidden words is
    the baseline that the model's loss must beat.
    """

    def __init__(
        self,
        model: LanguageModel,
        data: PretrainData,
        *,
        num_examples: int,
        tokenizer: Tokenizer,
        runtime: Runtime,
        unigram_losses: Tensor | None = None,
    ):
        self.model, self.data, self.num_examples = model, data, num_examples
        self.tokenizer, self.runtime = tokenizer, runtime
        self.unigram_losses = unigram_losses
        self.samples = list(self._choose_samples()) if "mlm" in data.objectives else []

    def evaluate(self, _step: int = 0) -> Evaluation:
        """Mean loss per objective, accuracy of masked words and of pairs, also of the pairs from one document."""
        sums = _Sums()
        for batch in self.data.evaluation_batches(self.num_examples, _BATCH_SIZE):
            self._add(batch.to(self.runtime.device), sums)
        counted = {name: count for name, count in sums.counts.items() if count}
        losses = {name: sums.losses[name] / count for name, count in counted.items()}
        scores = {f"{name}_accuracy": right / counted[name] for name, right in sums.correct.items() if name in counted}
        if sums.same_document:
            scores["nsp_accuracy_same_document"] = sums.same_document_correct / sums.same_document
        details: dict[str, Any] = {}
        if self.unigram_losses is not None and "mlm" in counted:
            details["unigram_entropy"] = sums.unigram_loss / counted["mlm"]
        if self.data.pair_objective in counted:
            names = LABEL_NAMES[self.data.pair_objective]
            details["predictions_per_class"] = dict(zip(names, sums.predicted, strict=True))
        if sums.hardest:
            details["hardest"] = [item for _, _, item in sorted(sums.hardest, key=lambda entry: -entry[0])]
        samples = [self._guess(*sample) for sample in self.samples]
        return Evaluation(sum(losses.values()), losses, scores, details=details, samples=samples)

    def _add(self, batch: PretrainBatch, sums: _Sums) -> None:
        with self.runtime.autocast():
            hidden, pair_logits, states = self.model.masked_states(
                batch.input_ids, batch.masked_positions, batch.attention_mask, batch.token_type_ids
            )
            is_masked = batch.masked_labels != IGNORED
            logits = F.linear(hidden[is_masked], self.model.decoder_weight, self.model.decoder_bias)
        if "mlm" in self.data.objectives:
            labels = batch.masked_labels[is_masked]  # (masks,)
            loss = F.cross_entropy(logits.float(), labels, reduction="none")
            predicted = logits.argmax(dim=-1)
            sums.add("mlm", loss=loss, correct=predicted == labels)
            if self.unigram_losses is not None:
                sums.unigram_loss += float(self.unigram_losses[labels].double().sum())
            self._keep_hardest(batch, loss, predicted, sums)
        is_real = batch.attention_mask == 1
        if "agreement" in self.data.objectives:
            sums.add_sum("agreement", agreement_loss_sum(states, cls_of_unmasked(self.model, batch), is_real), batch)
        if "smoothness" in self.data.objectives:
            sums.add_sum("smoothness", smoothness_loss_sum(states, is_real), batch)
        objective = self.data.pair_objective
        if objective is not None:
            assert pair_logits is not None, "a model with a next-sentence head"
            is_pair = batch.next_sentence_label != NO_PAIR
            labels = batch.next_sentence_label[is_pair]  # (pairs,)
            pair_logits = pair_logits[is_pair].float()
            predicted = pair_logits.argmax(dim=-1)
            loss = F.cross_entropy(pair_logits, labels, reduction="none")
            sums.add(objective, loss=loss, correct=predicted == labels)
            same = batch.same_document_negative[is_pair]
            sums.same_document += int(same.sum())
            sums.same_document_correct += int((predicted == labels)[same].sum())
            for label in range(2):
                sums.predicted[label] += int((predicted == label).sum())

    def _keep_hardest(self, batch: PretrainBatch, loss: Tensor, predicted: Tensor, sums: _Sums) -> None:
        """Words with the greatest loss so far, each with the text it stands in."""
        if not len(loss):
            return
        found = loss.topk(min(_HARDEST, len(loss)))
        for value, index in zip(found.values.tolist(), found.indices.tolist(), strict=True):
            if len(sums.hardest) == _HARDEST and value <= sums.hardest[0][0]:
                return
            row, position = divmod(int(batch.masked_positions[index]), batch.input_ids.shape[1])
            ids = unmasked(batch)[row][batch.attention_mask[row] == 1].tolist()
            truth, ids[position] = ids[position], self.tokenizer.mask_id
            word, prediction = self.tokenizer.tokens([truth, int(predicted[index])])
            text = self.tokenizer.decode(ids[1:-1])
            item = {"text": text, "label": word, "prediction": prediction, "loss": value}
            entry = (value, -len(sums.hardest) - batch.example_ids[row] * batch.input_ids.shape[1] - position, item)
            push = heapq.heappush if len(sums.hardest) < _HARDEST else heapq.heapreplace
            push(sums.hardest, entry)

    def _choose_samples(self) -> Iterator[tuple[list[int], dict[int, int]]]:
        """A few held-out texts as ids, and position -> hidden word: whole words of those masked in evaluation."""
        num_chosen = 0
        continues = self.tokenizer.continues_word
        for batch in self.data.evaluation_batches(self.num_examples, _BATCH_SIZE):
            length = batch.input_ids.shape[1]
            masked = set(batch.masked_positions[batch.masked_labels != IGNORED].tolist())
            for row, ids in enumerate(unmasked(batch).tolist()):
                end = int(((batch.token_type_ids[row] == 0) & (batch.attention_mask[row] == 1)).sum())
                words = [
                    position
                    for position in range(1, end - 1)
                    if row * length + position in masked
                    and not continues[ids[position]]
                    and not continues[ids[position + 1]]
                ][:_SAMPLE_WORDS]
                if end in _SAMPLE_LENGTHS and words:
                    truths = {position: ids[position] for position in words}
                    yield [self.tokenizer.mask_id if p in truths else ids[p] for p in range(end)], truths
                    num_chosen += 1
                    break  # one of a batch: batches differ in length
            if num_chosen == _SAMPLES:
                return

    def _guess(self, ids: list[int], truths: Mapping[int, int]) -> dict[str, Any]:
        device = self.runtime.device
        with self.runtime.autocast():
            found = self.model.masked_states(
                torch.tensor([ids], device=device), torch.tensor(list(truths), device=device)
            )
            logits = F.linear(found.hidden, self.model.decoder_weight, self.model.decoder_bias)
        best = logits.float().softmax(dim=-1).topk(min(_TOP, logits.shape[-1]))
        masked = [
            {
                "position": position,
                "truth": self.tokenizer.tokens([truth])[0],
                "predictions": list(zip(self.tokenizer.tokens(tokens), shares, strict=True)),
            }
            for (position, truth), tokens, shares in zip(
                truths.items(), best.indices.tolist(), best.values.tolist(), strict=True
            )
        ]
        return {"text": self.tokenizer.decode(ids[1:-1]), "masked": masked}
