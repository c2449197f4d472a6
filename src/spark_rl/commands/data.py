"""``spark-rl data``: problems as a model will read them, how many of what kind, and what was refused of their file."""

from __future__ import annotations

import argparse
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from spark_rl.commands.checks import check_config
from spark_rl.commands.models import inference_config, is_server
from spark_rl.commands.terminal import console, counted, quiet_libraries, say, short
from spark_rl.config import Config
from spark_rl.errors import UserError
from spark_rl.problem import Problem

if TYPE_CHECKING:
    from spark_rl.chat import ChatFormat
    from spark_rl.data.source import Source

MEASURED = 2000
PICTURED = 32
"""Prompts whose tokens are counted, the first ones: of text, and with images, which the processor has to prepare."""
WIDTH = 2000
"""Characters of a prompt that are shown; ``--json`` holds all."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def data(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """``spark-rl data``."""
    config = _configured(arguments)
    spec = arguments.source or config.data.train
    chat = None if arguments.model is None else _chat(config)
    from spark_rl.data import load_problems

    readers: list[Source] = []
    problems = load_problems(spec, config.data, "train", readers=readers)
    facts = _facts(problems, readers, config, chat)
    shown = [_shown(problem, config, chat) for problem in problems[: arguments.show]]
    for number, problem in enumerate(shown, 1):
        _print(problem, number)
    _print_facts(facts, spec if isinstance(spec, str) else ", ".join(map(_named, spec)))
    return {**facts, "problems": shown}


def _configured(arguments: argparse.Namespace) -> Config:
    """Settings of the model's run or recipe; of the default recipe where neither data nor model is named."""
    if is_server(arguments.model):
        raise UserError("a server does not show its chat template; give the directory or hub id of its model")
    known = arguments.model is not None or arguments.source is None
    config = inference_config(arguments, needs_model=known)
    check_config(config, computes=False)
    if arguments.source is not None:
        from spark_rl.data.load import check_place

        if arguments.source.startswith("split:"):
            raise UserError("split:N is drawn from the training data when a run begins; name a file or data set")
        check_place(arguments.source)
    return config


def _chat(config: Config) -> ChatFormat:
    """The chat format of the model, of which no weights are read."""
    quiet_libraries()
    from spark_rl.chat import chat_of
    from spark_rl.model.load import describe_model

    return chat_of(config, describe_model(config))


def _shown(problem: Problem, config: Config, chat: ChatFormat | None) -> dict[str, Any]:
    """What there is to see of one problem."""
    from spark_rl.chat import policy_prompt
    from spark_rl.data.images import open_image

    prompt = None if chat is None else chat.encode(problem)
    return {
        "id": problem.id,
        "prompt": policy_prompt(problem, config.chat) if prompt is None else prompt.text,
        "tokens": None if prompt is None else len(prompt.token_ids),
        "answer": problem.answer,
        "alternatives": list(problem.alternatives),
        "kind": problem.kind,
        "choices": list(problem.choices),
        "images": [
            {"name": _image_name(image), "size": list(open_image(image, config.data.images).size)}
            for image in problem.images
        ],
        "source": problem.source,
    }


def _image_name(image: object) -> str:
    """A path as it is; ``embedded`` for what the data itself holds."""
    return image if isinstance(image, str) and image[:5].lower() != "data:" else "embedded"


def _facts(
    problems: Sequence[Problem], readers: Sequence[Source], config: Config, chat: ChatFormat | None
) -> dict[str, Any]:
    """Counts over all problems."""
    return {
        "n": len(problems),
        "read": sum(reader.read for reader in readers) or len(problems),
        "kinds": dict(Counter(problem.kind for problem in problems)),
        "sources": dict(Counter(problem.source for problem in problems)),
        "layouts": {reader.spec: reader.layout for reader in readers},
        "with_images": sum(bool(problem.images) for problem in problems),
        "with_choices": sum(bool(problem.choices) for problem in problems),
        "several_answers": sum(bool(problem.alternatives) for problem in problems),
        "prompt_tokens": None if chat is None else _lengths(problems, chat, config.rollout.max_prompt_tokens),
        "refused": {
            "unusable": sum(len(reader.unusable) for reader in readers),
            "broken_images": sum(len(reader.broken) for reader in readers),
            "outside_ranges": sum(reader.outside for reader in readers),
        },
        "said": [line for reader in readers for line in reader.said()],
    }


def _lengths(problems: Sequence[Problem], chat: ChatFormat, limit: int) -> dict[str, Any]:
    """How long the prompts are, in tokens, as far as they are counted."""
    texts = [problem for problem in problems if not problem.images][:MEASURED]
    pictured = [problem for problem in problems if problem.images][:PICTURED]
    lengths = [len(chat.encode(problem).token_ids) for problem in (*texts, *pictured)]
    return {
        "measured": len(lengths), "shortest": min(lengths), "median": statistics.median(lengths),
        "longest": max(lengths), "limit": limit, "over_limit": sum(length > limit for length in lengths),
    }  # fmt: skip


def _print(problem: Mapping[str, Any], number: int) -> None:
    tokens = "" if problem["tokens"] is None else f"  {counted(problem['tokens'], 'token')}"
    console.print(_text(f"problem {number}  {problem['id']}{tokens}", "bold"))
    console.print(_text(short(problem["prompt"], WIDTH)))
    for image in problem["images"]:
        console.print(_text(f"image   {image['name']}  {image['size'][0]}×{image['size'][1]}", "cyan"))
    for letter, choice in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", problem["choices"], strict=False):
        console.print(_text(f"option  {letter}. {short(choice)}", "cyan"))
    golds = " or ".join((problem["answer"], *problem["alternatives"]))
    console.print(_text(f"answer  {short(golds)}  ({problem['kind']})", "green"))
    console.print()


def _print_facts(facts: Mapping[str, Any], spec: str) -> None:
    table = Table("what", "found", title=f"data of {_plain(spec)}", title_justify="left")
    refused, tokens = facts["refused"], facts["prompt_tokens"]
    rows = [
        ("problems", f"{facts['n']:,} of {facts['read']:,} rows read" if facts["layouts"] else f"{facts['n']:,}"),
        ("layout", ", ".join(dict.fromkeys(facts["layouts"].values()))),
        ("kinds", _counts(facts["kinds"])),
        ("sources", _counts(facts["sources"]) if len(facts["sources"]) > 1 else ""),
        ("with images", f"{facts['with_images']:,}"),
        ("with options", f"{facts['with_choices']:,}"),
        ("with several answers", f"{facts['several_answers']:,}" if facts["several_answers"] else ""),
        ("without question or answer", f"{refused['unusable']:,}"),
        ("with broken images", f"{refused['broken_images']:,}" if refused["broken_images"] else ""),
        ("outside of data.ranges", f"{refused['outside_ranges']:,}" if refused["outside_ranges"] else ""),
    ]
    if tokens is not None:
        rows.append((
            "tokens of a prompt",
            f"{tokens['shortest']:,} to {tokens['longest']:,}, median {tokens['median']:,.0f}, of "
            f"{tokens['measured']:,}; {tokens['over_limit']:,} above rollout.max_prompt_tokens ({tokens['limit']:,})",
        ))  # fmt: skip
    for what, found in rows:
        if found:
            table.add_row(what, _text(found))
    console.print(table)
    for line in facts["said"]:
        say(_plain(line))


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name or 'unnamed'}" for name, count in counts.items())


def _named(entry: Any) -> str:
    return entry if isinstance(entry, str) else str(entry.source)


def _text(text: str, style: str = "") -> Text:
    return Text(_plain(text), style=style)


def _plain(text: str) -> str:
    """Without characters that would command the terminal: what is shown is anybody's."""
    return _CONTROL.sub("\ufffd", text)
