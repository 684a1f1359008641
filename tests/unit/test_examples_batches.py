from pathlib import Path

import numpy as np
import pytest
import torch

from bertsmith.artifact import open_artifact
from bertsmith.errors import ArtifactError, DataError, UsageError
from bertsmith.examples.assemble import PretrainBatch
from bertsmith.examples.batches import GROUP_BATCHES, PretrainData
from bertsmith.examples.spans import open_spans
from bertsmith.tokenizer.encode import Tokenizer, make_backend
from examples_case import build_all, open_data


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_all(tmp_path_factory.mktemp("batches"))


def restored(batch: PretrainBatch) -> torch.Tensor:
    """Input ids with the hidden tokens put back."""
    ids = batch.input_ids.clone().reshape(-1)
    real = batch.masked_labels != -100
    ids[batch.masked_positions[real]] = batch.masked_labels[real]
    return ids.reshape(batch.input_ids.shape)


def test_shapes_and_special_tokens(examples: Path) -> None:
    data = open_data(examples)
    tokenizer = data.tokenizer
    for step in range(20):
        for batch in data.batch(step, 16, 8):
            shape = batch.input_ids.shape
            assert shape[0] == 8
            assert shape[1] % 8 == 0
            assert shape[1] <= 64
            for tensor in (batch.input_ids, batch.attention_mask, batch.token_type_ids):
                assert tensor.shape == shape
                assert tensor.dtype == torch.int64
            ids = restored(batch)
            assert batch.num_tokens == int(batch.attention_mask.sum())
            assert ((ids == tokenizer.pad_id) == (batch.attention_mask == 0)).all()
            assert (ids[:, 0] == tokenizer.cls_id).all()
            assert int((ids == tokenizer.mask_id).sum()) == 0
            has_pair = batch.next_sentence_label != -100
            assert ((ids == tokenizer.sep_id).sum(1) == 1 + has_pair.long()).all()
            second = (batch.token_type_ids * batch.attention_mask).sum(1)
            assert ((second > 0) == has_pair).all()
            assert batch.counts["nsp"] == int(has_pair.sum())
            assert batch.counts["mlm"] == int((batch.masked_labels != -100).sum())
            assert batch.same_document_negative.dtype == torch.bool
            for row in range(8):
                length = int(batch.attention_mask[row].sum())
                assert ids[row, length - 1] == tokenizer.sep_id
                first_end = int((ids[row] == tokenizer.sep_id).nonzero()[0, 0])
                expected = torch.zeros(shape[1], dtype=torch.int64)
                expected[first_end + 1 : length] = 1
                assert torch.equal(batch.token_type_ids[row], expected)


def test_masking_of_a_batch(examples: Path) -> None:
    data = open_data(examples)
    never = torch.from_numpy(data.tokenizer.never_drawn)
    for step in range(20):
        (batch,) = data.batch(step, 32, 32)
        real = batch.masked_labels != -100
        assert not never[batch.masked_labels[real]].any()
        assert (batch.masked_positions[~real] == 0).all()
        assert len(set(batch.masked_positions[real].tolist())) == int(real.sum())
        ids = restored(batch)
        maskable = (~never[ids] & (batch.attention_mask == 1)).sum(1)
        rows = batch.masked_positions[real] // ids.shape[1]
        wanted = np.maximum(1, np.floor(maskable.numpy() * 0.15 + 0.5))
        assert np.bincount(rows.numpy(), minlength=32).tolist() == wanted.tolist()
        changed = batch.input_ids != ids
        hidden = batch.input_ids[changed]
        assert not never[hidden[hidden != data.tokenizer.mask_id]].any()


def test_the_number_of_mask_slots_follows_from_the_shape(examples: Path) -> None:
    data = open_data(examples, pad_to=16)
    slots: dict[torch.Size, set[int]] = {}
    for step in range(40):
        (batch,) = data.batch(step, 8, 8)
        slots.setdefault(batch.input_ids.shape, set()).add(len(batch.masked_positions))
    assert len(slots) > 1
    assert all(len(found) == 1 for found in slots.values())


def test_static_shapes(examples: Path) -> None:
    data = open_data(examples, static_shapes=True)
    shapes = {
        (*batch.input_ids.shape, len(batch.masked_positions)) for step in range(20) for batch in data.batch(step, 8, 4)
    }
    assert shapes == {(4, 64, 4 * 9)}
    loose, padded = open_data(examples).batch(0, 8, 8)[0], data.batch(0, 8, 8)[0]
    width = loose.input_ids.shape[1]
    assert torch.equal(padded.input_ids[:, :width], loose.input_ids)
    assert padded.counts == loose.counts


def test_every_example_comes_once_an_epoch(examples: Path) -> None:
    data = open_data(examples)
    size = data.num_examples
    batch_size = 5
    steps = -(-3 * size // batch_size // 16) * 16  # whole windows of 16 batches
    seen = np.array([number for step in range(steps) for number in data.batch(step, batch_size, 5)[0].example_ids])
    counts = np.bincount(seen, minlength=size)
    epochs = steps * batch_size / size
    assert counts.min() >= np.floor(epochs)
    assert counts.max() <= np.ceil(epochs)


def test_a_batch_has_examples_of_like_length_and_steps_do_not_grow(examples: Path) -> None:
    data = open_data(examples)
    batches = [data.batch(step, 16, 16)[0] for step in range(16)]
    padding = 1 - sum(batch.num_tokens for batch in batches) / sum(batch.input_ids.numel() for batch in batches)
    assert padding < 0.2
    widths = [batch.num_tokens for batch in batches]
    assert widths != sorted(widths)


def test_without_pairs(examples: Path) -> None:
    data = open_data(examples, objectives=("mlm",))
    (batch,) = data.batch(0, 8, 8)
    assert batch.counts.keys() == {"mlm"}
    assert (batch.next_sentence_label == -100).all()
    assert int(batch.token_type_ids.sum()) == 0


def test_without_masks(examples: Path) -> None:
    data = open_data(examples, objectives=("nsp",))
    (batch,) = data.batch(0, 8, 8)
    assert batch.counts.keys() == {"nsp"}
    assert len(batch.masked_positions) == len(batch.masked_labels) == 0
    assert int((batch.input_ids == data.tokenizer.mask_id).sum()) == 0


def test_evaluation(examples: Path) -> None:
    data = open_data(examples, split="validation", mask_share=0.4)
    other_seed = open_data(examples, split="validation", seed=99)
    first = list(data.evaluation_batches(20, 8))
    assert [len(batch.example_ids) for batch in first] == [8, 8, 4]
    assert len({number for batch in first for number in batch.example_ids}) == 20
    for again in (data.evaluation_batches(20, 8), other_seed.evaluation_batches(20, 8)):
        for one, two in zip(first, again, strict=True):
            assert torch.equal(one.input_ids, two.input_ids)
            assert torch.equal(one.masked_positions, two.masked_positions)
            assert torch.equal(one.next_sentence_label, two.next_sentence_label)
    share = sum(batch.counts["mlm"] for batch in first) / sum(batch.num_tokens for batch in first)
    assert 0.1 < share < 0.16
    everything = list(data.evaluation_batches(10**6, 8))
    assert sum(len(batch.example_ids) for batch in everything) == data.num_examples


def test_to_a_device_keeps_all(examples: Path) -> None:
    (batch,) = open_data(examples).batch(0, 4, 4)
    moved = batch.to("meta")
    assert moved.input_ids.device.type == moved.same_document_negative.device.type == "meta"
    assert (moved.counts, moved.num_tokens, moved.example_ids) == (batch.counts, batch.num_tokens, batch.example_ids)


def test_the_text_is_that_of_the_span(examples: Path) -> None:
    data = open_data(examples, objectives=("mlm",))
    spans = open_spans(open_artifact(examples, "examples"), "train")
    (batch,) = data.batch(3, 8, 8)
    for row, number in enumerate(batch.example_ids):
        (start,), (end,) = spans.bounds(np.array([number]))
        expected = spans.read(np.array([start]), np.array([end - start]))[0].tolist()
        assert restored(batch)[row, 1 : 1 + len(expected)].tolist() == expected


def test_wrong_input(examples: Path, tmp_path: Path) -> None:
    data = open_data(examples)
    with pytest.raises(UsageError, match="batch_size 2 is less than the number of processes 4"):
        data.batch(0, 2, 2, rank=0, world_size=4)
    small = {token: number for number, token in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"))}
    other = Tokenizer(make_backend(small, lowercase=True))
    with pytest.raises(ArtifactError, match=r"vocabulary of \d+, the tokenizer given has 6"):
        PretrainData(examples, split="train", tokenizer=other, seed=1)
    no_validation = build_all(tmp_path / "none", validation_share=0.0)
    with pytest.raises(DataError, match="validation split has no examples"):
        open_data(no_validation, split="validation")


def test_some_examples_of_a_batch_are_those_examples(examples: Path) -> None:
    """Taken one by one, their masks, labels and counts are those of the batch; in any number, they are themselves."""
    data = open_data(examples, objectives=("mlm", "nsp", "agreement", "smoothness"))
    for step in range(5):
        (batch,) = data.batch(step, 16, 16)
        singles = [batch.take([row]) for row in range(16)]
        assert tuple(number for one in singles for number in one.example_ids) == batch.example_ids
        assert sum(one.num_tokens for one in singles) == batch.num_tokens
        for name, count in batch.counts.items():
            assert sum(one.counts[name] for one in singles) == count, name
        length = batch.input_ids.shape[1]
        found = [(one.masked_positions + row * length).tolist() for row, one in enumerate(singles)]
        assert [position for row in found for position in row] == batch.masked_positions[: batch.counts["mlm"]].tolist()
        some = batch.take([2, 3, 7, 11])
        assert torch.equal(restored(some), restored(batch)[[2, 3, 7, 11]])
        for name in ("attention_mask", "token_type_ids", "next_sentence_label", "same_document_negative"):
            assert torch.equal(getattr(some, name), getattr(batch, name)[[2, 3, 7, 11]])
        assert some.counts["mlm"] == len(some.masked_labels) > 0


def test_every_example_comes_once_an_epoch_while_batches_grow(examples: Path) -> None:
    data = open_data(examples)
    place = 0
    seen = []
    for size in (3, 6, 11):
        seen += [data.batch(number, size, 4, first_position=place) for number in range(GROUP_BATCHES)]
        place += GROUP_BATCHES * size
    assert [sum(len(part.example_ids) for part in parts) for parts in seen] == [3] * 16 + [6] * 16 + [11] * 16
    drawn = sorted(number for parts in seen for part in parts for number in part.example_ids)
    assert drawn == sorted(data.at(range(place)).example_ids)
    counts = np.bincount(drawn, minlength=data.num_examples)
    assert counts.max() - counts.min() <= 1
