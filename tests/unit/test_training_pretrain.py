"""Pre-training from artifacts to a model directory: what it writes, skips, resumes and refuses."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bertsmith.config import parse_recipe
from bertsmith.errors import CheckpointError, RecipeError, Stopped, UsageError
from bertsmith.examples.batches import PretrainData
from bertsmith.model import BertForMaskedLM, BertForPreTraining, preset, read_card
from bertsmith.tokenizer.encode import Tokenizer
from bertsmith.training.batch_flops import flops_of
from bertsmith.training.heldout import HeldOut
from bertsmith.training.matmul_peak import matmul_peak
from bertsmith.training.objectives import loss_sums_of
from pretrain_case import Made, make_examples, run
from training_case import CPU, events


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_examples(tmp_path_factory.mktemp("made"))


def _model(made: Made) -> BertForPreTraining:
    overrides = {**made.raw["model"]["overrides"], "vocab_size": _tokenizer(made).vocab_size}
    return BertForPreTraining(preset("tiny", overrides))


def test_a_run_leaves_a_model_directory_a_log_and_a_closing_table(made: Made, tmp_path: Path) -> None:
    seen: list[int] = []
    result, printed = run(made, tmp_path / "run", on_evaluation=lambda step, _: seen.append(step))
    assert seen == [5, 10, 12]
    assert result.steps == 12
    assert result.tokens == sum(b.num_tokens for step in range(12) for b in _data(made).batch(step, 8, 4))
    assert set(result.scores) >= {"mlm_accuracy", "nsp_accuracy"}
    assert result.loss == pytest.approx(sum(result.losses.values()))
    names = {path.name for path in result.model.iterdir()}
    assert names == {
        *("config.json", "model.safetensors", "bertsmith.json", "tokenizer.json", "vocab.txt"),
        *("tokenizer_config.json", "special_tokens_map.json"),
    }
    assert (result.model / "vocab.txt").read_bytes() == (made.tokenizer / "vocab.txt").read_bytes()
    card = read_card(result.model)
    assert (card["task"], card["step"], card["scores"]["validation"]) == ("pretrain", 12, result.scores)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        *("recipe.toml", "state.json", "metrics.jsonl", "checkpoints", "model")
    }
    assert "held-out mlm accuracy" in printed
    assert str(result.model) in printed
    loaded = BertForPreTraining.from_pretrained(tmp_path / "run")
    assert loaded.load_report is not None
    assert not loaded.load_report.fresh
    evaluation = HeldOut(loaded, _data(made, "validation"), num_examples=48, tokenizer=_tokenizer(made), runtime=CPU)
    with torch.no_grad():
        assert evaluation.evaluate().loss == pytest.approx(result.loss, rel=1e-5)


def _tokenizer(made: Made) -> Tokenizer:
    return Tokenizer.load(made.tokenizer)


def _data(made: Made, split: str = "train", objectives: tuple[str, ...] = ("mlm", "nsp")) -> PretrainData:
    return PretrainData(made.examples, split=split, tokenizer=_tokenizer(made), objectives=objectives, seed=42)


def test_it_learns(made: Made, tmp_path: Path) -> None:
    run(made, tmp_path, made.recipe(max_steps=100, evaluate_every_steps=50, learning_rate=1e-2))
    first, last = events(tmp_path, "step")[0], events(tmp_path, "evaluation")[-1]
    assert last["losses"]["mlm"] < 0.6 * first["losses"]["mlm"]
    assert last["scores"]["mlm_accuracy"] > 0.3


def test_done_before_is_skipped_and_another_recipe_starts_again(made: Made, tmp_path: Path) -> None:
    first, _ = run(made, tmp_path)
    written = (tmp_path / "metrics.jsonl").read_bytes()
    second, printed = run(made, tmp_path, made.recipe(log_every_steps=1, keep_checkpoints=9))
    assert second == first
    assert "done before: 12 steps" in printed
    assert (tmp_path / "metrics.jsonl").read_bytes() == written
    third, printed = run(made, tmp_path, made.recipe(learning_rate=1e-4))
    assert "starting again" in printed
    assert third.loss != first.loss


def test_interrupted_it_goes_on_to_the_same_weights(made: Made, tmp_path: Path) -> None:
    straight, _ = run(made, tmp_path / "straight")
    with pytest.raises(Stopped):
        run(made, tmp_path / "run", on_evaluation=lambda *_: signal.raise_signal(signal.SIGINT))
    assert not (tmp_path / "run" / "model").exists()
    resumed, printed = run(made, tmp_path / "run")
    assert "resumed    from step 5" in printed
    weights = [result.model.joinpath("model.safetensors").read_bytes() for result in (straight, resumed)]
    assert weights[0] == weights[1]


def test_a_folder_of_somebody_else_is_not_emptied(made: Made, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "precious").touch()
    with pytest.raises(UsageError, match="give another one"):
        run(made, tmp_path)
    assert (tmp_path / "model" / "precious").exists()


def test_masked_words_alone_give_a_masked_language_model(made: Made, tmp_path: Path) -> None:
    result, _ = run(made, tmp_path, made.recipe(objectives=["mlm"]))
    assert result.scores.keys() == {"mlm_accuracy"}
    assert BertForMaskedLM.from_pretrained(result.model).load_report.fresh == ()  # type: ignore[union-attr]


def test_sentence_order_and_whole_words(made: Made, tmp_path: Path) -> None:
    """The two-class head learns whether the parts have changed places; all that is logged bears its name."""
    result, _ = run(made, tmp_path, made.recipe(objectives=["mlm", "sop"], mask_by="word"))
    assert result.scores.keys() == {"mlm_accuracy", "sop_accuracy"}
    assert BertForPreTraining.from_pretrained(result.model).load_report.fresh == ()  # type: ignore[union-attr]
    assert events(tmp_path, "step")[-1]["losses"].keys() == {"mlm", "sop"}
    assert events(tmp_path, "evaluation")[-1]["predictions_per_class"].keys() == {"in order", "swapped"}
    assert read_card(result.model)["objectives"] == ["mlm", "sop"]


def test_next_sentence_alone(made: Made, tmp_path: Path) -> None:
    result, _ = run(made, tmp_path, made.recipe(objectives=["nsp"], max_steps=2))
    assert result.scores.keys() == {"nsp_accuracy", "nsp_accuracy_same_document"}


def test_two_questions_about_one_pair_are_refused(made: Made) -> None:
    with pytest.raises(RecipeError, match="both 'nsp' and 'sop'"):
        made.recipe(objectives=["mlm", "nsp", "sop"])


def test_it_goes_on_from_another_model(made: Made, tmp_path: Path) -> None:
    first, _ = run(made, tmp_path / "first", made.recipe(max_steps=60, learning_rate=1e-2))
    second, _ = run(made, tmp_path / "second", made.recipe(init=str(first.model), max_steps=2, learning_rate=1e-9))
    assert second.loss == pytest.approx(first.loss, rel=1e-3)


def test_a_model_that_does_not_fit_is_refused_before_anything_is_written(made: Made, tmp_path: Path) -> None:
    short = parse_recipe({**made.raw, "model": {"preset": "tiny", "overrides": {"max_position_embeddings": 16}}})
    with pytest.raises(UsageError, match="max_length = 32, but the model has 16 positions"):
        run(made, tmp_path / "a", short)
    first, _ = run(made, tmp_path / "first")
    config = first.model / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "vocab_size": 20}))
    with pytest.raises(CheckpointError, match="the tokenizer has"):
        run(made, tmp_path / "b", made.recipe(init=str(first.model)))


def test_the_step_function_is_the_model_s_own_loss(made: Made) -> None:
    """Fused loss and gradients against `forward` with labels, in float64, dropout off."""
    model = _model(made).double().eval()
    (batch,) = _data(made).batch(3, 8, 8)
    sums = loss_sums_of(model, model.masked_states, skips_mask=True)(batch)
    ours = sums["mlm"] / batch.counts["mlm"] + sums["nsp"] / batch.counts["nsp"]
    theirs = model(
        batch.input_ids,
        batch.attention_mask,
        batch.token_type_ids,
        labels=batch.masked_labels,
        next_sentence_label=batch.next_sentence_label,
        masked_positions=batch.masked_positions,
    ).loss
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for loss in (ours, theirs):
        model.zero_grad()
        loss.backward()
        gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        if loss is ours:
            expected = gradients
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_held_out_scores_are_those_of_plain_counting(made: Made) -> None:
    model = _model(made).eval()
    data = _data(made, "validation")
    heldout = HeldOut(model, data, num_examples=200, tokenizer=_tokenizer(made), runtime=CPU)
    with torch.no_grad():
        evaluation = heldout.evaluate()
        losses, hits, pair_hits, same_hits = [], [], [], []
        for batch in data.evaluation_batches(200, 7):
            out = model(batch.input_ids, batch.attention_mask, batch.token_type_ids)
            logits = out.prediction_logits.flatten(0, 1)[batch.masked_positions]
            known = batch.masked_labels != -100
            losses += F.cross_entropy(logits, batch.masked_labels, reduction="none")[known].tolist()
            hits += (logits.argmax(1) == batch.masked_labels)[known].tolist()
            pairs = out.seq_relationship_logits.argmax(1) == batch.next_sentence_label
            pair_hits += pairs[batch.next_sentence_label != -100].tolist()
            same_hits += pairs[batch.same_document_negative].tolist()
    assert evaluation.losses["mlm"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert evaluation.scores["mlm_accuracy"] == pytest.approx(np.mean(hits))
    assert evaluation.scores["nsp_accuracy"] == pytest.approx(np.mean(pair_hits))
    assert same_hits, "the case has pairs from one document"
    assert evaluation.scores["nsp_accuracy_same_document"] == pytest.approx(np.mean(same_hits))
    assert sum(evaluation.details["predictions_per_class"].values()) == len(pair_hits)
    hardest = [item["loss"] for item in evaluation.details["hardest"]]
    assert hardest == pytest.approx(sorted(losses, reverse=True)[:10], rel=1e-4)
    assert all(item["text"].count("[MASK]") == 1 for item in evaluation.details["hardest"])


def test_samples_hide_whole_words_and_name_them(made: Made) -> None:
    model = _model(made).eval()
    tokenizer = _tokenizer(made)
    heldout = HeldOut(model, _data(made, "validation"), num_examples=80, tokenizer=tokenizer, runtime=CPU)
    with torch.no_grad():
        samples = heldout.evaluate().samples
    assert samples
    for sample in samples:
        assert sample["text"].count("[MASK]") == len(sample["masked"]) > 0
        words = sample["text"].replace(".", " .").split()
        for masked in sample["masked"]:
            assert words[masked["position"] - 1] == "[MASK]"
            assert tokenizer.token_id(masked["truth"]) is not None
            shares = [share for _, share in masked["predictions"]]
            assert shares == sorted(shares, reverse=True)
            assert len(shares) == 5


def test_a_recipe_without_pretraining_is_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no \[pretrain\] section"):
        run(made, tmp_path, made.recipe().model_copy(update={"pretrain": None}))


def test_steps_tell_accuracies_on_the_training_batches_however_they_are_split(made: Made, tmp_path: Path) -> None:
    calm = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    raw = {**made.raw, "model": {**made.raw["model"], "overrides": {**made.raw["model"]["overrides"], **calm}}}
    found = []
    for size in (8, 3):
        recipe = Made(raw, made.examples, made.tokenizer).recipe(max_steps=3, log_every_steps=1, micro_batch_size=size)
        run(made, tmp_path / str(size), recipe)
        found.append(events(tmp_path / str(size), "step"))
    whole, parts = ([event["accuracies"] for event in steps] for steps in found)
    assert whole[0] == parts[0], "the first step's weights are the same to the last bit"
    assert all(set(each) == {"mlm", "nsp"} and all(0 <= share <= 1 for share in each.values()) for each in whole)
    model, batch = _model(made), _data(made).batch(0, 8, 8)[0]
    assert round(whole[0]["mlm"] * batch.counts["mlm"], 6) % 1 == 0
    assert round(whole[0]["nsp"] * batch.counts["nsp"], 6) % 1 == 0
    assert found[0][0]["flops_per_token"] == pytest.approx(flops_of(model.config)(batch) / batch.num_tokens)


def test_the_start_tells_what_the_machine_can_do(made: Made, tmp_path: Path) -> None:
    run(made, tmp_path / "run", made.recipe(max_steps=1))
    peak = events(tmp_path / "run", "start")[0]["environment"]["matmul_flops_per_second"]
    assert peak == matmul_peak(CPU) > 0
