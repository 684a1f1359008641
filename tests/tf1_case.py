"""A tiny BERT in the form in which Google's TensorFlow 1 code writes it.

The files in tests/fixtures/tf1 were written by TensorFlow 2.21 itself. To write them anew, where it is installed:

    python tests/tf1_case.py
"""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

FIXTURE = Path(__file__).parent / "fixtures" / "tf1"
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "day", "was", "love", "##ly", "mean", ".", "it", "is")
HIDDEN, LAYERS, HEADS, INNER, POSITIONS = 8, 2, 2, 12, 10
CONFIG = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": HIDDEN,
    "initializer_range": 0.02,
    "intermediate_size": INNER,
    "max_position_embeddings": POSITIONS,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "type_vocab_size": 2,
    "vocab_size": len(WORDS),
}


def shapes() -> dict[str, tuple[int, ...]]:
    """Variable -> shape, as modeling.py and run_pretraining.py of google-research/bert name them."""
    found: dict[str, tuple[int, ...]] = {
        "bert/embeddings/word_embeddings": (len(WORDS), HIDDEN),
        "bert/embeddings/position_embeddings": (POSITIONS, HIDDEN),
        "bert/embeddings/token_type_embeddings": (2, HIDDEN),
        "bert/pooler/dense/kernel": (HIDDEN, HIDDEN),
        "bert/pooler/dense/bias": (HIDDEN,),
        "cls/predictions/transform/dense/kernel": (HIDDEN, HIDDEN),
        "cls/predictions/transform/dense/bias": (HIDDEN,),
        "cls/predictions/output_bias": (len(WORDS),),
        "cls/seq_relationship/output_weights": (2, HIDDEN),
        "cls/seq_relationship/output_bias": (2,),
    }
    norms = ["bert/embeddings", "cls/predictions/transform"]
    for number in range(LAYERS):
        layer = f"bert/encoder/layer_{number}"
        denses = {f"attention/self/{name}": (HIDDEN, HIDDEN) for name in ("query", "key", "value")}
        denses |= {"attention/output/dense": (HIDDEN, HIDDEN)}
        denses |= {"intermediate/dense": (HIDDEN, INNER), "output/dense": (INNER, HIDDEN)}
        for name, shape in denses.items():
            found |= {f"{layer}/{name}/kernel": shape, f"{layer}/{name}/bias": shape[1:]}
        norms += [f"{layer}/attention/output", f"{layer}/output"]
    return found | {f"{norm}/LayerNorm/{name}": (HIDDEN,) for norm in norms for name in ("gamma", "beta")}


def weights() -> dict[str, npt.NDArray[np.float32]]:
    """The same numbers everywhere, by whole-number arithmetic."""
    found = {}
    for number, (name, shape) in enumerate(sorted(shapes().items())):
        count = int(np.prod(shape))
        mixed = (np.arange(count, dtype=np.uint64) + np.uint64(1000 * number + 7)) * np.uint64(2654435761)
        values = ((mixed >> np.uint64(8)) % np.uint64(2001)).astype(np.float32) / np.float32(2000) - np.float32(0.5)
        found[name] = (values + np.float32(name.endswith("gamma"))).reshape(shape)
    return found


def write_around(folder: Path) -> None:
    """What lies beside a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bert_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")


def write_with_tensorflow(folder: Path) -> None:
    """Weights, a step and what Adam keeps of two of them."""
    import tensorflow

    tf = tensorflow.compat.v1
    write_around(folder)
    with tf.Graph().as_default():
        values: dict[str, object] = dict(weights())
        for name in ("bert/pooler/dense/bias", "cls/predictions/output_bias"):
            values |= {f"{name}/adam_m": weights()[name] * 0, f"{name}/adam_v": weights()[name] * 0}
        for name, value in values.items():
            tf.get_variable(name, initializer=tf.constant(value), use_resource=False)
        tf.get_variable("global_step", initializer=tf.constant(20, tf.int64), use_resource=False)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            tf.train.Saver().save(session, str(folder / "bert_model.ckpt"), write_meta_graph=False)
    (folder / "checkpoint").unlink()  # names a folder of the machine


if __name__ == "__main__":
    write_with_tensorflow(FIXTURE)
