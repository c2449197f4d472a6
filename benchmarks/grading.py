r"""How fast answers are graded, and what hostile ones cost: ``python benchmarks/grading.py [--rows N]``.

Typical answers are drawn at random (seeded) in the mix that mathematics data shows: mostly integers, some fractions,
decimals and LaTeX expressions, a few structures, about a third of them wrong. They are graded by the verifier, which is
the evaluation's protocol ``rule``, and by its protocol ``reference``. Hostile answers follow one at a time.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table

from spark_rl.config import VerifyConfig
from spark_rl.evals.benchmark import Item as Asked
from spark_rl.evals.score.scorers import reference
from spark_rl.problem import STATUSES, Kind, Problem, Status
from spark_rl.verify import Verifier
from spark_rl.verify.grade import grade
from spark_rl.verify.pool import Item

Draw = Callable[[random.Random], tuple[str, str]]
"""Draws (gold, content of the box)."""

WIDTH = 110
"""Columns that the tables need, also where the output goes to a file."""
REASONING = "We set up the equation $x^2 + \\frac{a}{b} = c$ and solve it step by step. " * 20


def integer(rng: random.Random) -> tuple[str, str]:
    value = rng.randint(-2000, 20000)
    return str(value), rng.choice(
        [str(value), f"{value:,}", f"{value}.0", f"{value} cm", str(value + rng.randint(1, 9))]
    )


def decimal(rng: random.Random) -> tuple[str, str]:
    value = rng.randint(1, 99999)
    return f"{value / 100:.2f}", rng.choice([f"{value / 100}", rf"\${value / 100:.2f}", f"{(value + 7) / 100}"])


def fraction(rng: random.Random) -> tuple[str, str]:
    top, bottom = rng.randint(1, 99), rng.randint(2, 99)
    gold = rf"\frac{{{top}}}{{{bottom}}}"
    return gold, rng.choice(
        [gold, rf"\dfrac{{{2 * top}}}{{{2 * bottom}}}", f"{top}/{bottom}", rf"\frac{{{bottom}}}{{{top}}}"]
    )


def percent(rng: random.Random) -> tuple[str, str]:
    value = rng.randint(1, 99)
    return rf"{value}\%", rng.choice([f"{value}%", str(value), f"0.{value:02}", f"{value + 1}%"])


def angle(rng: random.Random) -> tuple[str, str]:
    value = rng.randint(1, 359)
    return rf"{value}^\circ", rng.choice([str(value), rf"{value}^{{\circ}}", rf"{value + 1}^\circ"])


def root(rng: random.Random) -> tuple[str, str]:
    factor, square_free = rng.randint(2, 12), rng.choice([2, 3, 5, 6, 7, 10, 11, 13])
    gold = rf"{factor}\sqrt{{{square_free}}}"
    other = rf"\sqrt{{{factor * factor * square_free}}}"
    return gold, rng.choice(
        [gold, gold, rf"{factor} \sqrt{square_free % 10}", other, rf"{factor + 1}\sqrt{{{square_free}}}"]
    )


def polynomial(rng: random.Random) -> tuple[str, str]:
    a, b, c = (rng.randint(2, 9) for _ in range(3))
    gold = f"{a}x^2+{b}x+{c}"
    return gold, rng.choice([gold, f"{a}x^2 + {b}x + {c}", f"{c}+{b}x+{a}x^2", f"{a}x^2+{b}x-{c}"])


def multiple_of_pi(rng: random.Random) -> tuple[str, str]:
    value = rng.randint(2, 400)
    return rf"{value}\pi", rng.choice([rf"{value}\pi", rf"{value} \pi", rf"{value + 1}\pi", f"{value}"])


def point(rng: random.Random) -> tuple[str, str]:
    x, y = rng.randint(-20, 20), rng.randint(-20, 20)
    return f"({x},{y})", rng.choice([f"({x}, {y})", rf"\left({x},{y}\right)", f"({y}, {x + 1})", f"[{x}, {y}]"])


def interval(rng: random.Random) -> tuple[str, str]:
    x = rng.randint(-20, 20)
    return rf"({x},\infty)", rng.choice([rf"({x}, \infty)", rf"[{x},\infty)", rf"\left({x},\infty\right)"])


def roots(rng: random.Random) -> tuple[str, str]:
    values = [str(value) for value in rng.sample(range(-30, 30), 3)]
    other = rng.sample(values, 3)
    return ", ".join(values), rng.choice([",".join(other), "x=" + ",".join(other), ",".join(other[:2])])


def matrix(rng: random.Random) -> tuple[str, str]:
    cells = [rng.randint(-9, 9) for _ in range(4)]
    form = r"\begin{{pmatrix}} {} & {} \\ {} & {} \end{{pmatrix}}"
    return form.format(*cells), rng.choice(
        [form.format(*cells), form.format(*cells).replace("pm", "bm"), form.format(*cells[::-1])]
    )


def word(rng: random.Random) -> tuple[str, str]:
    name = rng.choice(["Evelyn", "Navin", "ellipse", "even", "Monday"])
    return rf"\text{{{name}}}", rng.choice([name, rf"\text{{{name.lower()}}}", "hyperbola"])


MIX: tuple[tuple[str, float, Kind, Draw], ...] = (
    ("integers", 0.46, "math", integer),
    ("decimals", 0.07, "math", decimal),
    ("fractions", 0.12, "math", fraction),
    ("percentages", 0.03, "math", percent),
    ("angles", 0.04, "math", angle),
    ("roots", 0.06, "math", root),
    ("polynomials", 0.05, "math", polynomial),
    ("multiples of pi", 0.04, "math", multiple_of_pi),
    ("points", 0.05, "math", point),
    ("intervals", 0.03, "math", interval),
    ("lists of roots", 0.02, "math", roots),
    ("matrices", 0.01, "math", matrix),
    ("words", 0.02, "math", word),
)

PATHOLOGICAL: tuple[tuple[str, str], ...] = (
    ("tower of powers", "9^{9^{9^{9}}}"),
    ("huge factorial", "(10^9)!"),
    ("huge binomial", r"\binom{10^{9}}{5 \cdot 10^{8}}"),
    ("long product", r"\prod_{k=1}^{1000000} k"),
    ("high power of a sum", "(x+y+z)^{200}"),
    ("1000 nested roots", r"\sqrt{" * 1000 + "x" + "}" * 1000),
    ("60 nested roots", r"\sqrt{" * 60 + "x" + "}" * 60),
    ("500 nested fractions", r"\frac{1}{" * 500 + "x" + "}" * 500),
    ("60 nested fractions", r"\frac{1}{1+" * 60 + "x" + "}" * 60),
    ("60 nested sines", r"\sin(" * 60 + "x" + ")" * 60),
    ("1 MB of digits", "7" * 1_000_000),
    ("1 MB of letters", "x" * 1_000_000),
    ("1 MB of open boxes", r"\boxed{" * 140_000),
    ("1 MB of braces", "{" * 500_000 + "}" * 500_000),
    ("unbalanced braces", r"\frac{1}{2"),
    ("unbalanced brackets", "((((1+2)"),
    ("unicode digits", "４２" * 3),
    ("a power of ten beyond bounds", "1e999999999"),
    ("a power of a power of ten", "10^{10^{9}}"),
    ("division by zero", r"\frac{1}{0}"),
    ("not mathematics", r"\foo\bar{?}"),
    ("infinite sum", r"\sum_{n=1}^{\infty} \frac{1}{n^{3}+\sin(n)}"),
)


def typical(rows: int, rng: random.Random) -> dict[str, list[Item]]:
    """Items by category; one in fifty responses has no box."""
    items: dict[str, list[Item]] = {}
    for name, share, kind, draw in MIX:
        drawn = items.setdefault(name, [])
        for _ in range(max(1, round(rows * share))):
            gold, content = draw(rng)
            answer = f"The answer is $\\boxed{{{content}}}$." if rng.random() < 0.98 else "I ran out of time"
            drawn.append((REASONING + answer, gold, kind, ()))
    return items


def by_rule(verifier: Verifier, items: list[Item]) -> list[Status]:
    """Our own comparison: the last box."""
    return [verdict.status for verdict in verifier.verify_many(items)]


def by_reference(verifier: Verifier, items: list[Item]) -> list[Status]:
    """The authors' comparison: the first box."""
    asked = [Asked(Problem(id="", question="", answer=str(gold))) for _, gold, _, _ in items]
    return [grade.status for grade in reference(asked, [response for response, *_ in items], verifier)]


PROTOCOLS: Mapping[str, Callable[[Verifier, list[Item]], list[Status]]] = {"rule": by_rule, "reference": by_reference}


def grade_typical(verifier: Verifier, protocol: str, rows: int, rng: random.Random, console: Console) -> None:
    table = Table("answers", "rows", "symbolic", "µs/row", *STATUSES, title=f"{rows} typical answers by {protocol}")
    killed = verifier.kills
    total: Counter[str] = Counter()
    seconds = 0.0
    count = 0
    for name, items in typical(rows, rng).items():
        start = time.perf_counter()
        statuses = PROTOCOLS[protocol](verifier, items)
        taken = time.perf_counter() - start
        symbolic = sum(grade(*item)[0] is None for item in items) if protocol == "rule" else None
        found: Counter[str] = Counter(statuses)
        _row(table, name, len(items), symbolic, taken, found)
        total += found
        seconds += taken
        count += len(items)
    table.add_section()
    _row(table, "all", count, None, seconds, total)
    console.print(table)
    killed = verifier.kills - killed
    console.print(f"{count} answers by {protocol} in {seconds:.2f} s: {count / seconds:,.0f} a second; {killed} killed")


def _row(table: Table, name: str, rows: int, symbolic: int | None, seconds: float, found: Counter[str]) -> None:
    counts = [str(found[status] or "") for status in STATUSES]
    table.add_row(name, str(rows), str(symbolic or ""), f"{1e6 * seconds / rows:,.0f}", *counts)


def grade_pathological(verifier: Verifier, console: Console) -> None:
    columns = [f"{name}: {what}" for name in PROTOCOLS for what in ("seconds", "status")]
    table = Table("hostile answers", *columns, title=f"time limit {verifier.config.timeout:g} s")
    before = verifier.kills
    for name, content in PATHOLOGICAL:
        cells = []
        for compared in PROTOCOLS.values():
            start = time.perf_counter()
            status = compared(verifier, [(f"The answer is \\boxed{{{content}}}.", r"x+\sqrt{2}", "math", ())])[0]
            cells += [f"{time.perf_counter() - start:.3f}", status]
        table.add_row(name, *cells)
    console.print(table)
    console.print(f"{verifier.kills - before} killed and replaced (their start-up is in the next item's seconds)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=10_000, help="typical answers to grade (default 10000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (default 0)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default 2)")
    parser.add_argument("--timeout", type=float, default=2.0, help="seconds per symbolic comparison (default 2)")
    arguments = parser.parse_args()
    console = Console()
    if console.width < WIDTH:
        console = Console(width=WIDTH)
    config = VerifyConfig(workers=arguments.workers, timeout=arguments.timeout, recycle_after=2000)
    with Verifier(config) as verifier:
        for protocol in PROTOCOLS:
            grade_typical(verifier, protocol, arguments.rows, random.Random(arguments.seed), console)
        grade_pathological(verifier, console)


if __name__ == "__main__":
    main()
