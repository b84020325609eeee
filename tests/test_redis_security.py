"""A Redis that asks for TLS and for a user: on a single server, behind Sentinels and as a cluster, with the rights that
the README gives and no others."""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from auth_service.revocation.stream import BLOCK, StreamReader
from auth_service.settings import Settings
from auth_service.stores.redis import open_blocking_redis
from tests.support.command import command
from tests.support.feed import named
from tests.support.redis_security import Security
from tests.support.redis_topologies import ClusterSet, SentinelSet, Server, started
from tests.support.service import WINDOW, problem, running_service
from tests.support.tokens import generation_of

_README = Path(__file__).parent.parent / "README.md"
_PASSWORD = "p/s:s@w%rd"
_IN_URL = "p%2Fs%3As%40w%25rd"


def _rules(section: str) -> tuple[str, ...]:
    """The rules that the README gives under this heading."""
    found = re.search(rf"```acl\n# {section}\n(.*?)```", _README.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return tuple(found[1].replace("PASSWORD", _PASSWORD).splitlines())


def _made(topology: str, folder: Path, security: Security) -> ClusterSet | SentinelSet | Server:
    if topology == "cluster":
        return ClusterSet(folder, security=security)
    if topology == "sentinel":
        return SentinelSet(folder, security=security)
    return Server(folder, security=security)


@contextmanager
def _secure(topology: str, folder: Path) -> Iterator[str]:
    """The URL of a Redis that asks for both."""
    security = Security.made(folder, rules=_rules("Redis"), sentinel_rules=_rules("Sentinel"))
    with started(_made(topology, folder, security)) as redis:
        scheme = {"single": "rediss", "cluster": "rediss+cluster", "sentinel": "rediss+sentinel"}[topology]
        hosts = f"127.0.0.1:{redis.port}" if topology == "single" else redis.hosts
        options = f"ssl_ca_certs={security.authority}"
        if topology == "sentinel":
            options += f"&sentinel_username=auth-service&sentinel_password={_IN_URL}"
        yield f"{scheme}://auth-service:{_IN_URL}@{hosts}?{options}"


@pytest.mark.parametrize("topology", ["single", "cluster", "sentinel"])
async def test_with_tls_and_the_rights_that_the_readme_gives_everything_works(
    settings: Callable[..., Settings], tmp_path: Path, topology: str
) -> None:
    with _secure(topology, tmp_path) as url:
        done = await asyncio.to_thread(command, "check", settings=settings(redis_url=url))
        assert done.code == 0, done.out
        assert _PASSWORD not in done.out + done.err
        async with running_service(settings(redis_url=url)) as service:
            users = [await service.register() for _ in range(6)]
            newest = [await service.refreshed(user.refresh_token) for user in users]
            service.advance(seconds=WINDOW + 1)
            assert {generation_of(await service.refreshed(token)) for token in newest} == {3}
            assert problem(await service.refresh(users[0].refresh_token)) == (401, "refresh_token_reused")
            for token in newest[1:]:
                assert (await service.logout(token)).status_code == 204
                assert problem(await service.refresh(token)) == (401, "refresh_token_revoked")
            stream = StreamReader(open_blocking_redis(url, block=BLOCK))
            assert await stream.is_on_master()
            told = {identifier for entries in (await stream.read()).batches() for _, identifier, _ in entries}
            await stream.close()
            assert told == {named(user) for user in users}
            assert (await service.internal.get("/readyz")).json()["stores"] == {"postgresql": "up", "redis": "up"}


def test_the_rights_that_the_readme_gives_are_no_others(tmp_path: Path) -> None:
    with _secure("single", tmp_path) as url, Redis.from_url(url) as redis:
        assert redis.ping() is True
        for forbidden in (
            "CONFIG GET dir", "FLUSHALL", "FLUSHDB", "DEBUG SLEEP 0", "KEYS *", "SCAN 0", "SHUTDOWN",
            "REPLICAOF NO ONE", "ACL LIST", "CLIENT LIST", "SCRIPT FLUSH", "FUNCTION LIST", "MONITOR", "PUBLISH a b",
            "GET other", "SET other 1", "DEL other", "SAVE", "CLUSTER RESET", "MODULE LIST",
        ):  # fmt: skip
            with pytest.raises(NoPermissionError):
                redis.execute_command(*forbidden.split())
        # And no script gets round it.
        for inside in ("'SET', 'other', '1'", "'FLUSHALL'"):
            with pytest.raises(ResponseError, match="The user executing the script can't"):
                redis.eval(f"return redis.call({inside})", 0)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("rediss://", "redis://"), "cannot be reached, or not in this way (TLS)"),
        (("ssl_ca_certs=", "ssl_cert_reqs=required#"), "cannot be reached, or not in this way (TLS)"),
        ((_IN_URL, "wrong"), "it refuses this user or password"),
    ],
    ids=["no TLS", "unknown authority", "wrong password"],
)
def test_check_says_what_is_wrong_with_tls_or_the_user(
    settings: Callable[..., Settings], tmp_path: Path, wrong: tuple[str, str], says: str
) -> None:
    with _secure("single", tmp_path) as url:
        bad = url.replace(*wrong).partition("#")[0]
        if bad.startswith("redis://"):
            bad = bad.partition("?")[0]
        done = command("check", settings=settings(redis_url=bad))
    assert done.code == 1
    assert says in " ".join(done.out.split()), done.out
    assert _IN_URL not in done.out + done.err
