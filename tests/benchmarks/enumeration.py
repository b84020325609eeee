"""Whether the time of a refused login tells an unknown account from a wrong password or a disabled account.

Samples of the three are interleaved in a random order, on one connection to a served process, each with a name of its
own. Printed: the medians, and for each pair what somebody gains who guesses by the time alone: the area under the ROC
curve, 0.5 where they learn nothing. The limits are 2 ms between medians and an area of 0.55.
"""

import asyncio
import itertools
import random
import statistics
import sys
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path

from redis import Redis

from auth_service.accounts import names
from auth_service.audit import OPERATOR
from auth_service.logs import configure_logging
from auth_service.parts import Parts
from auth_service.settings import Settings
from auth_service.stores.clock import Clock
from auth_service.stores.rate_limits import PREFIX
from tests.support.load import Connection
from tests.support.processes import served
from tests.support.service import PASSWORD
from tests.support.stores import Stores

KINDS = ("unknown", "wrong", "disabled")
_SAMPLES = 2000
_MEDIANS_WITHIN = 0.002  # seconds
_AREA = 0.55
_BEFORE_THROTTLED = 300  # attempts: fewer than all together may fail in a minute


async def add_accounts(settings: Settings, count: int) -> None:
    """So many accounts to try a wrong password on, and so many disabled ones."""
    parts = Parts(settings, Clock())
    await parts.open()
    try:
        password_hash = await parts.passwords.hash(PASSWORD)
        for kind in ("wrong", "disabled"):
            accounts = [(names.username(_name(kind, number)), names.email(f"{_name(kind, number)}@example.com"))
                        for number in range(count)]  # fmt: skip
            await parts.users.import_batch(
                [(username, email, password_hash, frozenset()) for username, email in accounts], by=OPERATOR
            )
        await parts.database.rows("UPDATE users SET disabled_at = now() WHERE username LIKE 'disabled%'")
        await parts.database.rows("ANALYZE users")
    finally:
        await parts.close()


async def refusals(port: int, redis_url: str, count: int) -> Mapping[str, Sequence[float]]:
    """Seconds that each of `count` refused logins of each kind took."""
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    connection = await Connection.open(port)
    order = [(kind, number) for number in range(count) for kind in random.sample(KINDS, len(KINDS))]
    with Redis.from_url(redis_url) as redis:
        for done, (kind, number) in enumerate(order):
            if done % _BEFORE_THROTTLED == 0:
                remembered = list(redis.scan_iter(f"{PREFIX}:*", count=1000))
                redis.delete(*remembered, f"{PREFIX}:none")
            password = PASSWORD if kind == "disabled" else PASSWORD[::-1]
            began = time.perf_counter()
            status, body = await connection.post("/user/login", {"username": _name(kind, number), "password": password})
            seconds[kind].append(time.perf_counter() - began)
            assert (status, body["code"]) == (401, "invalid_credentials"), body
    await connection.close()
    return seconds


def area(ones: Sequence[float], others: Sequence[float]) -> float:
    """The area under the ROC curve of telling these apart by a threshold: from 0.5 (nothing is learnt) to 1."""
    ordered = sorted(others)
    wins = sum((bisect_left(ordered, one) + bisect_right(ordered, one)) / 2 for one in ones)
    share = wins / (len(ones) * len(others))
    return max(share, 1 - share)


def _name(kind: str, number: int) -> str:
    return f"{kind:_<8}{number:06}"


def main() -> None:
    configure_logging(level="warning", style="json")
    with tempfile.TemporaryDirectory(prefix="auth-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        stores = Stores(folder)
        stores.start()
        try:
            settings = stores.settings(database_url=stores.new_database())
            asyncio.run(add_accounts(settings, _SAMPLES))
            with served(settings, folder) as [process]:
                asyncio.run(refusals(process.port, stores.redis.url(), 20))  # warm
                seconds = asyncio.run(refusals(process.port, stores.redis.url(), _SAMPLES))
        finally:
            stores.stop()
    medians = {kind: statistics.median(taken) for kind, taken in seconds.items()}
    print(f"refused logins, {_SAMPLES} of each kind, one connection, interleaved")
    print("median: " + ", ".join(f"{kind} {median * 1e3:.2f} ms" for kind, median in medians.items()))
    bad = False
    for one, other in itertools.combinations(KINDS, 2):
        apart, told = abs(medians[one] - medians[other]), area(seconds[one], seconds[other])
        bad = bad or apart > _MEDIANS_WITHIN or told > _AREA
        print(f"  {one} or {other}: medians {apart * 1e3:.2f} ms apart (limit 2), AUC {told:.3f} (limit {_AREA})")
    if bad:
        sys.exit("over a limit")


if __name__ == "__main__":
    main()
