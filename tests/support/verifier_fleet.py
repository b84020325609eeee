"""Many verifiers in processes of their own, as a test of the revocation feed drives and asks them.

A process takes one JSON command a line and answers each with one line; what happens by itself it tells in between.
"""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from queue import Empty, Queue
from typing import Any, Self

from auth_service.verifier import Unavailable, Verifier, VerifierError
from auth_service.verifier.revocations import entry_name

_MAX_STALENESS = 5.0
"""Seconds: little enough for a fault that makes the feed old to be seen as a refusal."""
_PATIENCE = 10.0
"""Seconds that a verifier has to come to hear the feed before a test begins with it."""


class Fleet:
    """`each` verifiers of one issuer in each of `processes`. Times are of the machine's monotonic clock."""

    def __init__(self, issuer: str, audience: str, *, processes: int, each: int) -> None:
        self.size = processes * each
        self._answers: Queue[dict[str, Any]] = Queue()
        self._refused: dict[str, list[float]] = {}
        command = [sys.executable, "-m", "tests.support.verifier_fleet", issuer, audience, str(each)]
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
            for _ in range(processes)
        ]
        self._listeners = [threading.Thread(target=self._listen, args=(process,)) for process in self._processes]
        for listener in self._listeners:
            listener.start()
        self._collect()  # each says that its verifiers are open

    def watch(self, tokens: dict[str, str]) -> None:
        """Have every verifier accept each of `tokens`, by session, and note when it begins to refuse it."""
        for answer in self.ask({"watch": tokens}):
            assert answer["accepted"] == len(tokens) * answer["verifiers"], answer

    def refused_at(self, session: str, *, until: float) -> list[float]:
        """When each verifier began to refuse it; as many as have by then."""
        while True:
            in_time = time.monotonic() < until
            self._take(block=0.01)
            refused = self._refused.get(session, [])
            if len(refused) == self.size or not in_time:
                return list(refused)

    def outcomes(self, token: str) -> dict[str, int]:
        """What the verifiers say of a token now: "valid" or the name of the refusal, and how many say so."""
        return _sum([answer["outcomes"] for answer in self.ask({"verify": token})])

    def ages(self) -> list[float]:
        """How long ago each verifier last knew all that is revoked, in seconds."""
        return [age for answer in self.ask({"ages": True}) for age in answer["ages"]]

    def missing(self, entries: Sequence[tuple[str, str]]) -> int:
        """How many of `entries`, by kind and id, are not held, over all verifiers."""
        return sum(answer["missing"] for answer in self.ask({"holds": list(entries)}))

    def ask(self, command: dict[str, Any]) -> list[dict[str, Any]]:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(command) + "\n")
            process.stdin.flush()
        return self._collect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        for process in self._processes:
            process.terminate()
        for process, listener in zip(self._processes, self._listeners, strict=True):
            process.wait(10)
            listener.join(10)
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()

    def _collect(self) -> list[dict[str, Any]]:
        deadline, answers = time.monotonic() + 60, list[dict[str, Any]]()
        while len(answers) < len(self._processes):
            assert time.monotonic() < deadline, "the verifiers do not answer"
            answers += self._take(block=0.1)
        return answers

    def _take(self, *, block: float) -> list[dict[str, Any]]:
        answers = []
        try:
            line = self._answers.get(timeout=block)
            while True:
                if "refused" in line:
                    self._refused.setdefault(line["refused"], []).append(line["at"])
                else:
                    answers.append(line)
                line = self._answers.get_nowait()
        except Empty:
            return answers

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._answers.put(json.loads(line))


def _sum(counts: list[dict[str, int]]) -> dict[str, int]:
    return {name: sum(count.get(name, 0) for count in counts) for name in {name for count in counts for name in count}}


class _Verifiers:
    """The verifiers of one process."""

    def __init__(self, verifiers: Sequence[Verifier]) -> None:
        self._verifiers = verifiers

    async def obey(self, command: dict[str, Any]) -> dict[str, Any]:
        if "watch" in command:
            accepted = [
                await self._watch(verifier, session, token)
                for session, token in command["watch"].items()
                for verifier in self._verifiers
            ]
            return {"accepted": sum(accepted), "verifiers": len(self._verifiers)}
        if "verify" in command:
            outcomes = [await _outcome(verifier, command["verify"]) for verifier in self._verifiers]
            return {"outcomes": {name: outcomes.count(name) for name in set(outcomes)}}
        if "ages" in command:
            return {"ages": [verifier.staleness for verifier in self._verifiers]}
        names = [entry_name(kind, identifier) for kind, identifier in command["holds"]]
        held = [not verifier.revocations.holds_none_of([name]) for verifier in self._verifiers for name in names]
        return {"missing": held.count(False)}

    async def _watch(self, verifier: Verifier, session: str, token: str) -> bool:
        verified = None
        deadline = time.monotonic() + _PATIENCE
        while verified is None:
            await asyncio.sleep(0)  # so that beats are read in between: there may be thousands of tokens
            try:
                verified = await verifier.authenticate(token)
            except Unavailable:
                if time.monotonic() > deadline:
                    return False
            except VerifierError:
                return False
        checks = set[asyncio.Task[None]]()

        def end() -> None:
            check = asyncio.ensure_future(refused())
            checks.add(check)
            check.add_done_callback(checks.discard)

        async def refused() -> None:
            if await _outcome(verifier, token) == "RevokedToken":
                _say({"refused": session, "at": time.monotonic()})

        verifier.watch(verified, end)
        return True


async def _outcome(verifier: Verifier, token: str) -> str:
    try:
        await verifier.verify(token)
    except VerifierError as refusal:
        return type(refusal).__name__
    return "valid"


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def _serve(issuer: str, audience: str, each: int) -> None:
    verifiers = [Verifier(issuer, audience=audience, max_staleness=_MAX_STALENESS) for _ in range(each)]
    await asyncio.gather(*(verifier.open() for verifier in verifiers))
    _say({"open": each})
    reader = asyncio.StreamReader(limit=2**26)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    fleet = _Verifiers(verifiers)
    while line := await reader.readline():
        _say(await fleet.obey(json.loads(line)))


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2], int(sys.argv[3])))
