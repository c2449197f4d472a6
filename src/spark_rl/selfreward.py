"""Training without gold answers (``reward.self``): votes propose a pseudo gold, the model's own verdict filters it.

The paper's claim behind it is that SPARK's model becomes its own generative reward model; here it is one. For a problem
without a gold answer:

1. the answer that most responses of its group give is proposed (:mod:`spark_rl.rewards.votes`);
2. the judge is asked ``reward.self.judgements`` times whether it is right. It is shown the answer alone, which all the
   voters share, so that it must check and can't be led by a reasoning. The question is a pointwise problem with the
   label Yes (Eq. 5), sampled and verified like any other: the reward of its group is the share of Yes;
3. with more than half Yes the proposal is the gold answer of Eq. 2. Otherwise the group is left out, and counted.

Votes that propose and a verifier that filters are CoVerRL's (https://arxiv.org/abs/2603.17775). Groups with a gold
answer take the same three steps as a check that changes nothing, for :class:`spark_rl.rewards.guard.Guard`.

The judge is the model as it is, or (``frozen``) as it was when the run began, a second copy of the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

from spark_rl.clock import Clock
from spark_rl.config import Config
from spark_rl.engine.base import Engine
from spark_rl.measure import Metrics
from spark_rl.problem import Group, Problem, Rollout
from spark_rl.recycle import Templates, load_templates, render_judge
from spark_rl.rewards.guard import Guard
from spark_rl.rewards.votes import elect
from spark_rl.rollout import Sampled, Sampler
from spark_rl.seeds import stream_seed


class Proposal(NamedTuple):
    """What the votes and the judge say of one group: ``Proposal("42", accepted=True)``."""

    answer: str
    """What most responses answer; empty if nothing can be read."""
    accepted: bool
    """Whether the judge said Yes to it more often than not."""


@dataclass(slots=True)
class SelfSampler(Sampler):
    """A sampler whose groups of problems without a gold answer come back with a pseudo gold, or not at all."""

    judge: Sampler = field(kw_only=True)
    """Samples the judgements, as many a problem as there shall be."""
    templates: Templates = field(kw_only=True)
    guard: Guard = field(kw_only=True)
    """Says whether pseudo golds may be used."""
    _told: Metrics = field(init=False, default_factory=dict, repr=False)

    def sample(self, problems: Iterable[Problem], seed: int, clock: Clock, count: int | None = None) -> Sampled:
        """See :meth:`spark_rl.rollout.Sampler.sample`. Problems without a gold answer are not asked before the guard
        trusts pseudo golds; recycled problems stay as they are, their label is known."""
        asked = (problem for problem in problems if problem.answer or self.guard.trusts)
        groups, too_long = Sampler.sample(self, asked, seed, clock, count)
        if not groups or groups[0].problem.task != "policy":
            return Sampled(groups, too_long)
        answers = clock.timed("verify", elect, groups, self.verifier)
        judged, shares = self._judged(groups, answers, stream_seed(seed, "self"), clock)
        told = [
            (group, Proposal(answer or "", share > 0.5))
            for group, answer, share in zip(groups, answers, shares, strict=True)
        ]
        checked = [(group, proposal) for group, proposal in told if group.problem.answer]
        hidden = [(group, proposal) for group, proposal in told if not group.problem.answer]
        right = clock.timed("verify", self._right, checked)
        rewarded = iter(clock.timed("verify", self._rewarded, [pair for pair in hidden if pair[1].accepted]))
        kept = [group if group.problem.answer else next(rewarded)
                for group, proposal in told if group.problem.answer or proposal.accepted]  # fmt: skip
        spent = [*judged, *(group for group, proposal in hidden if not proposal.accepted)]
        self._told = {
            "self/hidden": len(hidden), "self/left_out": len(groups) - len(kept),
            "self/tokens": sum(rollout.completion.tokens for group in spent for rollout in group.rollouts),
            **({"self/used": 1 - (len(groups) - len(kept)) / len(hidden)} if hidden else {}),
            **_check([proposal for _, proposal in checked], right),
        }  # fmt: skip
        return Sampled(kept, too_long)

    def tell(self) -> Metrics:
        """What became of the policy's batch since this was asked last, for the metrics of its step; ``self/tokens``
        counts those of judgements and of groups that were left out (``docs/without-gold.md``)."""
        told, self._told = self._told, {}
        return {"self/tokens": 0, "self/trusts": int(self.guard.trusts)} | told

    def _judged(
        self, groups: Sequence[Group], answers: Sequence[str | None], seed: int, clock: Clock
    ) -> tuple[list[Group], list[float]]:
        """The groups of judgements of the answers, and for each answer the share of Yes: 0 where there is none, or
        where it makes a prompt too long to ask."""
        asked = [
            _judge_problem(group.problem, answer, str(place), self.templates)
            for place, (group, answer) in enumerate(zip(groups, answers, strict=True)) if answer is not None
        ]  # fmt: skip
        judged, _ = self.judge.sample(asked, seed, clock)
        said = {group.problem.id: sum(group.rewards) / len(group.rewards) for group in judged}
        return judged, [said.get(str(place), 0.0) for place in range(len(groups))]

    def _right(self, checked: Sequence[tuple[Group, Proposal]]) -> list[bool]:
        """For each problem with a gold answer, whether the proposal is right."""
        items = [
            (rf"\boxed{{{proposal.answer}}}", group.problem.golds, group.problem.kind, group.problem.choices)
            for group, proposal in checked
        ]
        return [verdict.status == "correct" for verdict in self.verifier.verify_many(items)]

    def _rewarded(self, used: Sequence[tuple[Group, Proposal]]) -> list[Group]:
        """The groups with the proposal as their answer, and what the verifier says of their responses then."""
        problems = [replace(group.problem, answer=proposal.answer, pseudo=True) for group, proposal in used]
        items = [
            (rollout.text, problem.golds, problem.kind, problem.choices)
            for problem, (group, _) in zip(problems, used, strict=True) for rollout in group.rollouts
        ]  # fmt: skip
        verdicts = iter(self.verifier.verify_many(items, self.reward.form))
        return [
            replace(group, problem=problem, rollouts=tuple(
                Rollout(rollout.completion, self._shaped(rollout.completion, next(verdicts)))
                for rollout in group.rollouts
            ))
            for problem, (group, _) in zip(problems, used, strict=True)
        ]  # fmt: skip


def self_sampler(sampler: Sampler, config: Config, judge: Engine, guard: Guard) -> SelfSampler:
    """The sampler for a loop that trains without gold answers as ``config.reward.self`` says; ``judge`` is what judges.

    Raises:
        TemplateError: the templates can't be loaded.
    """
    assert config.reward.self is not None, "or nothing is hidden"
    parts = {part.name: getattr(sampler, part.name) for part in fields(Sampler)}
    rollout = sampler.config.model_copy(update={"samples": config.reward.self.judgements})
    templates = load_templates(config.recycle.templates, config.verify.thinking)
    judging = Sampler(judge, sampler.chat, sampler.verifier, rollout)
    return SelfSampler(**parts, judge=judging, templates=templates, guard=guard)


def _judge_problem(problem: Problem, answer: str, name: str, templates: Templates) -> Problem:
    """Whether ``answer`` is right, as a problem whose rewarded answer is Yes."""
    prompt, labels = render_judge(templates, problem.question, rf"\boxed{{{answer}}}", None, "answer")
    return replace(problem, id=name, task="pointwise", kind="verdict", prompt=prompt, answer=labels.correct,
                   alternatives=(), parent=problem.id)  # fmt: skip


def _check(proposals: Sequence[Proposal], right: Sequence[bool]) -> Metrics:
    """What the slice with gold answers tells of votes and judge."""
    accepted = [is_right for proposal, is_right in zip(proposals, right, strict=True) if proposal.accepted]
    verdicts = [proposal.accepted == is_right for proposal, is_right in zip(proposals, right, strict=True)]
    shares = {"self/votes": right, "self/judge": verdicts, "self/accuracy": accepted}
    return {"self/accepted": len(accepted)} | {
        name: sum(values) / len(values) for name, values in shares.items() if values
    }
