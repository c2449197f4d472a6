"""The table of all benchmarks in ``docs/evaluation.md``, from their records (paper Table 9).

After a change to a record: ``python -m spark_rl.evals.benchmarks.catalogue docs/evaluation.md``. A test compares
the two.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from spark_rl.evals.benchmark import Benchmark
from spark_rl.evals.benchmarks import MODULES, in_module
from spark_rl.report.notation import DASH

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
"""The marks between which the table stands."""


def all_benchmarks() -> list[Benchmark]:
    """Every benchmark, in the order of the paper's tables; other modes of one stand behind it."""
    return [benchmark for module in MODULES for benchmark in in_module(module)]


def benchmarks_markdown(benchmarks: Iterable[Benchmark]) -> str:
    """One row a benchmark: how it is called, how large it is, how it is scored, where its data lies and comes from."""
    lines = [
        "| name | title | group | items | protocols | files below the data root | source | licence |",
        "| --- | --- | --- | ---: | --- | --- | --- | --- |",
    ]
    for one in benchmarks:
        cells = (
            f"`{one.name}`", one.title, one.group, DASH if one.published is None else f"{one.published:,}",
            ", ".join(_protocol(one, name) for name in one.protocols), ", ".join(f"`{file}`" for file in one.files),
            one.source, one.licence,
        )  # fmt: skip
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _protocol(benchmark: Benchmark, name: str) -> str:
    return f"`{name}` (unboxed)" if name == "rule" and benchmark.unboxed else f"`{name}`"


def filled(page: str, table: str) -> str:
    """A page with the table between the marks.

    Raises:
        ValueError: the page lacks a mark.
    """
    if BEGIN not in page or END not in page:
        raise ValueError(f"the page needs the lines {BEGIN} and {END}")
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.write_text(filled(place.read_text(encoding="utf-8"), benchmarks_markdown(all_benchmarks())), encoding="utf-8")
