"""Rollouts that anybody made, read as groups of responses, a few at a time (Sec. 3.2: what recycling starts from).

A row is a whole group (``prompt``, ``responses``) or one response (``prompt``, ``response``); rows of the second kind
that follow each other and have the same prompt are one group. A record of our own ``rollouts.jsonl`` is a group: its
``response`` and those of ``others`` (:func:`spark_rl.measure.rollout_records`).

What says whether a response is right, the first that is there: a ``status`` of the verifier, as our own
``rollouts.jsonl`` has it; a reward of at least 1 (right) or at most 0 (wrong; between them it is neither, and is not
recycled); the verifier or a user's functions, by the ``answer``.

Rows are untrusted: each that can't be used is counted, and nothing of it is evaluated.
"""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spark_rl.config import Config, VerifyConfig
from spark_rl.data.columns import other_columns
from spark_rl.data.formats import without_format
from spark_rl.data.layouts import ANSWER, QUESTION, strip_suffix
from spark_rl.data.named import find_images, named_images
from spark_rl.data.parquet import read_parquet
from spark_rl.data.values import PROMPT_CHATS, RowError, chat_or_text, pick, text_of, without_surrogates
from spark_rl.errors import DataError, UserError, plain
from spark_rl.files import check_regular, resolved
from spark_rl.problem import STATUSES, Completion, Group, Kind, Problem, Rollout, Verdict
from spark_rl.rewards import Grader
from spark_rl.verify import answer_part, extract_boxed

GROUP = ("responses", "completions", "outputs", "rollouts")
"""Columns of a row that holds a whole group."""
SINGLE = ("response", "completion", "output")
"""Columns of a row that holds one response."""
REWARDS = ("rewards", "scores")
REWARD = ("reward", "score")
STATUS = ("statuses", "status")
GOLDS = (*ANSWER, "gts")
KINDS: tuple[Kind, ...] = ("math", "choice", "verdict", "exact")

MOST_RESPONSES = 4096
"""Responses of one group; more rows of one prompt begin another."""
MOST_BYTES = 64 * 2**20
"""Of one line."""
BLOCK_GROUPS = 1024
BLOCK_CHARACTERS = 2**24
"""A block of groups that is recycled together ends with whichever is reached first. Both count groups as they follow
each other, so that blocks are the same however a file is read."""
SAID = 20
"""Rows that can't be used, which are said one by one."""


@dataclass(frozen=True, slots=True)
class Given:
    """A problem with the responses to it, and the verdicts on those that have one."""

    where: str
    problem: Problem
    responses: tuple[str, ...]
    verdicts: tuple[Verdict | None, ...]

    @property
    def size(self) -> int:
        """In characters."""
        return len(self.problem.question) + sum(map(len, self.responses))


@dataclass
class Refused:
    """Rows that can't be used: counted, and the first of them said, in one line each."""

    note: Callable[[str], None]
    reasons: Counter[str] = field(default_factory=Counter)
    first: str = ""
    """Where the first of them is, and why it can't be used."""

    def add(self, where: str, why: str, reason: str | None = None) -> None:
        """One row more. ``reason``: what is counted where ``why`` quotes the row."""
        self.reasons[reason or why] += 1
        if self.total <= SAID:
            line = plain(f"{where} left out: {' '.join(why.split())[:300]}")
            self.first = self.first or line
            self.note(line)
        if self.total == SAID + 1:
            self.note(f"more than {SAID} rows are left out; the others are counted")

    @property
    def total(self) -> int:
        return self.reasons.total()


def read_given(paths: Sequence[Path], config: Config, refused: Refused, *, columns: bool = False) -> Iterator[Given]:
    """The groups of files of JSON lines or Parquet, in their order, one at a time.

    Args:
        paths: the files.
        config: ``data.images`` says which pictures are refused, ``verify.thinking`` what is no answer.
        refused: hears of the rows that can't be used.
        columns: whether problems keep their other columns, for functions of the user's.

    Raises:
        UserError: a file can't be read at all.
    """
    for path in paths:
        check_regular(path)
        yield from _file(path, config, refused, columns)


def graded(groups: Iterator[Given], grader: Grader, config: Config, refused: Refused) -> Iterator[list[Group]]:
    """Blocks of groups in which every response has its verdict. Only what has none is graded."""
    block: list[Given] = []
    size = 0
    for given in groups:
        block.append(given)
        size += given.size
        if len(block) >= BLOCK_GROUPS or size >= BLOCK_CHARACTERS:
            yield _grade(block, grader, config, refused)
            block, size = [], 0
    if block:
        yield _grade(block, grader, config, refused)


def _grade(block: list[Given], grader: Grader, config: Config, refused: Refused) -> list[Group]:
    """The groups of a block; those that the verifier can't grade are left out."""
    asked: list[tuple[Problem, str]] = []
    begun: list[Any] = []
    kept: list[Given] = []
    lacking = any(None in given.verdicts for given in block)
    with grader.grading(config.reward.form) if lacking else nullcontext() as begin:
        for given in block:
            texts = [t for t, v in zip(given.responses, given.verdicts, strict=True) if v is None]
            try:
                started = [begin(given.problem, text) for text in texts] if begin is not None else []
            except ValueError as error:
                refused.add(given.where, str(error), "an answer that can't be graded")
                continue
            asked += [(given.problem, text) for text in texts]
            begun += started
            kept.append(given)
        found = iter(grader.finished([p for p, _ in asked], [t for _, t in asked], begun) if asked else [])
    return [
        Group(
            given.problem,
            tuple(
                Rollout(Completion(text, (), (), "stop"), verdict if verdict is not None else next(found))
                for text, verdict in zip(given.responses, given.verdicts, strict=True)
            ),
            (),
        )
        for given in kept
    ]  # fmt: skip


def _file(path: Path, config: Config, refused: Refused, columns: bool) -> Iterator[Given]:
    """The groups of one file."""
    rows = _parquet(path) if path.suffix.lower() == ".parquet" else _lines(path, refused)
    name = _name(path)
    together: list[tuple[str, Given]] = []
    """Of the prompt that is being read, one response each."""
    for where, row in rows:
        try:
            single = _single(row)
            given = _given(row, where, path, name, config, columns, single)
        except UserError as error:
            refused.add(where, str(error).removeprefix(f"{where}: "), "an image that can't be used")
            continue
        except RowError as error:
            refused.add(where, str(error))
            continue
        if given is None:
            continue
        key = json.dumps([given.problem.id if "problem" in row else "", given.problem.question,
                          given.problem.golds, row.get("step")], default=str)  # fmt: skip
        if together and (not single or together[0][0] != key or len(together) >= MOST_RESPONSES):
            yield _joined([one for _, one in together])
            together = []
        if single:
            together.append((key, given))
        else:
            yield given
    if together:
        yield _joined([one for _, one in together])


def _joined(parts: Sequence[Given]) -> Given:
    """Responses to the same prompt as one group, with the id of the first."""
    first = parts[0]
    return Given(first.where, first.problem, tuple(text for part in parts for text in part.responses),
                 tuple(verdict for part in parts for verdict in part.verdicts))  # fmt: skip


def _parquet(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        for number, row in read_parquet(path):
            yield f"{path} row {number}", row
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def _lines(path: Path, refused: Refused) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The objects of a file of JSON lines, of which one at a time is in memory."""
    number = empty = 0
    try:
        with path.open("rb") as file:
            while line := file.readline(MOST_BYTES + 1):
                number += 1
                where = f"{path} line {number}"
                if (
                    number == 1
                    and path.suffix.lower() == ".json"
                    and line.lstrip(b"\xef\xbb\xbf \t\r").startswith(b"[")
                ):
                    raise UserError(f"{path} is one JSON list; give one JSON object a line: "
                                    f"jq -c '.[]' {shlex.quote(str(path))} > rollouts.jsonl")  # fmt: skip
                if len(line) > MOST_BYTES:
                    while line and not line.endswith(b"\n"):
                        line = file.readline(MOST_BYTES)
                    refused.add(where, f"longer than {MOST_BYTES >> 20} MiB")
                    continue
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                    row = json.loads(text) if text else None
                except UnicodeDecodeError:
                    refused.add(where, "not UTF-8 text")
                    continue
                except (ValueError, RecursionError):
                    refused.add(where, "not JSON")
                    continue
                if isinstance(row, Mapping):
                    yield where, row
                elif text:
                    refused.add(where, "not a JSON object")
                else:
                    empty += 1
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if number == empty:
        raise UserError(f"{path} is empty; give a file with one JSON object a line")


def _single(row: Mapping[str, Any]) -> bool:
    """Whether a row holds one response. Raises :class:`RowError` if it holds none."""
    if isinstance(_value(row, GROUP), list) or _is_own_group(row):
        return False
    if _value(row, SINGLE) is None:
        raise RowError("no list of texts in 'responses', nor a text in 'response'")
    return True


def _is_own_group(row: Mapping[str, Any]) -> bool:
    """Whether a row is a record of our own runs with its siblings; what else is called ``others`` is no response."""
    return {"step", "problem", "prompt", "response"} <= row.keys() and isinstance(row.get("others"), list)


def _parts(row: Mapping[str, Any], single: bool) -> list[Any]:
    """What a row says of each of its responses, or the responses as they stand."""
    if _is_own_group(row):
        if not all(isinstance(one, Mapping) for one in row["others"]):
            raise RowError("a response that is no record among 'others'")
        return [{name: row.get(name) for name in ("response", "status", "reward")}, *row["others"]]
    return [_value(row, SINGLE)] if single else list(_value(row, GROUP))


def _value(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The first of the columns that holds something."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def _given(
    row: Mapping[str, Any], where: str, path: Path, source: str, config: Config, columns: bool, single: bool
) -> Given | None:
    """One row, or ``None`` if it is no answer to a question of the data (a judgement of our own rollouts).

    Raises:
        RowError, UserError: it can't be used.
    """
    if row.get("task", "policy") != "policy":
        return None
    question, inside = _question(row)
    golds = _golds(row)
    parts = _parts(row, single)
    responses = tuple(_response(part) for part in parts)
    if not responses:
        raise RowError("an empty list of responses")
    verdicts = _verdicts(row, parts, responses, single, config.verify)
    functions = bool(config.reward.function) or columns
    if not golds and not functions and None in verdicts:
        raise RowError("neither an 'answer' to verify the responses by, nor 'rewards', a number for each")
    choices = row.get("choices")
    choices = [] if choices is None else choices
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise RowError("'choices' is no list of texts")
    kind = row.get("kind") or ("choice" if choices else "math")
    if kind not in KINDS:
        raise RowError(f"unknown kind of answer {str(kind)[:40]!r}; one of {', '.join(KINDS)}")
    named = inside or named_images(row)
    if row.get("images_missing"):
        raise RowError("a question with more images than the run kept")
    images = find_images(named, question, path.parent, config.data.images, where) if named else ()
    number = where.rsplit(" ", 1)[1]
    name = next((row[key] for key in ("id", "problem_id", "uid") if row.get(key) is not None), None)
    if name is None and isinstance(row.get("problem"), str) and "prompt" in row:
        name = row["problem"]  # of our own rollouts, whose steps ask a problem again
        name = f"{name}@{row['step']}" if isinstance(row.get("step"), int) else name
    if isinstance(name, Mapping | list):
        raise RowError("an 'id' that is no text")
    problem = Problem(
        id=f"{source}-{number}" if name is None else without_surrogates(str(name))[:500],
        question=question, answer=golds[0] if golds else "", alternatives=golds[1:], kind=kind,
        choices=tuple(map(without_surrogates, choices)), images=images, source=source,
        columns=other_columns(row) if columns else {}, pseudo=bool(row.get("pseudo", False)),
    )  # fmt: skip
    return Given(where, problem, responses, verdicts)


def _name(path: Path) -> str:
    """Of a file; of a run's rollouts that of the run, because they all have the same."""
    of_a_run = path.name == "rollouts.jsonl" and (path.parent / "config.json").is_file()
    return resolved(path.parent).name if of_a_run else path.stem


def _question(row: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
    """(the raw question, images that stand in a chat). Raises :class:`RowError` if there is none."""
    asked = {name: value for name, value in row.items() if name != "problem" or "prompt" not in row}
    value = pick(asked, None, (*QUESTION, *PROMPT_CHATS))
    question, images = chat_or_text(value)
    question = without_format(strip_suffix(question))[0].strip()
    if not question:
        raise RowError("no 'question' or 'prompt'")
    return question, images


def _golds(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Every right answer, as text; a list is several that are each right."""
    reward = row.get("reward_model")
    value = pick(row, None, GOLDS)
    if value is None and isinstance(reward, Mapping):
        value = reward.get("ground_truth")
    values = value if isinstance(value, list) else [value]
    further = row.get("alternatives")  # of our own rollouts
    values = [*values, *further] if isinstance(further, list) and len(values) == 1 else values
    golds = tuple(text_of(one, "answer") for one in values)
    if len(golds) > 1 and "" in golds:
        raise RowError("an empty text among the answers")
    return tuple(gold for gold in golds if gold)


def _response(value: Any) -> str:
    """The text of a response: as it stands, of a chat with one turn, or of an object with ``text`` or ``response``."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("text", "response", "content") if key in value), None)
    if not isinstance(value, str):
        raise RowError("a response that is no text")
    return without_surrogates(value)


def _verdicts(
    row: Mapping[str, Any], parts: Sequence[Any], responses: Sequence[str], single: bool, verify: VerifyConfig
) -> tuple[Verdict | None, ...]:
    """What the row says of its responses; ``None`` where it says nothing."""

    def told(names: Sequence[str], inside: str) -> list[Any]:
        if single:
            value = _value(row, [name for name in names if not isinstance(row.get(name), list)])
            return [value]
        if all(isinstance(part, Mapping) for part in parts):
            return [part.get(inside) for part in parts]
        value = next((row[name] for name in names if isinstance(row.get(name), list)), None)
        if value is None:
            return [None] * len(parts)
        if len(value) != len(parts):
            raise RowError(f"{len(value)} {inside}s for {len(parts)} responses")
        return list(value)

    statuses, rewards = told(STATUS, "status"), told((*REWARDS, *REWARD), "reward")
    return tuple(
        _verdict(text, status, reward, verify)
        for text, status, reward in zip(responses, statuses, rewards, strict=True)
    )


def _verdict(text: str, status: Any, reward: Any, verify: VerifyConfig) -> Verdict | None:
    """A verdict by status, or by reward. Raises :class:`RowError` if the reward is no number."""
    number: float | None = None
    if reward is not None:
        if not isinstance(reward, bool | int | float) or not math.isfinite(reward):
            raise RowError("a reward that is no finite number")
        number = float(reward)
    if status is None and number is None:
        return None
    if status is not None and status not in STATUSES:
        raise RowError(f"unknown status {str(status)[:40]!r}; one of {', '.join(STATUSES)}")
    if status is None:
        assert number is not None
        status = "correct" if number >= 1 else "wrong" if number <= 0 else "failed"
    extracted = extract_boxed(answer_part(text, verify.thinking))
    return Verdict(float(status == "correct") if number is None else number, status, extracted)


def check_files(paths: Sequence[Path]) -> None:
    """Whether files are of a kind that can be read. Raises :class:`DataError`."""
    for path in paths:
        if path.suffix.lower() not in {".jsonl", ".ndjson", ".parquet", ".json", ""}:
            raise DataError(f"{path} is neither JSON lines nor Parquet; convert it to one of them")
