"""What the embedded server tells Prometheus. Its labels hold nothing that a client chooses."""

import prometheus_client


class Metrics:
    """Counters of one server.

    Args:
        versions: the `Versions` that are served.
    """

    def __init__(self, versions):
        self.registry = prometheus_client.CollectorRegistry()
        given = {"registry": self.registry, "namespace": "vae_tf", "subsystem": "serving"}
        self.requests = prometheus_client.Counter(
            "requests", "Requests for predictions, by their outcome.", ["api", "code"], **given
        )
        self.seconds = prometheus_client.Histogram(
            "request_seconds", "From a request's admission to its answer.", ["api"], **given
        )
        self.admitted = prometheus_client.Gauge(
            "requests_admitted", "Requests that are read, wait or run.", **given
        )
        newest = prometheus_client.Gauge("model_version", "The newest version served.", **given)
        newest.set_function(lambda: max(versions.available(), default=0))

    def count(self, api, code, seconds):
        """A request has ended."""
        self.requests.labels(api, code).inc()
        self.seconds.labels(api).observe(seconds)
