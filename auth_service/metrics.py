"""The metrics of the service and how they are exposed. Each label has a small, fixed set of values: never input."""

import os

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

HTTP_REQUESTS = Counter("auth_http_requests", "HTTP requests by route template.", ["method", "route", "status"])
HTTP_SECONDS = Histogram(
    "auth_http_request_duration_seconds",
    "Time from the request's first byte to the end of the answer.",
    ["route"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
PUBLIC_CONNECTIONS = Gauge(
    "auth_public_connections", "Open connections of the public port.", multiprocess_mode="livesum"
)
CONNECTIONS_CUT = Counter(
    "auth_connections_cut", "Connections ended for what the client sent, or did not send or read in time.", ["reason"]
)
TOKENS_ISSUED = Counter("auth_tokens_issued", "Tokens issued by grant and kind.", ["grant", "kind"])
REFRESHES = Counter("auth_refreshes", "Refresh attempts by outcome.", ["outcome"])
LOGINS = Counter("auth_logins", "Login attempts by outcome.", ["outcome"])
CLIENT_AUTHENTICATIONS = Counter("auth_client_authentications", "Authentications of clients by outcome.", ["outcome"])
REVOCATIONS = Counter("auth_revocations", "Revocations written to the journal, by kind and reason.", ["kind", "reason"])
FEED_CLIENTS = Gauge("auth_revocation_feed_clients", "Open revocation feeds.", multiprocess_mode="livesum")
FEED_ENTRIES = Gauge("auth_revocation_entries", "Entries of the live set.", multiprocess_mode="livemax")
FEED_ENTRIES_HEARD = Counter(
    "auth_revocation_entries_heard", "Entries that were new to a process, by what told it of them first.", ["source"]
)
FEED_AGE = Gauge(
    "auth_revocation_feed_age_seconds", "Time since the journal was last known whole.", multiprocess_mode="livemax"
)
SIGNING_KEYS = Gauge("auth_signing_keys", "Stored signing keys, by state.", ["state"], multiprocess_mode="livemax")
SIGNING_KEY_AGE = Gauge(
    "auth_signing_key_age_seconds", "For how long the present signing key has signed.", multiprocess_mode="livemax"
)
STORE_FAILURES = Counter("auth_store_failures", "Operations that a store did not answer.", ["store"])
JOB_STEPS = Counter(
    "auth_job_steps", "Steps of periodic work: done, failed, or passed to another process.", ["job", "outcome"]
)
PRUNED_ROWS = Counter("auth_pruned_rows", "Rows removed because nothing can need them any more.", ["table"])
CHECKPOINT_SESSIONS = Counter("auth_checkpoint_sessions", "Sessions whose generation was written to PostgreSQL.")
HASH_SECONDS = Histogram(
    "auth_password_hash_seconds",
    "Time of one password hash or check, waiting included.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
THROTTLED = Counter("auth_throttled", "Attempts held back, by the bucket that was full.", ["operation", "bucket"])
THROTTLE_FALLBACKS = Counter(
    "auth_throttle_fallbacks", "Attempts counted in the memory of a process, Redis being away.", ["operation"]
)
HASH_REFUSED = Counter("auth_password_hash_refused", "Password checks refused because the queue was full.")


def exposition(accept: str) -> tuple[bytes, str]:
    """The metrics in the format that `accept` asks for (Prometheus text or OpenMetrics), and its content type.

    With several workers every process answers for all of them.
    """
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
