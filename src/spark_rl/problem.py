"""The records that flow through the loop: Problem -> Rollout -> Group (Sec. 3.1 of the paper, Eq. 1).

Everything here is immutable and knows nothing of torch, models or files, so the recyclers and the verifier can be
tested without any of them. ``reward`` (Eq. 2) lives in the verdict of a rollout; ``advantage`` (Eq. 3) is computed from
a whole group by the learner and is never stored back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Task = Literal["policy", "pointwise", "pairwise", "reflection"]
"""What a problem asks for. ``policy`` comes from the data; the other three are recycled (Eq. 5, 6, 7)."""

Place = tuple[tuple[str, float], ...]
"""What may stand at one place of a response: (text, log-probability) of the token that was sampled there, then of the
most likely others."""

TASKS: tuple[Task, ...] = ("policy", "pointwise", "pairwise", "reflection")

Kind = Literal["math", "choice", "verdict", "exact"]
"""How the verifier compares the boxed answer with the gold one (see :func:`spark_rl.verify.verify`)."""

Status = Literal["correct", "wrong", "no_answer", "unparsable", "timeout", "failed"]
"""What became of a response. From the verifier alone only ``correct`` earns a reward; the others are counted apart,
always. ``failed``: a reward function of the user's had no number for it (:mod:`spark_rl.rewards`)."""

STATUSES: tuple[Status, ...] = ("correct", "wrong", "no_answer", "unparsable", "timeout", "failed")


@dataclass(frozen=True, slots=True)
class Problem:
    r"""One thing to solve, with the gold answer only the verifier may see: d = (q, a, I) in the paper.

    A policy problem from the data::

        Problem(id="gsm8k-17", question="What is 6 times 7?", answer="42")

    and a pointwise problem recycled from one of its responses (Eq. 5). ``question`` stays the parent's raw question;
    what the model reads is ``prompt``, written from a template::

        Problem(id="gsm8k-17/pointwise-3", question="What is 6 times 7?", answer="No", kind="verdict",
                task="pointwise", prompt="Question: What is 6 times 7?\nAnswer: 36\nIs it correct? ...",
                parent="gsm8k-17")
    """

    id: str
    """Unique within a run; recycled problems extend the parent's id."""
    question: str
    """The raw question, without the answer-format suffix and without any chat markup."""
    answer: str
    """The gold answer. It never enters a prompt except as the verifier's label. Empty where only functions grade."""
    kind: Kind = "math"
    task: Task = "policy"
    prompt: str | None = None
    """The user turn of a recycled problem; ``None`` for policy problems, whose turn is made from ``question``."""
    images: tuple[Any, ...] = ()
    """Images of the question, carried along by every recycler: paths, ``data:`` strings, encoded bytes, PIL images, or
    :class:`~spark_rl.data.rowimages.RowImage` where the bytes lie in a row of a file.
    Where the question holds as many ``<image>`` markers, they stand there; otherwise before the text, in order."""
    choices: tuple[str, ...] = ()
    """The option texts of a multiple-choice problem, in order A, B, C, ..."""
    source: str = ""
    """Where the problem comes from: a file, a data set, or the family of a procedural task."""
    parent: str | None = None
    """The id of the problem this one was recycled from; ``None`` for data."""
    alternatives: tuple[str, ...] = ()
    """Further gold answers, each as right as ``answer``. A list that is one answer stays one text in ``answer``."""
    columns: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """The row's other columns, as JSON values, for reward functions of the user's; empty where there are none. They
    never enter a prompt."""

    pseudo: bool = False
    """Whether ``answer`` is no gold answer but the model's own, voted and judged (:mod:`spark_rl.selfreward`), or a
    label that was made from such a one."""

    @property
    def golds(self) -> tuple[str, ...]:
        """Every answer that is right, ``answer`` first: what the verifier is given."""
        return (self.answer, *self.alternatives)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the verifier found (Eq. 2).

    ``verify(r"so it is \\boxed{42}", "42")`` gives ``Verdict(reward=1.0, status="correct", extracted="42")``.
    """

    reward: float
    status: Status
    extracted: str | None = None
    """The text of the last balanced box, or ``None`` if there was none."""
    values: Mapping[str, float | None] = field(default_factory=dict, compare=False, repr=False)
    """What each reward function of the user's gave, ``None`` where it gave nothing; empty without any."""
    failed: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """Those of them that failed on this response."""


@dataclass(frozen=True, slots=True)
class Completion:
    r"""What an engine returns for one sample: engines see prompts, never labels.

    ``Completion(text="\\boxed{42}", token_ids=(91, 42, 92, 2), logprobs=(-0.1, -0.7, -0.0, -0.0), finish="stop")``
    """

    text: str
    """The decoded response without the end-of-sequence token, cut before a stop string."""
    token_ids: tuple[int, ...]
    """(T,) every sampled token, the end-of-sequence token included: this is what the learner trains on."""
    logprobs: tuple[float, ...]
    """(T,) log-probability of each sampled token under the sampling distribution, in nats."""
    finish: Literal["stop", "length", "refused"]
    """``stop``: the model ended by itself; ``length``: it was cut at the limit; ``refused``: a server did not let it
    answer, so the empty text is nobody's answer."""
    counted: int | None = None
    """How many tokens there were, from a server that counts them and does not show them: ``token_ids`` is empty then,
    and nothing can be trained on it."""
    error: str | None = None
    """Why it was refused, in the server's words."""
    version: int | None = None
    """Which policy sampled it (:attr:`spark_rl.model.weights.Weights.version`); ``None`` where nobody counted."""
    top: tuple[Place, ...] = field(default=(), repr=False)
    """(T,) each token as text with the most likely others, where :attr:`spark_rl.engine.base.Sampling.top` asked for
    them and the engine can tell."""

    @property
    def tokens(self) -> int:
        """How many tokens were sampled."""
        return len(self.token_ids) if self.counted is None else self.counted


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled response and what the verifier said of it: o^i with r^i (Eq. 1 and 2)."""

    completion: Completion
    verdict: Verdict

    @property
    def text(self) -> str:
        return self.completion.text

    @property
    def reward(self) -> float:
        return self.verdict.reward


@dataclass(frozen=True, slots=True)
class Group:
    """A problem and its n rollouts: G in Eq. 1, and the unit of advantage, of update and of recycling.

    A group of four, of which two are right::

        group.rewards == (1.0, 0.0, 0.0, 1.0)
    """

    problem: Problem
    rollouts: tuple[Rollout, ...]
    prompt_ids: tuple[int, ...] = field(repr=False)
    """(T_prompt,) the tokens the engine was given, the same for all rollouts."""
    vision: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What the processor made of the images beside the tokens (pixel values, grids); empty without images."""

    @property
    def rewards(self) -> tuple[float, ...]:
        """(G,) one reward a rollout, in sampling order."""
        return tuple(rollout.reward for rollout in self.rollouts)
