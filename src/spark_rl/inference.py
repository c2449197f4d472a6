"""Test-time scaling and judging with one model (Sec. 3.3, Eq. 9 to 11).

``solve`` answers (Eq. 9), lets the model judge its own answer (Eq. 10), accepts it on a Yes and otherwise asks the
model to reflect with its answer in view (Eq. 11), at most ``rounds`` times. It runs on any engine, batched over all
problems: a round costs two generations however many problems are still open. ``inference.select`` chooses among several
answers instead (:mod:`spark_rl.voting`), with the model's own P(Yes) (:mod:`spark_rl.verify.certainty`).

Departures: the paper loops until the model says Yes; like the authors' evaluation, the number of rounds is bounded. An
unreadable verdict is kept apart from a No and reflects or accepts as the configuration says. A reflection without a
readable answer never takes the place of an answer that can be read: it is neither judged nor reflected on, and never
final. The temperature of reflections is a setting of its own. P(Yes), voting and best-of-n are not in the paper.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import NamedTuple

from spark_rl.chat import Chat, ChatFormat
from spark_rl.config import Config, InferenceConfig
from spark_rl.engine.base import Engine, Sampling
from spark_rl.problem import Completion, Kind, Place, Problem
from spark_rl.recycle import Labels, Templates, load_templates, render_judge, render_pairwise, render_reflection
from spark_rl.rollout import as_read
from spark_rl.seeds import stream_seed
from spark_rl.verify import answer_part, extract_boxed, read_verdict, verify
from spark_rl.verify.certainty import verdict_probability
from spark_rl.verify.grade import grade
from spark_rl.voting import Vote, classes, elected

logger = logging.getLogger(__name__)

LIKELY = 5
"""Tokens that an engine tells of each place of a judgement, to find Yes and No among them; hosted servers tell as many.
"""
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
    probability: float | None = None
    """P(Yes): the chance that the model gives to its answer being right, 0 to 1; ``None`` if it was not asked, the
    judgement held no readable verdict, or the engine tells no log-probabilities."""

    def with_opinion(self, opinion: Opinion) -> Round:
        """The round with what the model thinks of its answer."""
        text, accepted, tokens, probability = opinion
        return replace(self, judgement=text, accepted=accepted, tokens=self.tokens + tokens, probability=probability)

    @property
    def chance(self) -> float:
        """What the answer counts by: P(Yes), or its verdict as 1 or 0; 0 too without a readable one."""
        return float(bool(self.accepted)) if self.probability is None else self.probability


@dataclass(frozen=True, slots=True)
class Trace:
    """All rounds of one problem, in the order they were made, or all answers that one was chosen from."""

    problem: Problem = field(repr=False)
    rounds: tuple[Round, ...]
    chosen: int | None = None
    """The answer that ``inference.select`` chose; ``None`` where it is the last that stands."""

    @property
    def final(self) -> Round:
        """The round that was chosen, or the last whose answer can be read; the last of all where none can."""
        if self.chosen is not None:
            return self.rounds[self.chosen]
        return self.rounds[standing(self.problem, [turn.answer for turn in self.rounds])]

    @property
    def answer(self) -> str | None:
        """The final boxed answer."""
        return self.final.answer

    @property
    def response(self) -> str:
        """The final response."""
        return self.final.response


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the model says of a response, or of which of two is right.

    ``Judgement(text="5-2=3, 3+7=10 ... \\boxed{Yes}", verdict="Yes")``
    """

    text: str
    """The whole judgement."""
    verdict: str | None
    """``Yes`` or ``No`` of one response, ``A`` or ``B`` of two; ``None`` if no verdict can be read."""
    tokens: int = 0
    """Tokens generated for it."""
    probability: float | None = None
    """P(Yes) of one response, see :attr:`Round.probability`."""


class Opinion(NamedTuple):
    """What came of asking the model to judge a response."""

    text: str
    """The whole judgement, the first of several."""
    accepted: bool | None
    """``None``: no verdict can be read."""
    tokens: int
    """Tokens generated for all judgements."""
    probability: float | None
    """See :attr:`Round.probability`."""


_ANY_GOLD: Mapping[Kind, str] = {"math": "0", "choice": "A", "exact": "0"}
"""A gold that every answer of the kind can be held against, to learn whether it can be read."""


def is_readable(problem: Problem, answer: str | None) -> bool:
    """Whether the content of a box is something that the verifier could compare with a gold answer of ``problem``."""
    if answer is None:
        return False
    kind = problem.kind if problem.kind in _ANY_GOLD else "exact"
    status, _ = grade(rf"\boxed{{{answer}}}", _ANY_GOLD[kind], kind, problem.choices, ())
    return status not in {"no_answer", "unparsable"}


def standing(problem: Problem, answers: Sequence[str | None]) -> int:
    """Which of the boxed answers to one problem, in the order they were given, stands: the last that can be read."""
    readable = (i for i in reversed(range(len(answers))) if is_readable(problem, answers[i]))
    return next(readable, len(answers) - 1)


def equal_answers(problem: Problem, answers: Sequence[str | None]) -> list[int | None]:
    """Which of the boxed answers to one problem are the same to the verifier (:func:`spark_rl.voting.classes`); those
    that can't be read are no answers."""

    def same(one: str, other: str) -> bool:
        pairs = ((one, other), (other, one))
        kind = problem.kind if problem.kind in _ANY_GOLD else "exact"
        return any(verify(rf"\boxed{{{a}}}", gold, kind, problem.choices).reward > 0 for a, gold in pairs)

    return classes([answer if is_readable(problem, answer) else None for answer in answers], same)


TURNED: Mapping[str | None, str | None] = {"A": "B", "B": "A", None: None}
"""The verdict on a pair that was shown the other way round -> the response that it prefers, as they were given."""


@dataclass(frozen=True, slots=True)
class Reasoner:
    """One model in its three roles: it answers, judges and reflects."""

    engine: Engine
    chat: Chat
    templates: Templates
    config: InferenceConfig
    seed: int = 0
    heard: Callable[[int], None] | None = field(default=None, compare=False, repr=False)
    """Told how many problems have just been answered, after each call of the engine."""

    def answer(self, problems: Sequence[Problem]) -> list[Round]:
        """Eq. 9: one answer a problem."""
        return [self.round(text, n) for text, n in self._ask(problems, "answer")]

    def answers(self, problems: Sequence[Problem], count: int, purpose: str = "answer") -> list[list[Round]]:
        """``count`` answers a problem; ``purpose`` names the random stream."""
        drawn = self._draw(problems, purpose, count)
        return [[self.round(each.text, each.tokens) for each in group] for group in drawn]

    def round(self, response: str, tokens: int) -> Round:
        """A response with the answer that it gives outside of the model's thinking."""
        return Round(response, extract_boxed(answer_part(response, self.templates.thinking)), tokens=tokens)

    def judge(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Opinion]:
        """Eq. 10: what the model thinks of each response, from one call of the engine."""
        rendered = [
            render_judge(self.templates, problem.question, response, None, self.config.form)
            for problem, response in zip(problems, responses, strict=True)
        ]
        asked = [
            replace(p, task="pointwise", kind="verdict", prompt=prompt)
            for p, (prompt, _) in zip(problems, rendered, strict=True)
        ]
        drawn = self._draw(asked, "judge", self.config.judgements, top=LIKELY)
        return [self._opinion(group, labels) for group, (_, labels) in zip(drawn, rendered, strict=True)]

    def _opinion(self, judgements: Sequence[Completion], labels: Labels) -> Opinion:
        """One opinion from the judgements of a response, where ``labels[0]`` says that it is right."""
        thinking, config = self.templates.thinking, self.config
        first, tokens = judgements[0].text, sum(judgement.tokens for judgement in judgements)
        said = read_verdict(first, labels, thinking)
        readable = [one for one in judgements if read_verdict(one.text, labels, thinking) is not None]
        places = [_told(one, self.chat) for one in readable]
        found = [sure for one in places if (sure := verdict_probability(one, labels, thinking)) is not None]
        chance = fmean(p if verdict == labels[0] else 1 - p for verdict, p in found) if found else None
        accepted = None if said is None else said == labels[0]
        if chance is not None and (config.accept is not None or config.judgements > 1):
            accepted = chance >= (0.5 if config.accept is None else config.accept)
        return Opinion(first, accepted, tokens, chance)

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

    def solve(
        self,
        problems: Sequence[Problem],
        first: Sequence[Round] | None = None,
        reflected: Sequence[Round] | None = None,
    ) -> list[Trace]:
        """Answer, then judge and reflect for at most ``config.rounds`` rounds, or choose among several answers.

        ``first`` gives answers already made, judged or not; ``reflected`` what :meth:`reflect` made of all of them.
        """
        *_, traces = self.watch(problems, first, reflected)
        return traces

    def watch(
        self,
        problems: Sequence[Problem],
        first: Sequence[Round] | None = None,
        reflected: Sequence[Round] | None = None,
    ) -> Iterator[list[Trace]]:
        """:meth:`solve` as it goes: the traces so far, one a problem, after each call of the engine.

        First come the answers, then the same with their judgements, then with the reflections, and so on; the last is
        what ``solve`` returns. Nothing more is asked of the engine once the iterator is closed.
        """
        if self.config.select != "last":
            yield from self._chosen(problems, first, self.config.select)
            return
        rounds: list[list[Round]] = [[r] for r in (first if first is not None else self.answer(problems))]
        stands = [0] * len(problems)  # which round of each problem is judged and reflected on
        open_ = list(range(len(problems)))

        def traces() -> list[Trace]:
            return [Trace(problem, tuple(r)) for problem, r in zip(problems, rounds, strict=True)]

        yield traces()
        for turn in range(self.config.rounds):
            asked = [i for i in open_ if rounds[i][stands[i]].judgement is None]
            judged = self.judged([problems[i] for i in asked], [rounds[i][stands[i]] for i in asked])
            for i, new in zip(asked, judged, strict=True):
                rounds[i][stands[i]] = new
            yield traces()
            open_ = [i for i in open_ if not self._accepts(rounds[i][stands[i]])]
            if not open_:
                break
            if turn == 0 and reflected is not None:
                again = [reflected[i] for i in open_]
            else:
                responses = [rounds[i][stands[i]].response for i in open_]
                again = self.reflect([problems[i] for i in open_], responses, turn)
            for i, new in zip(open_, again, strict=True):
                rounds[i].append(new)
                stands[i] = standing(problems[i], [one.answer for one in rounds[i]])
            yield traces()

    def _chosen(self, problems: Sequence[Problem], first: Sequence[Round] | None, vote: Vote) -> Iterator[list[Trace]]:
        """``config.samples`` answers a problem, and which of them is given."""
        given = [[] for _ in problems] if first is None else [[one] for one in first]
        more = self.config.samples - (first is not None)
        drawn = self.answers(problems, more, "answer" if first is None else "answers")
        rounds = [[*known, *new] for known, new in zip(given, drawn, strict=True)]
        if vote != "majority":
            yield [Trace(problem, tuple(turns)) for problem, turns in zip(problems, rounds, strict=True)]
            asked = [(i, k) for i, turns in enumerate(rounds) for k, one in enumerate(turns) if one.judgement is None]
            judged = self.judged([problems[i] for i, _ in asked], [rounds[i][k] for i, k in asked])
            for (i, k), new in zip(asked, judged, strict=True):
                rounds[i][k] = new
        yield [
            Trace(problem, tuple(turns), self.vote(problem, turns, vote))
            for problem, turns in zip(problems, rounds, strict=True)
        ]

    def judged(self, problems: Sequence[Problem], rounds: Sequence[Round]) -> list[Round]:
        """The rounds with what the model thinks of their answers."""
        opinions = self.judge(problems, [one.response for one in rounds])
        return [one.with_opinion(opinion) for one, opinion in zip(rounds, opinions, strict=True)]

    @staticmethod
    def vote(problem: Problem, rounds: Sequence[Round], vote: Vote) -> int:
        """Which of the answers to a problem is given; equal answers are what the verifier calls equal."""
        return elected(equal_answers(problem, [one.answer for one in rounds]), [one.chance for one in rounds], vote)

    def _accepts(self, judged: Round) -> bool:
        """Whether the judgement of an answer ends the search for another."""
        return bool(judged.accepted) or (judged.accepted is None and self.config.judge_unparsed == "accept")

    def _ask(self, problems: Sequence[Problem], purpose: str) -> list[tuple[str, int]]:
        """(text, tokens) of one completion a problem."""
        return [(completions[0].text, completions[0].tokens) for completions in self._draw(problems, purpose, 1)]

    def _draw(self, problems: Sequence[Problem], purpose: str, count: int, top: int = 0) -> list[list[Completion]]:
        """``count`` completions a problem, each place of them with the ``top`` likeliest tokens."""
        if not problems:
            return []
        config = self.config
        temperature = config.reflect_temperature if purpose.startswith("reflect") else config.temperature
        sampling = Sampling(
            count, temperature, config.max_new_tokens, stream_seed(self.seed, "inference", purpose),
            repetition_penalty=config.repetition_penalty, top=top,
        )  # fmt: skip
        answers = self.complete(problems, sampling)
        warn_of_refusals([completion for completions in answers for completion in completions], purpose)
        return answers

    def complete(self, problems: Sequence[Problem], sampling: Sampling) -> list[list[Completion]]:
        """``sampling.n`` completions a problem; the pixels of at most :data:`IMAGE_BATCH` problems exist at a time."""
        size = IMAGE_BATCH if any(p.images for p in problems) else max(1, len(problems))
        found: list[list[Completion]] = []
        for start in range(0, len(problems), size):
            prompts = [self.chat.encode(p) for p in problems[start : start + size]]
            drawn = self.engine.generate(prompts, replace(sampling, first=sampling.first + start))
            found += as_read(drawn, prompts, self.chat, self.templates.thinking)
            if self.heard is not None:
                self.heard(len(prompts))
        return found


def build_reasoner(engine: Engine, chat: Chat, config: Config) -> Reasoner:
    """The model behind an engine, answering, judging and reflecting as ``config.inference`` says.

    Raises:
        ConfigError: the templates can't be loaded.
    """
    templates = load_templates(config.recycle.templates, config.verify.thinking)
    return Reasoner(engine, chat, templates, config.inference, config.seed)


def warn_of_refusals(completions: Sequence[Completion], purpose: str) -> None:
    """Say how many requests a server refused for what they hold: their empty text is nobody's answer or verdict."""
    refused = [completion for completion in completions if completion.finish == "refused"]
    if refused:
        logger.warning(
            "%d of %d requests to %s were refused: the first because of %s", len(refused), len(completions),
            purpose.partition("-")[0], refused[0].error,
        )  # fmt: skip


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


def judge(
    problems: Sequence[Problem],
    responses: Sequence[str],
    engine: Engine,
    chat: Chat,
    templates: Templates,
    config: InferenceConfig,
    seed: int = 0,
    *,
    others: Sequence[str] | None = None,
) -> list[Judgement]:
    """Judging on any engine: of each response whether it is right (Eq. 10), or with ``others``, one a problem, which of
    the two is (Eq. 6).
    """
    reasoner = Reasoner(engine, chat, templates, config, seed)
    if others is not None:
        compared = reasoner.compare(problems, list(zip(responses, others, strict=True)))
        return [Judgement(text, verdict, tokens) for text, verdict, tokens in compared]
    names = {True: "Yes", False: "No", None: None}
    return [Judgement(text, names[accepted], n, p) for text, accepted, n, p in reasoner.judge(problems, responses)]


def _told(completion: Completion, chat: Chat) -> tuple[Place, ...]:
    """What an engine tells of each place of a completion: the sampled tokens alone where it tells no others."""
    if completion.top or not isinstance(chat, ChatFormat):
        return completion.top
    pairs = zip(completion.token_ids, completion.logprobs, strict=True)
    return tuple(((chat.decode([token]), logprob),) for token, logprob in pairs)
