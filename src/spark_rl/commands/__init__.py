"""What each command of :mod:`spark_rl.cli` does, one module a family. Returned mappings are what ``--json`` writes.

Nothing heavy is imported before a command needs it, so that a mistake is told at once.
"""

from __future__ import annotations

from spark_rl.commands.asking import judge, solve
from spark_rl.commands.claims import claims
from spark_rl.commands.completion import completion
from spark_rl.commands.cost import cost
from spark_rl.commands.data import data
from spark_rl.commands.demo import demo
from spark_rl.commands.evaluation import evaluate
from spark_rl.commands.export import export
from spark_rl.commands.facts import config, doctor, settings_markdown
from spark_rl.commands.plan import plan
from spark_rl.commands.recycling import recycle
from spark_rl.commands.runs import list_runs
from spark_rl.commands.serving import serve
from spark_rl.commands.training import ablate, report, resolve, train

__all__ = [
    "ablate",
    "claims",
    "completion",
    "config",
    "cost",
    "data",
    "demo",
    "doctor",
    "evaluate",
    "export",
    "judge",
    "list_runs",
    "plan",
    "recycle",
    "report",
    "resolve",
    "serve",
    "settings_markdown",
    "solve",
    "train",
]
