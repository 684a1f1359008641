"""Heads of one's own making for a whole text: another pooling, hidden layers, or any `nn.Module`.

    cls          tanh(W h[0] + b) of [CLS], BERT's pooler (Devlin et al. 2018)
    mean         mean of the states of all tokens (Reimers and Gurevych 2019, arXiv:1908.10084)
    max          the largest of each component over all tokens (the same)
    first-last   `mean` of the first and the last layer together (Su et al. 2021, arXiv:2103.15316)

What padding says is left out of each.
"""

from torch import Tensor, nn

from bertsmith.errors import UsageError
from bertsmith.model.config import BertConfig
from bertsmith.model.dropout import Dropout
from bertsmith.model.encoder import ACTIVATION_FUNCTIONS
from bertsmith.model.pooling import pooled
from bertsmith.model.pretrained import init_weights


class PooledHead(nn.Module):
    """pooled -> `head_layers` times (dropout, linear, `head_act`) -> dropout, linear."""

    def __init__(self, config: BertConfig):
        super().__init__()
        rate = config.classifier_dropout
        self.pooling = config.head_pooling
        self.dropout = Dropout(config.hidden_dropout_prob if rate is None else rate)
        self.activation = ACTIVATION_FUNCTIONS[config.head_act]
        self.layers = nn.ModuleList(
            nn.Linear(config.hidden_size, config.hidden_size) for _ in range(config.head_layers)
        )
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        init_weights(self, config.initializer_range)

    def forward(self, hidden: Tensor, attention_mask: Tensor | None, pooler_output: Tensor | None) -> Tensor:
        """hidden (batch, seq, hidden), mask (batch, seq) of 1 and 0, pooler's (batch, hidden) -> (batch, labels)."""
        vector = pooler_output
        if vector is None:
            vector = pooled(hidden, attention_mask, "max" if self.pooling == "max" else "mean")
        for layer in self.layers:
            vector = self.activation(layer(self.dropout(vector)))
        scores: Tensor = self.classifier(self.dropout(vector))
        return scores


def make_own_head(head: type[nn.Module], config: BertConfig) -> nn.Module:
    """`head(config)`; raises `UsageError` where that is no module, or has buffers that no checkpoint would keep."""
    made = head(config)
    if not isinstance(made, nn.Module):
        raise UsageError(f"head = {head.__name__} makes {type(made).__name__}; give a subclass of torch.nn.Module")
    weights = dict(made.named_parameters())
    if kept := [name for name in made.state_dict() if name not in weights]:
        raise UsageError(
            f"head = {head.__name__} keeps {kept[0]!r} as a buffer, which checkpoints do not hold; use layers without "
            "running statistics, such as LayerNorm, or register it with persistent=False"
        )
    return made
