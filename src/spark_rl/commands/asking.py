"""``spark-rl solve`` and ``spark-rl judge``: a model answers, or says what it thinks of answers."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from spark_rl.commands.checks import check_config, check_rows
from spark_rl.commands.lines import LineFile, encodable, read_lines
from spark_rl.commands.models import inference_config, open_reasoner
from spark_rl.commands.terminal import console, counted, short
from spark_rl.config import InferenceConfig
from spark_rl.data.named import find_images, named_images
from spark_rl.errors import UserError
from spark_rl.problem import Problem
from spark_rl.seeds import stream_seed

if TYPE_CHECKING:
    from spark_rl.inference import Reasoner
    from spark_rl.verify import Verifier

BATCH = 64
"""Problems or responses of a file that are asked together; their rows are written then."""


def solve(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl solve``."""
    if (arguments.question is None) == (arguments.file is None):
        raise UserError("give one question, or --file FILE with problems")
    if arguments.file is not None and arguments.image:
        raise UserError("--image goes with one question; in a file each problem names its own images")
    check_rows(arguments.out, arguments.file)
    config = inference_config(arguments, sees=bool(arguments.image))
    check_config(config)
    if arguments.file is not None:
        from spark_rl.data import load_problems

        problems = load_problems(str(arguments.file), config.data, "heldout")
    else:
        question = encodable(arguments.question)
        images = find_images(arguments.image, question, Path(), config.data.images, "--image")
        problems = (Problem(id="question", question=question, answer="", images=images),)
    reasoner = open_reasoner(arguments, config)
    started = time.perf_counter()
    from spark_rl.verify import Verifier

    rows: list[dict[str, Any]] = []
    with Verifier(config.verify) as verifier, LineFile(arguments.out, len(problems), "solving") as file:
        for start in range(0, len(problems), BATCH):
            traces = _of_batch(reasoner, start).solve(problems[start : start + BATCH])
            verdicts = _verify_finals(verifier, traces)
            batch = [
                {"id": t.problem.id, "question": t.problem.question, "images": len(t.problem.images),
                 "answer": t.answer, "status": verdict, "rounds": [asdict(r) for r in t.rounds],
                 "final_round": t.rounds.index(t.final) if t.chosen is None else t.chosen}
                for t, verdict in zip(traces, verdicts, strict=True)
            ]  # fmt: skip
            file.write(batch)
            rows += batch
    seconds = time.perf_counter() - started
    for row in rows[: 1 if arguments.file is None else 5]:
        _print_trace(row, config.inference)
    facts: dict[str, Any] = {"n": len(rows), "seconds": seconds, "results": rows}
    judged = [row["status"] for row in rows if row["status"] is not None]
    if judged:
        facts["accuracy"] = judged.count("correct") / len(judged)
        console.print(f"{judged.count('correct')} of {len(judged)} right ({facts['accuracy']:.1%})")
    return facts


def judge(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl judge``."""
    check_rows(arguments.out, arguments.file)
    given = _responses(arguments)
    rows = [row for _, row in given]
    config = inference_config(arguments, sees=any(named_images(row) for row in rows))
    check_config(config)
    folder = Path() if arguments.file is None else arguments.file.parent
    problems = [
        Problem(
            id="judged", question=row["question"], answer="",
            images=find_images(named_images(row), row["question"], folder, config.data.images, where),
        )
        for where, row in given
    ]  # fmt: skip
    reasoner = open_reasoner(arguments, config)
    asked = list(zip(problems, rows, strict=True))
    with LineFile(arguments.out, len(rows), "judging") as file:
        for start in range(0, len(asked), BATCH):
            _judge(_of_batch(reasoner, start), asked[start : start + BATCH])
            file.write(rows[start : start + BATCH])
    table = Table("question", "response", "verdict", "judgement", title="judgements", title_justify="left")
    for row in rows[:20]:
        shown = row["response"] + (f"\n{row['response_b']}" if "response_b" in row else "")
        table.add_row(*(Text(short(str(x))) for x in (row["question"], shown, row["verdict"], row["judgement"])))
    console.print(table)
    return {"n": len(rows), "results": rows}


def _judge(reasoner: Reasoner, asked: Sequence[tuple[Problem, dict[str, Any]]]) -> None:
    """Put a judgement and its verdict into each row: of one response, or of two where there is a second."""
    single = [(p, row) for p, row in asked if "response_b" not in row]
    pairs = [(p, row) for p, row in asked if "response_b" in row]
    judged = reasoner.judge([p for p, _ in single], [row["response"] for _, row in single])
    for (_, row), (text, accepted, _, chance) in zip(single, judged, strict=True):
        row |= {"judgement": text, "verdict": None if accepted is None else "Yes" if accepted else "No"}
        row |= {"probability": chance}
    compared = reasoner.compare([p for p, _ in pairs], [(row["response"], row["response_b"]) for _, row in pairs])
    for (_, row), (text, verdict, _) in zip(pairs, compared, strict=True):
        row |= {"judgement": text, "verdict": verdict}


def _of_batch(reasoner: Reasoner, start: int) -> Reasoner:
    """The model with the random stream of a batch: that of the first is its own."""
    return replace(reasoner, seed=stream_seed(reasoner.seed, "batch", start)) if start else reasoner


def _verify_finals(verifier: Verifier, traces: Sequence[Any]) -> list[str | None]:
    """The status of each final answer, ``None`` where no gold answer is known."""
    known = [t for t in traces if t.problem.answer]
    found = verifier.verify_many([(t.response, t.problem.golds, t.problem.kind, t.problem.choices) for t in known])
    statuses = iter(found)
    return [next(statuses).status if t.problem.answer else None for t in traces]


def _print_trace(row: Mapping[str, Any], config: InferenceConfig) -> None:
    rounds, weighs = config.select == "last", config.accept is not None or config.judgements > 1
    seen = f"  [{counted(row['images'], 'image')}]" if row["images"] else ""
    console.print(Text(f"{row['question']}{seen}", style="bold"))
    for turn, item in enumerate(row["rounds"]):
        console.print(Text(f"  {'reflection' if turn and rounds else 'answer':<10}  {item['response']}"))
        if item["judgement"] is not None:
            said = {True: "accepts", False: "rejects", None: "unreadable"}[item["accepted"]]
            chance = item["probability"] if weighs or not rounds else None
            said += "" if chance is None else f", P(Yes) {chance:.3f}"
            console.print(Text(f"  {'judge':<10}  {item['judgement']}  -> {said}", style="cyan"))
    status = f"  ({row['status']})" if row["status"] else ""
    final = row["answer"] if row["answer"] is not None else "no answer"
    if rounds and row["final_round"] < len(row["rounds"]) - 1:
        console.print(Text("  the last reflection holds no answer that can be read, so the one before it stands"))
    console.print(Text(f"  {'final':<10}  {final}{status}", style="green"))


def _responses(arguments: argparse.Namespace) -> list[tuple[str, dict[str, Any]]]:
    """The responses to judge, each with where it was given: in the options, or on a line of a file."""
    if arguments.file is None:
        if arguments.question is None or arguments.response is None:
            raise UserError("give --question and --response, or --file FILE with both on every line")
        texts = {"question": arguments.question, "response": arguments.response, "response_b": arguments.other}
        row = {key: encodable(text) for key, text in texts.items() if text is not None}
        return [("--image", row | ({"images": arguments.image} if arguments.image else {}))]
    if arguments.image:
        raise UserError("--image goes with --question; in a file each line names its own in 'image' or 'images'")
    rows = list(read_lines(arguments.file))
    for number, row in rows:
        for name in ("question", "response"):
            if not isinstance(row.get(name), str):
                raise UserError(f"{arguments.file} line {number} has no text in {name!r}")
        if not isinstance(row.get("response_b", ""), str):
            raise UserError(f"{arguments.file} line {number} has no text in 'response_b'")
    return [(f"{arguments.file} line {number}", row) for number, row in rows]
