"""Sessions under whatever may happen to them, in any order: a Hypothesis state machine over HTTP and the real stores.

`TEST_CAMPAIGN=5000` runs so many new examples instead of the fixed ones.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import ClassVar, NamedTuple, TypeVar

import httpx2
from hypothesis import HealthCheck, seed
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, get_state_machine_test, initialize, precondition, rule

from auth_service.app import create_app
from auth_service.audit import OPERATOR
from auth_service.settings import Settings
from auth_service.stores.clock import Clock
from tests.support.service import PASSWORD, WINDOW, Service, problem
from tests.support.tokens import claims_of

_WINDOW = timedelta(seconds=WINDOW)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_SESSIONS = 4
_CAMPAIGN = int(os.environ.get("TEST_CAMPAIGN") or 0)
# Ten examples each: after its first ten Hypothesis mostly varies those it has.
_SEEDS = range(10)
_SETTINGS = hypothesis_settings(
    max_examples=_CAMPAIGN or 10,
    stateful_step_count=30,
    derandomize=False,  # the seeds do that
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
)
_EXPECTED = {
    *("rotated", "held", "replayed", "adopted", "at once"),
    *("reused", "late retry refused", "expired", "ended"),
    *("redis behind", "checkpoint alone"),
}
"""What the examples must have met: a machine that never gets there shows nothing."""

_any = st.integers(0, 11)
"""Picks one of however many there are."""

_T = TypeVar("_T")


class StoppedClock(Clock):
    """Time that stands still until it is moved, so that the model knows to the millisecond what is due."""

    def __init__(self) -> None:
        super().__init__()
        # After the run's signing key was made, and a whole second, as the times in tokens are.
        self.began = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
        self.moment = self.began

    def now(self, reading: datetime) -> datetime:
        return self.moment

    def elapsed(self, since: float) -> timedelta:
        return timedelta(0)


class World:
    """One process of the service after another, on the same stores, driven from outside their event loop."""

    def __init__(self, runner: asyncio.Runner, settings: Settings) -> None:
        self.clock = StoppedClock()
        self.met: Counter[str] = Counter()
        self.users = 0
        self._runner = runner
        self._settings = settings
        self.service = self.run(self._start())

    def run(self, work: Awaitable[_T]) -> _T:
        async def awaited() -> _T:
            return await work

        return self._runner.run(awaited())

    async def restart(self, *, cleanly: bool) -> None:
        """Another process takes over; one that ends cleanly has written its checkpoints."""
        if cleanly:
            await self.service.app.parts.checkpoints.stop()
        await self.stop()
        self.service = await self._start()

    async def stop(self) -> None:
        await self.service.http.aclose()
        await self.service.internal.aclose()
        await self.service.app.parts.close()

    async def _start(self) -> Service:
        # Outside its lifespan the application writes no checkpoint by itself: that is a rule of the machine.
        app = create_app(self._settings, self.clock)
        await app.parts.open()
        app.key_follower.hold(await app.parts.key_life_cycle.ensure())
        return Service(app, self.clock)


class Token(NamedTuple):
    """A refresh token that somebody received."""

    text: str
    generation: int
    expires_at: datetime


class Known(NamedTuple):
    """What the better informed of the two stores holds: a generation, and when it was rotated to, in milliseconds."""

    generation: int
    rotated_at: int

    def is_inside_window(self, now: datetime) -> bool:
        return _milliseconds(now) < self.rotated_at + WINDOW * 1000


@dataclass
class Session:
    """What is true of a session, whatever the stores have forgotten of it."""

    id: str
    ends_at: datetime
    held: Token
    """The owner's: the last one that reached them."""
    received: list[Token]
    access_tokens: list[tuple[str, datetime]]
    dates: dict[int, list[datetime]]
    """Of each generation: when it was made, and when it was taken up again after both stores had forgotten it."""
    ended: str | None = None
    stored: list[bytes | str] = field(default_factory=list)
    """All that Redis ever held of it."""
    noted: int = 1
    """The highest generation that a living process has made or taken up."""
    durable: int = 1
    """The highest of which PostgreSQL was told."""
    checkpoint: int = 1

    @property
    def newest(self) -> int:
        return max(self.dates)


class SessionMachine(RuleBasedStateMachine):
    """One user with a few sessions. Every promise is asserted where a token is presented."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.sessions: list[Session] = []
        self.disabled = False

    @property
    def now(self) -> datetime:
        return self.world.clock.moment

    # What people do. The rules that do "nothing" at times would otherwise end every session before it gets anywhere.

    @initialize()
    def register(self) -> None:
        world = self.world
        world.clock.moment = world.clock.began
        world.users += 1
        self.email = f"machine{world.users}@example.com"
        body = {"username": f"machine{world.users}", "email": self.email, "password": PASSWORD}
        answer = world.run(world.service.http.post("/user/register", json=body))
        assert answer.status_code == 201, answer.text
        self.user_id = answer.json()["user"]["id"]
        self.sessions.append(self._opened(answer))

    @precondition(lambda self: len(self.sessions) < _MOST_SESSIONS)
    @rule()
    def log_in(self) -> None:
        world = self.world
        answer = world.run(world.service.http.post("/user/login", json={"email": self.email, "password": PASSWORD}))
        if self.disabled:
            assert problem(answer) == (401, "invalid_credentials")
            world.run(world.service.forget_attempts())  # however often it is tried: throttles have tests of their own
        else:
            assert answer.status_code == 200, answer.text
            self.sessions.append(self._opened(answer))

    @rule(which=_any, after=st.sampled_from([0, 10, WINDOW, 600]))
    def owner_refreshes(self, which: int, after: int) -> None:
        self.world.clock.moment += timedelta(seconds=after)
        session = self._session(which)
        token = self._present(session, session.held)
        if token is not None:
            session.held = token

    @rule(which=_any)
    def owner_refreshes_and_the_answer_is_lost(self, which: int) -> None:
        session = self._session(which)
        if self._present(session, session.held) is not None:
            session.received.pop()

    @rule(which=_any, age=_any)
    def an_earlier_token_is_presented(self, which: int, age: int) -> None:
        """By a message that was under way for long, or by a thief, who keeps what comes back."""
        session = self._session(which)
        self._present(session, session.received[-1 - age % len(session.received)])

    @rule(which=_any, callers=st.integers(2, 6))
    def tabs_refresh_at_once(self, which: int, callers: int) -> None:
        session = self._session(which)
        known = self.world.run(self._known(session))
        if session.ended or known.generation != session.newest:
            return
        least = known.generation - known.is_inside_window(self.now)
        tokens = [token for token in session.received if token.generation >= least and token.expires_at > self.now]
        if not tokens or self.now >= session.ends_at:
            return

        async def all_at_once() -> list[httpx2.Response]:
            refresh = self.world.service.refresh
            return await asyncio.gather(*(refresh(tokens[n % len(tokens)].text) for n in range(callers)))

        answers = self.world.run(all_at_once())
        assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
        given = [self._given(session, answer) for answer in answers]
        assert len({token.generation for token in given}) == 1, "one live generation"
        self._believe(session, given[0].generation, known)
        session.held = given[-1]
        self.world.met["at once"] += 1

    @rule(which=_any, by=st.sampled_from(["held", "earliest", "access token", "nothing", "nothing"]))
    def log_out(self, which: int, by: str) -> None:
        session = self._session(which)
        service = self.world.service
        if by == "nothing":
            return
        if by == "access token":
            headers = {"Authorization": f"Bearer {session.access_tokens[0][0]}"}
            answer = self.world.run(service.http.post("/user/logout", headers=headers))
        else:
            token = session.held if by == "held" else session.received[0]
            answer = self.world.run(service.logout(token.text))
        assert answer.status_code == 204, answer.text
        session.ended = session.ended or "logout"

    @rule(disabled=st.sampled_from([False, False, True]))
    def disable_or_enable(self, disabled: bool) -> None:
        users = self.world.service.app.parts.users
        self.world.run(
            users.disable(self.user_id, by=OPERATOR) if disabled else users.enable(self.user_id, by=OPERATOR)
        )
        self.disabled = disabled
        for session in self.sessions if disabled else ():
            session.ended = session.ended or "disabled"

    @rule(which=_any, age=_any)
    def an_access_token_is_used(self, which: int, age: int) -> None:
        session = self._session(which)
        text, expires_at = session.access_tokens[-1 - age % len(session.access_tokens)]
        answer = self.world.run(self.world.service.me(text))
        if session.ended or self.now >= expires_at:
            assert problem(answer) == (401, "invalid_token")
        else:
            assert answer.status_code == 200, answer.text

    # What happens to the stores.

    @rule()
    def redis_is_flushed(self) -> None:
        self.world.run(self.world.service.flush_redis())

    @rule(which=_any, age=_any, after=st.sampled_from([0, WINDOW]))
    def redis_goes_back(self, which: int, age: int, after: int) -> None:
        """To what it held before: a snapshot, or a replica that lagged behind. That can take a while to be noticed."""
        session = self._session(which)
        older = session.stored[:-1]
        if older:
            value = older[-1 - age % len(older)]
            self.world.run(self.world.service.redis.set(f"auth:session:{session.id}", value, ex=86400))
        self.world.clock.moment += timedelta(seconds=after)

    @rule()
    def checkpoints_are_written(self) -> None:
        self.world.run(self.world.service.flush_checkpoints())
        for session in self.sessions:
            session.durable = session.noted

    @rule(redis_too=st.booleans())
    def checkpoints_are_lost(self, redis_too: bool) -> None:
        """Those not written yet: they are written, and then the rows are again what they were."""
        self.world.run(self._lose_checkpoints())
        for session in self.sessions:
            session.noted = session.durable
        if redis_too:
            self.redis_is_flushed()

    @rule(how=st.sampled_from(["killed", "stopped", "nothing", "nothing", "nothing"]))
    def the_service_is_restarted(self, how: str) -> None:
        """Killed, it loses the checkpoints in earnest."""
        if how != "nothing":
            self.world.run(self.world.restart(cleanly=how == "stopped"))
            for session in self.sessions:
                if how == "stopped":
                    session.durable = session.noted
                else:
                    session.noted = session.durable

    # What time does.

    @rule(milliseconds=st.sampled_from([1, 1_000, 10_000, 14_999, 15_000, 29_998]))
    def a_moment_passes(self, milliseconds: int) -> None:
        self.world.clock.moment += timedelta(milliseconds=milliseconds)

    @rule(
        seconds=st.sampled_from([WINDOW - 0.001, WINDOW, WINDOW + 0.001, WINDOW + 1, 600, 86_400, 7 * 86_400]),
        writes=st.booleans(),
    )
    def a_window_passes(self, seconds: float, writes: bool) -> None:
        self.world.clock.moment += timedelta(seconds=seconds)
        if writes:
            self.checkpoints_are_written()

    # What must hold.

    def teardown(self) -> None:
        """At the end every token is presented once more, the newest of each session first."""
        for session in self.sessions:
            for token in sorted(session.received, key=lambda token: -token.generation)[:6]:
                self._present(session, token)
            for text, expires_at in session.access_tokens[-3:]:
                alive = session.ended is None and self.now < expires_at
                assert self.world.run(self.world.service.me(text)).status_code == (200 if alive else 401)

    def _present(self, session: Session, token: Token) -> Token | None:
        """Refresh with `token`: what came back, if it was accepted. Whatever came must be right."""
        known = self.world.run(self._known(session))
        answer = self.world.run(self.world.service.refresh(token.text))
        if session.ended:
            # Whatever happened to Redis, and whatever checkpoint was lost: PostgreSQL has committed the end.
            assert problem(answer) == (401, "refresh_token_revoked")
            self.world.met["ended"] += 1
            return None
        if self.now >= min(token.expires_at, session.ends_at):
            assert problem(answer) == (401, "refresh_token_expired")
            self.world.met["expired"] += 1
            return None
        if answer.status_code != 200:
            assert problem(answer) == (401, "refresh_token_reused")
            self._refused(session, token, known)
            return None
        given = self._given(session, answer)
        self._accepted(session, token.generation, given.generation, known)
        self._believe(session, given.generation, known)
        return given

    def _refused(self, session: Session, token: Token, known: Known) -> None:
        # The promise to the honest, which holds whatever both stores have lost: a token is refused only if its
        # successor was first given out a whole window ago. So neither the newest token nor, within the window, its
        # parent ever is.
        assert token.generation < session.newest, "the newest token was refused"
        successor_made_at = session.dates[token.generation + 1][0]
        assert self.now - successor_made_at >= _WINDOW, "a token was refused within the window"
        session.ended = "reuse"
        self.world.met["late retry refused" if token == session.held else "reused"] += 1

    def _accepted(self, session: Session, presented: int, given: int, known: Known) -> None:
        newest = session.newest
        inside = known.is_inside_window(self.now)
        assert given >= known.generation
        if known.generation == newest:
            # One store at least remembers: then theft is always caught, and there is one live generation.
            if presented == newest:
                assert given == (newest if inside else newest + 1)
                self.world.met["held" if inside else "rotated"] += 1
            else:
                assert presented == newest - 1, "an older token was accepted"
                assert inside, "a rotated token was accepted after the window"
                assert given == newest
                self.world.met["replayed"] += 1
        else:
            # Both stores have forgotten the newest generation, so a token that was rotated away may be the newest that
            # anybody remembers, and is good once more. What is kept even then: it is answered with itself or with the
            # next, which was given out before; the forgotten generation is good when it comes; and time goes forward.
            assert presented >= known.generation - 1
            assert given in (presented, presented + 1)
            assert given <= newest
            self.world.met["adopted"] += 1
        if given > newest and given > 2:
            assert self.now - session.dates[given - 1][0] >= _WINDOW, "generations are a window apart"

    def _believe(self, session: Session, generation: int, known: Known) -> None:
        """Take in what an answer says."""
        value = self.world.run(self.world.service.redis.get(f"auth:session:{session.id}"))
        if generation > known.generation:
            assert value == f"{generation} {_milliseconds(self.now)}".encode()
            session.dates.setdefault(generation, []).append(self.now)
            session.noted = max(session.noted, generation)
        if value is not None and value not in session.stored:
            session.stored.append(value)

    def _given(self, session: Session, answer: httpx2.Response) -> Token:
        body = answer.json()
        claims = claims_of(body["refresh_token"])
        assert claims["sid"] == session.id
        assert claims_of(body["access_token"])["sid"] == session.id
        token = Token(body["refresh_token"], claims["gen"], _moment(claims["exp"]))
        assert token.expires_at <= session.ends_at
        session.received.append(token)
        session.access_tokens.append((body["access_token"], _moment(claims_of(body["access_token"])["exp"])))
        return token

    async def _known(self, session: Session) -> Known:
        """What the two stores hold, read past the service."""
        [row] = await self.world.service.sql(
            "SELECT generation, rotated_at, revoked_at FROM sessions WHERE id = $1", session.id
        )
        assert session.checkpoint <= row["generation"] <= session.newest, "a checkpoint went back, or ahead"
        assert (row["revoked_at"] is not None) == (session.ended is not None)
        assert row["generation"] >= session.durable, "a checkpoint was not written"
        session.checkpoint = row["generation"]
        known = Known(row["generation"], _milliseconds(row["rotated_at"]) if row["rotated_at"] else 0)
        value = await self.world.service.redis.get(f"auth:session:{session.id}")
        if value is not None:
            stored = Known(*map(int, value.split()[:2]))
            if stored < known and not session.ended:
                self.world.met["redis behind"] += 1
            known = max(known, stored)
        elif known.generation == session.newest > 1 and not session.ended:
            self.world.met["checkpoint alone"] += 1
        dates = [_milliseconds(date) for date in session.dates[known.generation]]
        assert known.rotated_at in dates or known == (1, 0), "the window moved"
        return known

    def _opened(self, answer: httpx2.Response) -> Session:
        body = answer.json()
        claims = claims_of(body["refresh_token"])
        assert claims["gen"] == 1
        token = Token(body["refresh_token"], 1, _moment(claims["exp"]))
        access_token = body["access_token"], _moment(claims_of(body["access_token"])["exp"])
        ends_at = self.now + self.world.service.settings.session_ttl
        return Session(claims["sid"], ends_at, token, [token], [access_token], {1: [self.now]})

    async def _lose_checkpoints(self) -> None:
        sql = self.world.service.sql
        before = await sql("SELECT s.* FROM sessions s JOIN users u ON u.id = s.user_id WHERE u.email = $1", self.email)
        await self.world.service.flush_checkpoints()
        for row in before:
            await sql(
                "UPDATE sessions SET generation = $2, rotated_at = $3 WHERE id = $1",
                row["id"],
                row["generation"],
                row["rotated_at"],
            )

    def _session(self, which: int) -> Session:
        # More often one that is alive.
        sessions = [*self.sessions, *(2 * [session for session in self.sessions if not session.ended])]
        return sessions[which % len(sessions)]


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_sessions_keep_their_promises(settings: Callable[..., Settings]) -> None:
    run = get_state_machine_test(SessionMachine, settings=_SETTINGS)
    with asyncio.Runner() as runner:
        world = SessionMachine.world = World(runner, settings(session_ttl=8 * 86_400))
        try:
            if _CAMPAIGN:
                run()
            else:
                for number in _SEEDS:
                    seed(number)(run)()
        finally:
            runner.run(world.stop())
    assert world.met.keys() == _EXPECTED, world.met
