"""What must be true of the stores and the keys before the service may serve: what is wrong, and how to mend it."""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

from auth_service.errors import Unavailable
from auth_service.keys.encryption import WrongEncryptionKey
from auth_service.keys.schedule import STATES
from auth_service.keys.store import SigningKeyStore
from auth_service.redis_url import parse_redis_url
from auth_service.settings import Settings
from auth_service.stores.applied_migrations import pending_migrations
from auth_service.stores.database import Database
from auth_service.stores.redis import UnsuitableRedis, open_redis, require_suitable

# What a failure of a store usually means, by the name of its class. Where it is not here, the name has to do.
_MEANING = {
    "ConnectionRefusedError": "nothing listens there",
    "ConnectionError": "it cannot be reached, or not in this way (TLS)",
    "FileNotFoundError": "there is no such socket",
    "gaierror": "its host name is not known",
    "TimeoutError": "it does not answer in time",
    "InvalidPasswordError": "it refuses this user or password",
    "InvalidAuthorizationSpecificationError": "it refuses this user or demands TLS",
    "InvalidCatalogNameError": "it has no database of this name: create it",
    "AuthenticationError": "it refuses this user or password",
    "NoPermissionError": "it does not allow this user the command INFO",
    "ResponseError": "it refuses this database number or this command",
    "InvalidResponse": "what answers there is no Redis",
    "BusyLoadingError": "it is still loading its data",
    "MasterNotFoundError": "no Sentinel that answers knows a master of this name that is up",
    "ReadOnlySQLTransactionError": "it takes no writes: name the primary, or promote it",
    "ReadOnlyError": "it is a replica, which takes no writes: name the master, or Sentinels that name it",
    "ClusterDownError": "a part of the keys has no master: see CLUSTER INFO on any node",
    "NoClusterError": "it is no cluster: write AUTH_REDIS_URL as redis:// or redis+sentinel://",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `away`: it may come back by itself. `wrong`: somebody must mend it."""

    subject: Literal["settings", "postgresql", "schema", "redis", "keys"]
    state: Literal["ok", "away", "wrong"]
    detail: str


async def check_database(database: Database, settings: Settings) -> Finding:
    """Whether PostgreSQL answers and its schema is up to date."""
    try:
        await database.require_writes()
        pending = await pending_migrations(database)
    except Unavailable as exc:
        return _away("postgresql", _place(settings.database_url), "AUTH_DATABASE_URL", exc)
    if pending:
        missing = "a migration is" if len(pending) == 1 else f"{len(pending)} migrations are"
        return Finding("schema", "wrong", f"{missing} missing: run `auth-service migrate` ({', '.join(pending)})")
    return Finding("postgresql", "ok", f"{_place(settings.database_url)} answers; its schema is up to date")


async def check_redis(settings: Settings) -> Finding:
    """Whether Redis answers, every master of it, and never drops a key by itself."""
    redis = open_redis(settings.redis_url.get_secret_value(), pool_size=1)
    try:
        policies = await require_suitable(redis, settings.allow_insecure)
    except UnsuitableRedis as exc:
        return Finding("redis", "wrong", str(exc))
    except Unavailable as exc:
        where = exc.reason.split(": ")[1:-1] or [str(parse_redis_url(settings.redis_url.get_secret_value()))]
        return _away("redis", where[0], "AUTH_REDIS_URL", exc)
    finally:
        await redis.aclose()
    places = "; ".join(f"{place} answers, its maxmemory-policy is {policy}" for place, policy in policies.items())
    return Finding("redis", "ok", f"a cluster: {places}" if redis.topology == "cluster" else places)


async def check_keys(database: Database, keys: SigningKeyStore) -> Finding:
    """Whether the stored signing keys can be decrypted. Makes none."""
    try:
        stored = await keys.load()
        stored.require_readable()
    except Unavailable as exc:
        return Finding("keys", "away", f"cannot be read ({exc.reason})")
    except WrongEncryptionKey as exc:
        return Finding("keys", "wrong", str(exc))
    if not stored.keys:
        return Finding("keys", "ok", "none yet: the first is made when the service starts")
    states = [life.state(stored.now) for life in stored.lives]
    counts = ", ".join(f"{states.count(state)} {state}" for state in STATES if state in states)
    return Finding("keys", "ok", f"all can be decrypted: {counts}")


def _away(subject: Literal["postgresql", "redis"], place: str, setting: str, exc: Unavailable) -> Finding:
    kind = exc.reason.rpartition(" ")[2]
    if kind == "ConnectionError" and exc.__cause__ and isinstance(exc.__cause__.__context__, ConnectionRefusedError):
        kind = "ConnectionRefusedError"  # redis-py has one class for all that keeps it from a server
    return Finding(subject, "away", f"{place}: {_MEANING.get(kind, kind)} ({setting})")


def _place(url: SecretStr) -> str:
    """Where PostgreSQL is, without who one is there."""
    parts = urlsplit(url.get_secret_value())
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "the socket"
    return f"{host}:{parts.port}{parts.path}" if parts.port else f"{host}{parts.path}"
