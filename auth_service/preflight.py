"""What must be true of the stores and the keys before the service may serve: what is wrong, and how to mend it."""

from dataclasses import dataclass
from typing import Literal

from auth_service.errors import Unavailable
from auth_service.keys.encryption import WrongEncryptionKey
from auth_service.keys.store import SigningKeyStore
from auth_service.settings import Settings
from auth_service.stores.database import Database
from auth_service.stores.redis import eviction_policy, open_redis
from auth_service.stores.schema import pending_migrations


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `away`: it may come back by itself. `wrong`: somebody must mend it."""

    subject: Literal["settings", "postgresql", "schema", "redis", "keys"]
    state: Literal["ok", "away", "wrong"]
    detail: str


async def check_database(settings: Settings) -> Finding:
    """Whether PostgreSQL answers and its schema is up to date."""
    try:
        pending = await pending_migrations(settings.database_url.get_secret_value())
    except Unavailable as exc:
        return Finding("postgresql", "away", f"does not answer ({exc.reason}): see AUTH_DATABASE_URL")
    if pending:
        return Finding("schema", "wrong", f"{len(pending)} migrations are missing: run `auth-service migrate`")
    return Finding("postgresql", "ok", "answers, and its schema is up to date")


async def check_redis(settings: Settings) -> Finding:
    """Whether Redis answers, and never drops a key by itself: every key of ours has a life, so any policy but
    `noeviction` may take one, and a session's generation with it."""
    redis = open_redis(settings.redis_url.get_secret_value(), pool_size=1)
    try:
        policy = await eviction_policy(redis)
    except Unavailable as exc:
        return Finding("redis", "away", f"does not answer ({exc.reason}): see AUTH_REDIS_URL")
    finally:
        await redis.aclose()
    if policy != "noeviction" and "evicting_redis" not in settings.allow_insecure:
        return Finding(
            "redis",
            "wrong",
            f"maxmemory-policy is {policy}: set it to noeviction (AUTH_ALLOW_INSECURE=evicting_redis lifts this)",
        )
    return Finding("redis", "ok", f"answers, and its maxmemory-policy is {policy}")


async def check_keys(database: Database, keys: SigningKeyStore) -> Finding:
    """Whether the stored signing keys can be decrypted. Makes none."""
    try:
        held = await keys.load()
    except Unavailable as exc:
        return Finding("keys", "away", f"cannot be read ({exc.reason})")
    except WrongEncryptionKey as exc:
        return Finding("keys", "wrong", str(exc))
    if not held:
        return Finding("keys", "ok", "none yet: the first is made when the service starts")
    return Finding("keys", "ok", f"{len(held)} can be decrypted; {held[-1].kid} is the newest")
