"""The encoder, in the order of the paper: embeddings, attention, feed-forward, layer, encoder, pooler.

"BERT: Pre-training of Deep Bidirectional Transformers" (Devlin et al., 2018, arXiv:1810.04805), on top of
"Attention Is All You Need" (Vaswani et al., 2017, arXiv:1706.03762). Modules carry Hugging Face's names, so that a
state dict of theirs is one of ours.

Shapes: batch, seq (tokens of one example), hidden (`hidden_size`), heads * head = hidden, inner
(`intermediate_size`), vocab.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bertsmith.errors import UsageError
from bertsmith.model.config import BertConfig
from bertsmith.model.dropout import Dropout
from bertsmith.model.pretrained import Pretrained, init_weights
from bertsmith.model.vocabulary import resized_embedding

ACTIVATION_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,  # exact, by the error function, as the paper's code has it
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


class Embeddings(nn.Module):
    """Word + position + segment embeddings, normalised (paper, figure 2)."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: Tensor | None,  # (batch, seq)
        token_type_ids: Tensor | None,  # (batch, seq); None: all of the first segment
        position_ids: Tensor | None,  # (batch, seq) or (1, seq); None: 0, 1, 2, ...
        inputs_embeds: Tensor | None,  # (batch, seq, hidden), in place of input_ids
    ) -> Tensor:
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)
        seq = inputs_embeds.shape[1]
        if position_ids is None:
            positions = self.position_embeddings.weight[:seq]  # (seq, hidden), a view
        else:
            positions = self.position_embeddings(position_ids)
        if token_type_ids is None:
            segments = self.token_type_embeddings.weight[0]  # (hidden,)
        else:
            segments = self.token_type_embeddings(token_type_ids)
        # Summed in this order, as transformers does, so that answers agree to the last bit but one.
        hidden: Tensor = self.dropout(self.LayerNorm(inputs_embeds + segments + positions))
        return hidden  # (batch, seq, hidden)


class SelfAttention(nn.Module):
    """Multi-head attention: softmax(Q Kᵀ / sqrt(head)) V for each head (Vaswani et al., section 3.2)."""

    def __init__(self, config: BertConfig, num_heads: int):
        super().__init__()
        width = num_heads * config.head_size  # hidden, unless heads were cut out
        self.query = nn.Linear(config.hidden_size, width)
        self.key = nn.Linear(config.hidden_size, width)
        self.value = nn.Linear(config.hidden_size, width)
        self.num_heads = num_heads
        self.dropout = Dropout(config.attention_probs_dropout_prob)

    def forward(self, hidden: Tensor, bias: Tensor | None, *, want_attention: bool) -> tuple[Tensor, Tensor | None]:
        """`hidden` (batch, seq, hidden) -> (batch, seq, heads * head), and the attention (batch, heads, seq, seq) if
        wanted.

        `bias` is added to the scores and can be broadcast to (batch, heads, seq, seq): 0 where a token may look, the
        lowest number where it may not; None: it may look everywhere.
        """
        query, key, value = (self._heads(project(hidden)) for project in (self.query, self.key, self.value))
        bias = None if bias is None else bias.to(query.dtype)  # under autocast the scores are in bfloat16
        dropout_prob = self.dropout.p if self.training else 0.0
        attention: Tensor | None = None
        # PyTorch's fused attention on a CPU knows no dropout and takes a slow path for it; in bfloat16 its backward
        # pass takes two to three times as long as plain products. Elsewhere it is the faster one, and holds no scores.
        # One product for query, key and value together gained nothing.
        is_slow = dropout_prob > 0.0 or (self.training and query.dtype == torch.bfloat16)
        if want_attention or (is_slow and hidden.device.type == "cpu"):
            scores = torch.matmul(query, key.transpose(-1, -2)) * query.shape[-1] ** -0.5  # (batch, heads, seq, seq)
            attention = torch.softmax(scores if bias is None else scores + bias, dim=-1)
            attention = self.dropout(attention)
            context = torch.matmul(attention, value)  # (batch, heads, seq, head)
        else:
            context = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout_prob)
        # (batch, heads, seq, head) -> (batch, seq, heads * head)
        return context.transpose(1, 2).flatten(2), attention if want_attention else None

    def _heads(self, hidden: Tensor) -> Tensor:
        return hidden.view(*hidden.shape[:2], self.num_heads, -1).transpose(1, 2)  # (batch, heads, seq, head)


class AddAndNorm(nn.Module):
    """The end of both halves of a layer: LayerNorm(residual + dropout(dense(x)))."""

    def __init__(self, config: BertConfig, in_features: int):
        super().__init__()
        self.dense = nn.Linear(in_features, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """`x` (batch, seq, in_features), `residual` (batch, seq, hidden) -> (batch, seq, hidden)."""
        normed: Tensor = self.LayerNorm(self.dropout(self.dense(x)) + residual)
        return normed


class Attention(nn.Module):
    """First half of a layer: every token gathers from the others."""

    def __init__(self, config: BertConfig, num_heads: int):
        super().__init__()
        self.self = SelfAttention(config, num_heads)
        self.output = AddAndNorm(config, num_heads * config.head_size)

    def forward(self, hidden: Tensor, bias: Tensor | None, *, want_attention: bool) -> tuple[Tensor, Tensor | None]:
        context, attention = self.self(hidden, bias, want_attention=want_attention)
        return self.output(context, hidden), attention


class Intermediate(nn.Module):
    """Second half of a layer, its wide part: activation(dense(x)), hidden -> inner."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACTIVATION_FUNCTIONS[config.hidden_act]

    def forward(self, hidden: Tensor) -> Tensor:
        return self.activation(self.dense(hidden))  # (batch, seq, inner)


class Layer(nn.Module):
    """One transformer block: attention, then feed-forward, each added to its input and normalised."""

    def __init__(self, config: BertConfig, num_heads: int):
        super().__init__()
        self.attention = Attention(config, num_heads)
        self.intermediate = Intermediate(config)
        self.output = AddAndNorm(config, config.intermediate_size)

    def forward(self, hidden: Tensor, bias: Tensor | None, *, want_attention: bool) -> tuple[Tensor, Tensor | None]:
        hidden, attention = self.attention(hidden, bias, want_attention=want_attention)
        return self.output(self.intermediate(hidden), hidden), attention


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.layer = nn.ModuleList(Layer(config, num_heads) for num_heads in config.heads)
        self.recomputes = False
        """Keep only each layer's input in training and compute the layer again in the backward pass (Chen et al. 2016,
        arXiv:1604.06174), with the same dropout: the same gradients bit for bit, for less memory and a third more time.
        """

    def forward(
        self, hidden: Tensor, bias: Tensor | None, *, want_hidden_states: bool, want_attentions: bool
    ) -> tuple[Tensor, tuple[Tensor, ...] | None, tuple[Tensor, ...] | None]:
        """Last hidden state; if wanted, all of them (embeddings first) and the attention of each layer."""
        hidden_states, attentions = [hidden], []
        for layer in self.layer:
            if self.recomputes and torch.is_grad_enabled():
                hidden, attention = checkpoint(
                    layer, hidden, bias, want_attention=want_attentions, use_reentrant=False, preserve_rng_state=True
                )
            else:
                hidden, attention = layer(hidden, bias, want_attention=want_attentions)
            hidden_states.append(hidden)
            attentions.append(attention)
        return (
            hidden,
            tuple(hidden_states) if want_hidden_states else None,
            tuple(attentions) if want_attentions else None,
        )


class Pooler(nn.Module):
    """The example as one vector: tanh(dense(the first token, [CLS])) (paper, section 3.1)."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.tanh(self.dense(hidden[:, 0]))  # (batch, hidden)


@dataclass(frozen=True)
class EncoderOutputs:
    """What `BertModel` gives."""

    last_hidden_state: Tensor
    """(batch, seq, hidden)"""
    pooler_output: Tensor | None
    """(batch, hidden); None for a model without a pooler"""
    hidden_states: tuple[Tensor, ...] | None
    """Embeddings and each layer's output, (batch, seq, hidden) each, if asked for"""
    attentions: tuple[Tensor, ...] | None
    """Each layer's attention, (batch, heads, seq, seq), if asked for"""


class BertModel(Pretrained):
    """Embeddings, encoder and pooler; what all heads stand on.

    >>> model = BertModel(preset("tiny"))
    >>> model(torch.tensor([[101, 7592, 102]])).last_hidden_state.shape
    torch.Size([1, 3, 128])
    """

    def __init__(self, config: BertConfig, *, add_pooling_layer: bool = True):
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config) if add_pooling_layer else None
        init_weights(self, config.initializer_range)

    def resize_token_embeddings(self, vocab_size: int) -> None:
        old = self.embeddings.word_embeddings
        self.embeddings.word_embeddings = resized_embedding(old, vocab_size, std=self.config.initializer_range)
        self.config = self.config.replace(vocab_size=vocab_size)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> EncoderOutputs:
        """Read a batch of token sequences.

        Args:
            input_ids: (batch, seq) token ids; or give `inputs_embeds`, (batch, seq, hidden), in their place.
            attention_mask: (batch, seq), 1 for a token, 0 for padding; None, where nothing is padding, costs nothing.
            token_type_ids: (batch, seq), 0 for the first segment, 1 for the second; None: all 0.
            position_ids: (batch, seq); None: 0, 1, 2, ...
            output_hidden_states, output_attentions: None: as the config says.

        Raises `UsageError` for both or neither input, a mask of another shape, or more tokens than positions.
        """
        config = self.config
        given = input_ids if inputs_embeds is None else inputs_embeds
        if given is None or (input_ids is not None and inputs_embeds is not None):
            raise UsageError("give either input_ids or inputs_embeds")
        if given.shape[1] > config.max_position_embeddings:
            raise UsageError(
                f"{given.shape[1]} tokens are more than this model's {config.max_position_embeddings} positions; "
                "cut the text, or use a smaller max_length"
            )
        hidden = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds)
        bias = attention_bias(attention_mask, causal=config.is_decoder, like=hidden)
        hidden, hidden_states, attentions = self.encoder(
            hidden,
            bias,
            want_hidden_states=config.output_hidden_states if output_hidden_states is None else output_hidden_states,
            want_attentions=config.output_attentions if output_attentions is None else output_attentions,
        )
        return EncoderOutputs(
            last_hidden_state=hidden,
            pooler_output=None if self.pooler is None else self.pooler(hidden),
            hidden_states=hidden_states,
            attentions=attentions,
        )


def encoder_of(model: nn.Module) -> Encoder:
    """The stack of layers inside any of the classes."""
    return next(module for module in model.modules() if isinstance(module, Encoder))


def attention_bias(attention_mask: Tensor | None, *, causal: bool, like: Tensor) -> Tensor | None:
    """What to add to attention scores so that nobody looks at padding, nor, if causal, ahead.

    `attention_mask` (batch, seq): 1 for a token, 0 for padding; None: no padding, which costs nothing. `like`
    (batch, seq, hidden) gives dtype and device. The result can be broadcast to (batch, heads, seq, seq).
    """
    batch, seq, _ = like.shape
    if attention_mask is not None and attention_mask.shape != (batch, seq):
        given, wanted = tuple(attention_mask.shape), (batch, seq)
        raise UsageError(f"attention_mask has shape {given}; it must be (batch, seq) = {wanted}")
    if attention_mask is None and not causal:
        return None
    unseen = None if attention_mask is None else attention_mask[:, None, None, :] == 0  # (batch, 1, 1, seq)
    if causal:
        ahead = torch.ones(seq, seq, dtype=torch.bool, device=like.device).triu(1)  # (seq, seq)
        unseen = ahead if unseen is None else ahead | unseen
    assert unseen is not None, "either there is a mask or attention is causal"
    # Finite, so that a row of padding alone gets a harmless answer and not NaN; and finite in bfloat16 too.
    lowest = max(torch.finfo(like.dtype).min, torch.finfo(torch.bfloat16).min)
    return torch.zeros_like(unseen, dtype=like.dtype).masked_fill(unseen, lowest)
