"""The verifier's metrics, where prometheus-client is installed; where it is not, counting costs and says nothing."""

from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol

Result = Literal["valid", "invalid", "expired", "revoked", "unavailable"]
RESULTS: tuple[Result, ...] = ("valid", "invalid", "expired", "revoked", "unavailable")


class Counter(Protocol):
    def inc(self, amount: float = 1) -> None: ...


class Gauge(Protocol):
    def set(self, value: float) -> None: ...


class _Nowhere:
    """Where figures go that nobody collects."""

    def inc(self, amount: float = 1) -> None: ...

    def set(self, value: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of this process, whatever number of verifiers it has."""

    verifications: dict[Result, Counter]
    cache_hits: Counter
    reconnects: Counter
    jwks_age: Gauge
    feed_age: Gauge
    revocations: Gauge


@cache
def metrics() -> Metrics:
    """The metrics, registered in the default registry at the first call."""
    try:
        import prometheus_client as prometheus
    except ImportError:
        nowhere = _Nowhere()
        return Metrics(dict.fromkeys(RESULTS, nowhere), nowhere, nowhere, nowhere, nowhere, nowhere)
    verifications = prometheus.Counter("auth_verifier_verifications", "Access tokens by what was found.", ["result"])

    def gauge(name: str, documentation: str) -> prometheus.Gauge:
        return prometheus.Gauge(name, documentation, multiprocess_mode="livemax")

    return Metrics(
        verifications={result: verifications.labels(result) for result in RESULTS},
        cache_hits=prometheus.Counter(
            "auth_verifier_cache_hits", "Tokens found good whose signature had been checked before."
        ),
        reconnects=prometheus.Counter("auth_verifier_feed_reconnects", "Times the revocation feed was opened again."),
        jwks_age=gauge("auth_verifier_jwks_age_seconds", "Seconds since the issuer last said which keys it has."),
        feed_age=gauge("auth_verifier_feed_age_seconds", "Seconds since all revocations were last known here."),
        revocations=gauge("auth_verifier_revocations", "Revocations held in memory."),
    )
