"""The model card: README.md with the front matter of the hub, from what a run's files say and nothing else.

What is not known says so. Mitchell et al. 2019 (arXiv:1810.03993) tell what such a card is for.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from bertsmith.export.card_sections import (
    MOST_LABELS,
    bullets,
    data_told,
    hardware_told,
    is_hub_name,
    limits_told,
    own_scores,
    said,
    scores_told,
    training_told,
)
from bertsmith.export.facts import Facts, read_facts
from bertsmith.model.weights import resolve_model_dir

README = "README.md"
_PIPELINES = {
    **dict.fromkeys(("classify", "multilabel", "regress", "next-sentence"), "text-classification"),
    "tag": "token-classification",
    "answer": "question-answering",
    "choose": "multiple-choice",
    "embed": "sentence-similarity",
    "masked-word": "fill-mask",
    "language-model": "text-generation",
}
_DOES = {
    "classify": "gives a text one label",
    "multilabel": "gives a text any number of labels",
    "regress": "gives a text a number",
    "choose": "chooses one of several texts",
    "tag": "gives each word of a text a label",
    "answer": "marks the answer to a question in a text",
    "embed": "gives a text a vector, near those of texts that belong with it",
    "next-sentence": "says whether one text follows another",
    "masked-word": "finds hidden words",
    "language-model": "says how likely a text is, from left to right",
}
_BY_PIPELINE = ("classify", "multilabel", "regress", "tag", "masked-word")
_ONE = '"...", truncation=True'
_GIVEN = {
    "answer": '"QUESTION", "TEXT", truncation="only_second"',
    "next-sentence": '"TEXT", "WHAT MAY FOLLOW"',
    "choose": '["TEXT"] * 2, ["ONE", "OTHER"], padding=True',
}
"""What a tokenizer is given."""
_CHOICES = "{name: ids[None] for name, ids in tokens.items()}"
_CLASSES = {
    "BertForSequenceClassification": "AutoModelForSequenceClassification",
    "BertForTokenClassification": "AutoModelForTokenClassification",
    "BertForQuestionAnswering": "AutoModelForQuestionAnswering",
    "BertForMultipleChoice": "AutoModelForMultipleChoice",
    "BertForMaskedLM": "AutoModelForMaskedLM",
    "BertLMHeadModel": "AutoModelForCausalLM",
    "BertForNextSentencePrediction": "AutoModelForNextSentencePrediction",
    "BertForPreTraining": "AutoModelForPreTraining",
    "BertModel": "AutoModel",
}


def model_card(
    model: str | Path,
    *,
    name: str | None = None,
    layout: str = "hf",
    languages: Sequence[str] = (),
    licence: str | None = None,
) -> str:
    """The text of a model's README.md.

    Args:
        model: a run, a model directory or a hub name.
        name: what it is called; by default the run's name, else the directory's.
        layout: "hf" or "sentence-transformers": what the card says of its use.
        languages: ISO codes, which no file of a run has.
        licence: the hub's identifier of a licence, such as apache-2.0.
    """
    return card_of(read_facts(resolve_model_dir(model)), name=name, layout=layout, languages=languages, licence=licence)


def card_of(
    facts: Facts,
    *,
    name: str | None = None,
    layout: str = "hf",
    languages: Sequence[str] = (),
    licence: str | None = None,
) -> str:
    """As `model_card`."""
    title = name or str(facts.recipe.get("name") or "") or facts.directory.resolve().name
    parts = [
        f"---\n{_front_matter(facts, title, layout, languages, licence)}\n---",
        f"# {said(title)}",
        _what_it_is(facts),
        "## How to use it\n\n" + _use(facts, name or "THIS-DIRECTORY", layout),
        "## Scores\n\n" + scores_told(facts),
        "## Data\n\n" + bullets(data_told(facts)),
        "## Training\n\n" + bullets(training_told(facts)),
        "## Hardware and time\n\n" + bullets(hardware_told(facts)),
        "## Limits\n\n" + bullets(limits_told(facts, languages, licence)),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: Facts, title: str, layout: str, languages: Sequence[str], licence: str | None) -> str:
    from huggingface_hub import EvalResult, ModelCardData  # slow to import

    pipeline = _pipeline(facts)
    rows = own_scores(facts)
    results = [
        EvalResult(
            task_type=pipeline,
            dataset_type=re.sub(r"[^\w.-]+", "-", row.split) or "rows",
            dataset_name=row.split,
            dataset_split=row.split,
            metric_type=row.metric,
            metric_name=f"{row.metric} (95 % interval {row.low:.4f} to {row.high:.4f}, {row.rows:,} rows)",
            metric_value=round(row.score, 6),
            metric_args={"low": round(row.low, 6), "high": round(row.high, 6), "rows": row.rows},
        )
        for row in rows
    ]
    base = str(facts.section.get("model") or "")
    data = ModelCardData(
        language=list(languages) or None,
        license=licence,
        library_name="sentence-transformers" if layout == "sentence-transformers" else "transformers",
        pipeline_tag=pipeline,
        tags=["bert", "bertsmith", *([facts.task] if facts.task else [])],
        base_model=base if is_hub_name(base) else None,
        metrics=list(dict.fromkeys(row.metric for row in rows)) or None,
        eval_results=results or None,
        model_name=title if results else None,
    )
    return str(data.to_yaml())


def _pipeline(facts: Facts) -> str:
    if facts.task is None:
        return "feature-extraction" if facts.architecture == "BertModel" else "fill-mask"
    return _PIPELINES.get(facts.task, "feature-extraction")


def _what_it_is(facts: Facts) -> str:
    config = facts.config
    does = _DOES.get(facts.task or "", "was pre-trained, and is to be fine-tuned")
    lines = [
        f"A BERT that {does}: {config.num_hidden_layers} layers, hidden size {config.hidden_size}, "
        f"{config.num_attention_heads} heads, vocabulary {config.vocab_size:,}, up to "
        f"{config.max_position_embeddings} tokens. Made with bertsmith."
    ]
    if facts.task in ("classify", "multilabel", "tag"):
        labels = [said(label) for label in config.labels]
        more = f" and {len(labels) - MOST_LABELS:,} more" if len(labels) > MOST_LABELS else ""
        lines.append(f"Labels: {', '.join(labels[:MOST_LABELS])}{more}.")
    if facts.recipe.get("description"):
        lines.append(said(facts.recipe["description"]))
    return "\n\n".join(lines)


def _use(facts: Facts, where: str, layout: str) -> str:
    """Python that runs as it is, where `where` is the model."""
    if layout == "sentence-transformers":
        lines = [
            "from sentence_transformers import SentenceTransformer",
            f'model = SentenceTransformer("{where}")',
            'vectors = model.encode(["..."])',
        ]
    elif facts.task in _BY_PIPELINE:
        given = '{"text": "...", "text_pair": "..."}' if facts.card.get("pairs") else '"..."'
        lines = [
            "from transformers import pipeline",
            f'ask = pipeline("{_pipeline(facts)}", "{where}")',
            'ask("... [MASK] ...")' if facts.task == "masked-word" else f"ask({given})",
        ]
    else:
        name = _CLASSES.get(facts.architecture, "AutoModel")
        lines = [
            f"from transformers import AutoTokenizer, {name}",
            f'tokenizer, model = AutoTokenizer.from_pretrained("{where}"), {name}.from_pretrained("{where}")',
            f'tokens = tokenizer({_GIVEN.get(facts.task or "", _ONE)}, return_tensors="pt")',
            f"outputs = model(**{_CHOICES if facts.task == 'choose' else 'tokens'})",
        ]
    return "```python\n" + "\n".join(lines) + "\n```"
