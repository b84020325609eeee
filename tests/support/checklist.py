"""The security checklist, `tests/data/security_checklist.toml`: its lines, and the tests that each of them names."""

import ast
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FILE = ROOT / "tests/data/security_checklist.toml"


@dataclass(frozen=True, slots=True)
class Removal:
    """A defence taken away: in `file`, `old` becomes `new`. Then `by` fails, or where it is empty any of the tests."""

    file: str
    old: str
    new: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `tests` are `file::function`; `no_surface` says why nothing can be attacked."""

    name: str
    claim: str
    tests: tuple[str, ...] = ()
    no_surface: str = ""
    without: tuple[Removal, ...] = ()

    def node_ids(self, removal: Removal) -> list[str]:
        """The tests of which one must fail without this defence, as pytest takes them, with all their parameters."""
        return [f"tests/{test.replace('::', '.py::')}" for test in ([removal.by] if removal.by else self.tests)]


def lines() -> dict[str, Line]:
    """All lines by their names. An unknown member is an error: it is a misspelt one."""
    return {
        name: Line(
            name,
            **{
                **entry,
                "tests": tuple(entry.get("tests", ())),
                "without": tuple(Removal(**removal) for removal in entry.get("without", ())),
            },
        )
        for name, entry in tomllib.loads(_FILE.read_text("utf-8")).items()
    }


@cache
def functions(file: str) -> set[str]:
    """The tests in a file, without importing it."""
    path = ROOT / "tests" / f"{file}.py"
    tree = ast.parse(path.read_text("utf-8")) if path.exists() else ast.Module([], [])
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return {name for name in defined if name.startswith("test_")}
