"""``spark-rl eval``: one model on benchmarks and any sets of problems, by row and by set; or scores without a model."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spark_rl.commands.checks import check_config
from spark_rl.commands.curves import check_curve, curve
from spark_rl.commands.exams import check_output, exams_of, grouped, output
from spark_rl.commands.listing import list_benchmarks
from spark_rl.commands.models import inference_config, is_server, open_grader, open_reasoner, trained_weights
from spark_rl.commands.results import finish
from spark_rl.commands.scoring import rescore, score_responses, show_tables
from spark_rl.commands.terminal import console, say
from spark_rl.config import Config, RolloutConfig, parse_config
from spark_rl.errors import UserError

if TYPE_CHECKING:
    from spark_rl.chat import Chat
    from spark_rl.evals.ask.exam import Exam
    from spark_rl.evals.ask.records import Record

SEVERAL_TEMPERATURE = 0.7
"""Of several samples an item, unless ``--temperature`` says otherwise."""

MODES = ("responses", "rescore", "table", "list")
"""Options with which no model is asked."""


def evaluate(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl eval``."""
    _check(arguments)
    if not arguments.table and not arguments.list and arguments.curve is None:
        check_output(arguments.out)
    if any(getattr(arguments, mode) for mode in MODES):
        if arguments.table:
            return show_tables(arguments)
        if arguments.list:
            return list_benchmarks(arguments)
        return rescore(arguments) if arguments.rescore else score_responses(arguments)
    return _ask(arguments)


def _ask(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Ask a model, row by row."""
    config = _configured(arguments)
    check_config(config)
    if config.inference.samples > 1 and (arguments.samples > 1 or arguments.tts):
        raise UserError("inference.select chooses among answers of its own; leave --samples and --tts out")
    exams = exams_of(arguments, config)
    temperature = arguments.temperature
    if temperature is None and (arguments.samples > 1 or arguments.curve is not None):
        temperature = SEVERAL_TEMPERATURE
    if arguments.curve is not None and temperature is not None:
        return curve(arguments, config, exams, temperature)

    from spark_rl.evals.ask.records import RecordFile
    from spark_rl.evals.ask.runner import Examiner, batches, fingerprint

    mark = fingerprint(
        config, trained_weights(arguments.model), samples=arguments.samples, temperature=temperature,
        judge=arguments.judge, served_model=arguments.served_model, engine=config.engine.name,
        grader=(arguments.grader, arguments.grader_model),
    )  # fmt: skip
    out = output(arguments.out)
    file = None if out is None else RecordFile(out.rows, mark, resume=arguments.resume)
    rows: list[Record] = [] if file is None else file.records
    done = {exam.name: set() if file is None else file.done(exam.name) for exam in exams}
    left = [batches(exam, done[exam.name]) for exam in exams]
    if any(done.values()):
        say(f"{sum(map(len, done.values())):,} problems were asked before")
    if any(count for _, count in left):
        from spark_rl.evals.ask.view import EvaluationView
        from spark_rl.verify import Verifier

        reasoner = open_reasoner(arguments, config)
        exams = _shown(exams, done, reasoner.chat, grouped(arguments))
        label, grader = open_grader(arguments, config, reasoner)
        exams = [exam.judged_by(label) for exam in exams]
        left = [batches(exam, done[exam.name]) for exam in exams]
        batch_count, problem_count = (sum(counts) for counts in zip(*left, strict=True))
        with Verifier(config.verify) as verifier, EvaluationView(batch_count, problem_count, console) as view:
            examiner = Examiner(
                reasoner, verifier, config.rollout.max_prompt_tokens, mark, arguments.samples, temperature,
                arguments.judge, grader, config.data.images,
            )  # fmt: skip
            for exam in exams:
                for batch in examiner.ask(exam, done[exam.name]):
                    if file is None:
                        rows.extend(batch)
                    else:
                        file.append(batch)
                    view.batch(exam.name, batch)
    else:
        from spark_rl.evals.score.grading import judges_of

        exams = [exam.judged_by(judges_of(rows)) for exam in exams]
    return finish(exams, rows, config, out)


def _shown(
    exams: Sequence[Exam], done: Mapping[str, Collection[str]], chat: Chat, grouped: Collection[str]
) -> list[Exam]:
    """The exams whose first picture the model can be shown, so that a model that sees none is told before it is asked.

    Raises:
        UserError: it can't be, and no group brought the exam; or none is left.
    """
    kept = []
    for exam in exams:
        pictured = (item for item in exam.items if item.problem.images and item.problem.id not in done[exam.name])
        first = next(pictured, None)
        try:
            if first is not None:
                chat.encode(first.problem, first.system)
        except UserError as error:
            if exam.name not in grouped:
                raise UserError(f"{exam.name}: {error}") from None
            say(f"left out {exam.name}: {error}")
            continue
        kept.append(exam)
    if not kept:
        raise UserError("there is nothing left that this model can be shown")
    return kept


def _configured(arguments: argparse.Namespace) -> Config:
    """The command's configuration: rounds as ``--tts`` says, prompts as long as a default run would take.

    A recipe's limit on prompts is there to bound training, so only one given on the command line counts here.
    """
    config = inference_config(arguments)
    settings = config.model_dump(mode="json")
    settings["inference"]["rounds"] = arguments.tts
    if arguments.engine is not None:
        settings["engine"]["name"] = arguments.engine
    if not any(override.startswith("rollout.max_prompt_tokens=") for override in arguments.overrides):
        longest = max(config.rollout.max_prompt_tokens, RolloutConfig().max_prompt_tokens)
        settings["rollout"]["max_prompt_tokens"] = longest
    return parse_config(settings)


def _check(arguments: argparse.Namespace) -> None:
    """Options that make no sense together."""
    modes = [mode for mode in MODES if getattr(arguments, mode)]
    if len(modes) > 1:
        raise UserError(f"--{modes[0]} and --{modes[1]} are two different things to do; give one")
    if arguments.resume and modes:
        raise UserError(f"--resume continues to ask a model, which --{modes[0]} doesn't; leave one of them out")
    if arguments.resume and arguments.out is None:
        raise UserError("--resume needs --out, the file of rows to continue")
    if arguments.curve is not None:
        check_curve(arguments)
    if arguments.tts and arguments.samples > 1:
        raise UserError("--tts scales one answer and --samples draws several; give one of the two")
    asked = (arguments.model, arguments.curve) != (None, None) or arguments.tts or arguments.judge
    if modes and (asked or arguments.samples > 1):
        raise UserError(f"--{modes[0]} asks no model; leave --model, --tts, --judge, --curve and --samples out")
    if not arguments.table and (arguments.published or arguments.format or arguments.base or arguments.paper_table):
        raise UserError("--published, --format, --base and --paper-table go with --table")
    if arguments.grader_model is not None and not is_server(arguments.grader):
        raise UserError("--grader-model names a model of the server that --grader gives the address of")
    if arguments.grader not in {None, "self"} and not is_server(arguments.grader):
        raise UserError(f"--grader {arguments.grader} is neither 'self' nor the address of a server, http://...")
