"""Every line of the security checklist names tests that exist, or says why there is nothing to attack."""

import ast

import pytest

from tests.support.checklist import ROOT, Line, functions, lines

_LINES = lines()
_EXPECTED = [
    *(f"V{number}" for number in range(1, 11)),
    *(f"I{number}" for number in range(1, 9)),
    *(f"P{number}" for number in range(1, 10)),
    *(str(number) for number in range(1, 41)),
]


def test_no_line_is_missing() -> None:
    assert list(_LINES) == _EXPECTED


@pytest.mark.parametrize("line", _LINES.values(), ids=_LINES)
def test_a_line_is_shown_by_tests_that_exist_or_has_no_surface(line: Line) -> None:
    assert line.tests or line.no_surface
    for file, function in (test.split("::") for test in line.tests):
        assert function in functions(file), f"{file}.py has no {function}"


@pytest.mark.parametrize("line", _LINES.values(), ids=_LINES)
def test_a_defence_that_can_be_taken_away_is_where_it_is_said_to_be(line: Line) -> None:
    for removal in line.without:
        whole = (ROOT / removal.file).read_text("utf-8")
        assert whole.count(removal.old) == 1, removal
        if removal.file.endswith(".py"):
            ast.parse(whole.replace(removal.old, removal.new))  # or it would be noticed for being no Python
        assert removal.by in ("", *line.tests), removal
