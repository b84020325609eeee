"""Enumeration: the time of a refused login does not tell whether there is such an account. In full: `make bench`."""

import itertools
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from auth_service.settings import Settings
from tests.benchmarks.enumeration import KINDS, add_accounts, area, refusals
from tests.support.processes import served

_SAMPLES = 60


async def test_unknown_wrong_and_disabled_take_the_same_time(settings: Callable[..., Settings], tmp_path: Path) -> None:
    own = settings()
    await add_accounts(own, _SAMPLES)
    with served(own, tmp_path) as [process]:
        await refusals(process.port, own.redis_url.get_secret_value(), 5)  # warm
        seconds = await refusals(process.port, own.redis_url.get_secret_value(), _SAMPLES)
    medians = {kind: statistics.median(taken) for kind, taken in seconds.items()}
    for one, other in itertools.combinations(KINDS, 2):
        # With so few samples chance alone reaches 0.65 at times; a hash that is left out, 1.0.
        assert area(seconds[one], seconds[other]) < 0.8, (one, other)
        assert abs(medians[one] - medians[other]) < 0.4 * max(medians.values()), (one, other)


@pytest.mark.parametrize(
    ("ones", "others", "told"),
    [([1.0, 2.0], [3.0, 4.0], 1.0), ([3.0, 4.0], [1.0, 2.0], 1.0), ([1.0, 2.0], [1.0, 2.0], 0.5)],
)
def test_the_area_is_one_where_time_tells_all_and_a_half_where_it_tells_nothing(
    ones: list[float], others: list[float], told: float
) -> None:
    assert area(ones, others) == told
