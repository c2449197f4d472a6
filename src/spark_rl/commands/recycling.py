"""``spark-rl recycle``: rollouts, sampled here or made by anybody, become judge and reflection problems."""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from rich.panel import Panel
from rich.text import Text

from spark_rl.commands.checks import check_config, check_rows
from spark_rl.commands.lines import LineFile, find_images, named_images, read_lines
from spark_rl.commands.models import inference_config, open_reasoner
from spark_rl.commands.terminal import console, counted, say
from spark_rl.config import Config, parse_config
from spark_rl.errors import UserError
from spark_rl.problem import TASKS, Completion, Group, Problem, Rollout


def recycle(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl recycle``."""
    from spark_rl.recycle import recycle

    check_rows(arguments.out, arguments.rollouts)
    config = inference_config(arguments, needs_model=arguments.rollouts is None)
    if arguments.seed is not None:
        config = parse_config({**config.model_dump(mode="json"), "seed": arguments.seed})
    check_config(config)
    groups = _given_groups(arguments.rollouts, config) if arguments.rollouts else _sampled_groups(arguments, config)
    problems = recycle(groups, config.recycle, random.Random(config.seed), config.verify.thinking)
    if arguments.out is not None:
        from spark_rl.recycle.pool import problem_to_dict

        with LineFile(arguments.out, len(problems), "writing") as file:
            file.write([problem_to_dict(problem) for problem in problems])
    for problem in _of_each_task(problems, arguments.show):
        seen = f"  {counted(len(problem.images), 'image')}" if problem.images else ""
        title = Text(f"{problem.task}  label {problem.answer}{seen}  ({problem.id})")
        console.print(Panel(Text(problem.prompt or ""), title=title, title_align="left"))
    counts: dict[str, int] = {task: sum(p.task == task for p in problems) for task in TASKS if task != "policy"}
    console.print(f"{len(groups)} groups -> " + ", ".join(f"{n} {task}" for task, n in counts.items()))
    return {"groups": len(groups), **counts}


def _given_groups(path: Path, config: Config) -> list[Group]:
    """Groups of responses that somebody else made, graded here."""
    from spark_rl.chat import policy_prompt
    from spark_rl.data.columns import other_columns
    from spark_rl.rewards import Grader, open_rewards
    from spark_rl.verify import Verifier

    groups = []
    lines = list(read_lines(path))
    with ExitStack() as stack:
        rewards = open_rewards(config.reward, note=say)
        if rewards is not None:
            stack.enter_context(closing(rewards))
        verifier = stack.enter_context(Verifier(config.verify))
        grader = Grader(verifier, config.reward, rewards, partial(policy_prompt, config=config.chat))
        counter = stack.enter_context(LineFile(None, len(lines), "verifying"))
        for number, row in lines:
            responses = row.get("responses")
            if not isinstance(responses, list) or not all(isinstance(r, str) for r in responses):
                raise UserError(f"{path} line {number} has no list of texts in 'responses'")
            golds: list[Any] = row["answer"] if isinstance(row.get("answer"), list) else [row.get("answer")]
            needed = (row.get("question"), *(golds if grader.weight or golds != [None] else ()))
            if not golds or not all(isinstance(text, str) and text for text in needed):
                raise UserError(f"{path} line {number} needs a 'question' and an 'answer', a text or a list of them")
            choices = row.get("choices", [])
            if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
                raise UserError(f"{path} line {number}: 'choices' is no list of texts")
            images = find_images(
                named_images(row), row["question"], path.parent, config.data.images, f"{path} line {number}"
            )
            problem = Problem(
                id=str(row.get("id", f"{path.stem}-{number}")), question=row["question"], answer=golds[0] or "",
                alternatives=tuple(golds[1:]), kind=row.get("kind", "choice" if choices else "math"),
                choices=tuple(choices), images=images, columns={} if rewards is None else other_columns(row),
            )  # fmt: skip
            try:
                verdicts = grader.grade([problem] * len(responses), responses, form=config.reward.form)
            except ValueError as error:
                raise UserError(f"{path} line {number}: {error}") from None
            rollouts = tuple(
                Rollout(Completion(text, (), (), "stop"), verdict)
                for text, verdict in zip(responses, verdicts, strict=True)
            )
            groups.append(Group(problem, rollouts, ()))
            counter.write([row])
    return groups


def _sampled_groups(arguments: argparse.Namespace, config: Config) -> list[Group]:
    """One batch of groups, sampled from the model as a training step would."""
    from spark_rl.clock import Clock
    from spark_rl.data import load_problems
    from spark_rl.data.batches import Shuffled
    from spark_rl.rewards import needs_of_rows, open_rewards
    from spark_rl.rollout import Sampler
    from spark_rl.verify import Verifier

    rewards = open_rewards(config.reward, note=say)
    needs = needs_of_rows(config.reward)
    problems = load_problems(arguments.data or config.data.train, config.data, columns=needs.columns, golds=needs.golds)
    shares = None if arguments.data else config.data.shares
    reasoner = open_reasoner(arguments, config)
    with Verifier(config.verify) as verifier:
        sampler = Sampler(reasoner.engine, reasoner.chat, verifier, config.rollout, config.reward, rewards)
        batch = Shuffled(problems, config.rollout.problems, config.seed, shares).of(0)
        groups, too_long = sampler.sample(batch, config.seed, Clock())
    if rewards is not None:
        rewards.close()
    groups = [group for group in groups if all(r.completion.finish != "refused" for r in group.rollouts)]
    if too_long:
        limit = config.rollout.max_prompt_tokens
        say(f"left out {counted(len(too_long), 'problem')}, longer than rollout.max_prompt_tokens ({limit})")
    return groups


def _of_each_task(problems: Sequence[Problem], count: int) -> list[Problem]:
    """``count`` problems, the three tasks in turn."""
    queues = [[p for p in problems if p.task == task] for task in TASKS if task != "policy"]
    turns = (queue[turn] for turn in range(len(problems)) for queue in queues if turn < len(queue))
    return [problem for problem, _ in zip(turns, range(count), strict=False)]
