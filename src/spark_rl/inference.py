"""Test-time scaling and judging with one model (Sec. 3.3, Eq. 9 to 11).

``solve`` answers (Eq. 9), lets the model judge its own answer (Eq. 10), accepts it on a Yes and otherwise asks the
model to reflect with its answer in view (Eq. 11), at most ``rounds`` times. It runs on any engine, batched over all
problems: a round costs two generations however many problems are still open.

Departures: the paper loops until the model says Yes; like the authors' evaluation, the number of rounds is bounded. An
unreadable verdict is kept apart from a No and reflects or accepts as the configuration says. The temperature of
reflections is a setting of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from spark_rl.chat import Chat
from spark_rl.config import InferenceConfig
from spark_rl.engine.base import Engine, Sampling
from spark_rl.problem import Completion, Problem
from spark_rl.recycle import Templates, render_judge, render_pairwise, render_reflection
from spark_rl.rollout import as_read, stream_seed
from spark_rl.verify import answer_part, extract_boxed, read_verdict

IMAGE_BATCH = 64
"""Problems with images asked together: a picture of a million pixels is 25 MB when it is ready for the model."""


@dataclass(frozen=True, slots=True)
class Round:
    """One answer and what the model thought of it.

    ``Round(response="work 5-2=3...\\\\boxed{-+}", answer="-+", judgement="check ...\\\\boxed{Yes}", accepted=True)``
    """

    response: str
    """The whole response, c_t and a_t in Eq. 9."""
    answer: str | None
    """Its boxed answer, a_t."""
    judgement: str | None = None
    """The model's judgement of it, or ``None`` if it was not asked (the last round)."""
    accepted: bool | None = None
    """r_t in Eq. 10; ``None`` if not asked, or if the judgement held no readable verdict."""
    tokens: int = 0
    """Tokens generated for the response and the judgement."""


@dataclass(frozen=True, slots=True)
class Trace:
    """All rounds of one problem; the last round's answer is the final one."""

    problem: Problem = field(repr=False)
    rounds: tuple[Round, ...]

    @property
    def answer(self) -> str | None:
        """The final boxed answer."""
        return self.rounds[-1].answer

    @property
    def response(self) -> str:
        """The final response."""
        return self.rounds[-1].response


@dataclass(frozen=True, slots=True)
class Reasoner:
    """One model in its three roles: it answers, judges and reflects."""

    engine: Engine
    chat: Chat
    templates: Templates
    config: InferenceConfig
    seed: int = 0

    def answer(self, problems: Sequence[Problem]) -> list[Round]:
        """Eq. 9: one answer a problem."""
        return [self.round(text, n) for text, n in self._ask(problems, "answer")]

    def round(self, response: str, tokens: int) -> Round:
        """A response with the answer that it gives outside of the model's thinking."""
        return Round(response, extract_boxed(answer_part(response, self.templates.thinking)), tokens=tokens)

    def judge(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[tuple[str, bool | None, int]]:
        """Eq. 10: (judgement, whether it accepts, tokens) for each response; ``None`` is an unreadable verdict."""
        rendered = [
            render_judge(self.templates, problem.question, response, None, self.config.form)
            for problem, response in zip(problems, responses, strict=True)
        ]
        asked = [
            replace(p, task="pointwise", kind="verdict", prompt=prompt)
            for p, (prompt, _) in zip(problems, rendered, strict=True)
        ]
        judged = []
        for (text, tokens), (_, labels) in zip(self._ask(asked, "judge"), rendered, strict=True):
            said = read_verdict(text, labels, self.templates.thinking)
            judged.append((text, None if said is None else said == labels[0], tokens))
        return judged

    def compare(
        self, problems: Sequence[Problem], pairs: Sequence[tuple[str, str]]
    ) -> list[tuple[str, str | None, int]]:
        """Pairwise judging (Eq. 6): (judgement, A, B or ``None``, tokens) for each pair of responses."""
        asked = [
            replace(
                p, task="pairwise", kind="verdict",
                prompt=render_pairwise(self.templates, p.question, a, b, None, self.config.form),
            )
            for p, (a, b) in zip(problems, pairs, strict=True)
        ]  # fmt: skip
        return [
            (text, read_verdict(text, ("A", "B"), self.templates.thinking), tokens)
            for text, tokens in self._ask(asked, "compare")
        ]

    def reflect(self, problems: Sequence[Problem], responses: Sequence[str], turn: int = 0) -> list[Round]:
        """Eq. 11, lower branch: a new answer with the old one in view."""
        asked = [
            replace(
                p, task="reflection",
                prompt=render_reflection(self.templates, p.question, response, None, self.config.form),
            )
            for p, response in zip(problems, responses, strict=True)
        ]  # fmt: skip
        return [self.round(text, n) for text, n in self._ask(asked, f"reflect-{turn}")]

    def solve(self, problems: Sequence[Problem], first: Sequence[Round] | None = None) -> list[Trace]:
        """Answer, then judge and reflect for at most ``config.rounds`` rounds. ``first`` gives answers already made."""
        rounds: list[list[Round]] = [[r] for r in (first if first is not None else self.answer(problems))]
        open_ = list(range(len(problems)))
        for turn in range(self.config.rounds):
            asked = [problems[i] for i in open_]
            latest = [rounds[i][-1] for i in open_]
            judged = self.judge(asked, [r.response for r in latest])
            rejected = []
            for i, (judgement, accepted, tokens) in zip(open_, judged, strict=True):
                last = rounds[i][-1]
                rounds[i][-1] = replace(last, judgement=judgement, accepted=accepted, tokens=last.tokens + tokens)
                if accepted is False or (accepted is None and self.config.judge_unparsed == "reflect"):
                    rejected.append(i)
            open_ = rejected
            if not open_:
                break
            reflected = self.reflect([problems[i] for i in open_], [rounds[i][-1].response for i in open_], turn)
            for i, new in zip(open_, reflected, strict=True):
                rounds[i].append(new)
        return [Trace(problem, tuple(r)) for problem, r in zip(problems, rounds, strict=True)]

    def _ask(self, problems: Sequence[Problem], purpose: str) -> list[tuple[str, int]]:
        """(text, tokens) of one completion a problem."""
        if not problems:
            return []
        config = self.config
        temperature = config.reflect_temperature if purpose.startswith("reflect") else config.temperature
        sampling = Sampling(
            1, temperature, config.max_new_tokens, stream_seed(self.seed, "inference", purpose), self.chat.stop
        )
        answers = self.complete(problems, sampling)
        return [(completions[0].text, completions[0].tokens) for completions in answers]

    def complete(self, problems: Sequence[Problem], sampling: Sampling) -> list[list[Completion]]:
        """``sampling.n`` completions a problem; the pixels of at most :data:`IMAGE_BATCH` problems exist at a time."""
        size = IMAGE_BATCH if any(p.images for p in problems) else max(1, len(problems))
        found: list[list[Completion]] = []
        for start in range(0, len(problems), size):
            seed = stream_seed(sampling.seed, start) if start else sampling.seed
            prompts = [self.chat.encode(p) for p in problems[start : start + size]]
            drawn = self.engine.generate(prompts, replace(sampling, seed=seed))
            found += as_read(drawn, prompts, self.chat, self.templates.thinking)
        return found


def solve(
    problems: Sequence[Problem],
    engine: Engine,
    chat: Chat,
    templates: Templates,
    config: InferenceConfig,
    seed: int = 0,
) -> list[Trace]:
    """Test-time scaling on any engine: one trace a problem, with every round in it (Eq. 9 to 11)."""
    return Reasoner(engine, chat, templates, config, seed).solve(problems)
