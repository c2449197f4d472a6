"""Peak memory of ``spark-rl recycle`` at sizes that differ ten times: it is bounded, so it must not grow with the file.

    python benchmarks/recycling_memory.py [--groups 20000] [--verified]

Each size runs in a process of its own. Groups have 8 responses of about 600 characters and their rewards; with
``--verified`` they have a gold answer in place of the rewards, and the verifier grades all of them.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = (
    "the",
    "sum",
    "of",
    "these",
    "terms",
    "is",
    "therefore",
    "what",
    "we",
    "get",
    "when",
    "both",
    "sides",
    "divided",
)


def write_groups(path: Path, count: int, verified: bool) -> None:
    """Groups with right and wrong responses, one JSON object a line."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            gold = rng.randrange(1000)
            given = [gold if rng.random() < 0.5 else rng.randrange(1000) for _ in range(8)]
            texts = [f"{' '.join(rng.choices(WORDS, k=110))} \\boxed{{{value}}}" for value in given]
            row: dict[str, object] = {"id": f"q{number}", "prompt": f"What is {gold - 7} + 7?", "answer": str(gold)}
            row["responses"] = texts
            row |= {} if verified else {"rewards": [float(value == gold) for value in given]}
            file.write(json.dumps(row) + "\n")


def measure(groups: int, verified: bool) -> tuple[float, float, int]:
    """(peak MiB of the process, seconds, problems)."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_groups(place / "groups.jsonl", groups, verified)
        facts = place / "facts.json"
        code = (
            "import resource, sys; from spark_rl.cli import main; "
            "code = main(sys.argv[1:]); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
        )
        given, out = str(place / "groups.jsonl"), str(place / "out")
        options = ["recycle", given, "--out", out, "--show", "0", "--json", str(facts)]
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - started
        found = json.loads(facts.read_text(encoding="utf-8"))
    problems = sum(found[task] for task in ("pointwise", "pairwise", "reflection"))
    return int(done.stdout.split()[-1]) / 1024, seconds, problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=20_000, help="of the smaller file; the larger has ten times more")
    parser.add_argument("--verified", action="store_true", help="gold answers in place of rewards")
    arguments = parser.parse_args()
    for groups in (arguments.groups, 10 * arguments.groups):
        peak, seconds, problems = measure(groups, arguments.verified)
        print(f"{groups:>9,} groups  {problems:>9,} problems  {seconds:6.0f} s  {peak:6.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
