"""Every endpoint answers as the model does offline; what it cannot answer gets a status and a sentence, at once."""

import asyncio
import io
import json
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bertsmith.serve import batching
from bertsmith.serve.app import Service
from bertsmith.serve.batching import Sized
from bertsmith.serve.log import Log
from bertsmith.serve.models import named_sources
from bertsmith.tasks.predict import Predictor
from serve_case import service_of, write_models

TEXTS = ["the day was lovely", "so awful and very mean today it is", "kind"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def service(sources: dict[str, str]) -> Service:
    return service_of(sources)


def client_of(service: Service) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(service.gate), base_url="http://localhost")


def asked(service: Service, path: str, body: Any = None, **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with client_of(service) as client:
            if body is None:
                return await client.get(path, headers=headers)
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            return await client.post(path, content=content, headers={"content-type": "application/json"} | headers)

    return asyncio.run(ask())


def answers(service: Service, head: str, inputs: Any, **more: Any) -> list[Any]:
    response = asked(service, f"/v1/{head}", {"inputs": inputs, **more})
    assert response.status_code == 200, response.text
    found: list[Any] = response.json()["answers"]
    return found


def test_labels_are_those_of_the_predictor(service: Service, sources: dict[str, str]) -> None:
    found = answers(service, "classify", TEXTS, model="classify")
    for one, offline in zip(found, Predictor.load(sources["classify"]).predict(TEXTS), strict=True):
        assert one["label"] == offline.label
        assert one["probabilities"] == pytest.approx(offline.probabilities, abs=1e-5)
    many = answers(service, "classify", TEXTS, model="multilabel")
    assert set(many[0]["probabilities"]) == {"kind", "loud", "new"}


def test_every_other_head_answers(service: Service) -> None:
    pair = {"text": TEXTS[0], "pair": TEXTS[1]}
    assert isinstance(answers(service, "regress", [pair])[0]["value"], float)
    (choice,) = answers(service, "choose", [{"text": TEXTS[0], "choices": ["kind", "mean", "so"]}])
    assert choice["choice"] == ["kind", "mean", "so"][choice["number"]]
    assert sum(choice["probabilities"]) == pytest.approx(1, abs=1e-4)
    text = "tom was in paris ."
    (tags,) = answers(service, "tag", [text])
    assert tags["words"] == text.split()
    assert all(text[one["start"] : one["end"]] == one["text"] for one in tags["entities"])
    (span,) = answers(service, "answer", [{"question": "is it kind", "text": TEXTS[0]}])
    assert TEXTS[0][span["start"] : span["end"]] == span["text"]
    assert 0 <= answers(service, "next-sentence", [pair])[0]["probability"] <= 1
    for model in ("fill", "pretrained"):
        (filled,) = answers(service, "fill-mask", ["the day was [MASK]"], model=model)
        assert filled["text"].startswith("the day was")
        assert len(filled["blanks"]) == 1


def test_vectors_and_what_is_made_of_them(service: Service, sources: dict[str, str]) -> None:
    wanted = np.stack([one.vector for one in Predictor.load(sources["embed"]).predict(TEXTS)])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    found = asked(service, "/v1/embed", {"inputs": TEXTS}).json()["vectors"]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(asked(service, "/embed", {"inputs": TEXTS}).json(), wanted, atol=1e-5)
    pairs = [{"text": TEXTS[0], "pair": TEXTS[1]}]
    (cosine,) = asked(service, "/v1/similarity", {"inputs": pairs}).json()["similarities"]
    assert cosine == pytest.approx(float(wanted[0] @ wanted[1]), abs=1e-4)
    body = {"query": TEXTS[0], "texts": TEXTS, "model": "embed"}
    ranking = asked(service, "/v1/rerank", body | {"top": 2}).json()["ranking"]
    assert ranking[0]["index"] == 0
    assert len(ranking) == 2
    assert asked(service, "/rerank", {"query": TEXTS[0], "texts": TEXTS}).status_code == 200  # by one that can
    assert asked(service, "/v1/rerank", body | {"model": "classify"}).status_code == 422
    assert [one["score"] for one in ranking] == sorted((one["score"] for one in ranking), reverse=True)


def test_predict_as_text_embeddings_inference_has_it(service: Service) -> None:
    (one, other) = asked(service, "/predict", {"inputs": TEXTS[0]}).json()
    assert one["score"] >= other["score"]
    assert asked(service, "/predict", {"inputs": [[TEXTS[0]], [TEXTS[1]]]}).json()[0] == [one, other]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/classify", b'{"inputs": ["a"', 400, "the body is not JSON: unexpected"),
        ("/v1/classify", b'{"inputs": [NaN]}', 400, "the body is not JSON"),
        ("/v1/classify", b"[" * 200_000, 400, "the body is not JSON"),
        ("/v1/classify", {"inputs": "a"}, 422, "inputs: Input should be a valid list"),
        ("/v1/classify", {"inputs": []}, 422, "inputs: List should have at least 1 item"),
        ("/v1/classify", {"inputs": ["  "]}, 422, "inputs.0"),
        ("/v1/classify", {"inputs": [5]}, 422, "inputs.0"),
        ("/v1/classify", {"inputs": ["a"], "modle": "x"}, 422, "modle: Extra inputs are not permitted"),
        ("/v1/classify", {"inputs": ["a"] * 513}, 422, "at most 512"),
        ("/v1/classify", {"inputs": ["a"], "model": "nobody"}, 404, "no model of that name is served; served: pre"),
        ("/v1/classify", {"inputs": ["a"], "model": "embed"}, 422, "'embed' is a model of task embed; needed: class"),
        ("/v1/regress", {"inputs": ["a"]}, 422, "'rate' reads pairs; give an object with text and pair"),
        ("/v1/fill-mask", {"inputs": ["a"], "model": "pretrained"}, 422, r"inputs\[0\] has no \[MASK\]"),
        ("/v1/embeddings", {"input": "a", "model": "embed", "dimensions": 7}, 422, "dimensions = 7, but 'embed' gives"),
        ("/nowhere", {}, 404, "no such endpoint; GET /docs lists them"),
        ("/health", {}, 405, "takes another method"),
    ],
)  # fmt: skip
def test_wrong_requests_get_a_sentence(service: Service, path: str, body: Any, status: int, said: str) -> None:
    response = asked(service, path, body)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["request_id"] == response.headers["x-request-id"]
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(error["message"])
    assert "/" not in error["message"].replace("GET /docs", "").replace("application/json", "")


def test_too_much_is_refused_before_it_is_read(service: Service) -> None:
    assert asked(service, "/embed", b'{"inputs": "' + b"a" * 10_000_000 + b'"}').status_code == 413
    assert asked(service, "/v1/embed", {"inputs": ["so kind " * 8] * 3}).status_code == 200
    response = asked(service, "/embed", b"inputs=a", **{"content-type": "text/plain"})
    assert response.status_code == 415


def test_a_name_that_is_not_this_machine_gets_nothing(service: Service) -> None:
    assert asked(service, "/v1/models", host="evil.example").status_code == 421


def test_keys(sources: dict[str, str]) -> None:
    service = service_of({"embed": sources["embed"]}, keys=["secret", "other"])
    assert asked(service, "/health").status_code == 200
    for given in ("", "Bearer", "Bearer wrong", "Basic secret", "secret"):
        response = asked(service, "/embed", {"inputs": "a"}, authorization=given)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
    assert asked(service, "/embed", {"inputs": "kind"}, authorization="Bearer other").status_code == 200
    service.shelf.close()


def blocked(service: Service, name: str, gate: threading.Event) -> list[int]:
    """The model of that name waits for `gate` before each batch; the sizes of its batches."""
    batcher, sizes = service.shelf.served[name].batcher, []
    answer = batcher.answer

    def slow(rows: list[Any]) -> Any:
        sizes.append(len(rows))
        gate.wait(20)
        return answer(rows)

    batcher.answer = slow
    return sizes


def together(*some: Coroutine[Any, Any, Any]) -> list[Any]:
    async def run() -> list[Any]:
        return list(await asyncio.gather(*some))

    return asyncio.run(run())


def test_past_the_queue_it_says_when_to_ask_again(sources: dict[str, str]) -> None:
    service, gate = service_of({"embed": sources["embed"]}, queue_requests=3), threading.Event()
    sizes = blocked(service, "embed", gate)

    async def run() -> list[httpx.Response]:
        async with client_of(service) as client:
            some = [asyncio.ensure_future(client.post("/embed", json={"inputs": "kind"})) for _ in range(3)]
            await asyncio.sleep(0.2)
            refused = await client.post("/embed", json={"inputs": "kind"})
            gate.set()
            return [refused, *await asyncio.gather(*some)]

    refused, *answered = asyncio.run(run())
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert [one.status_code for one in answered] == [200] * 3
    assert sum(sizes) == 3
    service.shelf.close()


def test_what_nobody_waits_for_is_not_computed(sources: dict[str, str]) -> None:
    service, gate = service_of({"embed": sources["embed"]}), threading.Event()
    sizes = blocked(service, "embed", gate)

    async def run() -> None:
        async with client_of(service) as client:
            first = asyncio.ensure_future(client.post("/embed", json={"inputs": "kind"}))
            await asyncio.sleep(0.2)
            late = await client.post("/embed", json={"inputs": "mean"}, headers={"x-deadline-seconds": "0.1"})
            assert late.status_code == 504
            gone = asyncio.ensure_future(client.post("/embed", json={"inputs": "so"}))
            await asyncio.sleep(0.1)
            gone.cancel()
            await asyncio.sleep(0.1)
            gate.set()
            assert (await first).status_code == 200
            assert (await client.post("/embed", json={"inputs": "tom"})).status_code == 200

    asyncio.run(run())
    assert sizes == [1, 1]
    service.shelf.close()


def test_requests_of_like_length_are_computed_together(service: Service) -> None:
    batcher = service.shelf.served["embed"].batcher
    seen: list[int] = []
    answer, batcher.answer = batcher.answer, lambda rows: (seen.append(len(rows)), answer(rows))[1]
    try:
        model = service.shelf.served["embed"].model

        async def one(text: str) -> Any:
            asked = model.read([text])
            return (await batcher.submit(asked.rows))[0].vector

        found = together(*(one(text) for text in ["kind"] * 20))
        assert max(seen) > 1
        np.testing.assert_allclose(np.stack(found), np.stack([found[0]] * 20), atol=1e-6)
    finally:
        batcher.answer = answer


def test_one_request_s_fault_is_no_other_s(sources: dict[str, str]) -> None:
    service = service_of({"embed": sources["embed"]})
    batcher = service.shelf.served["embed"].batcher
    answer = batcher.answer

    def picky(rows: list[Any]) -> Any:
        if any(row == "bad" for row in rows):
            raise ValueError("this row")
        return answer(rows)

    batcher.answer = picky
    (good,) = service.shelf.served["embed"].model.read(["kind"]).rows

    async def run() -> list[Any]:
        some = [batcher.submit([good]), batcher.submit([Sized("bad", 3)]), batcher.submit([good])]
        return list(await asyncio.gather(*some, return_exceptions=True))

    first, second, third = asyncio.run(run())
    assert isinstance(second, ValueError)
    np.testing.assert_allclose(first[0].vector, third[0].vector, atol=1e-6)
    service.shelf.close()


def test_a_defect_in_the_queue_is_told_and_ends_nothing(
    sources: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = service_of({"embed": sources["embed"]})
    with monkeypatch.context() as broken:
        broken.setattr(batching, "choose", lambda *_: 1 / 0)
        response = asked(service, "/embed", {"inputs": "kind"})
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "the server failed to answer; its log says where"
    assert asked(service, "/embed", {"inputs": "kind"}).status_code == 200
    service.shelf.close()


def test_a_bad_new_model_leaves_the_old_one(tmp_path: Path) -> None:
    sources = {"embed": write_models(tmp_path)["embed"]}
    service = service_of(sources)
    out = io.StringIO()
    service.log = Log(out)
    weights = Path(sources["embed"]) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    service.reload()
    assert asked(service, "/embed", {"inputs": "kind"}).status_code == 200
    weights.write_bytes(whole)
    service.reload()
    assert asked(service, "/embed", {"inputs": "kind"}).status_code == 200
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["outcome"] for line in lines] == ["kept the old one", "loaded"]
    service.shelf.close()


def test_the_log_has_no_text(sources: dict[str, str]) -> None:
    service = service_of({"embed": sources["embed"]})
    out = io.StringIO()
    service.gate.log = Log(out)
    asked(service, "/embed", {"inputs": "lovely"}, **{"x-request-id": "mine-1"})
    asked(service, "/embed", {"inputs": ["lovely", 7]})
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert (first["request_id"], first["status"], first["inputs"], first["endpoint"]) == ("mine-1", 200, 1, "/embed")
    assert second["status"] == 422
    assert "lovely" not in out.getvalue()
    assert "bertsmith_requests_total" in asked(service, "/metrics").text
    service.shelf.close()


def test_names_of_models() -> None:
    assert named_sources(["runs/cola/finetune", "b=x/y"]) == {"cola": "runs/cola/finetune", "b": "x/y"}
    with pytest.raises(Exception, match="two models are called 'cola'"):
        named_sources(["runs/cola/finetune", "other/cola"])
