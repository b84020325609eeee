"""The live set, its log, its snapshots and its freshness: what holds whatever the order in which things come."""

import asyncio
import json
import random
from datetime import UTC, datetime

import pytest

from auth_service.edge.stream_limit import StreamLimit
from auth_service.errors import TooManyAttempts, Unavailable
from auth_service.revocation.feed import RevocationFeed
from auth_service.revocation.frame_log import FrameLog, PositionLost
from auth_service.revocation.freshness import Freshness
from auth_service.revocation.live_set import BATCH, LiveSet
from auth_service.revocation.snapshot import Snapshots
from auth_service.verifier.revocations import Entry, revocation_id

_EXP = 4_000_000_000


def _entry(number: int, *, expires_at: int = _EXP) -> Entry:
    return "s", revocation_id(str(number)), expires_at


def _told(text: bytes) -> list[Entry]:
    """The entries of every revoke event in a piece of the feed."""
    told: list[Entry] = []
    for event in text.decode().split("\n\n"):
        kind, _, data = event.partition("\n")
        if kind == "event: revoke":
            told += [(entry[0], entry[1], entry[2]) for entry in json.loads(data.removeprefix("data: "))]
    return told


class _Time:
    """A monotonic clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _fresh(time: _Time | None = None) -> Freshness:
    freshness = Freshness(time) if time else Freshness()
    freshness.journal_was_read(began=freshness.now())
    return freshness


# The set and its log.


def test_what_is_told_twice_is_in_the_log_once() -> None:
    live_set = LiveSet()
    for source in ("own", "stream", "journal"):
        live_set.add([_entry(1), _entry(2)], source=source)
    live_set.add([_entry(2), _entry(3)], source="stream")
    assert _told(live_set.log.read(0)[0]) == [_entry(1), _entry(2), _entry(3)]
    assert sorted(live_set.entries()) == sorted([_entry(1), _entry(2), _entry(3)])


def test_an_entry_is_dropped_at_its_time_and_does_not_come_back() -> None:
    live_set = LiveSet()
    live_set.add([_entry(1, expires_at=1000), _entry(2, expires_at=1001)], source="journal")
    live_set.expire(datetime.fromtimestamp(1000, UTC))
    assert live_set.entries() == [_entry(2, expires_at=1001)]
    end = live_set.log.end
    live_set.add([_entry(1, expires_at=1000)], source="stream")
    assert (len(live_set), live_set.log.end) == (1, end)


def test_much_that_is_past_its_time_at_once_is_dropped_batch_by_batch() -> None:
    live_set = LiveSet()
    live_set.add([_entry(number, expires_at=1000) for number in range(2 * BATCH + 1)], source="journal")
    sizes = []
    while live_set.expire(datetime.fromtimestamp(1000, UTC)):
        sizes.append(len(live_set))
    assert (sizes, len(live_set)) == ([BATCH + 1, 1], 0)


def test_no_frame_is_larger_than_a_batch() -> None:
    live_set = LiveSet()
    live_set.add([_entry(number) for number in range(2 * BATCH + 1)], source="journal")
    assert live_set.log.end == 3
    sizes, position = [], 0
    while position < live_set.log.end:
        chunk, position = live_set.log.read(position)
        sizes += [len(_told(event)) for event in chunk.split(b"\n\n") if event]
    assert sizes == [BATCH, BATCH, 1]


def test_the_log_keeps_to_its_capacity_and_says_what_it_has_lost() -> None:
    log = FrameLog(capacity=10_000)
    for _ in range(1000):
        log.append(b"x" * 100)
    assert log.end == 1000
    held = [position for position in range(1001) if log.holds(position)]
    assert 50 <= 1000 - held[0] <= 100
    with pytest.raises(PositionLost):
        log.read(held[0] - 1)
    assert log.read(held[0])[1] == log.end
    assert log.read(log.end) == (b"", log.end)


def test_a_reader_far_behind_is_given_a_piece_at_a_time() -> None:
    log = FrameLog()
    for _ in range(1000):
        log.append(b"x" * 1000)
    position, pieces = 0, []
    while position < log.end:
        piece, position = log.read(position)
        pieces.append(len(piece))
    assert sum(pieces) == 1_000_000
    assert max(pieces) < 70_000


async def test_readers_are_woken_by_a_frame_and_by_nothing_but_time_otherwise() -> None:
    log = FrameLog()
    readers = [asyncio.create_task(log.wait(seconds=30)) for _ in range(100)]
    late = asyncio.create_task(log.wait(seconds=0.01))
    await late
    assert not any(reader.done() for reader in readers)
    log.append(b"frame")
    async with asyncio.timeout(5):
        await asyncio.gather(*readers)


# Snapshots.


async def test_all_who_connect_share_one_snapshot_until_the_log_has_moved_far() -> None:
    live_set = LiveSet()
    snapshots = Snapshots(live_set, issuer="https://auth.test")
    live_set.add([_entry(number) for number in range(2000)], source="journal")
    first, *others = await asyncio.gather(*(snapshots.frames() for _ in range(50)))
    assert all(other is first for other in others)
    live_set.add([_entry(5000)], source="own")
    assert await snapshots.frames() is first
    for number in range(6000, 7000):
        live_set.add([_entry(number)], source="own")
    second = await snapshots.frames()
    assert second is not first
    assert sorted(entry for batch in second.frames for entry in _told(batch)) == sorted(live_set.entries())


async def test_a_snapshot_whose_place_in_the_log_is_gone_is_not_used() -> None:
    live_set = LiveSet(FrameLog(capacity=2000))
    snapshots = Snapshots(live_set, issuer="https://auth.test")
    first = await snapshots.frames()
    for number in range(50):  # fewer than it takes to be far behind
        live_set.add([_entry(number)], source="own")
    assert not live_set.log.holds(first.position)
    assert live_set.log.holds((await snapshots.frames()).position)


async def test_writing_a_large_set_down_lets_others_run() -> None:
    live_set = LiveSet()
    live_set.add([_entry(number) for number in range(20 * BATCH)], source="journal")
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(others())
    await Snapshots(live_set, issuer="https://auth.test").frames()
    running.cancel()
    assert turns >= 20


async def test_the_same_set_is_the_same_document_in_whatever_order_it_came() -> None:
    entries = [_entry(number) for number in range(1200)] + [("j", revocation_id("x"), _EXP)]
    documents = []
    for seed in range(2):
        random.Random(seed).shuffle(entries)  # noqa: S311
        live_set = LiveSet()
        live_set.add(entries, source="stream")
        documents.append(await Snapshots(live_set, issuer="https://auth.test").document(known_at=0))
    first, second = documents
    assert first.etag == second.etag
    assert first.pieces == second.pieces
    body = json.loads(b"".join(first.pieces))
    assert body == {"iss": "https://auth.test", "revocations": [list(entry) for entry in sorted(entries)]}
    assert first.length == len(b"".join(first.pieces))


@pytest.mark.parametrize("capacity", [16_777_216, 20_000], ids=["all is kept", "readers are lost"])
@pytest.mark.parametrize("seed", range(4))
async def test_whoever_connects_whenever_ends_with_the_whole_set(seed: int, capacity: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    live_set = LiveSet(FrameLog(capacity=capacity))
    feed = RevocationFeed(live_set, _fresh(), issuer="https://auth.test")
    everything = [_entry(number) for number in range(4000)]
    live_set.add(everything[:1500], source="journal")
    complete_from = asyncio.Event()
    reconnects = 0

    async def add() -> None:
        position = 1500
        while position < len(everything):
            size = chance.choice((1, 1, 2, 30, 600))
            # Some of it was told before, as journal and stream do.
            live_set.add(everything[max(0, position - 20) : position + size], source="stream")
            position += size
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        complete_from.set()

    async def read() -> set[Entry]:
        nonlocal reconnects
        for _ in range(chance.randrange(60)):
            await asyncio.sleep(0)
        while True:
            told: set[Entry] = set()
            slowness = chance.choice((0, 1, 5))
            live = False
            async for chunk in feed.events():
                told.update(_told(chunk))
                live = live or b"event: live" in chunk
                if live and complete_from.is_set() and len(told) == len(everything):
                    return told
                for _ in range(slowness):
                    await asyncio.sleep(0)
            reconnects += 1

    async with asyncio.timeout(20):
        *sets, _ = await asyncio.gather(*(read() for _ in range(40)), add())
    assert all(told == set(everything) for told in sets)
    if capacity > 1_000_000:
        assert reconnects == 0


async def test_what_is_complete_is_called_live_and_not_before() -> None:
    live_set = LiveSet()
    live_set.add([_entry(number) for number in range(1200)], source="journal")
    events = RevocationFeed(live_set, _fresh(), issuer="https://auth.test").events()
    received = [await anext(events), await anext(events)]
    live_set.add([_entry(5000)], source="own")  # while it is being sent
    while b"event: live" not in received[-1]:
        received.append(await anext(events))
    await events.aclose()
    assert received[0].startswith(b"event: hello")
    assert set(_told(b"".join(received))) == set(live_set.entries())
    assert b"event: live" not in b"".join(received[:-1])


# Freshness, and what depends on it.


def test_age_counts_from_the_beginning_of_the_last_good_reading() -> None:
    time = _Time()
    freshness = Freshness(time)
    assert freshness.age is None
    began, time.now = time.now, 101.5
    freshness.journal_was_read(began=began)
    assert freshness.age == 1.5


def test_the_stream_counts_only_while_the_journal_is_overdue_and_never_first() -> None:
    time = _Time()
    freshness = Freshness(time)
    freshness.masters_stream_was_read(began=100)
    assert freshness.age is None
    freshness.journal_was_read(began=100)
    time.now = 101.0
    freshness.masters_stream_was_read(began=100.9)
    assert freshness.age == 1.0
    time.now = 102.0
    freshness.masters_stream_was_read(began=101.9)
    assert freshness.age == pytest.approx(0.1)


def test_an_older_reading_that_ends_later_makes_nothing_older() -> None:
    time = _Time()
    freshness = Freshness(time)
    freshness.journal_was_read(began=100)
    freshness.journal_was_read(began=99)
    assert freshness.age == 0


async def test_a_feed_that_has_not_read_the_journal_or_is_going_has_nothing_to_say() -> None:
    freshness = Freshness()
    feed = RevocationFeed(LiveSet(), freshness, issuer="https://auth.test")
    with pytest.raises(Unavailable):
        await feed.document()
    freshness.journal_was_read(began=freshness.now())
    await feed.document()
    feed.close()
    with pytest.raises(Unavailable):
        feed.known_at()


async def test_the_age_of_a_document_is_that_of_its_set_and_not_of_the_feed() -> None:
    time = _Time()
    freshness = _fresh(time)
    feed = RevocationFeed(LiveSet(), freshness, issuer="https://auth.test")
    document, age = await feed.document()
    assert age == 0
    time.now += 0.7
    freshness.journal_was_read(began=time.now)
    again, age = await feed.document()
    # Whichever it is, it is not called younger than it is.
    assert age == pytest.approx(time.now - again.known_at)
    assert again.etag == document.etag


# Who may open how many.


def test_an_address_has_so_many_streams_and_ipv6_counts_by_subscriber() -> None:
    limit = StreamLimit(2)
    first, second = limit.place("192.0.2.1"), limit.place("192.0.2.1")
    with first, second:
        with pytest.raises(TooManyAttempts) as refusal, limit.place("192.0.2.1"):
            pass
        assert refusal.value.retry_after
        with limit.place("192.0.2.2"):
            pass
    with limit.place("192.0.2.1"):
        pass
    with limit.place("2001:db8::1"), limit.place("2001:db8::ffff:0:0:1"):
        with pytest.raises(TooManyAttempts), limit.place("2001:db8:0:0:1::"):
            pass
        with limit.place("2001:db8:0:1::"):
            pass
