"""The security checklist, `tests/data/security_checklist.toml`: its lines, and the tests that each of them names."""

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FILE = ROOT / "tests/data/security_checklist.toml"


@dataclass(frozen=True, slots=True)
class Removal:
    """A defence taken away: in `file`, `old` becomes `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `tests` are `file::function`; `no_surface` says why nothing can be attacked."""

    name: str
    claim: str
    tests: tuple[str, ...] = ()
    no_surface: str = ""
    without: tuple[Removal, ...] = ()

    @property
    def node_ids(self) -> list[str]:
        """The tests as pytest takes them, with all their parameters."""
        return [f"tests/{file}.py::{function}" for file, function in (test.split("::") for test in self.tests)]


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


def functions(file: str) -> set[str]:
    """The tests in a file, without importing it."""
    path = ROOT / "tests" / f"{file}.py"
    tree = ast.parse(path.read_text("utf-8")) if path.exists() else ast.Module([], [])
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return {name for name in defined if name.startswith("test_")}
