"""The real clients of other servers, and a fuzzer of the schema, against ours."""

from collections.abc import Iterator

import numpy as np
import pytest
import schemathesis
from huggingface_hub import InferenceClient
from hypothesis import HealthCheck, given, settings
from openai import NotFoundError, OpenAI

from bertsmith.tasks.predict import Predictor
from serve_case import running

schemathesis.checks.load_all_checks()
CHECKS = schemathesis.checks.CHECKS.get_by_names(
    ["not_a_server_error", "status_code_conformance", "response_schema_conformance", "content_type_conformance"]
)
TEXTS = ["the day was lovely", "so awful"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("models")
    with running(folder) as (address, _):
        vectors = np.stack([one.vector for one in Predictor.load(folder / "embed").predict(TEXTS)])
        yield address, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_openai(server: tuple[str, np.ndarray]) -> None:
    """It asks for base64 by itself, and for floats when told so."""
    address, wanted = server
    client = OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    for more in ({}, {"encoding_format": "float"}):
        found = client.embeddings.create(model="embed", input=TEXTS, **more)  # type: ignore[arg-type]
        np.testing.assert_allclose([one.embedding for one in found.data], wanted, atol=1e-5)
    assert found.usage.prompt_tokens > 4
    assert "embed" in [one.id for one in client.models.list()]
    with pytest.raises(NotFoundError, match="no model of that name is served"):
        client.embeddings.create(model="nobody", input=TEXTS)


def test_huggingface_hub(server: tuple[str, np.ndarray]) -> None:
    address, wanted = server
    found = InferenceClient(model=f"{address}/embed").feature_extraction(TEXTS[0])
    np.testing.assert_allclose(np.asarray(found).reshape(-1), wanted[0], atol=1e-5)
    (best, other) = InferenceClient(model=f"{address}/predict").text_classification(TEXTS[0])
    assert best.score >= other.score
    assert {best.label, other.label} == {"bad", "good"}


def test_a_fuzzer_of_the_schema_finds_nothing(server: tuple[str, np.ndarray]) -> None:
    """Every answer has a status and a shape that the schema names, and none is a server's error."""
    schema = schemathesis.openapi.from_url(f"{server[0]}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) > 12
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(max_examples=10, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        def ask(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKS)

        ask()
