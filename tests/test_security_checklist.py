"""Every line of the security checklist names tests that exist, or says why there is nothing to attack."""

import pytest

from tests.support.checklist import ROOT, Line, functions, lines

_LINES = lines()
_EXPECTED = [
    *(f"V{number}" for number in range(1, 11)),
    *(f"I{number}" for number in range(1, 9)),
    *(f"P{number}" for number in range(1, 10)),
    *(str(number) for number in range(1, 41)),
]
# Their lines come with the tests that show them.
_ELSEWHERE = {"P1", "P2", "P3", "P4", "P5", "P6", *map(str, range(15, 23)), "34", "35"}


def test_no_line_is_missing() -> None:
    assert [name for name in _EXPECTED if name not in _LINES and name not in _ELSEWHERE] == []
    assert set(_LINES) <= set(_EXPECTED)


@pytest.mark.parametrize("line", _LINES.values(), ids=_LINES)
def test_a_line_is_shown_by_tests_that_exist_or_has_no_surface(line: Line) -> None:
    assert line.tests or line.no_surface
    for file, function in (test.split("::") for test in line.tests):
        assert function in functions(file), f"{file}.py has no {function}"


@pytest.mark.parametrize("line", _LINES.values(), ids=_LINES)
def test_a_defence_that_can_be_taken_away_is_where_it_is_said_to_be(line: Line) -> None:
    for removal in line.without:
        assert (ROOT / removal.file).read_text("utf-8").count(removal.old) == 1, removal
