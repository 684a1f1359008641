"""The network, as the paper tells it: config, encoder, heads, and Hugging Face directories in and out."""

from bertsmith.model.config import BertConfig
from bertsmith.model.encoder import BertModel, EncoderOutputs
from bertsmith.model.heads import (
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    HeadOutputs,
    QuestionAnsweringOutputs,
)
from bertsmith.model.language import (
    BertForMaskedLM,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertLMHeadModel,
    PreTrainingOutputs,
)
from bertsmith.model.presets import preset
from bertsmith.model.vocabulary import check_tokenizer_fits
from bertsmith.model.weights import LoadReport, read_card, read_config, resolve_model_dir, write_card

__all__ = [
    "BertConfig",
    "BertForMaskedLM",
    "BertForMultipleChoice",
    "BertForNextSentencePrediction",
    "BertForPreTraining",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertLMHeadModel",
    "BertModel",
    "EncoderOutputs",
    "HeadOutputs",
    "LoadReport",
    "PreTrainingOutputs",
    "QuestionAnsweringOutputs",
    "check_tokenizer_fits",
    "preset",
    "read_card",
    "read_config",
    "resolve_model_dir",
    "write_card",
]
