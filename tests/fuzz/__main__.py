"""`make fuzz`: a campaign against a served process on stores of its own. Exit code 1 if anything was found."""

import argparse
import asyncio
import secrets
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import uvloop

from tests.fuzz.campaign import Campaign, Outcome
from tests.support.processes import served
from tests.support.stores import started_stores

_MOST_MEMORY = 0.10


def main() -> None:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="how many requests (default: a million)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time at the latest")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(1_000_000), help="to make the same requests again"
    )
    parser.add_argument("--first", type=int, default=0, help="number of the first request, to send one of them again")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    outcome = _run(arguments)
    print(outcome)
    for problem in outcome.problems[:50]:
        print(problem)
    if outcome.growth > _MOST_MEMORY:
        print(f"memory grew by more than {_MOST_MEMORY:.0%}")
    sys.exit(1 if outcome.problems or outcome.growth > _MOST_MEMORY else 0)


def _run(arguments: argparse.Namespace) -> Outcome:
    with started_stores() as stores, tempfile.TemporaryDirectory(prefix="auth-fuzz-") as folder:
        settings = stores.settings(
            database_url=stores.new_database(), access_token_ttl=timedelta(hours=1), audiences="orders"
        )
        with served(settings, Path(folder)) as [process]:
            campaign = Campaign(settings, process, seed=arguments.seed, say=lambda text: print(text, flush=True))
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(campaign.run(count=arguments.count, first=arguments.first, seconds=arguments.seconds))


if __name__ == "__main__":
    main()
