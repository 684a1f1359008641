"""Pre-training steps on a GPU: ours against `transformers`, for the sizes of the BERT paper.

    base-128, base-512, large-128, large-512      masked words, full examples, 15 % of the tokens hidden, dropout 0

A row has tokens per second of both, the share of this GPU's own matrix-product peak that ours reaches (FLOPs of masked
positions only; with --peak-tflops also the share of a peak from a data sheet), and the memory of both. The peer is
`BertForMaskedLM` with fused AdamW, compiled, with PyTorch's attention, and once more with flash attention where
`flash_attn` is installed. Tokens are made up, since a step takes as long whatever they are. Ours runs deterministic, as
in training. First the losses of the same weights on the same batch must agree, in float32.

    python bench/gpu.py --out bench/results/DATE-gpu.jsonl
    python bench/gpu.py --dtype float16
    torchrun --nproc-per-node gpu bench/gpu.py --out bench/results/DATE-gpus.jsonl       both sides data parallel, NCCL
    python bench/gpu.py --device cpu --tiny                                              whether it runs at all

No figure of this table has been measured yet: no GPU was at hand when it was written.
"""

import argparse
import importlib.util
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from measure import compare, machine
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from bertsmith.config import PretrainConfig
from bertsmith.examples.assemble import PretrainBatch
from bertsmith.model import BertForMaskedLM, preset
from bertsmith.model.config import BertConfig
from bertsmith.model.flops import train_flops
from bertsmith.runtime import Runtime, detect
from bertsmith.training.compiling import compiled
from bertsmith.training.determinism import deterministic
from bertsmith.training.distributed import Ranks, joined
from bertsmith.training.gradients import gradient_sum, gradients_of
from bertsmith.training.loss_scale import FIRST_SCALE, unscale
from bertsmith.training.matmul_peak import matmul_peak
from bertsmith.training.objectives import loss_sums_of
from bertsmith.training.optimizer import make_optimizer

MASKED, STEPS, MASK = 0.15, 4, 103
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@dataclass(frozen=True)
class Case:
    """A row: a preset, the examples' length, and how many a process has in a step."""

    size: str
    length: int
    batch_size: int

    @property
    def config(self) -> BertConfig:
        return preset(self.size, NO_DROPOUT)


CASES = {
    "base-128": Case("base", 128, 256),
    "base-512": Case("base", 512, 64),
    "large-128": Case("large", 128, 128),
    "large-512": Case("large", 512, 32),
}
TINY = {"tiny-32": Case("tiny", 32, 4)}


def made_up_batch(case: Case, seed: int) -> PretrainBatch:
    """Full rows of random tokens, the same number hidden in each."""
    generator = torch.Generator().manual_seed(seed)
    rows, length = case.batch_size, case.length
    ids = torch.randint(1000, case.config.vocab_size, (rows, length), generator=generator)
    hidden = round(MASKED * length)
    columns = torch.rand(rows, length, generator=generator).argsort(dim=1)[:, :hidden].sort(dim=1).values
    positions = (columns + torch.arange(rows)[:, None] * length).flatten()
    labels = ids.flatten()[positions]
    ids.view(-1)[positions] = MASK
    return PretrainBatch(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        token_type_ids=torch.zeros_like(ids),
        masked_positions=positions,
        masked_labels=labels,
        next_sentence_label=torch.full((rows,), -100),
        same_document_negative=torch.zeros(rows, dtype=torch.bool),
        counts={"mlm": len(positions)},
        num_tokens=rows * length,
        example_ids=tuple(range(rows)),
    )


def labels_of(batch: PretrainBatch) -> torch.Tensor:
    """(batch, seq), -100 where nothing is hidden: as `transformers` takes them."""
    labels = torch.full((batch.input_ids.numel(),), -100)
    labels[batch.masked_positions] = batch.masked_labels
    return labels.view_as(batch.input_ids)


def our_step(model: BertForMaskedLM, batch: PretrainBatch, runtime: Runtime, ranks: Ranks) -> Callable[[], float]:
    """The loop's update, piece by piece: loss, sum over ranks, clip, AdamW. The batch comes from the CPU each time."""
    forward, _ = compiled(model.masked_states, "on", long_enough=True, say=print)
    loss_sums = loss_sums_of(model, forward, skips_mask=False)
    optimizer = make_optimizer(model, PretrainConfig(max_steps=1))
    parameters = list(model.parameters())
    over_ranks = gradient_sum(model, parameters, ranks)
    masks, scale = batch.counts["mlm"] * ranks.size, FIRST_SCALE / 2**6 if runtime.dtype == torch.float16 else 1.0

    def work() -> float:
        with deterministic(runtime.device):
            for _ in range(STEPS):
                with runtime.autocast():
                    loss = loss_sums(batch.to(runtime.device))["mlm"] / masks
                over_ranks.begin(last=True)
                (loss * scale).backward()
                over_ranks.finish()
                unscale(gradients_of(parameters), scale)
                clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            wait(runtime)
        return float(STEPS * batch.num_tokens * ranks.size)

    return work


def peer_model(case: Case, attention: str) -> nn.Module:
    config = transformers.BertConfig(**_sizes(case.config), **NO_DROPOUT, attn_implementation=attention)
    return transformers.BertForMaskedLM(config).train()


def _sizes(config: BertConfig) -> dict[str, int]:
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    return {name: int(getattr(config, name)) for name in names}


def peer_step(model: nn.Module, batch: PretrainBatch, runtime: Runtime, ranks: Ranks) -> Callable[[], float]:
    wrapped = model
    if not ranks.is_alone:
        wrapped = DistributedDataParallel(model, [runtime.device] if runtime.device.type == "cuda" else None)
    forward = torch.compile(wrapped)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.dtype == torch.float16)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels_of(batch)}

    def work() -> float:
        for _ in range(STEPS):
            moved = {name: tensor.to(runtime.device, non_blocking=True) for name, tensor in inputs.items()}
            with runtime.autocast():
                loss = forward(**moved).loss
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
        wait(runtime)
        return float(STEPS * batch.num_tokens * ranks.size)

    return work


def wait(runtime: Runtime) -> None:
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)


def built(make: Callable[[], Callable[[], float]], runtime: Runtime) -> tuple[Callable[[], float], float | None]:
    """A step function, warm, and the GB of GPU memory that it and its model took at most, beside what was there."""
    if runtime.device.type != "cuda":
        work = make()
        work()
        return work, None
    before = torch.cuda.memory_allocated(runtime.device)
    work = make()
    work()  # compiles
    torch.cuda.reset_peak_memory_stats(runtime.device)
    work()
    return work, round((torch.cuda.max_memory_allocated(runtime.device) - before) / 1e9, 2)


def check_losses_agree(case: Case, runtime: Runtime) -> None:
    batch = made_up_batch(case, seed=0).take(range(2))
    model = BertForMaskedLM(case.config).eval()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), deterministic(runtime.device):
        model.save_pretrained(folder)
        peer = transformers.BertForMaskedLM.from_pretrained(folder).eval().to(runtime.device)
        model.to(runtime.device)
        moved = batch.to(runtime.device)
        ours = float(loss_sums_of(model, model.masked_states, skips_mask=True)(moved)["mlm"]) / batch.counts["mlm"]
        theirs = float(peer(input_ids=moved.input_ids, labels=labels_of(batch).to(runtime.device)).loss)
    if abs(ours - theirs) > 1e-4 * abs(theirs):
        raise SystemExit(f"losses differ: ours {ours}, transformers {theirs}; nothing is measured")


def measure(name: str, case: Case, options: argparse.Namespace, runtime: Runtime, ranks: Ranks) -> None:
    batch = made_up_batch(case, seed=1 + ranks.rank)
    torch.manual_seed(0)
    ours_on_device = BertForMaskedLM(case.config).train().to(runtime.device)
    mine, our_memory = built(lambda: our_step(ours_on_device, batch, runtime, ranks), runtime)
    attentions = ["sdpa"]
    if runtime.device.type == "cuda" and importlib.util.find_spec("flash_attn") is not None:
        attentions.append("flash_attention_2")
    for attention in attentions:
        peer_on_device = peer_model(case, attention).to(runtime.device)
        theirs, peer_memory = built(lambda m=peer_on_device: peer_step(m, batch, runtime, ranks), runtime)
        row = compare(f"{name}-vs-{attention}", mine, theirs, rounds=options.rounds, unit="tokens/s")
        tokens, masks = batch.num_tokens, batch.counts["mlm"]
        per_token = train_flops(case.config, tokens=tokens, length=case.length, masks=masks) / tokens
        flops = per_token * row.ours / ranks.size
        facts: dict[str, Any] = {
            "dtype": runtime.dtype_name,
            "batch_size": case.batch_size * ranks.size,
            "step_ms": round(1e3 * tokens * ranks.size / row.ours, 1),
            "tflops_a_device": round(flops / 1e12, 2),
            "share_of_measured_peak": round(flops / matmul_peak(runtime), 3),
            "share_of_stated_peak": round(flops / options.peak_tflops / 1e12, 3) if options.peak_tflops else None,
            "memory_gb": our_memory,
            "peer_memory_gb": peer_memory,
            "devices": ranks.size,
            "device": runtime.device_name,
        }
        del theirs, peer_on_device
        if ranks.is_first:
            print(json.dumps(asdict(row) | facts), flush=True)
            if options.out is not None:
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(row) | facts | machine()) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float16", "float32"), default="auto")
    parser.add_argument("--batch-share", type=float, default=1.0, help="of the examples in a step: 0.25 for 24 GB")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--only", choices=tuple(CASES), help="run only the row of this name")
    parser.add_argument("--tiny", action="store_true", help="one small row, to try this script")
    parser.add_argument("--peak-tflops", type=float, help="of one device, from its data sheet: 989 for an H100's bf16")
    parser.add_argument("--out", type=Path, help="also append the rows to this file")
    options = parser.parse_args()
    runtime = detect(device=options.device, dtype=options.dtype)
    cases = {
        name: replace(case, batch_size=max(1, round(options.batch_share * case.batch_size)))
        for name, case in (TINY if options.tiny else CASES).items()
    }
    with joined(runtime) as ranks:
        check_losses_agree(next(iter(cases.values())), runtime)
        for name, case in cases.items():
            if options.only in (None, name):
                measure(name, case, options, runtime, ranks)


if __name__ == "__main__":
    main()
