"""The verifier's metrics: their names and values, and that nothing needs them."""

import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from auth_service.verifier import VerifierError
from auth_service.verifier.testing import FakeIssuer
from tests.support.scripted_issuer import until

ROOT = Path(__file__).parent.parent


def value(name: str, **labels: str) -> float:
    found = REGISTRY.get_sample_value(name, labels)
    assert found is not None, name
    return found


def results() -> dict[str, float]:
    names = ("valid", "invalid", "expired", "revoked", "unavailable")
    return {name: value("auth_verifier_verifications_total", result=name) for name in names}


async def test_verifications_are_counted_by_what_was_found() -> None:
    issuer = FakeIssuer(audience="orders")
    async with issuer.verifier(max_staleness=5) as verifier:
        before = results()
        hits = value("auth_verifier_cache_hits_total")

        async def refused(token: str) -> None:
            with pytest.raises(VerifierError):
                await verifier.verify(token)

        token = issuer.token(sid="one")
        for _ in range(3):
            await verifier.verify(token)
        await refused("garbage")
        await refused(issuer.token(expires_in=-60))
        issuer.revoke(sid="one")
        await refused(token)
        with issuer.outage():
            issuer.advance(6)
            await refused(issuer.token())
    # Closed: everything has been counted.
    after = results()
    assert {name: after[name] - before[name] for name in after} == {
        "valid": 3,
        "invalid": 1,
        "expired": 1,
        "revoked": 1,
        "unavailable": 1,
    }
    assert value("auth_verifier_cache_hits_total") - hits == 2


async def test_ages_entries_and_reconnects_are_told() -> None:
    issuer = FakeIssuer(audience="orders")
    async with issuer.verifier():
        reconnects = value("auth_verifier_feed_reconnects_total")
        issuer.revoke(sid="one", jti="two")
        await until(lambda: value("auth_verifier_revocations") == 2)
        await until(lambda: value("auth_verifier_feed_age_seconds") == 0)
        assert value("auth_verifier_jwks_age_seconds") == 0
        with issuer.outage():
            issuer.advance(7)
            await until(lambda: value("auth_verifier_feed_age_seconds") == 7)
            assert value("auth_verifier_jwks_age_seconds") == 7
        await until(lambda: value("auth_verifier_feed_reconnects_total") > reconnects)


async def test_what_was_never_heard_is_infinitely_old() -> None:
    issuer = FakeIssuer(audience="orders")
    with issuer.outage():
        async with issuer.verifier():
            await until(lambda: value("auth_verifier_feed_age_seconds") == float("inf"))
            assert value("auth_verifier_jwks_age_seconds") == float("inf")


def test_the_verifier_works_where_prometheus_client_is_not_installed() -> None:
    script = """
import asyncio, sys
sys.modules["prometheus_client"] = None
from auth_service.verifier.testing import FakeIssuer
from auth_service.verifier import RevokedToken

async def main():
    issuer = FakeIssuer(audience="orders")
    async with issuer.verifier() as verifier:
        print((await verifier.verify(issuer.token())).subject)
        issuer.revoke(sid="session-1")
        try:
            await verifier.verify(issuer.token())
        except RevokedToken:
            print("revoked")

asyncio.run(main())
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.returncode) == ("user-1\nrevoked\n", 0), ran.stderr
