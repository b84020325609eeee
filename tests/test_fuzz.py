"""A slice of `make fuzz`: some thousands of malformed requests, each time the same, and what they leave behind."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from auth_service.settings import Settings
from tests.fuzz.attack import Attacker, Credentials
from tests.fuzz.campaign import Campaign, complaints
from tests.fuzz.operations import targets
from tests.support.processes import served

_CREDENTIALS = Credentials("a.b.c", "d.e.f", "g.h.i", "client:secret")


def test_no_malformed_request_is_answered_5xx_or_leaves_a_trace(
    settings: Callable[..., Settings], tmp_path: Path
) -> None:
    made = settings(access_token_ttl=timedelta(hours=1), audiences="orders")
    with served(made, tmp_path) as [process]:
        outcome = asyncio.run(Campaign(made, process, seed=1).run(count=4_000, seconds=8))
    assert outcome.problems == []
    assert outcome.sent > 200
    assert {200, 400, 401, 404, 405} <= outcome.answers.keys()


def test_the_same_seed_makes_the_same_requests_on_every_route(
    settings: Callable[..., Settings], tmp_path: Path
) -> None:
    with served(settings(), tmp_path) as [process]:
        found = targets(process)
    made, again, other = Attacker(found, seed=1), Attacker(list(found), seed=1), Attacker(found, seed=2)
    attacks = [made.attack(number, _CREDENTIALS) for number in range(4_000)]
    assert attacks == [again.attack(number, _CREDENTIALS) for number in range(4_000)]
    assert attacks != [other.attack(number, _CREDENTIALS) for number in range(4_000)]
    lines = [(attack.internal, attack.data.partition(b"\r\n")[0]) for attack in attacks if attack.framed]
    for target in found:
        start = f"{target.method} {target.path.partition('{')[0]}".encode()
        assert any(internal == target.internal and line.startswith(start) for internal, line in lines), target


def test_a_fault_in_the_log_is_found(tmp_path: Path) -> None:
    log = tmp_path / "log"
    calm = '{"event": "request", "level": "info"}\n'
    for bad in (
        "Traceback (most recent call last):\n",
        '{"event": "unexpected_error", "level": "error", "frames": []}\n',
        '{"event": "x", "level": "warning", "frames": []}\n',
        '{"event": "forged"}\n',
        "[]\n",
    ):
        log.write_text(calm + bad + calm)
        assert complaints(log) == [bad], bad
    log.write_text(calm * 2)
    assert complaints(log) == []
