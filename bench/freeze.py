"""What a frozen part saves: updates a second and bytes of optimizer state, with a freeze and without.

    freeze-lower-half   embeddings and the lower half of the layers frozen
    freeze-encoder      embeddings and all layers frozen: only the head trains
    freeze-top-half     the upper half of the layers frozen: gradients pass through it to what trains below

Masked words alone, 4 layers, vocabulary 30,522, batches of 32 x 128 (--quick: 8 x 128) made-up tokens without padding,
15 % masked; the same network, batches and AdamW on both sides, dropout 0, compiled (--quick: eager). `ours` is with the
freeze, `peer` without. First the gradients of what trains must be the same with the freeze as without.

    python bench/freeze.py --quick
"""

import itertools
from collections.abc import Callable, Sequence

import torch
from measure import arguments, compare, emit

from bertsmith.config import PretrainConfig
from bertsmith.examples.assemble import PretrainBatch
from bertsmith.model import BertForMaskedLM, preset
from bertsmith.runtime import Runtime, detect
from bertsmith.training.compiling import COMPILED, compiled
from bertsmith.training.determinism import deterministic
from bertsmith.training.freeze import freeze, train_account
from bertsmith.training.objectives import LossSums, loss_sums_of
from bertsmith.training.optimizer import make_optimizer

VOCAB, LENGTH, MASK_SHARE = 30_522, 128, 0.15
CASES = {
    "freeze-lower-half": ("embeddings", "encoder.layer.0-1"),
    "freeze-encoder": ("embeddings", "encoder"),
    "freeze-top-half": ("encoder.layer.2-3",),
}


def made_up_batch(seed: int, rows: int) -> PretrainBatch:
    masks = round(MASK_SHARE * rows * LENGTH)
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(1000, VOCAB, (rows, LENGTH), generator=draw)
    positions = torch.randperm(rows * LENGTH, generator=draw)[:masks].sort().values
    return PretrainBatch(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        token_type_ids=torch.zeros_like(ids),
        masked_positions=positions,
        masked_labels=torch.randint(1000, VOCAB, (masks,), generator=draw),
        next_sentence_label=torch.full((rows,), -100),
        same_document_negative=torch.zeros(rows, dtype=torch.bool),
        counts={"mlm": masks},
        num_tokens=rows * LENGTH,
        example_ids=tuple(range(rows)),
    )


def make_model(frozen: Sequence[str], runtime: Runtime) -> BertForMaskedLM:
    torch.manual_seed(1)
    sizes = {"vocab_size": VOCAB, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = BertForMaskedLM(preset("mini", sizes)).to(runtime.device).train()
    freeze([model], frozen)
    return model


def make_loss(model: BertForMaskedLM, *, compile_it: bool) -> LossSums:
    forward, note = compiled(model.masked_states, "on" if compile_it else "off", long_enough=True, say=print)
    return loss_sums_of(model, forward, skips_mask=note != COMPILED)


class Training:
    """A network and its updates."""

    def __init__(self, frozen: Sequence[str], batches: Sequence[PretrainBatch], runtime: Runtime, *, compile_it: bool):
        self.model, self.runtime = make_model(frozen, runtime), runtime
        self.loss_sums = make_loss(self.model, compile_it=compile_it)
        self.optimizer = make_optimizer(self.model, PretrainConfig(max_steps=1))
        self.source = itertools.cycle([batch.to(runtime.device) for batch in batches])

    def updates(self, count: int) -> Callable[[], float]:
        def work() -> float:
            with deterministic(self.runtime.device):
                for _ in range(count):
                    batch = next(self.source)
                    with self.runtime.autocast():
                        loss = self.loss_sums(batch)["mlm"] / batch.counts["mlm"]
                    torch.autograd.backward(loss)
                    gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
                    norm = float(torch.nn.utils.get_total_norm(gradients))
                    torch._foreach_mul_(gradients, min(1.0, 1.0 / norm))
                    self.optimizer.step()
                    self.optimizer.zero_grad()
            return count

        return work

    def state_bytes(self) -> int:
        return sum(t.nbytes for state in self.optimizer.state.values() for t in state.values())


def check_gradients_agree(frozen: Sequence[str], batch: PretrainBatch, runtime: Runtime) -> None:
    gradients = []
    for names in (frozen, ()):
        model = make_model(names, runtime)
        torch.autograd.backward(make_loss(model, compile_it=False)(batch.to(runtime.device))["mlm"])
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for name, mine in gradients[0].items():
        if float((mine - gradients[1][name]).norm()) > 1e-5 * float(gradients[1][name].norm()) + 1e-9:
            raise SystemExit(f"with {frozen} frozen the gradient of {name} is another; nothing is measured")


def main() -> None:
    options = arguments(str(__doc__).partition("\n")[0])
    runtime = detect(threads=options.threads)
    batches = [made_up_batch(seed, 8 if options.quick else 32) for seed in range(4)]
    for name, frozen in CASES.items():
        if options.only not in (None, name):
            continue
        check_gradients_agree(frozen, batches[0], runtime)
        with_freeze = Training(frozen, batches, runtime, compile_it=not options.quick)
        without = Training((), batches, runtime, compile_it=not options.quick)
        for one in (with_freeze, without):
            one.updates(2)()
        rounds, count = (5, 2) if options.quick else (9, 8)
        row = compare(name, with_freeze.updates(count), without.updates(count), rounds=rounds, unit="updates/s")
        emit(
            row,
            options,
            compiled=not options.quick,
            dtype=runtime.dtype_name,
            **train_account(with_freeze.model),
            optimizer_bytes=with_freeze.state_bytes(),
            optimizer_bytes_without=without.state_bytes(),
        )


if __name__ == "__main__":
    main()
