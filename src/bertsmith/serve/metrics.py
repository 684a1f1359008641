"""Figures of a server as Prometheus reads them; no text and no key is among them."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bertsmith.serve.batching import Batcher, Told

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)


class Metrics:
    """One server's."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "bertsmith_requests",
            "Requests answered, by endpoint and status.",
            ("endpoint", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "bertsmith_request_seconds", "From a request's arrival to its answer.", ("endpoint",),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.batch_texts = Histogram(
            "bertsmith_batch_texts", "Texts of a batch.", ("model",), buckets=_SIZES, registry=registry
        )
        self.batch_tokens = Histogram(
            "bertsmith_batch_tokens",
            "Tokens of a batch, without padding.",
            ("model",),
            buckets=_SIZES,
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "bertsmith_batch_seconds", "Time of a batch.", ("model",), buckets=_SECONDS, registry=registry
        )
        self.dropped = Counter(
            "bertsmith_dropped_texts", "Texts that nobody waited for any more.", ("model",), registry=registry
        )
        self.reloads = Counter("bertsmith_reloads", "Hot reloads, by outcome.", ("model", "outcome"), registry=registry)
        self.queued_requests = Gauge("bertsmith_queued_requests", "Requests that wait.", ("model",), registry=registry)
        self.queued_tokens = Gauge("bertsmith_queued_tokens", "Tokens that wait.", ("model",), registry=registry)

    def told(self, model: str) -> Told:
        """What the batches of a model are told to."""
        texts, tokens, seconds = (
            one.labels(model) for one in (self.batch_texts, self.batch_tokens, self.batch_seconds)
        )
        dropped = self.dropped.labels(model)

        def batch(number: int, of_tokens: int, took: float) -> None:
            texts.observe(number)
            tokens.observe(of_tokens)
            seconds.observe(took)

        return Told(batch, lambda number: dropped.inc(number))

    def shown(self, batchers: dict[str, Batcher]) -> bytes:
        """The page."""
        for name, batcher in batchers.items():
            self.queued_requests.labels(name).set(batcher.queued_requests)
            self.queued_tokens.labels(name).set(batcher.queued_tokens)
        return generate_latest(self.registry)
