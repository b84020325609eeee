"""The metrics of the service. Each label has a small, fixed set of values: never input.

Where the values of a label are listed here, each series is created at 0 in advance: Prometheus sees no increase in the
first sample of a new series. How they are written down for it is `exposition.py`'s concern.
"""

import platform
from typing import Literal, get_args

from prometheus_client import Counter, Gauge, Histogram

from auth_service import __version__

RefreshOutcome = Literal[
    "rotated",
    "held",
    "replayed",
    "replayed_elsewhere",  # from another address than the rotation: what is audited as `session.shared`
    "adopted",
    "reused",
    "expired",
    "revoked",
    "invalid",
    "refused",  # a good token, used in a way that it may not be: another origin, more scope
    "unavailable",
]
StoreName = Literal["postgresql", "redis"]

_OUTCOMES: tuple[RefreshOutcome, ...] = get_args(RefreshOutcome)
_STORES: tuple[StoreName, ...] = get_args(StoreName)
_SESSION_GRANTS = ("register", "login", "refresh")

# What is asked for
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
for _reason in (
    *("malformed", "large_head", "large_body", "pipelined", "host", "version", "transfer_encoding", "trailers"),
    *("slow_head", "slow_body", "silent", "stuck_reader", "too_many_connections"),
):
    CONNECTIONS_CUT.labels(_reason)

# Sessions and tokens
_REFRESHES = Counter("auth_refreshes", "Refresh attempts by outcome.", ["outcome"])
REFRESHES: dict[RefreshOutcome, Counter] = {outcome: _REFRESHES.labels(outcome) for outcome in _OUTCOMES}
_TOKENS_ISSUED = Counter("auth_tokens_issued", "Tokens issued by grant and kind.", ["grant", "kind"])
ACCESS_TOKENS_ISSUED = {
    grant: _TOKENS_ISSUED.labels(grant, "access") for grant in (*_SESSION_GRANTS, "client_credentials")
}
REFRESH_TOKENS_ISSUED = {grant: _TOKENS_ISSUED.labels(grant, "refresh") for grant in _SESSION_GRANTS}
LOGINS = Counter("auth_logins", "Login attempts by outcome.", ["outcome"])
for _outcome in ("success", "refused", "throttled", "unavailable"):
    LOGINS.labels(_outcome)
CLIENT_AUTHENTICATIONS = Counter("auth_client_authentications", "Authentications of clients by outcome.", ["outcome"])
for _outcome in ("success", "refused"):
    CLIENT_AUTHENTICATIONS.labels(_outcome)
CHECKPOINT_SESSIONS = Counter("auth_checkpoint_sessions", "Sessions whose generation was written to PostgreSQL.")

# Revocations
REVOCATIONS = Counter("auth_revocations", "Revocations written to the journal, by kind and reason.", ["kind", "reason"])
REVOCATION_LAG = Histogram(
    "auth_revocation_lag_seconds",
    "From the time that the journal gives a revocation to this process knowing of it, by what told it first.",
    ["source"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 5, 10, 30, 60),
)
for _source in ("own", "stream", "journal"):
    REVOCATION_LAG.labels(_source)
FEED_CLIENTS = Gauge("auth_revocation_feed_clients", "Open revocation feeds.", multiprocess_mode="livesum")
FEED_ENTRIES = Gauge("auth_revocation_entries", "Entries of the live set.", multiprocess_mode="livemax")
FEED_ENTRIES_HEARD = Counter(
    "auth_revocation_entries_heard", "Entries that were new to a process, by what told it of them first.", ["source"]
)
FEED_AGE = Gauge(
    "auth_revocation_feed_age_seconds", "Time since the journal was last known whole.", multiprocess_mode="livemax"
)

# Signing keys
SIGNING_KEYS = Gauge("auth_signing_keys", "Stored signing keys, by state.", ["state"], multiprocess_mode="livemax")
SIGNING_KEYS_UNREADABLE = Gauge(
    "auth_signing_keys_unreadable",
    "Stored signing keys that this process cannot decrypt.",
    multiprocess_mode="livemax",
)
SIGNING_KEY_AGE = Gauge(
    "auth_signing_key_age_seconds", "For how long the present signing key has signed.", multiprocess_mode="livemax"
)
SIGNING_KEY_ENDS = Gauge(
    # A moment, and no duration: it stays true while nobody can read the keys again.
    "auth_signing_key_next_rotation_timestamp_seconds",
    "When the present signing key gives way to the next, in seconds since the epoch.",
    multiprocess_mode="livemin",
)

# What it stands on
STORE_UP = Gauge(
    "auth_store_up",
    "Whether the store answered this process last time: it is used at least once a second.",
    ["store"],
    multiprocess_mode="livemin",
)
_STORE_SECONDS = Histogram(
    "auth_store_duration_seconds",
    "Time until a store has answered one statement or script, waiting for a connection included.",
    ["store"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
STORE_SECONDS: dict[StoreName, Histogram] = {store: _STORE_SECONDS.labels(store) for store in _STORES}
STORE_FAILURES = Counter("auth_store_failures", "Operations that a store did not answer.", ["store"])
for _store in _STORES:
    STORE_UP.labels(_store)
    STORE_FAILURES.labels(_store)
JOB_STEPS = Counter(
    "auth_job_steps", "Steps of periodic work: done, failed, or passed to another process.", ["job", "outcome"]
)
PRUNED_ROWS = Counter("auth_pruned_rows", "Rows removed because nothing can need them any more.", ["table"])

# Passwords
HASH_SECONDS = Histogram(
    "auth_password_hash_seconds",
    "Time of one password hash or check, waiting included.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
THROTTLED = Counter("auth_throttled", "Attempts held back, by the bucket that was full.", ["operation", "bucket"])
THROTTLE_FALLBACKS = Counter(
    "auth_throttle_fallbacks", "Attempts counted in the memory of a process, Redis being away.", ["operation"]
)
HASH_QUEUE = Gauge(
    "auth_password_hash_queue", "Password hashes that wait or are being made.", multiprocess_mode="livesum"
)
HASH_PLACES = Gauge(
    "auth_password_hash_places", "Password hashes that may wait or be made at a time.", multiprocess_mode="livesum"
)
NEW_PASSWORDS_REFUSED = Counter(
    "auth_new_passwords_refused", "New passwords that were not judged because the queue was full."
)
HASH_REFUSED = Counter("auth_password_hash_refused", "Password checks refused because the queue was full.")

Gauge("auth_build_info", "Which version runs. Always 1.", ["version", "python"], multiprocess_mode="livemax").labels(
    __version__, platform.python_version()
).set(1)
