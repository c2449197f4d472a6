"""``spark-rl eval``: one model on any sets of problems, by row and by set."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spark_rl.commands.models import inference_config, open_model, trained_weights
from spark_rl.commands.terminal import console, quiet_libraries, say
from spark_rl.config import Config, parse_config
from spark_rl.errors import UserError

if TYPE_CHECKING:
    from spark_rl.evals.runner import Exam


def evaluate(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl eval``."""
    if arguments.resume and arguments.out is None:
        raise UserError("--resume needs --out, the file of rows to continue")
    config = inference_config(arguments)
    settings = config.model_dump(mode="json")
    config = parse_config({**settings, "inference": {**settings["inference"], "rounds": arguments.tts}})
    exams = _exams(arguments, config)

    from spark_rl.evals.runner import Examiner, Row, RowFile, batches, fingerprint, results
    from spark_rl.report.evaluation import EvaluationView, evaluation_tables
    from spark_rl.verify import Verifier

    mark = fingerprint(config, trained_weights(arguments.model))
    file = None if arguments.out is None else RowFile(arguments.out, mark, resume=arguments.resume)
    rows: list[Row] = [] if file is None else file.rows
    done = {exam.name: set() if file is None else file.done(exam.name) for exam in exams}
    left = [batches(exam, done[exam.name]) for exam in exams]
    if any(done.values()):
        say(f"{sum(map(len, done.values())):,} problems were asked before")
    if any(count for _, count in left):
        actor = open_model(arguments, config)
        batch_count, problem_count = (sum(counts) for counts in zip(*left, strict=True))
        with Verifier(config.verify) as verifier, EvaluationView(batch_count, problem_count, console) as view:
            examiner = Examiner(actor.reasoner(), verifier, config.rollout.max_prompt_tokens, mark)
            for exam in exams:
                for batch in examiner.ask(exam, done[exam.name]):
                    if file is None:
                        rows.extend(batch)
                    else:
                        file.append(batch)
                    view.batch(exam.name, batch)
    found = {exam.name: results(exam, rows) for exam in exams}
    console.print(*evaluation_tables(found))
    if file is not None:
        file.close()
        say(f"wrote   {arguments.out}")
    return found


def _exams(arguments: argparse.Namespace, config: Config) -> list[Exam]:
    """The sets to ask: those given, else what the configuration holds out."""
    specs = arguments.data or [config.data.heldout]
    if specs[0] is None or specs[0].startswith("split:"):
        raise UserError("give --data, the problems to ask: a file, a hub data set or procedural:FAMILY")
    twice = next((spec for place, spec in enumerate(specs) if spec in specs[:place]), None)
    if twice is not None:
        raise UserError(f"--data {twice} is given twice")
    quiet_libraries()
    from spark_rl.data import load_problems
    from spark_rl.evals.runner import Exam

    return [Exam(spec, load_problems(spec, config.data, "heldout")[: arguments.limit]) for spec in specs]
