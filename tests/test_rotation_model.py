"""The decision table of rotation: the script against a transcription, and that against every honest client.

What a refresh does over HTTP is in `test_refresh.py`; thieves and real stores are in `test_session_machine.py`.
"""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib import resources
from typing import Literal, NamedTuple
from uuid import uuid4

import pytest

from auth_service.errors import Unavailable
from auth_service.sessions.rotation import Generation, RotationStore
from auth_service.sessions.session import Transport
from auth_service.stores.redis import RedisClient, Script, open_redis
from tests.support.stores import Stores


class Mark(NamedTuple):
    """What a store knows of a session: its generation, when it rotated to it, when that was last replayed. 0: never."""

    generation: int
    rotated_at: int
    replayed_at: int = 0


class Decision(NamedTuple):
    """`stored` is what Redis holds afterwards."""

    outcome: str
    current: Mark
    stored: Mark | None


def decide(
    presented: int,
    checkpoint: Mark,
    stored: Mark | None,
    *,
    unanswered: bool,
    arrived: int,
    now: int,
    window: int,
    under_way: int,
) -> Decision:
    """The table of `rotate.lua`, written a second time."""
    current = checkpoint if stored is None else max(checkpoint, stored)
    is_inside = current.rotated_at > 0 and arrived < current.rotated_at + window
    if presented > current.generation:
        adopted = Mark(presented, now)
        return Decision("adopted", adopted, adopted)
    if presented == current.generation - 1 and unanswered:
        again = current._replace(rotated_at=max(now, current.rotated_at))
        return Decision("rotated", again, again)
    if presented == current.generation:
        if is_inside or now < current.replayed_at + under_way:
            return Decision("held", current, stored)
        rotated = Mark(presented + 1, now)
        return Decision("rotated", rotated, rotated)
    if presented == current.generation - 1 and is_inside:
        if now > current.rotated_at + window - under_way:
            stored = current._replace(replayed_at=now)
        return Decision("replayed", current, stored)
    return Decision("late" if arrived < current.rotated_at else "reused", current, stored)


# The script ----------------------------------------------------------------------------------------------------------

_WINDOW = 30_000
_UNDER_WAY = 6_000
_IDLE_LIFE = timedelta(days=7)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOW = 1_800_000_000_000
_ROTATED = (-1, 0, _WINDOW - _UNDER_WAY, _WINDOW - _UNDER_WAY + 1, _WINDOW - 1, _WINDOW, _WINDOW + 1)
"""Milliseconds from a rotation to the refresh; less than 0: the refresh had read the time before."""
_REPLAYED = (-1, 0, _UNDER_WAY - 1, _UNDER_WAY)
_AT_ONCE = 32
_UNTOLD = Mark(0, 0)


@pytest.fixture
async def redis(stores: Stores) -> AsyncIterator[RedisClient]:
    client = open_redis(stores.redis_url)
    yield client
    await client.aclose()


@pytest.mark.parametrize(
    ("transport", "presented", "waited", "unanswered"),
    [("body", 2, 0, False), ("cookie", 2, 1, False), ("body", 2, 0, True), ("body", 2**31 - 3, 1, False)],
    ids=["body", "cookie", "unanswered", "last ones"],
)
async def test_the_script_decides_as_its_transcription_does(
    redis: RedisClient, transport: Transport, presented: int, waited: int, unanswered: bool
) -> None:
    generations = range(presented - 1, presented + 3)
    marks = [Mark(generation, _NOW - since) for generation in generations for since in _ROTATED]
    never = [Mark(generation, 0) for generation in generations]
    replayed = [mark._replace(replayed_at=_NOW - since) for mark in marks for since in _REPLAYED]
    grid = list(
        itertools.product([*marks, *never], [*marks, *(replayed if transport == "cookie" else replayed[::7]), None])
    )
    rotations = RotationStore(redis, window=timedelta(milliseconds=_WINDOW), idle_life=_IDLE_LIFE)

    async def scripted(checkpoint: Mark, stored: Mark | None) -> tuple[Decision, bool]:
        """The script's decision, and whether the key has a life: what the test itself stores has none."""
        session_id = uuid4()
        key = f"auth:session:{session_id}"
        if stored is not None:
            await redis.set(key, " ".join(str(number) for number in stored if number))
        outcome, current = "late", _UNTOLD
        try:
            rotation = await rotations.rotate(
                session_id,
                presented,
                checkpoint=Generation(checkpoint.generation, _moment(checkpoint.rotated_at)),
                now=_EPOCH + timedelta(milliseconds=_NOW),
                arrived=_EPOCH + timedelta(milliseconds=_NOW - waited),
                unanswered=unanswered,
                started=rotations.started(),
                transport=transport,
            )
            outcome, current = rotation.outcome.value, _mark(rotation.current)
        except Unavailable:
            pass
        value = await redis.getex(key)
        after = Mark(*map(int, value.split())) if value is not None else None
        return Decision(outcome, current, after), await redis.pttl(key) > 0

    seen = set()
    for start in range(0, len(grid), _AT_ONCE):
        cases = grid[start : start + _AT_ONCE]
        for case, answer in zip(cases, await asyncio.gather(*itertools.starmap(scripted, cases)), strict=True):
            under_way = _UNDER_WAY if transport == "cookie" else 0
            expected = decide(
                presented,
                *case,
                unanswered=unanswered,
                arrived=_NOW - waited,
                now=_NOW,
                window=_WINDOW,
                under_way=under_way,
            )
            seen.add(expected.outcome)
            # A caller is told neither of replays nor, when they come late, of anything.
            told = _UNTOLD if expected.outcome == "late" else expected.current._replace(replayed_at=0)
            assert answer[0] == expected._replace(current=told), case
            if expected.stored != case[1]:
                assert answer[1], case
            elif expected.outcome not in ("replayed", "rotated"):  # which may store what is there already
                assert not answer[1], case
    assert seen == {"rotated", "held", "adopted", "reused", "late"} | (set() if unanswered else {"replayed"})


@pytest.mark.parametrize(
    "stored",
    ["", "3", "3 ", " 3 1", "3 1 1 ", "3 1 1 1", "-3 1", "3.0 1", "3 1e3", "x y", "３ 1", "3\n1", ["3 1"]],
    ids=repr,
)
async def test_a_value_that_the_script_did_not_write_counts_as_none(
    redis: RedisClient, stored: str | list[str]
) -> None:
    key = f"auth:session:{uuid4()}"
    await (redis.set(key, stored) if isinstance(stored, str) else redis.rpush(key, *stored))
    answer = await _script(redis)([key], [1, 1, 0, _NOW, _WINDOW, 60_000, _NEVER, 0, _NOW, 0])
    assert answer[:3] == [b"rotated", 2, _NOW]
    assert await redis.get(key) == f"2 {_NOW}".encode()


async def test_a_command_that_reaches_redis_too_late_changes_nothing(redis: RedisClient) -> None:
    key = f"auth:session:{uuid4()}"
    script = _script(redis)
    outcome, *_, node_now = await script([key], [1, 1, 0, _NOW, _WINDOW, 60_000, 0, 0, _NOW, 0])
    assert outcome == b"late"
    assert await redis.get(key) is None
    in_time = [1, 1, 0, _NOW, _WINDOW, 60_000, node_now + 60_000, 0, _NOW, 0]
    assert (await script([key], in_time))[0] == b"rotated"
    too_late = [2, 1, 0, _NOW + _WINDOW, _WINDOW, 60_000, node_now - 1, 0, _NOW + _WINDOW, 0]
    assert (await script([key], too_late))[0] == b"late"
    assert await redis.get(key) == f"2 {_NOW}".encode()


_NEVER = 2**53


def _script(redis: RedisClient) -> Script:
    return redis.register_script(resources.files("auth_service.sessions").joinpath("rotate.lua").read_text("utf-8"))


def _moment(epoch: int) -> datetime | None:
    return _EPOCH + timedelta(milliseconds=epoch) if epoch else None


def _mark(generation: Generation) -> Mark:
    moment = generation.rotated_at
    return Mark(generation.number, (moment - _EPOCH) // timedelta(milliseconds=1) if moment else 0)


# The model -----------------------------------------------------------------------------------------------------------
#
# A client that refreshes whenever it likes, in several tabs; the network; both stores; in some a thief. Every order of
# every event is searched, breadth first, and the claim is that nobody is ever answered "reused".
#
# Time is in seconds and goes in steps of five. A message is under way for one step at most, less than a fifth of the
# window of thirty, and it is the fifths that count. The longest honest story has five legs: a request, its answer
# (lost), another try, its answer, and the request of a tab that had not seen that answer yet. In a slow database the
# second try also waits: a sixth leg, so the window is longer there. What the last request waits for does not count.

_STEP = 5
_PATIENCE = 2 * _STEP
"""After this a client is sure that no answer will come, and has tried again."""
_MOMENT = 1000
"""In a state it is always this second, and what happened lies ever deeper below it: so the states are finite."""


@dataclass(frozen=True)
class Rules:
    """What can happen in a model."""

    window: int = 30
    messages: int = 3
    """Requests and answers that are under way at once."""
    transport: Transport = "body"
    """Over the body a client presents the newest token that it received; a cookie jar, the one that came last."""
    waits: bool = True
    """Whether a rotation waits for the cookies that are under way."""
    losses: bool = True
    """A request or an answer can be lost; the answer to the next try comes."""
    retries: bool = True
    """What is lost is asked for again."""
    flushes: bool = True
    """Redis can lose the session. To fall back to an older state is to lose it with a checkpoint of that age."""
    checkpoints: Literal["at once", "at once or never", "before the next", "late or never"] = "at once or never"
    """When a generation reaches PostgreSQL."""
    cuts: bool = False
    """Redis can be cut off, for any time, before a use of it or after it: what came of that nobody is told."""
    notes: Literal["all", "of unanswered uses", "none"] = "all"
    """What is told to PostgreSQL for that: which uses had no answer, and when a replay has given somebody the current
    generation."""
    thief: bool = False
    """Somebody else presents what the client holds or held before, at any time. That may end in "reused"; the claim is
    that no parent is rotated again, the window over, once somebody was given the generation after it."""
    slow_service: bool = False
    """Time can pass between the reading of PostgreSQL and the script. It counts as the answer's."""
    slow_database: bool = False
    """Time, a step at most, can pass between the arrival of a request and the reading of PostgreSQL."""
    judged_by: Literal["arrival", "reading"] = "arrival"
    """Which of the two decides whether a request came in time."""


class Message(NamedTuple):
    """A request before or after it has read PostgreSQL, its answer, or what is left of either when it was lost."""

    stage: Literal["sent", "waiting", "read", "unheard", "answered", "lost"]
    generation: int
    """Presented, or answered."""
    age: int
    """Of a request until it arrives, then until it has read PostgreSQL, and from then on until the answer arrives."""
    asked: int
    """Seconds since the first try; -1 in the second."""
    checkpoint: Mark = _UNTOLD
    """What was read."""
    unanswered: bool = False
    """Read too."""
    waited: int = 0
    """From its arrival to the reading."""
    fresh: bool = False
    """True of an answer that sets the cookie of a jar."""


class State(NamedTuple):
    """All that there is at one moment."""

    held: int
    messages: tuple[Message, ...]
    redis: Mark | None
    noted: Mark | None
    """What the checkpoint writer has yet to write."""
    checkpoint: Mark
    unanswered: int = 0
    """The last generation of which PostgreSQL was told that a use had no answer."""
    given: int = 1
    """The highest that left the service in an answer, whether or not that came."""


class Model:
    """The states that some rules allow, and what can follow each."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._under_way = rules.window // 5 if rules.transport == "cookie" and rules.waits else 0
        # Anything older is as good as this, and what never happened is too.
        self._long_ago = _MOMENT - rules.window - (2 if rules.slow_database else 1) * _STEP
        self._replayed_long_ago = _MOMENT - self._under_way - _STEP
        self._decided = lru_cache(maxsize=None)(self._decide)
        self.outcomes: set[str] = set()

    def story(self) -> list[str] | None:
        """The events of a shortest story that ends in what is not to be, or None where there is no such story."""
        first = self._plain(State(1, (), None, None, Mark(1, self._long_ago)))
        came_from: dict[State, tuple[State, str] | None] = {first: None}
        states = [first]
        for state in states:  # which grows meanwhile
            for event, following in self._events(state):
                if following is None:
                    return [*_story(came_from, state), event]
                following = self._plain(following)
                if following not in came_from:
                    came_from[following] = state, event
                    states.append(following)
        return None

    def _events(self, state: State) -> Iterator[tuple[str, State | None]]:
        held, messages, redis, noted, *_ = state
        if not any(map(_is_due, messages)) and not self._must_be_written(noted):
            yield "time passes", _a_step_later(state)
        if self._has_room(state):
            request = Message("sent", held, 0, 0 if self._rules.losses else -1)
            yield f"{held} is sent", state._replace(messages=(*messages, request))
        if self._rules.flushes and redis is not None:
            yield "redis is flushed", state._replace(redis=None)
        if noted is not None:
            yield f"checkpoint of {noted.generation}", state._replace(noted=None, checkpoint=noted)
        if self._rules.thief:
            yield from self._theft(state)
        for number, message in enumerate(messages):
            if number == 0 or message != messages[number - 1]:
                others = messages[:number] + messages[number + 1 :]
                yield from self._events_of(message, state._replace(messages=others))

    def _theft(self, state: State) -> Iterator[tuple[str, State | None]]:
        for stolen in (state.held - 1, state.held):
            for event, following in self._use(Message("sent", stolen, 0, -1), state):
                if following is not None:
                    # The client sees nothing of the answer.
                    left = following.messages[len(state.messages) :] if self._has_room(state) else ()
                    unheard = (message for message in left if message.stage == "unheard")
                    following = following._replace(messages=(*state.messages, *unheard))
                yield f"stolen {event}", following

    def _has_room(self, state: State) -> bool:
        return len(state.messages) < self._rules.messages

    def _events_of(self, message: Message, state: State) -> Iterator[tuple[str, State | None]]:
        """What can become of one message; `state` is without it."""
        held, others = state.held, state.messages
        stage, generation, age, asked, *_ = message
        if stage == "lost":
            again = Message("sent", held, 0, -1)
            yield f"{held} is sent again", state._replace(messages=(*others, again))
            return
        if stage == "unheard":  # answered with 503, and sent again some time
            unanswered = state.unanswered if self._rules.notes == "none" else max(state.unanswered, generation)
            left = (*others, Message("lost", 0, 0, 0))
            yield f"{generation} is told to be unanswered", state._replace(messages=left, unanswered=unanswered)
            return
        if asked >= 0:
            left = (*others, Message("lost", 0, 0, asked)) if self._rules.retries else others
            yield f"{generation}, {stage}, is lost", state._replace(messages=left)
        if stage == "answered":
            if self._rules.transport == "body":
                held = max(held, generation)
            elif message.fresh:
                held = generation
            yield f"{generation} arrives", state._replace(held=held)
        elif stage == "sent" and self._rules.slow_database:
            waiting = Message("waiting", generation, 0, asked)
            yield f"{generation} waits", state._replace(messages=(*others, waiting))
        elif stage in ("sent", "waiting") and self._rules.slow_service:
            waited = age if stage == "waiting" else 0
            unanswered = _is_unanswered(generation, state)
            reading = Message("read", generation, 0, asked, state.checkpoint, unanswered, waited)
            yield f"{generation} is being served", state._replace(messages=(*others, reading))
        else:
            yield from self._use(message, state)

    def _use(self, request: Message, state: State) -> Iterator[tuple[str, State | None]]:
        others, generation = state.messages, request.generation
        read, unanswered, age, waited = state.checkpoint, _is_unanswered(generation, state), 0, 0
        if request.stage == "read":
            read, unanswered, age, waited = request.checkpoint, request.unanswered, request.age, request.waited
        elif request.stage == "waiting":
            waited = request.age
        if self._rules.judged_by == "reading":
            waited = 0
        now = _MOMENT - age
        outcome, current, redis = self._decided(generation, read, state.redis, unanswered, now - waited, now)
        event = f"{generation} is {outcome}"
        if self._rules.cuts:
            unheard = state._replace(messages=(*others, Message("unheard", generation, 0, -1)))
            yield f"{generation} reaches nobody", unheard
            yield f"{event}, unheard", unheard._replace(redis=redis)
        if outcome == "reused":
            if not self._rules.thief:
                yield event, None
            return
        if outcome == "late":  # answered with 503, and sent again at once
            yield event, state._replace(messages=(*others, Message("lost", 0, 0, _PATIENCE)))
            return
        if self._rules.thief:
            before = read if state.redis is None else max(read, state.redis)
            is_again = outcome == "rotated" and before.generation == current.generation <= state.given
            if is_again and now >= before.rotated_at + self._rules.window:
                yield f"{event} again", None
                return
        fresh = self._rules.transport == "cookie" and outcome in ("rotated", "replayed")
        state = state._replace(
            messages=(*others, Message("answered", current.generation, age, request.asked, fresh=fresh)),
            redis=redis,
            given=max(state.given, current.generation),
        )
        if outcome == "replayed" and self._rules.notes == "all" and read.generation < current.generation:
            yield from self._checkpointed(event, Mark(current.generation, now), state)
        elif outcome in ("rotated", "adopted"):
            yield from self._checkpointed(event, current, state)
        else:
            yield event, state

    def _checkpointed(self, event: str, current: Mark, state: State) -> Iterator[tuple[str, State]]:
        is_newer = current.generation > state.checkpoint.generation
        if self._rules.checkpoints in ("before the next", "late or never"):
            noted = state.noted
            yield (
                event,
                state._replace(noted=current if noted is None or noted.generation < current.generation else noted),
            )
            return
        if self._rules.checkpoints != "at once" or not is_newer:
            yield event, state
        if is_newer:
            yield f"{event} and written", state._replace(checkpoint=current)

    def _decide(
        self, presented: int, checkpoint: Mark, stored: Mark | None, unanswered: bool, arrived: int, now: int
    ) -> Decision:
        decision = decide(
            presented,
            checkpoint,
            stored,
            unanswered=unanswered,
            arrived=arrived,
            now=now,
            window=self._rules.window,
            under_way=self._under_way,
        )
        self.outcomes.add(decision.outcome)
        return decision

    def _matters(self, answer: Message, held: int) -> bool:
        """Whether its arrival can change what is held. One that cannot is dropped, which leaves its place to others."""
        return answer.fresh if self._rules.transport == "cookie" else answer.generation > held

    def _must_be_written(self, noted: Mark | None) -> bool:
        if noted is None or self._rules.checkpoints != "before the next":
            return False
        return noted.rotated_at <= _MOMENT - self._rules.window + _STEP

    def _plain(self, state: State) -> State:
        """One state for all that differ only in where they count from, or in what is too old to matter."""
        held, messages, redis, noted, checkpoint, unanswered, given = state
        messages = tuple(message for message in messages if message.stage != "answered" or self._matters(message, held))
        least = min([held, *(message.generation for message in messages if message.stage != "lost")])
        # A store that is two below whatever can still be presented has lost the session, and how badly is all the same.
        lost, long_ago = least - 2, self._long_ago

        def plain(mark: Mark) -> Mark:
            return Mark(
                max(mark.generation, lost) - least,
                max(mark.rotated_at, long_ago),
                mark.replayed_at if mark.replayed_at > self._replayed_long_ago else 0,
            )

        plain_messages = [
            Message("lost", 0, 0, message.asked)
            if message.stage == "lost"
            else Message(
                message.stage,
                message.generation - least,
                message.age,
                message.asked,
                plain(message.checkpoint) if message.stage == "read" else _UNTOLD,
                message.unanswered,
                message.waited,
                message.fresh,
            )
            for message in messages
        ]
        return State(
            held - least,
            tuple(sorted(plain_messages)),
            None if redis is None else plain(redis),
            None if noted is None or noted.generation <= checkpoint.generation else plain(noted),
            plain(checkpoint),
            max(unanswered, least - 1) - least,
            max(given, lost) - least if self._rules.thief else 0,
        )


def _is_unanswered(generation: int, state: State) -> bool:
    return state.unanswered == generation >= state.checkpoint.generation


def _is_due(message: Message) -> bool:
    """No time may pass before something has become of this message."""
    return message.asked >= _PATIENCE if message.stage == "lost" else message.age >= _STEP


def _a_step_later(state: State) -> State:
    return state._replace(
        messages=tuple(
            Message(
                message.stage,
                message.generation,
                message.age + _STEP,
                message.asked + _STEP if message.asked >= 0 else -1,
                _older(message.checkpoint),
                message.unanswered,
                message.waited,
                message.fresh,
            )
            for message in state.messages
        ),
        redis=None if state.redis is None else _older(state.redis),
        noted=None if state.noted is None else _older(state.noted),
        checkpoint=_older(state.checkpoint),
    )


def _older(mark: Mark) -> Mark:
    return Mark(mark.generation, mark.rotated_at - _STEP, mark.replayed_at - _STEP if mark.replayed_at else 0)


def _story(came_from: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    events: list[str] = []
    step = came_from[state]
    while step is not None:
        state, event = step
        events.insert(0, event)
        step = came_from[state]
    return events


_JAR = Rules(transport="cookie")
_HONEST = {
    "answers lost, Redis flushed, checkpoints lost": Rules(),
    "answers lost, Redis flushed, checkpoints late": Rules(checkpoints="before the next"),
    "answers lost, Redis flushed, checkpoints lost, in a slow service": Rules(messages=2, slow_service=True),
    "Redis flushed, checkpoints lost and late": Rules(losses=False, checkpoints="late or never"),
    "answers lost, Redis flushed, checkpoints lost, before a slow database": Rules(
        window=35, messages=2, slow_database=True
    ),
    "Redis cut off": Rules(losses=False, flushes=False, cuts=True),
    "Redis cut off and flushed, checkpoints lost": Rules(messages=2, losses=False, cuts=True),
    "Redis cut off and flushed, checkpoints late": Rules(
        messages=2, losses=False, cuts=True, checkpoints="before the next"
    ),
    "Redis cut off, in a slow service": Rules(messages=2, losses=False, flushes=False, cuts=True, slow_service=True),
    "a jar, Redis cut off": replace(_JAR, messages=2, losses=False, flushes=False, cuts=True),
    "a jar, answers lost": replace(_JAR, flushes=False),
    "a jar, answers lost, in a slow service": replace(_JAR, messages=2, flushes=False, slow_service=True),
    "a jar, answers lost, before a slow database": replace(
        _JAR, window=35, messages=2, flushes=False, slow_database=True
    ),
    "a jar, Redis flushed, checkpoints lost and late": replace(_JAR, losses=False, checkpoints="late or never"),
}
if os.environ.get("TEST_CAMPAIGN"):  # about two minutes more
    _HONEST |= {
        "all of it, in a slow service": Rules(slow_service=True),
        "two messages, before a slow database, in a slow service": Rules(
            window=35, messages=2, slow_service=True, slow_database=True
        ),
        "Redis flushed, checkpoints lost and late, in a slow service": Rules(
            losses=False, checkpoints="late or never", slow_service=True
        ),
        "a jar, three messages, answers lost, in a slow service": replace(_JAR, flushes=False, slow_service=True),
        "a jar, Redis flushed, checkpoints lost and late, in a slow service": replace(
            _JAR, losses=False, checkpoints="late or never", slow_service=True
        ),
    }


@pytest.mark.parametrize("rules", _HONEST.values(), ids=_HONEST.keys())
def test_an_honest_client_is_never_taken_for_a_thief(rules: Rules) -> None:
    model = Model(rules)
    assert model.story() is None
    assert model.outcomes - {"late"} == {"rotated", "held", "replayed"} | ({"adopted"} if rules.flushes else set())


# Each of these goes one step beyond what is promised: so they show that the model can find a refusal, and where the
# promise ends.
_TOO_MUCH = {
    "messages that take half the window": Rules(window=10, losses=False, flushes=False),
    "answers lost, and messages that take a fifth of the window": Rules(window=25, flushes=False),
    "answers lost, and what a request waits for PostgreSQL counts against it": Rules(
        window=35, messages=2, flushes=False, slow_database=True, judged_by="reading"
    ),
    "Redis cut off, and nobody notes it": Rules(losses=False, flushes=False, cuts=True, notes="none"),
    "an answer lost, and Redis cut off for longer than the window when it is asked for again": Rules(
        messages=2, flushes=False, cuts=True
    ),
    "an answer lost, and nobody asks again": Rules(messages=1, retries=False, flushes=False),
    # Three accidents: the last checkpoint but one was lost; Redis and an answer are; and then the last checkpoint is
    # written only after another try was answered from what was left.
    "an answer, Redis and a checkpoint lost, the next checkpoint late": Rules(messages=2, checkpoints="late or never"),
    # The late cookie takes the jar back to a generation whose window is over before it is used again.
    "a jar, answers lost, and a rotation that does not wait for them": replace(_JAR, flushes=False, waits=False),
    # Redis alone knows which cookies are under way.
    "a jar, answers lost, and Redis flushed while a cookie is under way": replace(_JAR, messages=2),
}


@pytest.mark.parametrize("rules", _TOO_MUCH.values(), ids=_TOO_MUCH.keys())
def test_the_model_finds_the_refusals_that_are_not_excluded(rules: Rules) -> None:
    story = Model(rules).story()
    assert story is not None
    assert story[-1].endswith("is reused")


_THIEF = Rules(messages=2, cuts=True, checkpoints="at once", thief=True)


@pytest.mark.parametrize("rules", [_THIEF, replace(_THIEF, transport="cookie")], ids=["body", "cookie"])
def test_no_parent_is_rotated_again_once_its_successor_was_given_to_somebody(rules: Rules) -> None:
    assert Model(rules).story() is None


_NOT_TOLD = {
    # Redis cut off in a rotation, a replay of that answered before the use was noted.
    "replays that are not noted": replace(_THIEF, notes="of unanswered uses"),
    # Redis cut off in a rotation, and then a process killed within a second of answering the next use.
    "a checkpoint lost": replace(_THIEF, checkpoints="at once or never"),
}


@pytest.mark.parametrize("rules", _NOT_TOLD.values(), ids=_NOT_TOLD.keys())
def test_the_model_finds_the_parent_whose_successor_postgresql_did_not_hear_of(rules: Rules) -> None:
    story = Model(rules).story()
    assert story is not None
    assert story[-1].endswith("is rotated again")
