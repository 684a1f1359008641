"""Texts written on by a model that was fine-tuned as a language model: token by token, until it ends the text.

Each token is read off the whole text so far, read again by itself and unpadded, so that a text's continuation does not
hang on the texts beside it. Keys and values are not kept from token to token: the n-th costs a forward pass over n
tokens, of which a BERT can read 512.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax
from torch.nn import functional as F

from bertsmith.errors import CheckpointError, UsageError
from bertsmith.examples.draws import fraction, hash_counters
from bertsmith.model.language import BertLMHeadModel
from bertsmith.model.weights import read_config, resolve_model_dir
from bertsmith.runtime import Runtime, derive_seed, detect
from bertsmith.tasks.predict import check_tokenizer, check_trained
from bertsmith.tasks.texts import mostly_chinese
from bertsmith.tokenizer.encode import Tokenizer

_HINT = "fine-tune it first: bertsmith finetune RECIPE, with task = 'language-model'"


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; raises `UsageError` for settings that could not be or would change nothing."""

    temperature: float = 0.0
    """By which logits are divided before one is drawn; 0: the likeliest is taken."""
    top_k: int | None = None
    """Draw from so many of the likeliest."""
    top_p: float | None = None
    """Draw from the fewest likeliest whose probabilities reach this sum (Holtzman et al. 2019, arXiv:1904.09751)."""
    seed: int = 42
    """Of what is drawn: for each text a function of (seed, text, number of the token)."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise UsageError(f"temperature = {self.temperature}; give 0 for the likeliest token, or more, such as 0.8")
        if self.temperature == 0.0 and (self.top_k is not None or self.top_p is not None):
            raise UsageError("top_k and top_p are for drawing; give a temperature above 0 too, such as 1")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k = {self.top_k}; give at least 1")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise UsageError(f"top_p = {self.top_p}; give more than 0 and at most 1")

    def choose(self, logits: npt.NDArray[np.float32], draw: float) -> int:
        """A token's id from the logits of all, (vocab,), by `draw` in [0, 1)."""
        if self.temperature == 0.0:
            return int(logits.argmax())
        sums = np.cumsum(self.probabilities(logits))
        return int(np.searchsorted(sums, draw * sums[-1], side="right"))

    def probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """(vocab,) by which is drawn: temperature first, then the k likeliest, of these the share p."""
        with np.errstate(over="ignore"):  # at most 0, and -inf where the temperature is very low
            scores = (logits - logits.max()).astype(np.float64) / self.temperature
        if self.top_k is not None and self.top_k < len(scores):
            scores = np.where(scores < np.partition(scores, -self.top_k)[-self.top_k], -np.inf, scores)
        if self.top_p is not None:
            order = np.argsort(-scores, kind="stable")
            shares = softmax(scores[order])
            before = np.cumsum(shares) - shares
            scores[order[before >= self.top_p]] = -np.inf
        return np.asarray(softmax(scores))


GREEDY = Sampling()


@dataclass(frozen=True, slots=True)
class Continuation:
    """How a text goes on."""

    prompt: str
    text: str
    """What was written, without the prompt."""
    ids: tuple[int, ...]
    """Its tokens; the [SEP] that ended it is not among them."""
    is_ended: bool
    """Whether the model ended the text; else it came to `max_new_tokens` or to its last position."""
    whole: str
    """Prompt and text, joined as words are in their language."""


@dataclass(frozen=True)
class TextGenerator:
    """A language model, ready to write: TextGenerator.load(RUN).generate("the film is")"""

    model: BertLMHeadModel
    tokenizer: Tokenizer
    runtime: Runtime

    @classmethod
    def load(cls, name: str | Path, *, runtime: Runtime | None = None) -> "TextGenerator":
        """Load a model directory, a run or a hub name; `CheckpointError` where it does not read from left to right."""
        directory = resolve_model_dir(name)
        if not read_config(directory).is_decoder:
            raise CheckpointError(
                f"{directory} reads both ways (is_decoder is not true in its config.json) and cannot continue a text; "
                f"{_HINT}"
            )
        model, tokenizer = BertLMHeadModel.from_pretrained(directory), Tokenizer.load(directory)
        check_tokenizer(tokenizer, model.config, directory)
        check_trained(model, directory, "language head", _HINT)
        runtime = runtime or detect(dtype="float32")
        return cls(model.to(runtime.device), tokenizer, runtime)

    def generate(self, prompt: str, *, max_new_tokens: int = 50, sampling: Sampling = GREEDY) -> Continuation:
        """Write on until the model ends the text, `max_new_tokens` are written, or its positions are full.

        Raises `UsageError` for a prompt that leaves no position free.
        """
        if max_new_tokens < 1:
            raise UsageError(f"max_new_tokens = {max_new_tokens}; give at least 1")
        ids = [self.tokenizer.cls_id, *self.tokenizer.encode_ids([prompt])[0]]
        positions, begun = self.model.config.max_position_embeddings, len(ids)
        if begun > positions:
            raise UsageError(
                f"the text has {begun} tokens, [CLS] included, but the model {positions} positions; cut it"
            )
        key = np.uint64(derive_seed("generate", sampling.seed, prompt))
        # The last position still tells a token, which then stands past it.
        draws = fraction(hash_counters(key, np.arange(min(max_new_tokens, positions - begun + 1))))
        is_ended = False
        for draw in draws.tolist():
            token = sampling.choose(self._logits(ids), draw)
            if is_ended := token == self.tokenizer.sep_id:
                break
            ids.append(token)
        written = ids[begun:]
        text = self.tokenizer.decode(written)
        if mostly_chinese([text]):
            text = text.replace(" ", "")
        return Continuation(prompt, text, tuple(written), is_ended, _join(prompt, text))

    def _logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """(vocab,) of the token after these."""
        input_ids = torch.tensor([ids], device=self.runtime.device)  # (1, seq)
        last = torch.tensor([len(ids) - 1], device=self.runtime.device)
        with torch.no_grad(), self.runtime.autocast():
            hidden = self.model.masked_states(input_ids, last).hidden  # (1, hidden)
            logits = F.linear(hidden, self.model.decoder_weight, self.model.decoder_bias)
        return np.asarray(logits[0].float().cpu().numpy())


def generate(
    name: str | Path,
    prompt: str,
    *,
    max_new_tokens: int = 50,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 42,
    runtime: Runtime | None = None,
) -> Continuation:
    """`TextGenerator.load(name).generate(prompt)`, for one text. Example:

    generate("runs/reviews/finetune", "the film is", temperature=0.8, top_p=0.9, seed=1).text
    """
    sampling = Sampling(temperature, top_k, top_p, seed)
    return TextGenerator.load(name, runtime=runtime).generate(prompt, max_new_tokens=max_new_tokens, sampling=sampling)


def _join(prompt: str, text: str) -> str:
    """With a space between, but for Chinese and where a piece goes on with the last word."""
    if text.startswith("##"):
        return prompt.rstrip() + text.removeprefix("##")
    return prompt + text if not prompt or prompt[-1].isspace() or mostly_chinese([text]) else f"{prompt} {text}"
