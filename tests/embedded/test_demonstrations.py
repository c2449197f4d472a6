"""What the embedded base is shown: right where careful, from the warm split alone, careful as often as documented."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter

import pytest

from spark_rl.data.procedural import procedural_problems
from spark_rl.data.tasks.chains import split_of
from spark_rl.embedded.demonstrations import CURRICULA, HABIT_CAREFUL, ROLES, STUDY_CAREFUL, Demonstrator, Puzzle
from spark_rl.verify import extract_boxed

OPENERS = {"solve": "work ", "judge": "check ", "choose": "compare ", "retry": "redo "}
ROLE_OF = dict(zip(OPENERS, ROLES, strict=True))


@pytest.fixture(scope="module")
def demonstrator() -> Demonstrator:
    return Demonstrator()


@pytest.fixture(scope="module")
def shown(demonstrator: Demonstrator) -> list[tuple[str, str]]:
    rng = random.Random(0)
    return [demonstrator.draw(rng, HABIT_CAREFUL) for _ in range(6000)]


@pytest.fixture(scope="module")
def shared() -> Demonstrator:
    return Demonstrator(CURRICULA["shared"])


def puzzles_of(demonstrator: Demonstrator) -> list[Puzzle]:
    return [puzzle for sizes in demonstrator.puzzles.values() for puzzles in sizes for puzzle in puzzles]


def question_of(prompt: str) -> str:
    return prompt.split(" ", 1)[1].split(":", 1)[0]


def solve(question: str) -> set[str]:
    """All solutions by brute force, written independently of the package."""
    left, target = question.rsplit("=", 1)
    if target == "_":
        return {str(value_of(left))}
    if "_" in left:
        candidates = {str(n): left.replace("_", str(n)) for n in range(1, 10)}
    else:
        candidates = {"": ""}
        for part in re.findall(r"\d|\?", left):
            fills = [part] if part != "?" else list("+-*")
            candidates = {
                key + (fill if part == "?" else ""): text + fill for key, text in candidates.items() for fill in fills
            }
    return {key for key, text in candidates.items() if value_of(text) == int(target)}


def value_of(chain: str) -> int | None:
    tokens = re.findall(r"\d+|[+*-]", chain)
    value = int(tokens[0])
    for sign, number in zip(tokens[1::2], map(int, tokens[2::2]), strict=True):
        value = {"+": value + number, "-": value - number, "*": value * number}[sign]
        if not 0 <= value <= 99:
            return None
    return value


def test_every_puzzle_shown_belongs_to_the_warm_split(shared: Demonstrator) -> None:
    for puzzle in puzzles_of(shared):
        left = puzzle.question.rsplit("=", 1)[0].replace("_", puzzle.answer)
        assert split_of([int(d) for d in re.findall(r"\d", left)]) == "warm", puzzle.question


def test_no_question_shown_is_trained_on_or_held_out(shared: Demonstrator) -> None:
    shown = {puzzle.question for puzzle in puzzles_of(shared)}
    families = tuple(shared.puzzles)
    trained = {p.question for family in families for p in procedural_problems(family, "train")}
    held_out = {p.question for family in families for p in procedural_problems(family, "heldout")}
    assert families == ("missing", "value", "operators")
    assert shown
    assert trained
    assert held_out
    assert not shown & trained
    assert not shown & held_out
    assert not trained & held_out


def test_policy_demonstrations_end_in_the_one_right_answer(shown: list[tuple[str, str]]) -> None:
    asked = [(p, r) for p, r in shown if p.startswith("solve ")][:400]
    for prompt, response in asked:
        assert solve(question_of(prompt)) == {extract_boxed(response)}, (prompt, response)


def test_careful_judgements_are_right(shown: list[tuple[str, str]]) -> None:
    checked = 0
    for prompt, response in shown:
        if prompt.startswith("judge ") and response.startswith("check "):
            question, response_shown = prompt.removeprefix("judge ").split(":", 1)
            candidate = extract_boxed(response_shown) or response_shown
            assert extract_boxed(response) == ("Yes" if solve(question) == {candidate} else "No"), (prompt, response)
            checked += 1
    assert checked > 100


def test_careless_judgements_know_nothing_of_the_answer(shown: list[tuple[str, str]]) -> None:
    right = []
    for prompt, response in shown:
        if prompt.startswith("judge ") and not response.startswith("check "):
            question, response_shown = prompt.removeprefix("judge ").split(":", 1)
            candidate = extract_boxed(response_shown) or response_shown
            right.append(extract_boxed(response) == ("Yes" if solve(question) == {candidate} else "No"))
    assert len(right) > 300
    assert 0.42 < sum(right) / len(right) < 0.58


@pytest.mark.parametrize("careful", [STUDY_CAREFUL, HABIT_CAREFUL])
def test_roles_and_careful_work_come_in_their_documented_shares(demonstrator: Demonstrator, careful: float) -> None:
    rng = random.Random(1)
    drawn = [demonstrator.draw(rng, careful) for _ in range(4000)]
    roles = Counter(ROLE_OF[prompt.split(" ", 1)[0]] for prompt, _ in drawn)
    for role, share in ROLES.items():
        assert abs(roles[role] / len(drawn) - share) < 0.03, role
    with_work = sum(response.startswith(tuple(OPENERS.values())) for _, response in drawn)
    assert abs(with_work / len(drawn) - careful) < 0.03


def test_openers_differ_by_role(shown: list[tuple[str, str]]) -> None:
    for prompt, response in shown:
        own = OPENERS[prompt.split(" ", 1)[0]]
        assert response.startswith((own, "\\boxed{")), (prompt, response)


def test_one_opener_for_all_roles_where_the_curriculum_shares_it(shared: Demonstrator) -> None:
    rng = random.Random(2)
    drawn = [shared.draw(rng, STUDY_CAREFUL) for _ in range(3000)]
    assert {response.split(" ", 1)[0] for _, response in drawn if " " in response} == {"work"}
    values = [(p, r) for p, r in drawn if p.startswith(("solve ", "judge ")) and p.split(":")[0].endswith("=_")]
    assert len(values) / sum(p.startswith(("solve ", "judge ")) for p, _ in drawn) == pytest.approx(0.3, abs=0.04)
    for prompt, response in values:
        if response.startswith("work ") and prompt.startswith("solve "):
            assert solve(question_of(prompt)) == {extract_boxed(response)}, (prompt, response)
        elif response.startswith("work "):
            question, shown_response = prompt.removeprefix("judge ").split(":", 1)
            candidate = extract_boxed(shown_response) or shown_response
            assert extract_boxed(response) == ("Yes" if solve(question) == {candidate} else "No"), (prompt, response)


def test_the_shipped_base_is_shown_what_it_always_was() -> None:
    rng = random.Random("warm-start:0")
    demonstrator = Demonstrator()
    drawn = "".join(str(demonstrator.draw(rng, STUDY_CAREFUL)) for _ in range(500))
    assert (
        hashlib.sha256(drawn.encode()).hexdigest() == "c23dd9433216672fe0bd4baf17f2f9397c3458f55a62623ec730767932c4b01d"
    )
