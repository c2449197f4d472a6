"""``spark-rl recycle``: rollouts, sampled here or made by anybody, become judge and reflection problems."""

from __future__ import annotations

import argparse
import random
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.panel import Panel
from rich.text import Text

from spark_rl.commands.checks import check_config, check_folder, check_rows, file_kind
from spark_rl.commands.lines import LineFile
from spark_rl.commands.models import inference_config, open_reasoner
from spark_rl.commands.terminal import console, counted, say
from spark_rl.config import Config, load_config, parse_config, saved_settings
from spark_rl.errors import UserError
from spark_rl.problem import TASKS, Group, Problem
from spark_rl.runs import find_run

if TYPE_CHECKING:
    from spark_rl.recycle.dataset import Counts
    from spark_rl.recycle.given import Refused


def recycle(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl recycle``."""
    named = [*arguments.files, *([arguments.rollouts] if arguments.rollouts else [])]
    runs = [None if path.is_file() else find_run(path) for path in named]
    files = [path if run is None else run / "rollouts.jsonl" for path, run in zip(named, runs, strict=True)]
    folder = arguments.out if arguments.out is not None and file_kind(arguments.out) is None else None
    _check(arguments, files, folder)
    if len(runs) == 1 and runs[0] is not None and arguments.config is None:
        config = load_config(None, arguments.overrides, **saved_settings(runs[0]))
    else:
        config = inference_config(arguments, needs_model=not files)
    if arguments.seed is not None:
        config = parse_config({**config.model_dump(mode="json"), "seed": arguments.seed})
    check_config(config, computes=not files)
    from spark_rl.recycle.dataset import Counts, data_card, recycled_blocks
    from spark_rl.recycle.given import Refused

    counts, refused, shown = Counts(), Refused(say), _Shown(arguments.show)
    with ExitStack() as stack:
        if files:
            blocks: Iterator[Sequence[Problem]] = recycled_blocks(
                stack.enter_context(_given_groups(files, config, refused)), config, counts
            )
        else:
            blocks = _sampled(arguments, config, counts)
        sources = [path.name for path in files] or ["sampled"]
        card = partial(data_card, counts, refused.reasons, config, shlex.join(arguments.typed), sources)
        write = stack.enter_context(_written(arguments, folder, config, card))
        for problems in blocks:
            write(problems)
            shown.add(problems)
        if files and not counts.groups:
            _nothing(files, refused)
        if folder is not None and not counts.problems:
            raise UserError(f"{counted(counts.groups, 'group')} became no problems, so there is no data set to write; "
                            "judging needs responses that are right or wrong, reflecting wrong ones")  # fmt: skip
    shown.print()
    facts: dict[str, Any] = {
        "groups": counts.groups,
        **counts.tasks,
        "left_out": refused.total,
        "unlabelled": counts.unlabelled,
    }
    _tell(counts, refused)
    if arguments.push_to_hub is not None:
        from spark_rl.export import push_data

        facts["hub"] = push_data(folder or Path(), arguments.push_to_hub, private=arguments.private or None)
        say(f"hub     {facts['hub']}")
    return facts


def _check(arguments: argparse.Namespace, files: Sequence[Path], folder: Path | None) -> None:
    """What can be known to go wrong before anything is read. Raises :class:`UserError`."""
    if files and (arguments.data is not None or arguments.model is not None):
        raise UserError("give either files of responses, or --model and --data to sample some; not both")
    if arguments.push_to_hub is not None:
        if folder is None:
            raise UserError("--push-to-hub puts a data set on the hub; name its folder with --out, e.g. --out recycled")
        from spark_rl.export import check_push

        check_push(arguments.push_to_hub)
    elif arguments.private:
        raise UserError("--private is about --push-to-hub, which is not given")
    capped = next((text for text in arguments.overrides if text.startswith(_CAPS)), None)
    if files and capped is not None:
        raise UserError(f"{capped.partition('=')[0]} bounds a step of training, and a file has none; every group gives "
                        "recycle.per_group problems of each kind at most")  # fmt: skip
    for path in files:
        check_rows(arguments.out if folder is None else None, path)
        if not path.exists():
            why = "it is a link that leads nowhere" if path.is_symlink() else "there is no such file"
            raise UserError(f"cannot read {path}: {why}")
    if folder is None:
        check_rows(arguments.out)
        return
    check_folder(folder, "the data set")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is there already; remove it or choose another --out")


_CAPS = ("recycle.judge_cap=", "recycle.reflection_cap=")


@contextmanager
def _given_groups(files: Sequence[Path], config: Config, refused: Refused) -> Iterator[Iterator[list[Group]]]:
    """Blocks of groups of responses that somebody else made; those without a verdict are graded here."""
    from spark_rl.chat import policy_prompt
    from spark_rl.recycle.given import check_files, graded, read_given
    from spark_rl.rewards import Grader, open_rewards
    from spark_rl.verify import Verifier

    check_files(files)
    with ExitStack() as stack:
        rewards = open_rewards(config.reward, note=say)
        if rewards is not None:
            stack.enter_context(closing(rewards))
        verifier = stack.enter_context(Verifier(config.verify))
        grader = Grader(verifier, config.reward, rewards, partial(policy_prompt, config=config.chat))
        groups = read_given(files, config, refused, columns=rewards is not None)
        yield graded(groups, grader, config, refused)


@contextmanager
def _written(
    arguments: argparse.Namespace, folder: Path | None, config: Config, card: Callable[[], str]
) -> Iterator[Callable[[Sequence[Problem]], None]]:
    """A function that writes problems where ``--out`` says: a folder, a file of lines, or nowhere."""
    from spark_rl.files import whole_folder
    from spark_rl.recycle.dataset import DataSet
    from spark_rl.recycle.pool import problem_to_dict

    if folder is None:
        with LineFile(arguments.out, 0, "writing", whole=True) as file:
            yield lambda problems: file.write([problem_to_dict(problem) for problem in problems])
        return
    with whole_folder(folder) as scratch:
        data = DataSet(scratch, config.chat)
        yield data.write
        data.close(card())
    say(f"wrote   {folder}")


def _nothing(files: Sequence[Path], refused: Refused) -> None:
    """Of files without a group that can be used, nothing is written. Raises :class:`UserError`."""
    named = ", ".join(map(str, files))
    raise UserError(f"nothing in {named} can be recycled: {refused.first or 'no row answers a problem of the data'}"
                    f" ({counted(refused.total, 'row')} left out)")  # fmt: skip


def _tell(counts: Counts, refused: Refused) -> None:
    """One line of what was made, and one of what was left out."""
    tasks = ", ".join(f"{count:,} {task}" for task, count in counts.tasks.items())
    say(f"{counts.groups:,} groups -> {tasks}")
    if refused.total:
        reasons = "; ".join(f"{why} ({count:,})" for why, count in refused.reasons.most_common(8))
        say(f"left out {counted(refused.total, 'row')}: {reasons}")
    if counts.unlabelled:
        say(f"left out {counted(counts.unlabelled, 'reflection problem')} without a gold answer to be labelled with")


def _sampled(arguments: argparse.Namespace, config: Config, counts: Counts) -> Iterator[list[Problem]]:
    """What one batch of groups becomes, sampled and recycled as a step of training does."""
    from spark_rl.recycle import recycle

    groups = _sampled_groups(arguments, config)
    problems = recycle(groups, config.recycle, random.Random(config.seed), config.verify.thinking)
    counts.add_groups(groups)
    counts.add_problems(problems)
    yield problems


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


class _Shown:
    """The first ``count`` problems of a stream, the three tasks in turn."""

    def __init__(self, count: int) -> None:
        self.count, self.kept = count, list[Problem]()
        self._tasks: Counter[str] = Counter()

    def add(self, problems: Sequence[Problem]) -> None:
        for problem in problems:
            if self._tasks[problem.task] < self.count:
                self._tasks[problem.task] += 1
                self.kept.append(problem)

    def print(self) -> None:
        for problem in _of_each_task(self.kept, self.count):
            seen = f"  {counted(len(problem.images), 'image')}" if problem.images else ""
            title = Text(f"{problem.task}  label {problem.answer}{seen}  ({problem.id})")
            console.print(Panel(Text(problem.prompt or ""), title=title, title_align="left"))


def _of_each_task(problems: Sequence[Problem], count: int) -> list[Problem]:
    """``count`` problems, the three tasks in turn."""
    queues = [[p for p in problems if p.task == task] for task in TASKS if task != "policy"]
    turns = (queue[turn] for turn in range(len(problems)) for queue in queues if turn < len(queue))
    return [problem for problem, _ in zip(turns, range(count), strict=False)]
