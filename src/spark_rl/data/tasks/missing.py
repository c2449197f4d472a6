r"""Family ``missing``: find the number hidden in a chain.

``7*_-4=17`` has the solution ``3``. It is solved by working backwards from the target and checked by one forward
evaluation. Every operator is invertible in the missing number, so the solution is unique.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from spark_rl.data.tasks.chains import OPERATORS, Split, evaluate, number_tuples

NAME = "missing"
INVERSE = {"+": "-", "-": "+", "*": "/"}


def puzzles(
    split: Split, sizes: Sequence[int] = (4, 5), seed: int = 0
) -> Iterator[tuple[tuple[int, ...], tuple[str, ...], int, int]]:
    """(numbers, operators, target, hidden position): two random chains for every tuple of numbers of a split."""
    rng = random.Random(f"missing:{split}:{seed}")
    for numbers in number_tuples(sizes, split):
        drawn = {tuple(rng.choice(OPERATORS) for _ in numbers[1:]) for _ in range(2)}
        for operators in sorted(drawn):
            hidden = rng.randrange(len(numbers))
            values = evaluate(numbers, operators)
            if values is not None and 0 not in values:
                yield numbers, operators, values[-1], hidden


def question(numbers: Sequence[int], operators: Sequence[str], target: int, hidden: int) -> str:
    """``7*_-4=17``."""
    shown = ["_" if i == hidden else str(n) for i, n in enumerate(numbers)]
    return shown[0] + "".join(o + s for o, s in zip(operators, shown[1:], strict=True)) + f"={target}"


def work(numbers: Sequence[int], operators: Sequence[str], target: int, hidden: int) -> str:
    """How the hidden number is found: forwards up to it, backwards from the target, then one inverse step.

    For ``7*_-4=17`` this is ``17+4=21;21/7=3``: what the base writes when it works carefully.
    """
    steps: list[str] = []
    known = numbers[0]
    if hidden > 0:
        forward = str(known)
        for operator, number in zip(operators[: hidden - 1], numbers[1:hidden], strict=True):
            value = evaluate((known, number), (operator,))
            assert value is not None, "a chain is built with every result in range"
            known = value[0]
            forward += f"{operator}{number}={known}"
        if hidden > 1:
            steps.append(forward)
    wanted = target
    backward = str(wanted)
    for operator, number in reversed(list(zip(operators[hidden:], numbers[hidden + 1 :], strict=True))):
        wanted = {"+": wanted - number, "-": wanted + number, "*": wanted // number}[operator]
        backward += f"{INVERSE[operator]}{number}={wanted}"
    if hidden < len(operators):
        steps.append(backward)
    if hidden > 0:
        operator = operators[hidden - 1]
        if operator == "-":
            steps.append(f"{known}-{wanted}={numbers[hidden]}")
        else:
            steps.append(f"{wanted}{INVERSE[operator]}{known}={numbers[hidden]}")
    return ";".join(steps)
