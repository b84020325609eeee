"""The revocation feed as a verifier follows it: reading the stream, coming back to it, and how old what it said is."""

import asyncio
import contextlib
import itertools
import json
import re
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auth_service.verifier import RevocationsUnavailable, RevokedToken, Verifier
from auth_service.verifier.event_stream import Event, UnreadableStream, events
from auth_service.verifier.revocations import Entry, RevocationSet, entry_name, revocation_id
from tests.support.scripted_issuer import (
    EVENT_STREAM,
    FEED,
    METADATA,
    Answer,
    ScriptedIssuer,
    document,
    event,
    hang,
    hello,
    scripted_issuer,
    stream,
    until,
)

LATEST = 2.0
"""Seconds within which a revocation must be known again after any fault of the connection."""


@pytest.fixture
async def issuer() -> AsyncIterator[ScriptedIssuer]:
    async with scripted_issuer() as running:
        yield running


@asynccontextmanager
async def opened(issuer: ScriptedIssuer, **options: Any) -> AsyncIterator[Verifier]:
    async with Verifier(issuer.url, audience="orders", **options) as verifier:
        yield verifier


# Reading the stream


async def read(chunks: list[bytes]) -> list[Event]:
    async def coming() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return [found async for found in events(coming())]


def expected(text: str) -> list[Event]:
    """What the standard (WHATWG HTML §9.2.6) says, line by line: slow, and plainly right."""
    found, name, data = list[Event](), "", list[str]()
    lines = re.split("\r\n|\n|\r", text)
    for line in lines[:-1]:  # what no line end follows is not a line yet
        if line == "":
            if data:
                found.append(Event(name or "message", "\n".join(data)))
            name, data = "", []
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            value = value[1:] if value.startswith(" ") else value
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)
    return found


PIECES = st.sampled_from(
    [
        "event",
        "data",
        "id",
        "retry",
        ":",
        ": ",
        " ",
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\r\r",
        "x",
        "{}",
        "é",
        "☃",
        "\u2028",
        "\x0b",
    ]
)


@settings(max_examples=500, deadline=None)
@given(text=st.lists(PIECES, max_size=40).map("".join), cuts=st.lists(st.integers(0, 120), max_size=20))
async def test_events_are_read_the_same_however_the_bytes_are_cut(text: str, cuts: list[int]) -> None:
    data = text.encode()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[start:end] for start, end in itertools.pairwise(edges)]
    found = await read(chunks)
    # A CR at the very end has ended its line; the reference knows no chunks, so it is told so.
    assert found == expected(text)


@given(
    told=st.lists(
        st.tuples(st.sampled_from(["revoke", "beat", "bye"]), st.text(st.characters(codec="utf-8"), max_size=30))
    ),
    line_end=st.sampled_from(["\n", "\r", "\r\n"]),
    size=st.integers(1, 7),
)
@settings(max_examples=200, deadline=None)
async def test_what_is_written_as_events_is_read_as_the_same_events(
    told: list[tuple[str, str]], line_end: str, size: int
) -> None:
    told = [(name, re.sub(r"[\r\n]", " ", data)) for name, data in told]
    data = "".join(f"event: {name}{line_end}data: {data}{line_end}{line_end}" for name, data in told).encode()
    assert await read([data[at : at + size] for at in range(0, len(data), size)]) == told


async def test_an_event_is_given_as_soon_as_its_last_line_has_ended() -> None:
    seen = list[Event]()

    async def coming() -> AsyncIterator[bytes]:
        for line_end in (b"\n", b"\r", b"\r\n"):
            yield b"data: 1" + line_end + line_end
            assert len(seen) == 1
            seen.clear()

    async for found in events(coming()):
        seen.append(found)


@pytest.mark.parametrize("size", [1, 2, 1000])
async def test_a_byte_order_mark_before_the_first_line_is_no_part_of_it(size: int) -> None:
    data = "\ufeffdata: 1\n\n\ufeffdata: 2\ndata: 3\n\n".encode()
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    assert await read(chunks) == [Event("message", "1"), Event("message", "3")]


@pytest.mark.parametrize(
    "chunk", [b"x" * 65_536, b"data: x\n" * 8192, b": comment\n" * 6000], ids=["line", "data", "comment"]
)
async def test_an_endless_event_is_given_up(chunk: bytes) -> None:
    with pytest.raises(UnreadableStream):
        await read([chunk] * 40)


async def test_bytes_that_are_not_utf_8_are_given_up() -> None:
    with pytest.raises(UnreadableStream):
        await read([b"data: \xff\n\n"])


# Following it


async def test_a_revocation_is_in_force_as_soon_as_it_is_told(issuer: ScriptedIssuer) -> None:
    async with opened(issuer) as verifier:
        token, other = issuer.fake.token(sid="one"), issuer.fake.token(sid="two")
        await verifier.verify(token)
        issuer.revoke("s", "one")
        began = time.monotonic()
        await until(lambda: len(verifier.revocations) == 1)
        assert time.monotonic() - began < 0.1
        with pytest.raises(RevokedToken):
            await verifier.verify(token)
        await verifier.verify(other)


@pytest.mark.parametrize(
    ("kind", "claim", "named"), [("s", "sid", "one"), ("j", "jti", "two"), ("c", "client_id", "three")]
)
async def test_each_kind_of_revocation_meets_the_tokens_it_names_and_no_others(
    issuer: ScriptedIssuer, kind: Any, claim: str, named: Any
) -> None:
    issuer.revoke(kind, named)
    async with opened(issuer) as verifier:
        with pytest.raises(RevokedToken):
            await verifier.verify(issuer.fake.token(**dict[str, Any]({claim: named})))
        await verifier.verify(issuer.fake.token(**dict[str, Any]({claim: "another"})))
        # The same text where another kind of id stands is another thing.
        for elsewhere in {"sid", "jti", "client_id"} - {claim}:
            await verifier.verify(issuer.fake.token(**dict[str, Any]({elsewhere: named})))


async def revoked_within(issuer: ScriptedIssuer, verifier: Verifier, sid: str, began: float) -> float:
    """Seconds from `began` until tokens of the session `sid` are refused."""
    async with asyncio.timeout(10):
        while True:
            try:
                await verifier.verify(issuer.fake.token(sid=sid))
            except RevokedToken:
                return time.monotonic() - began
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("heartbeat", [0.2, 1])
async def test_a_connection_that_falls_silent_is_replaced_and_what_it_kept_back_is_known_in_time(
    issuer: ScriptedIssuer, heartbeat: float
) -> None:
    issuer.heartbeat = heartbeat
    async with opened(issuer) as verifier:
        await until(lambda: issuer.open_feeds)
        issuer.silence_feeds()
        issuer.revoke("s", "lost")
        took = await revoked_within(issuer, verifier, "lost", time.monotonic())
        print(f"a heartbeat of {heartbeat} s: known again after {took:.2f} s")  # noqa: T201
        assert took < LATEST
        assert issuer.asked(FEED) == 2


LOSSES: dict[str, Answer] = {
    "cut": stream(hello("{url}")),
    "cut before hello": stream(),
    "503": document(b"", status=503),
    "429": document(b"", status=429, headers=("Retry-After: 60",)),
    "404": document(b"", status=404),
    "401": document(b"", status=401),
    "HTML": document("<!doctype html>", content_type="text/html"),
    "JSON": document({"iss": "x", "revocations": []}),
    "a redirect": document(b"", status=302, headers=("Location: https://evil.test/revocations",)),
    "packed": stream(b"\x1f\x8b", head=EVENT_STREAM[:-2] + b"Content-Encoding: gzip\r\n\r\n"),
    "garbage": stream(b"\x00\xff\xfe" * 100 + b"\n\n"),
    "an endless line": stream(*[b"x" * 65_536] * 40),
    "another issuer": stream(hello("https://evil.test"), event("revoke", []), event("live", {}), stay=True),
    "no hello": stream(event("revoke", []), event("live", {}), event("beat", {"age": 0}), stay=True),
    "hello that is no JSON": stream(b"event: hello\ndata: hi\n\n", stay=True),
    "hello that is no object": stream(event("hello", []), stay=True),
    "silence": hang,
    "silence behind the head": stream(stay=True),
}
AFTER_HELLO: dict[str, bytes] = {
    "a beat without an age": event("live", {}) + event("beat", {}),
    "an age that is text": event("live", {}) + event("beat", {"age": "0"}),
    "an age that is true": event("live", {}) + event("beat", {"age": True}),
    "an age below zero": event("live", {}) + event("beat", {"age": -1000}),
    "an age that is no number": event("live", {}) + b'event: beat\ndata: {"age": NaN}\n\n',
    "an endless age": event("live", {}) + b'event: beat\ndata: {"age": 1e999}\n\n',
    "an age with a thousand digits": event("live", {}) + b'event: beat\ndata: {"age": ' + b"9" * 1000 + b"}\n\n",
    "revocations that are no list": event("revoke", {"s": []}),
    "a revocation that is no list": event("revoke", ["s"]),
    "a revocation of no kind": event("revoke", [[7, revocation_id("x"), 1]]),
    "a revocation that is empty": event("revoke", [[]]),
    "a revocation that is too short": event("revoke", [["s", revocation_id("x")]]),
    "an id that is too long": event("revoke", [["s", "x" * 23, 1]]),
    "an id that is no base64url": event("revoke", [["s", "+" * 22, 1]]),
    "an id that is a number": event("revoke", [["s", 7, 1]]),
    "an end that is text": event("revoke", [["s", revocation_id("x"), "never"]]),
    "an end that is too large": b'event: revoke\ndata: [["s","' + b"x" * 22 + b'",' + b"9" * 1000 + b"]]\n\n",
    "deep nesting": b"event: revoke\ndata: " + b"[" * 100_000 + b"\n\n",
}


@pytest.mark.parametrize("loss", [*LOSSES, *AFTER_HELLO])
async def test_whatever_a_feed_answers_instead_the_old_set_stays_and_the_new_one_is_known_in_time(
    issuer: ScriptedIssuer, loss: str, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.revoke("s", "before")
    async with opened(issuer) as verifier:
        answer = LOSSES.get(loss) or stream(hello(issuer.url), AFTER_HELLO[loss], stay=True)
        issuer.answers[FEED] = answer
        asked = issuer.asked(FEED)
        issuer.drop_feeds()
        await until(lambda: issuer.asked(FEED) > asked)
        for _ in range(20):
            with pytest.raises(RevokedToken):
                await verifier.verify(issuer.fake.token(sid="before"))
            await verifier.verify(issuer.fake.token(sid="meanwhile"))
            await asyncio.sleep(0.01)
        issuer.revoke("s", "meanwhile")
        del issuer.answers[FEED]
        took = await revoked_within(issuer, verifier, "meanwhile", time.monotonic())
        assert took < LATEST, took
        with pytest.raises(RevokedToken):
            await verifier.verify(issuer.fake.token(sid="before"))
    assert "a fault" not in caplog.text


async def test_the_old_set_is_in_force_while_the_new_one_comes(issuer: ScriptedIssuer) -> None:
    issuer.revoke("s", "before")
    async with opened(issuer) as verifier:
        go_on = asyncio.Event()

        async def slowly(writer: asyncio.StreamWriter) -> None:
            writer.write(EVENT_STREAM + hello(issuer.url) + event("revoke", []))
            while not go_on.is_set():
                writer.write(b": still coming\n\n")
                await asyncio.sleep(0.1)
            # A new set that has forgotten: an issuer restored from a backup takes nothing away.
            writer.write(event("live", {}) + event("beat", {"age": 0}))
            await hang(writer)

        issuer.answers[FEED] = slowly
        issuer.drop_feeds()
        await until(lambda: issuer.asked(FEED) == 2)
        for _ in range(10):
            with pytest.raises(RevokedToken):
                await verifier.verify(issuer.fake.token(sid="before"))
            await asyncio.sleep(0.02)
        went = verifier.staleness
        assert went is not None
        go_on.set()
        await until(lambda: (verifier.staleness or 0) < went)
        with pytest.raises(RevokedToken):
            await verifier.verify(issuer.fake.token(sid="before"))


async def test_bye_takes_the_verifier_elsewhere_in_time_and_it_loses_nothing(issuer: ScriptedIssuer) -> None:
    async with opened(issuer) as verifier:
        for number in range(3):
            await until(lambda: issuer.open_feeds == 1)
            began = time.monotonic()
            issuer.tell("bye", {})
            issuer.revoke("s", f"gone-{number}")
            await until(partial(lambda wanted: issuer.asked(FEED) == wanted, number + 2))
            assert await revoked_within(issuer, verifier, f"gone-{number}", began) < LATEST


async def test_unknown_events_and_kinds_are_left_to_newer_verifiers(issuer: ScriptedIssuer) -> None:
    async with opened(issuer) as verifier:
        issuer.tell("weather", "sunny")
        newer = [["z", revocation_id("x"), "whenever"], ["zz", "a longer id than ours", 1], ["z", {"named": 1}], ["z"]]
        issuer.tell("revoke", [*newer, ["s", revocation_id("one"), 9e9, "and more"]])
        await until(lambda: len(verifier.revocations))
        assert len(verifier.revocations) == 1
        with pytest.raises(RevokedToken):
            await verifier.verify(issuer.fake.token(sid="one"))
        assert issuer.asked(FEED) == 1


async def test_a_replica_that_takes_connections_and_says_nothing_delays_no_revocation(issuer: ScriptedIssuer) -> None:
    async with opened(issuer) as verifier:
        await until(lambda: issuer.open_feeds)
        silent = 0

        async def twice_silent(writer: asyncio.StreamWriter) -> None:
            nonlocal silent
            silent += 1
            if silent == 2:
                del issuer.answers[FEED]
            await hang(writer)

        issuer.answers[FEED] = twice_silent
        issuer.silence_feeds()
        issuer.revoke("s", "lost")
        took = await revoked_within(issuer, verifier, "lost", time.monotonic())
        assert silent == 2
        assert took < LATEST, took


async def test_an_issuer_that_is_slow_to_greet_is_waited_for(issuer: ScriptedIssuer) -> None:
    async def slowly(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1)
        await issuer._follow(writer)

    async with opened(issuer) as verifier:
        issuer.answers[FEED] = slowly
        issuer.drop_feeds()
        issuer.revoke("s", "lost")
        assert await revoked_within(issuer, verifier, "lost", time.monotonic()) < 6
        # Now it is known to be slow: the next connection is not given up at all.
        asked = issuer.asked(FEED)
        issuer.drop_feeds()
        issuer.revoke("s", "lost too")
        assert await revoked_within(issuer, verifier, "lost too", time.monotonic()) < LATEST
        assert issuer.asked(FEED) == asked + 1


async def test_a_feed_that_only_beats_and_is_never_whole_is_given_up(issuer: ScriptedIssuer) -> None:
    async def only_beats(writer: asyncio.StreamWriter) -> None:
        writer.write(EVENT_STREAM + hello(issuer.url, 0.2))
        while True:
            writer.write(event("beat", {"age": 0}))
            await writer.drain()
            await asyncio.sleep(0.1)

    issuer.answers[FEED] = only_beats
    verifier = Verifier(issuer.url, audience="orders")
    opening = asyncio.create_task(verifier.open())
    await until(lambda: issuer.asked(FEED) >= 2)
    del issuer.answers[FEED]
    await opening
    await verifier.verify(issuer.fake.token())
    await verifier.close()


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([], id="at once"),
        pytest.param(["hello"], id="after hello"),
        pytest.param(["hello", "live"], id="after live"),
        pytest.param(["hello", "live", "beat"], id="after a beat"),
        pytest.param(["hello", "live", "bye"], id="after bye"),
        pytest.param(["bye"], id="with bye alone"),
    ],
)
async def test_a_feed_that_ends_at_once_is_not_asked_in_a_busy_loop(issuer: ScriptedIssuer, parts: list[str]) -> None:
    said = {
        "hello": hello(issuer.url),
        "live": event("live", {}),
        "beat": event("beat", {"age": 0}),
        "bye": event("bye", {}),
    }
    issuer.answers[FEED] = stream(*[said[part] for part in parts])
    opening = asyncio.create_task((verifier := Verifier(issuer.url, audience="orders")).open())
    times = list[float]()
    deadline = time.monotonic() + 4
    seen = 0
    while time.monotonic() < deadline:
        if issuer.asked(FEED) > seen:
            seen = issuer.asked(FEED)
            times.append(time.monotonic())
        await asyncio.sleep(0.002)
    await opening
    await verifier.close()
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    print(f"{parts}: {seen} connections in 4 s, the longest pause {max(pauses):.2f} s")  # noqa: T201
    assert seen <= 30
    assert max(pauses) <= 1.3  # and it never gives up
    # With jitter, not in step with the others: whatever holds a pause up makes it longer, and never shorter.
    assert any(pause < 0.9 * min(1, 0.05 * 2**number) for number, pause in enumerate(pauses, start=1))


async def test_an_issuer_that_is_down_is_asked_about_once_a_second(issuer: ScriptedIssuer) -> None:
    tried = 0

    async def count(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tried
        tried += 1
        writer.transport.abort()

    async with opened(issuer):
        await issuer.stop()
        refusing = await asyncio.start_server(count, "127.0.0.1", issuer.port)
        await asyncio.sleep(1.5)  # for the back-off to reach its bound
        tried, began = 0, time.monotonic()
        await asyncio.sleep(4)
        rate = tried / (time.monotonic() - began)
        refusing.close()
        await refusing.wait_closed()
    assert 0.5 < rate < 4


# How old it is


async def beat(verifier: Verifier, issuer: ScriptedIssuer, age: float) -> None:
    """Tell one beat, and wait until it has arrived."""
    issuer.tell("beat", {"age": age})
    await until(lambda: verifier.staleness == age)


async def test_before_a_set_has_been_whole_once_nothing_is_decided(issuer: ScriptedIssuer) -> None:
    for parts in ([], [hello(issuer.url)], [hello(issuer.url), event("revoke", []), event("beat", {"age": 0})]):
        issuer.answers[FEED] = stream(*parts, stay=True)
        async with opened(issuer) as verifier:
            assert verifier.staleness is None
            with pytest.raises(RevocationsUnavailable):
                await verifier.verify(issuer.fake.token())


async def test_an_age_is_what_the_beat_told_and_the_time_since(issuer: ScriptedIssuer) -> None:
    issuer.answers[FEED] = issuer.quiet
    clock = issuer.fake.clock
    async with opened(issuer, clock=clock) as verifier:
        assert verifier.staleness == 0
        clock.advance(3)
        assert verifier.staleness == 3
        await beat(verifier, issuer, 0.5)
        clock.advance(2)
        assert verifier.staleness == 2.5
        await beat(verifier, issuer, 120)  # the issuer itself is cut off from its journal
        clock.advance(1)
        assert verifier.staleness == 121


def replica(issuer: ScriptedIssuer, age: float) -> Answer:
    """One that is alive and knows of the set as it was `age` seconds ago."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(EVENT_STREAM + hello(issuer.url, 0.2) + event("live", {}))
        while True:
            writer.write(event("beat", {"age": age}))
            await writer.drain()
            await asyncio.sleep(0.1)

    return answer


async def test_a_replica_that_knows_less_than_another_told_before_takes_nothing_away(issuer: ScriptedIssuer) -> None:
    issuer.answers[FEED] = issuer.quiet
    clock = issuer.fake.clock
    async with opened(issuer, clock=clock) as verifier:
        clock.advance(1)
        await beat(verifier, issuer, 0.5)
        issuer.answers[FEED] = replica(issuer, 700)
        issuer.drop_feeds()
        clock.advance(2)
        await until(lambda: verifier._feed._told_age == 700)
        assert verifier.staleness == 2.5
        await verifier.verify(issuer.fake.token())
        issuer.answers[FEED] = replica(issuer, 0)
        await until(lambda: verifier.staleness == 0)


async def test_what_was_told_by_no_beat_makes_no_replica_younger_than_it_says(issuer: ScriptedIssuer) -> None:
    issuer.answers[FEED] = stream(hello(issuer.url), event("live", {}))
    async with opened(issuer) as verifier:
        issuer.answers[FEED] = replica(issuer, 700)
        await until(lambda: (verifier.staleness or 0) >= 700)


async def test_a_replica_that_is_cut_off_is_left_for_another_and_the_old_set_stays(issuer: ScriptedIssuer) -> None:
    issuer.revoke("s", "before")
    async with opened(issuer) as verifier:
        issuer.answers[FEED] = replica(issuer, 5.1)
        issuer.drop_feeds()
        await until(lambda: issuer.asked(FEED) == 2)
        del issuer.answers[FEED]
        issuer.revoke("s", "meanwhile")  # at another, which this one knows nothing of
        assert await revoked_within(issuer, verifier, "meanwhile", time.monotonic()) < LATEST
        with pytest.raises(RevokedToken):
            await verifier.verify(issuer.fake.token(sid="before"))
        assert issuer.asked(FEED) == 3
        assert (verifier.staleness or 0) < 1


async def test_replicas_that_are_all_cut_off_are_come_back_to_less_and_less_often(issuer: ScriptedIssuer) -> None:
    issuer.answers[FEED] = replica(issuer, 60)
    async with opened(issuer) as verifier:
        times = [time.monotonic()]
        for number in (2, 3, 4):
            await until(partial(lambda wanted: issuer.asked(FEED) == wanted, number))
            times.append(time.monotonic())
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        for number, pause in enumerate(pauses):
            assert 0.5 * 2**number <= pause <= 1.5 * 2**number + 0.5, pauses
        await verifier.verify(issuer.fake.token())


async def test_an_age_that_passes_soon_moves_nobody(issuer: ScriptedIssuer) -> None:
    issuer.answers[FEED] = issuer.quiet
    async with opened(issuer) as verifier:
        for age in (5, 6, 0, 6):
            issuer.tell("beat", {"age": age})
            await until(partial(lambda told: verifier._feed._told_age == told, age))
        await asyncio.sleep(1.2)  # past any moment at which it would have been left
        issuer.tell("beat", {"age": 0})
        await until(lambda: verifier._feed._told_age == 0)
        assert issuer.asked(FEED) == 1


async def test_an_age_goes_on_while_the_feed_is_lost_until_a_new_set_is_whole(issuer: ScriptedIssuer) -> None:
    issuer.answers[FEED] = issuer.quiet
    clock = issuer.fake.clock
    async with opened(issuer, clock=clock) as verifier:
        issuer.answers[FEED] = document(b"", status=503)
        issuer.drop_feeds()
        clock.advance(50)
        assert verifier.staleness == 50
        await verifier.verify(issuer.fake.token())
        go_on, incomplete_open = asyncio.Event(), asyncio.Event()

        async def incomplete(writer: asyncio.StreamWriter) -> None:
            writer.write(EVENT_STREAM + hello(issuer.url, 10) + event("beat", {"age": 0}))
            incomplete_open.set()
            await go_on.wait()
            writer.write(event("live", {}) + event("beat", {"age": 0}))
            await hang(writer)

        issuer.answers[FEED] = incomplete
        await incomplete_open.wait()
        clock.advance(1000)
        assert verifier.staleness == 1050
        with pytest.raises(RevocationsUnavailable):
            await verifier.verify(issuer.fake.token())
        go_on.set()
        await until(lambda: verifier.staleness == 0)
        await verifier.verify(issuer.fake.token())


@pytest.mark.parametrize(("limit", "good_until"), [("default", 600), (5, 5), (0.5, 0.5), (None, 10**6)])
async def test_max_staleness_says_for_how_long_the_last_known_set_serves(
    issuer: ScriptedIssuer, limit: Any, good_until: float
) -> None:
    issuer.revoke("s", "gone")
    issuer.answers[FEED] = issuer.quiet
    options = {} if limit == "default" else {"max_staleness": limit}
    clock = issuer.fake.clock
    async with opened(issuer, clock=clock, **options) as verifier:
        issuer.answers[FEED] = document(b"", status=503)
        issuer.drop_feeds()
        clock.advance(good_until)
        await verifier.verify(issuer.fake.token())
        with pytest.raises(RevokedToken):
            await verifier.verify(issuer.fake.token(sid="gone"))
        clock.advance(0.25)
        if limit is not None:
            with pytest.raises(RevocationsUnavailable) as refused:
                await verifier.verify(issuer.fake.token())
            assert refused.value.retry_after >= 1
        # A token that is known to be revoked is not excused by an outage.
        with pytest.raises(RevokedToken):
            await verifier.verify(issuer.fake.token(sid="gone"))


async def test_without_a_limit_a_feed_that_was_never_heard_refuses_nobody(issuer: ScriptedIssuer) -> None:
    issuer.answers[FEED] = document(b"", status=404)
    async with opened(issuer, max_staleness=None) as verifier:
        await verifier.verify(issuer.fake.token())
        with pytest.raises(RevocationsUnavailable):
            verifier.require_fresh(1e9)
        with pytest.raises(RevocationsUnavailable):
            verifier.require_fresh(float("inf"))


@pytest.mark.parametrize("limit", [1e9, float("inf")])
async def test_with_any_limit_a_feed_that_was_never_heard_refuses_everybody(
    issuer: ScriptedIssuer, limit: float
) -> None:
    issuer.answers[FEED] = document(b"", status=404)
    async with opened(issuer, max_staleness=limit) as verifier:
        with pytest.raises(RevocationsUnavailable):
            await verifier.verify(issuer.fake.token())


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_a_limit_that_is_no_time_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="max_staleness"):
        Verifier("https://issuer.test", audience="orders", max_staleness=limit)


async def test_a_feed_elsewhere_is_never_asked(issuer: ScriptedIssuer) -> None:
    async with scripted_issuer() as other:
        issuer.answers[METADATA] = document(
            {
                "issuer": issuer.url,
                "jwks_uri": f"{issuer.url}/.well-known/jwks.json",
                "revocation_feed_endpoint": f"{other.url}{FEED}",
            }
        )
        async with opened(issuer) as verifier:
            with contextlib.suppress(Exception):
                await verifier.verify(issuer.fake.token())
            assert verifier.staleness is None
        assert not other.requests


async def test_json_of_the_whole_set_names_no_claim() -> None:
    assert "session-1" not in json.dumps([revocation_id("session-1")])
    assert len(revocation_id("session-1")) == 22


# The set


def test_threads_that_add_and_forget_at_once_lose_nothing() -> None:
    held, faults = RevocationSet(), list[BaseException]()
    lasting: list[Entry] = [("s", revocation_id(f"lasting-{number}"), 2e9) for number in range(20)]
    passing: list[Entry] = [("s", revocation_id(f"passing-{number}"), 1.0) for number in range(300)]

    def add() -> None:
        try:
            for number in range(60):
                held.add(passing, now=0)
                held.add(lasting, now=1e6 * (number + 1))  # later than what passes, and than the last sweep
        except BaseException as exc:
            faults.append(exc)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not faults
    assert not any(held.holds_none_of([entry_name(kind, identifier)]) for kind, identifier, _ in lasting)
