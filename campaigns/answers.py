r"""Hostile answers by the million: ``python campaigns/answers.py [--answers 1000000]``.

Responses are put together from pieces that graders trip over (braces that never close, towers of powers, factorials,
sums in sums, matrices, macros, control characters, other scripts, very long numbers, boxes in boxes), of any length up
to some thousand characters, and graded in batches as training grades them. The gold answer of each is a number of 30
digits that is not in the response, so **every reward is a false one**; no other grader is needed to say so.

Printed are the verdicts, workers that were ended or died, the seconds of the slowest batch and the memory of this
process and of its workers at most. Exit status 1 if there is a reward, an exception, a batch that takes longer than
``--seconds``, or memory beyond ``--megabytes``.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from spark_rl.config import VerifyConfig
from spark_rl.verify import Verifier
from spark_rl.verify.pool import Item

PIECES = (
    "{", "}", "{{", "}}", "[", "]", "(", ")", "\\left(", "\\right)", "\\boxed{", "\\boxed", "\\fbox{", "$",
    "$$", "\\(", "\\[", "\\frac{", "\\frac12", "\\dfrac{1}{", "\\sqrt{", "\\sqrt[3]{", "^", "^{", "_", "_{",
    "^^", "^{9^{9^{9}}}", "9^9^9^9", "!", "!!", "(10!)!", "\\binom{9999}{", "\\sum_{a=1}^{999}",
    "\\prod_{k=1}^{99}", "\\int_0^1", "\\lim_{x\\to0}", "\\begin{pmatrix}", "\\end{pmatrix}", "&", "\\\\",
    "\\text{", "\\mathrm{", "\\operatorname{", "\\def\\a{\\a\\a}\\a", "\\newcommand", "\\input{/etc/passwd}",
    "\\write18{id}", "__import__('os').system('id')", "{{7*7}}", "{% for a in b %}", "1e999999", "1e-999999",
    "0x", "1" * 400, "9" * 4000, "0." + "3" * 300, "nan", "inf", "-", "--", "+-", "\\pm", "\\infty", "\\pi",
    "e", "i", "x", "x^{1000}", "(x+1)^{500}", "\\cup", "\\cap", "\\{", "\\}", ",", ";", ":", "=", "<", ">",
    "\\le", "%", "\\%", "#", "~", "\\", "\\\\\\", "\x00", "\x1b[31m", "\u202e", "\u200b", "\ud800",
    "\U0001f600", "٣", "３", "½", "²", "Ⅷ", "−", "´", "“", "\n", "\r", "\t", " ", "and", "or", "A", "(A)", "Yes",
    "No", "Answer:", "the answer is", "<think>", "</think>", "Final Answer", "**", "1/0", "0/0", "0^0",
    "\\log(0)", "\\tan(\\pi/2)", "|", "||", "\\lvert", "1:2", "12:30", "\\degree", "^\\circ", "\\cdot",
    "\\times", "*", "/", ".", "..", "...", "\\ldots", "1,000", "1.000,5", "10^{10^{10}}",
)  # fmt: skip
"""What responses are made of."""
FORMS = (
    r"\frac{%s}{%s}", r"(%s)^{%s}", r"\sqrt{%s}+%s", r"\sqrt[3]{%s}%s", r"\binom{%s}{%s}", r"(%s)!-(%s)",
    r"\log_{%s}(%s)", r"\sin(%s)\cos(%s)", r"\sum_{a=1}^{%s}\sum_{b=1}^{99}\sqrt{ab+%s}",
    r"\prod_{k=1}^{%s}(k+%s)", r"|%s|-|%s|", r"\begin{pmatrix}%s\\%s\end{pmatrix}", r"\{%s,%s\}", r"[%s,%s)",
    r"(%s,%s)", r"%s=%s", r"%s\le x\le %s", r"%s \pm %s", r"\int_0^{%s}x^{%s}dx", r"e^{%s}-%s", r"%s x^{7}+%s",
    r"\left(%s\right)\left(%s\right)", r"%s\cdot10^{%s}",
)  # fmt: skip
"""What expressions are made of, which can be read and may take long."""
LEAVES = (
    "x",
    "y",
    "n",
    r"\pi",
    "e",
    "i",
    "2",
    "3",
    "7",
    "10",
    "99",
    "0.5",
    "1000000007",
    "-1",
    r"\sqrt{2}",
    r"\frac{1}{3}",
)
BATCH = 256


def expression(rng: random.Random, depth: int) -> str:
    """A well-formed one."""
    if depth == 0 or rng.random() < 0.1:
        return rng.choice(LEAVES)
    return rng.choice(FORMS) % (expression(rng, depth - 1), expression(rng, depth - 1))


def response(rng: random.Random) -> str:
    """One hostile response: every fourth can be read, and is hard."""
    if rng.random() < 0.25:
        return rf"\boxed{{{expression(rng, rng.randint(1, 5))}}}"
    count = min(3000, 1 + int(rng.paretovariate(0.8)))
    pieces = rng.choices(PIECES, k=count)
    if rng.random() < 0.3:  # the same again and again
        pieces = rng.choices(pieces[:3], k=count)
    inside = "".join(pieces)[:20_000]
    shape = rng.random()
    if shape < 0.6:
        return rf"\boxed{{{inside}}}"
    return f"{inside} \\boxed{{{rng.choice(PIECES)}}}" if shape < 0.8 else inside


def batch(rng: random.Random) -> list[Item]:
    """Responses whose gold answer none of them can hold."""
    items: list[Item] = []
    for _ in range(BATCH):
        gold = str(rng.randrange(10**29, 10**30) | 1)
        made = response(rng)
        items.append((made.replace(gold, ""), gold, "math", ()))
    return items


def megabytes(pids: tuple[int, ...]) -> tuple[float, float]:
    """(memory of this process at most, of the largest worker now)."""
    sizes = [0.0]
    for pid in pids:
        status = Path(f"/proc/{pid}/status")
        lines = status.read_text().splitlines() if status.exists() else []
        sizes += [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, max(sizes)


def main() -> int:
    """Grade, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=120.0, help="of a batch of 256, at most")
    parser.add_argument("--megabytes", type=float, default=2048.0, help="of this process or a worker, at most")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    console = Console(width=100)
    rng, statuses, slowest, worker = random.Random(arguments.seed), Counter[str](), 0.0, 0.0
    rewarded: list[Item] = []
    begun = time.monotonic()
    with Verifier(VerifyConfig(workers=arguments.workers)) as verifier:
        while statuses.total() < arguments.answers:
            items = batch(rng)
            started = time.monotonic()
            verdicts = verifier.verify_many(items)
            slowest = max(slowest, time.monotonic() - started)
            statuses.update(verdict.status for verdict in verdicts)
            rewarded += [item for item, verdict in zip(items, verdicts, strict=True) if verdict.reward > 0]
            if statuses.total() % (BATCH * 40) == 0:
                worker = max(worker, megabytes(verifier.pids)[1])
                rate = statuses.total() / (time.monotonic() - begun)
                console.print(f"{statuses.total():,} answers, {len(rewarded)} rewarded, {rate:,.0f} a second, "
                              f"slowest batch {slowest:.1f} s, {worker:,.0f} MB a worker at most")  # fmt: skip
        own, last = megabytes(verifier.pids)
        worker, kills, deaths = max(worker, last), verifier.kills, verifier.deaths
    facts = {
        "answers": statuses.total(), "rewards": len(rewarded), "statuses": dict(statuses), "ended": kills,
        "died": deaths, "slowest_batch_seconds": slowest, "megabytes": own, "worker_megabytes": worker,
        "seconds": time.monotonic() - begun,
    }  # fmt: skip
    table = Table("what", "count", title=f"{statuses.total():,} hostile answers, {facts['seconds']:.0f} s")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), f"{value:,.1f}" if isinstance(value, float) else str(value))
    console.print(table)
    for made, gold, *_ in rewarded[:5]:
        console.print(f"REWARDED: gold {gold}, response {made!r:.300}", markup=False)
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")
    too_much = slowest > arguments.seconds or max(own, worker) > arguments.megabytes
    return int(bool(rewarded) or too_much)


if __name__ == "__main__":
    sys.exit(main())
