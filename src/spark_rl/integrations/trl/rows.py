"""Between the rows of TRL's data sets and problems (Eq. 1), in both directions.

A row of TRL has a ``prompt``, a text or a chat, and any other columns. Its question and gold answer are found as in any
file (:mod:`spark_rl.data.layouts`): in columns of their own, else the question is the user's turn. A row of a recycled
problem has the columns of its parent and another prompt: the chat's system turns, if there are any, then the problem's.
A plain text becomes a plain text with a line break, as base models without a template are asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spark_rl.chat import ChatFormat
from spark_rl.config import Config
from spark_rl.data.columns import other_columns
from spark_rl.data.layouts import Layout, Numbers, check_columns, detect_layout, number_rule
from spark_rl.data.rows import read_row, read_row_without_gold
from spark_rl.data.values import RowError, UnreadableError
from spark_rl.errors import DataError
from spark_rl.problem import Problem

COLUMN = "spark_problem"
"""Where a row has its problem on its way through TRL."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """Reads rows as problems and writes problems as rows."""

    config: Config
    chat: ChatFormat
    layout: Layout
    numbers: Numbers
    needs_gold: bool
    """Whether a row without a gold answer that the verifier can use is no problem."""

    @classmethod
    def of(cls, head: Sequence[Mapping[str, Any]], config: Config, chat: ChatFormat, *, needs_gold: bool) -> Rows:
        """A reader of rows like the first ones of a data set.

        Raises:
            DataError: there are none, a column is missing, none of them can be used, or they have images.
        """
        name, columns = "train_dataset", config.data.columns
        if not head:
            raise DataError(f"{name} has no rows")
        layout = config.data.layout if config.data.layout != "auto" else detect_layout(head, columns)
        check_columns(head, layout, columns, name, answer=needs_gold)
        rows = cls(config, chat, layout, number_rule(head, layout, columns), needs_gold)
        errors: list[str] = []
        for row in head:
            try:
                rows.read(row)
                return rows
            except RowError as error:
                errors.append(str(error))
        raise DataError(f"{name}: none of the first {len(head)} rows is usable as {layout}: the first, {errors[0]}")

    def read(self, row: Mapping[str, Any]) -> Problem:
        """A row as a problem without an id, whose ``columns`` are the row's as JSON values, with its prompt.

        ``answer`` is empty where the row has no gold answer that the verifier can use.

        Raises:
            RowError: there is no question, or no such gold answer where one is needed.
            DataError: it has images.
        """
        settings = self.config.data
        how = (self.layout, settings.columns, settings.kind, "train_dataset", self.numbers)
        try:
            problem = read_row(row, *how)
        except UnreadableError as error:
            raise RowError(str(error)) from None
        except RowError:
            if self.needs_gold:
                raise
            problem = replace(read_row_without_gold(row, *how), answer="", alternatives=())
        if problem.images:
            raise DataError("train_dataset has images, and SparkGRPOTrainer recycles text only; use "
                            "spark_rl.SparkTrainer for models that see")  # fmt: skip
        return replace(problem, columns=other_columns(row, settings.columns))

    def problem(self, row: Mapping[str, Any]) -> Problem | None:
        """:meth:`read`, or ``None`` for a row that is no problem: it is trained on, and never recycled."""
        try:
            return self.read(row)
        except RowError:
            return None

    def row(self, problem: Problem, keys: Sequence[str]) -> Row:
        """A recycled problem as a row with the columns of its parent, all of ``keys``."""
        parent = problem.columns["prompt"]
        message = self.chat.encode(problem).messages[-1]
        prompt = f"{message['content']}\n" if isinstance(parent, str) else [*_system(parent), message]
        return {key: problem.columns.get(key) for key in keys} | {"prompt": prompt, COLUMN: problem}

    def tokens(self, problem: Problem) -> int:
        """Tokens of the prompt that :meth:`row` writes."""
        parent = problem.columns["prompt"]
        system = "" if isinstance(parent, str) else "\n".join(str(turn.get("content")) for turn in _system(parent))
        return len(self.chat.encode(problem, system or None).token_ids)


def _system(chat: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The turns before the first one of the user's that say how to answer."""
    return [dict(turn) for turn in chat if turn.get("role") in {"system", "developer"}]
