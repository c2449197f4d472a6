r"""The verifier against math-verify on pairs of known truth: ``python benchmarks/verifier_fuzz.py [--pairs N]``.

Half of the N pairs are equal, half unequal (:mod:`answer_pairs`). A *false reward* is an unequal pair that is called
correct, a *false refusal* an equal one that is not. math-verify is asked as its documentation says (the gold first,
both read from ``\boxed{}`` or ``$...$``), in this process, without a time limit of its own. ``--show K`` prints K of
each fault of each kind; ``--out FILE`` writes all of ours as JSON lines. Exit status 1 if there is a false reward of
ours, or if more than 0.5 % of the equal pairs are refused.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from answer_pairs import KINDS, Pair, draw_pair
from rich.console import Console
from rich.table import Table

from spark_rl.config import VerifyConfig
from spark_rl.verify import Verifier

REFUSALS = 0.005
"""The share of equal pairs that may be refused."""


def pairs_of(count: int, seed: int, kinds: Sequence[str] = tuple(KINDS)) -> list[Pair]:
    """``count`` pairs, every second one unequal, the kinds in turn."""
    rng = random.Random(seed)
    return [
        draw_pair(rng, equal=number % 2 == 0, kind=kinds[number // 2 % len(kinds)]) for number in range(count)
    ]  # fmt: skip


def faults(pairs: Sequence[Pair], verifier: Verifier) -> tuple[list[Pair], list[Pair]]:
    """(false rewards, false refusals) of ours."""
    verdicts = verifier.verify_many([(rf"\boxed{{{pair.answer}}}", pair.gold, "math", ()) for pair in pairs])
    told = [(pair, verdict.status == "correct") for pair, verdict in zip(pairs, verdicts, strict=True)]
    return [p for p, right in told if right and not p.equal], [p for p, right in told if not right and p.equal]


def main() -> int:
    """Grade, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=tuple(KINDS), action="append")
    parser.add_argument("--show", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="leave math-verify out")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    kinds = tuple(arguments.kind or KINDS)
    pairs = pairs_of(arguments.pairs, arguments.seed, kinds)
    with Verifier(VerifyConfig(workers=arguments.workers)) as verifier:
        rewards, refusals = faults(pairs, verifier)
    theirs = None if arguments.alone else [math_verify_says(pair) for pair in pairs]
    console = Console(width=110)
    console.print(_table(kinds, pairs, rewards, refusals, theirs))
    for name, found in (("false reward", rewards), ("false refusal", refusals)):
        shown: dict[str, int] = defaultdict(int)
        for pair in found:
            shown[pair.kind] += 1
            if shown[pair.kind] <= arguments.show:
                console.print(f"{name}, {pair.kind}: gold {pair.gold}   answer {pair.answer}", markup=False)
    if arguments.out:
        rows = [{"fault": name, "kind": p.kind, "gold": p.gold, "answer": p.answer}
                for name, found in (("reward", rewards), ("refusal", refusals)) for p in found]  # fmt: skip
        arguments.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    equal = sum(pair.equal for pair in pairs)
    return int(bool(rewards) or len(refusals) > REFUSALS * equal)


def math_verify_says(pair: Pair) -> bool:
    """Whether math-verify calls the answer right."""
    from math_verify import parse, verify  # noqa: PLC0415  # slow to import, and only the comparison needs it

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    try:
        gold = parse(rf"${pair.gold}$", parsing_timeout=None)
        answer = parse(rf"$\boxed{{{pair.answer}}}$", parsing_timeout=None)
        return bool(verify(gold, answer, timeout_seconds=None))
    except Exception:  # noqa: BLE001  # whatever it raises is its refusal
        return False


def _table(
    kinds: Sequence[str], pairs: Sequence[Pair], rewards: Sequence[Pair], refusals: Sequence[Pair],
    theirs: Sequence[bool] | None,
) -> Table:  # fmt: skip
    table = Table(title=f"{len(pairs):,} pairs of known truth", title_justify="left")
    heads = ("kind", "unequal", "false rewards", "equal", "false refusals")
    for head in (*heads, *(("math-verify: rewards", "refusals") if theirs is not None else ())):
        table.add_column(head, justify="left" if head == "kind" else "right")
    ours = [Counter(pair.kind for pair in found) for found in (rewards, refusals)]
    total = {pair_equal: Counter(p.kind for p in pairs if p.equal is pair_equal) for pair_equal in (True, False)}
    other: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for pair, right in zip(pairs, theirs or (), strict=theirs is not None):
        if right is not pair.equal:
            other[pair.equal][pair.kind] += 1
    for kind in (*kinds, "all"):

        def of(counts: Counter[str], kind: str = kind) -> str:
            return f"{sum(counts.values()) if kind == 'all' else counts[kind]:,}"

        cells = [of(total[False]), of(ours[0]), of(total[True]), of(ours[1])]
        table.add_row(kind, *cells, *([of(other[False]), of(other[True])] if theirs is not None else []))
    return table


if __name__ == "__main__":
    sys.exit(main())
