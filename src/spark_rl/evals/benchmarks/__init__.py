"""All benchmarks by name, one line each; a module is imported when one of its benchmarks is asked for (Sec. 4.1, A.1).

A new benchmark is one module here that ends in ``BENCHMARK = Benchmark(...)``, and one line in :data:`MODULES`.
Further benchmarks of a module, such as another mode of the same data, are module constants too; their names begin with
the module's, and groups leave them out.

Three modules are no benchmarks: :mod:`.entries` reads the rows of their files, :mod:`.pictured` makes items with images
of them, and :mod:`.catalogue` writes the table of all benchmarks in ``docs/evaluation.md``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import get_args

from spark_rl.errors import UserError
from spark_rl.evals.benchmark import Benchmark, GroupName
from spark_rl.plugins import absolute, load_module

MODULES: Mapping[str, GroupName | None] = {
    "gsm8k": "math-llm",
    "math500": "math-llm",
    "aime24": "math-llm",
    "aime25": "math-llm",
    "amc23": "math-llm",
    "mmlu_stem": "math-llm",
    "mathvista": "math-vlm",
    "mathvision": "math-vlm",
    "wemath": "math-vlm",
    "mathverse": "math-vlm",
    "dynamath": "math-vlm",
    "dynamath_all": None,
    "logicvista": "math-vlm",
    "mmk12": "math-vlm",
    "k12": "math-vlm",
    "rewardbench2": "reward",
    "vl_rewardbench": "reward",
    "mmbench": "general",
    "mmstar": "general",
    "mmmu": "general",
    "mmvet": "general",
    "scienceqa": "general",
    "pope": "general",
    "seedbench": "general",
    "realworldqa": "general",
}
"""Module -> the group that asks it, in the order of the paper's tables; ``None`` for what is asked by name only."""

_OWN: dict[Path, Benchmark] = {}
"""Those of users' files that were asked for in this process."""

GROUPS = (*get_args(GroupName), "all")


def members(name: str) -> tuple[str, ...]:
    """The modules of a group, in any spelling; empty if ``name`` is no group."""
    group = next((group for group in GROUPS if _plain(group) == _plain(name)), None)
    return () if group is None else tuple(module for module, own in MODULES.items() if own and group in {own, "all"})


def find(name: str) -> Benchmark:
    """The benchmark of that name; case, dashes and underscores do not matter. ``FILE.py`` is one of the user's own.

    Raises:
        UserError: there is none; the line names the nearest.
    """
    if name.endswith(".py"):
        return _of_file(name)
    wanted = _plain(name)
    own = next((benchmark for benchmark in _OWN.values() if _plain(benchmark.name) == wanted), None)
    if own is not None:
        return own
    for module in sorted(MODULES, key=len, reverse=True):
        if wanted.startswith(_plain(module)):
            for benchmark in in_module(module):
                if wanted in {_plain(benchmark.name), _plain(benchmark.title)}:
                    return benchmark
    known = {_plain(known): known for known in (*MODULES, *GROUPS)}
    close = [known[near] for near in difflib.get_close_matches(wanted, known, n=2, cutoff=0.6)]
    mend = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known.values())}"
    raise UserError(f"there is no benchmark {name!r}; {mend}")


def in_module(module: str) -> Sequence[Benchmark]:
    """All benchmarks of one module, ``BENCHMARK`` first."""
    loaded = import_module(f"{__name__}.{module}")
    others = [value for value in vars(loaded).values() if isinstance(value, Benchmark)]
    return sorted(others, key=lambda benchmark: benchmark is not loaded.BENCHMARK)


def _of_file(file: str) -> Benchmark:
    """The ``BENCHMARK`` of a user's file, found by its name too from now on.

    Raises:
        UserError: there is no such file, it can't be run, or it defines none.
    """
    path = absolute(file)
    if path not in _OWN:
        if not path.is_file():
            raise UserError(f"--bench {file!r}: there is no file {path}")
        found = getattr(load_module(path, "--bench"), "BENCHMARK", None)
        if not isinstance(found, Benchmark):
            raise UserError(f"--bench {file!r}: {path.name} must end in BENCHMARK = Benchmark(...)")
        if _plain(found.name) in {_plain(known) for known in (*MODULES, *GROUPS)}:
            raise UserError(f"--bench {file!r}: there is a benchmark {found.name!r} already; give yours another name")
        _OWN[path] = found
    return _OWN[path]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
