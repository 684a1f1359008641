"""How much arithmetic a network costs, by one formula."""

from bertsmith.model.config import BertConfig

FORMULA = "2 x [ L (4 h^2 + 2 h i + 2 n h) + m (h^2 + h V) + p (h^2 + 2 h) / n ], times 3 with the backward pass"
"""FLOPs per token, as `forward_flops` counts them: m masked tokens per token, p 1 with a pooler and 0 without; with as
many heads in each layer as `num_attention_heads` says."""


def forward_flops(
    config: BertConfig, *, tokens: float, length: float, masks: float = 0.0, pooled: float = 0.0
) -> float:
    """FLOPs of a forward pass: twice the multiply-adds of every matrix product, and nothing else.

        a token in a layer    4 h a     query, key, value and the product after them
                              2 h i     feed-forward, there and back
                              2 n a     scores with the n tokens of its example, and the sum of their values
        a masked token        h^2 + h V
        an example's [CLS]    h^2 + 2 h

    with h = hidden size, a = the width of the layer's heads together (h, unless some were cut out), i = intermediate
    size, V = vocabulary. Embeddings are looked up, not multiplied; LayerNorm,
    softmax and activations are left out, as is usual (Chowdhery et al. 2022, arXiv:2204.02311, appendix B).

    Args:
        tokens: without padding, which is no work that anyone wants done.
        length: tokens of an example, the mean of a batch.
        masks: tokens for which a word is predicted.
        pooled: examples whose [CLS] is read, by a pair or a label.
    """
    h, i, vocab = config.hidden_size, config.intermediate_size, config.vocab_size
    widths = [heads * config.head_size for heads in config.heads]
    in_layers = tokens * sum(4 * h * a + 2 * h * i + 2 * length * a for a in widths)
    return 2.0 * (in_layers + masks * (h**2 + h * vocab) + pooled * (h**2 + 2 * h))


def train_flops(config: BertConfig, *, tokens: float, length: float, masks: float = 0.0, pooled: float = 0.0) -> float:
    """The same with the backward pass, in which each product has two: by its input, and by its weight."""
    return 3.0 * forward_flops(config, tokens=tokens, length=length, masks=masks, pooled=pooled)
