"""Random groups whose rollouts were graded by the real verifier, with a gold answer that nothing else contains."""

from __future__ import annotations

from hypothesis import strategies as st

from spark_rl.problem import Completion, Group, Problem, Rollout, Status, Verdict
from spark_rl.verify import verify

GOLD = "Zq7391qZ"
"""The gold answer of every random group. None of its characters is in ``TEXT``, so nothing else can spell it."""

ALTERNATIVE = "Wk5820kW"
"""Another answer that is right in every random group, and that no response gives: nothing may ever show it."""

TEXT = st.lists(
    st.sampled_from([
        "one", "more", " ", "\n", "3+4=", "{", "}", "\\{", "\\", "\\\\", "$x$", "|x|<|y|>0", "%s", "{question}",
        "{response}", "{response_a}", "{{ answer }}", "{% raw %}", "\\boxed{", "\\boxed{Yes}", "\\boxed{No}",
        "\\boxed{A}", "<|im_end|>", "<|im_start|>system", "<im<|im_end|>", "\\box", "ed{2}", "Judgement: Yes",
    ]),
    max_size=8,
).map("".join)  # fmt: skip
"""Reasoning of the kind that breaks careless templates."""

WRONG = st.sampled_from(
    ["3", "4", "12", "-+", "{response_b}", "Yes", "No", "A", "x^{2}", "4<|im_end|>", "\\frac{1}{2}"]
)


def rollout(text: str, gold: str = GOLD, *, reward: float | None = None) -> Rollout:
    """A response as the loop holds it: the verdict is the verifier's; ``reward`` shapes it afterwards."""
    verdict = verify(text, gold, kind="exact")
    if reward is not None:
        verdict = Verdict(reward, verdict.status, verdict.extracted)
    return Rollout(Completion(text, (1, 2), (-0.5, -0.5), "stop"), verdict)


def unanswered(status: Status) -> Rollout:
    """A boxed response that the verifier could not compare."""
    return Rollout(Completion("so \\boxed{5}", (1, 2), (-0.5, -0.5), "stop"), Verdict(0.0, status, "5"))


def group(*rollouts: Rollout, number: int = 0, question: str = "What is it?", gold: str = GOLD) -> Group:
    problem = Problem(
        id=f"p-{number}",
        question=question,
        answer=gold,
        alternatives=(ALTERNATIVE,),
        kind="exact",
        images=("a.png",),
        choices=("x", "y"),
        source="s",
    )
    return Group(problem, rollouts, (1, 2, 3))


def solved(right: int, wrong: int, number: int = 0) -> Group:
    """A group with this many right and wrong rollouts, all with different texts."""
    rights = [rollout(f"way {i}: \\boxed{{{GOLD}}}") for i in range(right)]
    return group(*rights, *(rollout(f"way {i}: \\boxed{{{i}}}") for i in range(wrong)), number=number)


RIGHT_ROLLOUTS = TEXT.map(lambda text: rollout(f"{text} so \\boxed{{{GOLD}}}"))
WRONG_ROLLOUTS = st.builds(lambda text, answer: rollout(f"{text} so \\boxed{{{answer}}}"), TEXT, WRONG)
OTHER_ROLLOUTS = st.one_of(
    TEXT.map(lambda text: rollout(text.replace("\\boxed", ""))),
    st.sampled_from(["unparsable", "timeout", "no_answer"]).map(unanswered),
)
QUESTIONS = st.one_of(TEXT, st.just("If {response} has {answer_b} eggs, is $\\{1\\}$ {question}?"))


@st.composite
def groups(draw: st.DrawFn, *, right: bool = True, largest: int = 12) -> list[Group]:
    """A step's groups, policy and recycled ones, all-right, all-wrong, mixed and unanswered."""
    kinds = [WRONG_ROLLOUTS, OTHER_ROLLOUTS, *([RIGHT_ROLLOUTS] if right else [])]
    rollouts = st.lists(st.one_of(kinds), min_size=1, max_size=6)
    return [
        group(*draw(rollouts), number=number, question=draw(QUESTIONS))
        for number in range(draw(st.integers(1, largest)))
    ]
