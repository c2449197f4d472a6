"""The structure of the package: floors, of which a room imports only from those below it, and no circle of imports."""

from __future__ import annotations

import ast
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import spark_rl

SOURCE = Path(spark_rl.__file__).parent

FLOORS: tuple[tuple[str, ...], ...] = (
    (
        "errors",
        "lazy",
        "problem",
        "files",
        "manifest",
        "seeds",
        "clock",
        "cores",
        "intervals",
        "plugins",
        "runs",
        "lock",
        "version",
        "config",
    ),
    ("advantage", "objective"),
    ("data", "model", "verify", "rewards"),
    ("chat", "recycle", "report", "track"),
    ("embedded", "engine", "learner", "measure", "parts", "checkpoint"),
    ("rollout", "ahead", "loop", "inference", "voting", "selfreward"),
    ("evals",),
    ("cluster", "backend"),
    ("run", "length", "given", "control", "examination", "health", "hints", "export"),
    (
        "arguments",
        "callbacks",
        "trainer",
        "matrix",
        "ablate",
        "claims",
        "cost",
        "doctor",
        "plan",
        "integrations",
        "serve",
        "demo",
    ),
    ("commands",),
    ("options", "cli", "__main__"),
)
"""From the ground to the roof."""


def room(module: str) -> str:
    """The first part of a module's name below the package."""
    return module.partition(".")[0]


@lru_cache
def imports() -> dict[str, set[str]]:
    """Module -> what it imports of the package, inside functions and for type checkers too."""
    modules = {
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in SOURCE.rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for module, path in modules.items():
        if module == "__init__":
            continue
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("spark_rl"):
                inside = node.module.removeprefix("spark_rl").removeprefix(".")
                for alias in node.names:
                    whole = f"{inside}.{alias.name}".removeprefix(".")
                    names.add(whole if whole in modules else inside)
            elif isinstance(node, ast.Import):
                names |= {a.name.removeprefix("spark_rl.") for a in node.names if a.name.startswith("spark_rl.")}
        found[module] = {name for name in names if name and name != module}
    return found


def test_every_room_stands_on_a_floor() -> None:
    rooms = {room(module) for module in imports()}
    assert rooms <= {name for floor in FLOORS for name in floor}, "put the new room on its floor"


def test_no_arrow_runs_from_the_ground_to_the_roof() -> None:
    height = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    up = {
        f"{module} -> {name}"
        for module, names in imports().items()
        for name in names
        if height[room(name)] > height[room(module)]
    }
    assert not up


def test_rooms_import_each_other_in_no_circle() -> None:
    rooms: dict[str, set[str]] = {}
    for module, names in imports().items():
        rooms.setdefault(room(module), set()).update(room(name) for name in names if room(name) != room(module))
    try:
        TopologicalSorter(rooms).prepare()
    except CycleError as circle:
        raise AssertionError(f"a circle of rooms: {' -> '.join(circle.args[1])}") from None


def test_modules_import_each_other_in_no_circle() -> None:
    try:
        TopologicalSorter(imports()).prepare()
    except CycleError as circle:
        raise AssertionError(f"a circle of imports: {' -> '.join(circle.args[1])}") from None


def test_the_loop_can_be_read_in_one_sitting() -> None:
    assert len((SOURCE / "loop.py").read_text(encoding="utf-8").splitlines()) <= 120


def test_links_are_followed_by_one_function() -> None:
    """``Path.resolve`` raises what nobody expects for a link that leads to itself; ``files.resolved`` does not."""
    found = [str(path) for path in SOURCE.rglob("*.py") if ".resolve()" in path.read_text(encoding="utf-8")]
    assert not found


def test_files_of_tests_have_names_of_their_own() -> None:
    """pytest takes two of one name for one module where their folders are no packages."""
    tests = Path(__file__).parent.rglob("test_*.py")
    names = [path.name for path in tests if not (path.parent / "__init__.py").exists()]
    assert len(names) == len(set(names))
