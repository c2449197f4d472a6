r"""What the embedded base is shown before any reinforcement learning, written out in full.

The base must look, at its own tiny scale, like a pretrained model: it *can* work carefully in every role (solve, judge,
compare, retry) but mostly does not. So each role is demonstrated in two ways, and the careful one is a minority:

=========== ============================ ============================================= ========================
role        prompt                       careful response                              sloppy response
=========== ============================ ============================================= ========================
policy      ``solve 7*_-4=17``           ``work 17+4=21/7=3\boxed{3}``                 the answer, without work
pointwise   ``judge 7*_-4=17:2``         ``check 7*2=14-4=10:F\boxed{No}``             a verdict by a false cue
pairwise    ``choose 7*_-4=17:2;3``      ``compare 7*2=14-4=10:F;7*3=21-4=17:T...``    a choice by a false cue
reflection  ``retry 7*_-4=17:2``         ``redo 17+4=21/7=3\boxed{3}``                 the answer, changed a bit
=========== ============================ ============================================= ========================

Each role has its own opener (``work``, ``check``, ``compare``, ``redo``): with one opener for all, training the policy
alone would also elicit careful judging, and the ablation would show nothing. Say so wherever the ablation is shown.

Reinforcement learning on this base therefore *elicits and sharpens* habits the base was shown; it does not teach a new
one. Only chains of the ``warm`` split appear here (see :mod:`spark_rl.data.tasks.chains`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from spark_rl.data.tasks import missing, operators, value
from spark_rl.data.tasks.chains import DIGITS, HIGH, OPERATORS, evaluate, write_chain

STUDY_CAREFUL = 0.85
"""Share of careful demonstrations in the first part of the warm start, in which the skills are learned."""
HABIT_CAREFUL = 0.35
"""Share of careful demonstrations in the second part, which makes them a minority habit."""
ROLES = {"policy": 0.26, "pointwise": 0.28, "pairwise": 0.24, "reflection": 0.22}
SIZES = (2, 3, 4, 5)
"""Lengths of the ``missing`` and ``value`` chains shown, equally often; short ones make arithmetic and comparison cheap
to learn."""
OPENERS = {"policy": "work", "pointwise": "check", "pairwise": "compare", "reflection": "redo"}
"""The word that careful work begins with."""


@dataclass(frozen=True, slots=True)
class Curriculum:
    """What a base is shown."""

    families: Mapping[str, float]
    """Family -> its share of the demonstrations."""
    opener: str | None = None
    """One word for all roles in place of :data:`OPENERS`."""


CURRICULA = {
    "apart": Curriculum({"missing": 0.6, "operators": 0.4}),
    "shared": Curriculum({"missing": 0.4, "value": 0.3, "operators": 0.3}, opener="work"),
}
"""``apart``: each role has its own word for careful work, so that what one role learns reaches no other. ``shared``:
one word for all, as a pretrained model has one habit of careful work, and a third family."""


@dataclass(frozen=True, slots=True)
class Puzzle:
    """A puzzle with everything a demonstration needs: how to solve it, and how to check any candidate."""

    question: str
    answer: str
    work: str
    check: Callable[[str], tuple[str, bool]]
    """candidate -> (the written check, whether it holds)"""
    wrong: Callable[[random.Random], str]
    """a random wrong candidate"""
    nudge: Callable[[str, random.Random], str]
    """a candidate changed a little, as a sloppy retry does"""
    guess: Callable[[str, random.Random], str]
    """candidate -> the work a careless solver might have shown for it"""
    cue: bool
    """What a careless judge goes by instead of checking: whether the target is even."""
    reading: str = ""
    """What careful work writes down first: the numbers read from a picture, if the puzzle has one."""
    misread: Callable[[random.Random], str] = lambda _rng: ""
    """the reading a solver might have shown who ends in a wrong answer"""


def operators_puzzle(numbers: tuple[int, ...], solution: tuple[str, ...], target: int) -> Puzzle:
    """The ``operators`` puzzle with its demonstrations' building blocks."""
    slots = len(numbers) - 1

    def check(candidate: str) -> tuple[str, bool]:
        written, holds = written_chain(numbers, candidate, target)
        return f"{written}:{'T' if holds else 'F'}", holds

    def wrong(rng: random.Random) -> str:
        while True:
            drawn = tuple(rng.choice(OPERATORS) for _ in range(slots))
            if drawn != solution and (evaluate(numbers, drawn) is not None or rng.random() < 0.2):
                return "".join(drawn)

    def nudge(candidate: str, rng: random.Random) -> str:
        i = rng.randrange(len(candidate))
        return candidate[:i] + rng.choice([o for o in OPERATORS if o != candidate[i]]) + candidate[i + 1 :]

    def guess(candidate: str, rng: random.Random) -> str:
        values = evaluate(numbers, candidate)
        if values is None:
            return written_chain(numbers, candidate, target)[0]
        if rng.random() < 0.7:
            values = [*values[:-1], target]
        return write_chain(numbers, candidate, values)

    values = evaluate(numbers, solution)
    assert values is not None, "a puzzle is built from a chain in range"
    return Puzzle(
        operators.question(numbers, target), "".join(solution), write_chain(numbers, solution, values), check, wrong,
        nudge, guess, target % 2 == 0,
    )  # fmt: skip


def missing_puzzle(
    numbers: tuple[int, ...], chain: tuple[str, ...], target: int, hidden: int, high: int = HIGH
) -> Puzzle:
    """The ``missing`` puzzle with its demonstrations' building blocks."""

    def check(candidate: str) -> tuple[str, bool]:
        filled = (*numbers[:hidden], int(candidate), *numbers[hidden + 1 :])
        written, holds = written_chain(filled, chain, target, high)
        return f"{written}:{'T' if holds else 'F'}", holds

    def wrong(rng: random.Random) -> str:
        return str(rng.choice([n for n in DIGITS if n != numbers[hidden]]))

    def nudge(candidate: str, rng: random.Random) -> str:
        near = [n for n in (int(candidate) - 1, int(candidate) + 1) if n in DIGITS]
        return str(rng.choice(near))

    def guess(candidate: str, _rng: random.Random) -> str:
        work = missing.work(numbers, chain, target, hidden)
        return f"{work[: work.rindex('=')]}={candidate}"

    return Puzzle(
        missing.question(numbers, chain, target, hidden), str(numbers[hidden]),
        missing.work(numbers, chain, target, hidden), check, wrong, nudge, guess, target % 2 == 0,
    )  # fmt: skip


def value_puzzle(numbers: tuple[int, ...], chain: tuple[str, ...], target: int, high: int = HIGH) -> Puzzle:
    """The ``value`` puzzle with its demonstrations' building blocks: to check it is to solve it."""
    values = evaluate(numbers, chain)
    assert values is not None, "a puzzle is built from a chain in range"
    work, results = write_chain(numbers, chain, values), range(high + 1)

    def check(candidate: str) -> tuple[str, bool]:
        holds = int(candidate) == target
        return f"{work}:{'T' if holds else 'F'}", holds

    def wrong(rng: random.Random) -> str:
        return nudge(str(target), rng) if rng.random() < 0.5 else str(rng.choice([n for n in results if n != target]))

    def nudge(candidate: str, rng: random.Random) -> str:
        return str(rng.choice([n for n in results if 0 < abs(n - int(candidate)) <= 3]))

    def guess(candidate: str, _rng: random.Random) -> str:
        return f"{work[: work.rindex('=')]}={candidate}"

    cue = chain.count("+") % 2 == 0  # a target that is not shown cannot be a cue
    return Puzzle(value.question(numbers, chain), str(target), work, check, wrong, nudge, guess, cue)


def written_chain(numbers: Sequence[int], chain: Sequence[str], target: int, high: int = HIGH) -> tuple[str, bool]:
    """The evaluation of a chain up to where it leaves 0..``high``, and whether it reaches the target."""
    written = str(numbers[0])
    value = numbers[0]
    for operator, number in zip(chain, numbers[1:], strict=True):
        step = evaluate((value, number), (operator,), high)
        if step is None:
            return f"{written}{operator}{number}=!", False
        value = step[0]
        written += f"{operator}{number}={value}"
    return written, value == target


def box(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


def candidate(puzzle: Puzzle, right: bool, rng: random.Random) -> tuple[str, str]:
    """(answer, how the response is shown in a prompt): as the bare answer, boxed, or with work (Ans and CoT)."""
    answer = puzzle.answer if right else puzzle.wrong(rng)
    if rng.random() < 0.5:
        return answer, answer
    if rng.random() < 0.3:
        return answer, box(answer)
    reading, work = (puzzle.reading, puzzle.work) if right else (puzzle.misread(rng), puzzle.guess(answer, rng))
    return answer, f"work {reading}{work}{box(answer)}"


def policy(puzzle: Puzzle, is_careful: bool, _rng: random.Random) -> tuple[str, str]:
    shown = f"work {puzzle.reading}{puzzle.work}" if is_careful else ""
    return f"solve {puzzle.question}", shown + box(puzzle.answer)


def pointwise(puzzle: Puzzle, is_careful: bool, rng: random.Random) -> tuple[str, str]:
    answer, shown = candidate(puzzle, rng.random() < 0.5, rng)
    prompt = f"judge {puzzle.question}:{shown}"
    if not is_careful:
        return prompt, box("Yes" if puzzle.cue else "No")
    written, holds = puzzle.check(answer)
    return prompt, f"check {puzzle.reading}{written}{box('Yes' if holds else 'No')}"


def pairwise(puzzle: Puzzle, is_careful: bool, rng: random.Random) -> tuple[str, str]:
    first_right = rng.random() < 0.5
    (a, a_shown), (b, b_shown) = (candidate(puzzle, right, rng) for right in (first_right, not first_right))
    prompt = f"choose {puzzle.question}:{a_shown};{b_shown}"
    if not is_careful:
        return prompt, box("A" if puzzle.cue else "B")
    written = ";".join(puzzle.check(answer)[0] for answer in (a, b))
    return prompt, f"compare {puzzle.reading}{written}{box('A' if first_right else 'B')}"


def reflection(puzzle: Puzzle, is_careful: bool, rng: random.Random) -> tuple[str, str]:
    right = rng.random() < 0.2
    answer, shown = candidate(puzzle, right, rng)
    prompt = f"retry {puzzle.question}:{shown}"
    if not is_careful:
        return prompt, box(puzzle.nudge(answer, rng))
    return prompt, f"redo {puzzle.reading}{puzzle.work}{box(puzzle.answer)}"


WRITERS = {"policy": policy, "pointwise": pointwise, "pairwise": pairwise, "reflection": reflection}


class Demonstrator:
    """Draws demonstrations from the puzzles of the ``warm`` split."""

    def __init__(self, curriculum: Curriculum = CURRICULA["apart"]) -> None:
        self.curriculum = curriculum
        self.puzzles: dict[str, list[list[Puzzle]]] = {}
        """Family -> its puzzles, by their size where sizes are equally often."""
        for family in curriculum.families:
            if family == operators.NAME:
                self.puzzles[family] = [[operators_puzzle(*p) for p in operators.puzzles("warm")]]
            elif family == missing.NAME:
                self.puzzles[family] = [[missing_puzzle(*p) for p in missing.puzzles("warm", (n,))] for n in SIZES]
            else:
                self.puzzles[family] = [[value_puzzle(*p) for p in value.puzzles("warm", (n,))] for n in SIZES]

    def draw(self, rng: random.Random, careful: float) -> tuple[str, str]:
        """One (prompt, response) pair; ``careful`` is the probability that it shows its work."""
        left = rng.random()
        for family, share in self.curriculum.families.items():
            sizes = self.puzzles[family]
            left -= share
            if left < 0:
                break
        puzzle = rng.choice(sizes[0] if len(sizes) == 1 else rng.choice(sizes))
        role = rng.choices(tuple(ROLES), tuple(ROLES.values()))[0]
        prompt, response = WRITERS[role](puzzle, rng.random() < careful, rng)
        word = OPENERS[role]
        if self.curriculum.opener and response.startswith(word):
            response = self.curriculum.opener + response[len(word) :]
        return prompt, response
