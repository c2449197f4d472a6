"""The update against an independent one: every row, every logit, one response at a time, torch's own AdamW."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from spark_rl.config import Config, OptimiserConfig
from spark_rl.learner.base import Span
from spark_rl.learner.local import LocalLearner
from spark_rl.learner.samples import mixed, to_samples, whole_groups
from spark_rl.learner.schedule import learning_rate
from spark_rl.model.load import load_model
from spark_rl.problem import TASKS, Completion, Group, Rollout, Task, Verdict
from tiny import VOCABULARY, group_of, learner_of, random_groups, tiny_config

OPTIMISER = {"lr": 0.01, "eps": 0.01}
"""A large ``eps`` keeps AdamW from blowing rounding noise of 1e-9 up to a full step."""

peft_warning = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def weights(learner: LocalLearner) -> list[Tensor]:
    return [p.detach().clone() for p in learner.loaded.model.parameters()]


def largest_difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    return max(float((a - b).detach().abs().max()) for a, b in zip(ours, theirs, strict=True))


def plain_logp(model: nn.Module, group: Group, rollout: Rollout, temperature: float) -> Tensor:
    tokens = [*group.prompt_ids, *rollout.completion.token_ids]
    logp = (model(torch.tensor([tokens])).logits[0] / temperature).log_softmax(-1)
    return torch.stack([logp[i - 1, tokens[i]] for i in range(len(group.prompt_ids), len(tokens))])


class PlainLearner:
    """GRPO as its paper writes it: no packing, no chunks, no skipping."""

    def __init__(self, path: Path, config: Config) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(path).eval()
        self.reference = AutoModelForCausalLM.from_pretrained(path).eval()
        self.config = config
        o = config.optimiser
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=o.lr, betas=o.betas, eps=o.eps, weight_decay=o.weight_decay
        )

    def update(self, groups: Sequence[Group]) -> list[float]:
        """The loss of every optimiser step."""
        temperature, learner = self.config.rollout.temperature, self.config.learner
        rows = [(group, rollout) for group in groups for rollout in group.rollouts]
        advantages = []
        for group in groups:
            mean = sum(group.rewards) / len(group.rewards)
            variance = sum((r - mean) ** 2 for r in group.rewards) / len(group.rewards)
            advantages += [(r - mean) / math.sqrt(variance + self.config.advantage.eps) for r in group.rewards]
        with torch.no_grad():
            old = [plain_logp(self.model, *row, temperature) for row in rows]
            ref = [plain_logp(self.reference, *row, temperature) for row in rows]
        cuts = [round(k * len(groups) / learner.minibatches - 0.5) for k in range(learner.minibatches)]
        cuts = [sum(len(group.rollouts) for group in groups[:cut]) for cut in (*cuts, len(groups))]
        losses = []
        for _ in range(learner.epochs):
            for start, end in pairwise(cuts):
                losses.append(self._step(rows, range(start, end), advantages, old, ref))
        return losses

    def _step(
        self,
        rows: Sequence[tuple[Group, Rollout]],
        part: range,
        advantages: Sequence[float],
        old: Sequence[Tensor],
        ref: Sequence[Tensor],
    ) -> float:
        objective, limit = self.config.objective, self.config.rollout.max_new_tokens
        responses: list[Tensor] = []
        for i in part:
            logp = plain_logp(self.model, *rows[i], self.config.rollout.temperature)
            ratio = (logp - old[i]).exp()
            clipped = ratio.clamp(1 - objective.clip_low, 1 + objective.clip_high)
            loss = -torch.min(ratio * advantages[i], clipped * advantages[i])
            difference = ref[i] - logp
            responses.append(loss + objective.kl * (difference.exp() - difference - 1))
        tokens = sum(len(r) for r in responses)
        total = {
            "token": sum(r.sum() for r in responses) / tokens,
            "sequence": sum(r.mean() for r in responses) / len(responses),
            "fixed": sum(r.sum() for r in responses) / (len(responses) * limit),
        }[objective.aggregation]
        total.backward()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))
        for gradient in gradients:  # torch's own norm is in float32, off by more than the bound below
            gradient.mul_(min(1.0, self.config.optimiser.clip / (norm + 1e-6)))
        self.optimiser.step()
        self.optimiser.zero_grad()
        return float(total.detach())


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"objective": {"kl": 0.2}},
        {"objective": {"kl": 0.0, "aggregation": "sequence"}, "rollout": {"temperature": 0.7}},
        {"objective": {"kl": 0.1, "aggregation": "fixed"}, "rollout": {"max_new_tokens": 9}},
        {"learner": {"minibatches": 2, "epochs": 2}},
        {"objective": {"kl": 0.3, "clip_low": 0.01, "clip_high": 0.02}, "learner": {"minibatches": 3, "epochs": 2}},
        {"learner": {"micro_tokens": 20, "logit_chunk": 3}, "optimiser": {"clip": 0.05, "weight_decay": 0.1}},
    ],
    ids=["default", "kl", "sequence", "fixed", "off-policy", "off-policy-kl", "tiny-pieces"],
)
def test_the_weights_are_those_of_a_plain_implementation(
    tiny_models: dict[str, Path], sections: dict[str, Any]
) -> None:
    sections = {**sections, "optimiser": {**OPTIMISER, **sections.get("optimiser", {})}}
    learner = learner_of(tiny_models["qwen2"], **sections)
    plain = PlainLearner(tiny_models["qwen2"], learner.config)
    for number in range(2):
        before = weights(learner)
        groups = random_groups(4, 4, seed=number, flat=(1, 2))
        metrics = learner.update(groups)
        losses = plain.update(groups)
        assert metrics["loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-5)
        assert largest_difference(weights(learner), list(plain.model.parameters())) < 2e-6  # up to 12 steps in float32
        assert largest_difference(weights(learner), before) > 1e-3


@pytest.mark.parametrize("learner_section", [{"micro_tokens": 1}, {"micro_tokens": 33}, {"logit_chunk": 2}])
def test_memory_settings_do_not_change_the_result(model_path: str, learner_section: dict[str, int]) -> None:
    groups = random_groups(3, 4, flat=(2,))
    small = learner_of(model_path, optimiser=OPTIMISER, learner=learner_section)
    large = learner_of(model_path, optimiser=OPTIMISER)
    one, other = small.update(groups), large.update(groups)
    assert one == pytest.approx(other, abs=1e-5)
    assert largest_difference(weights(small), weights(large)) < 1e-6
    rows = ([g.prompt_ids for g in groups], [g.rollouts[0].completion.token_ids for g in groups])
    for a, b in zip(small.logprobs(*rows), large.logprobs(*rows), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def rows_forwarded(learner: LocalLearner) -> list[int]:
    calls: list[int] = []
    learner.loaded.decoder.register_forward_pre_hook(
        lambda _module, _args, kwargs: calls.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    return calls


def test_responses_without_advantage_are_not_computed_unless_there_is_a_kl_term(tiny_models: dict[str, Path]) -> None:
    groups = random_groups(4, 4, flat=(1, 2))
    without, with_kl = learner_of(tiny_models["llama"]), learner_of(tiny_models["llama"], objective={"kl": 0.1})
    calls, kl_calls = rows_forwarded(without), rows_forwarded(with_kl)
    metrics = without.update(groups)
    with_kl.update(groups)
    assert calls == [2, 8], "the prompts of two groups, then their responses"
    assert kl_calls == [4, 16]
    assert metrics["flat"] == 0.5


def test_metrics_of_an_on_policy_update(tiny_models: dict[str, Path]) -> None:
    groups = random_groups(3, 4, flat=(0,))
    metrics = learner_of(tiny_models["llama"]).update(groups)
    samples, _ = to_samples(groups, tiny_config(tiny_models["llama"]))
    tokens = sum(len(s.token_ids) for s in samples)
    assert metrics["loss"] == pytest.approx(-sum(s.advantage * len(s.token_ids) for s in samples) / tokens, abs=1e-6)
    assert metrics["ratio"] == pytest.approx(1.0, abs=1e-6)
    assert metrics["ratio_clipped"] == 0.0
    assert metrics["grad_norm"] > 0
    assert metrics["lr"] == 5e-7
    assert set(metrics) == {"flat", "loss", "engine_kl", "engine_gap", "ratio", "ratio_clipped", "grad_norm", "lr"}


@pytest.mark.parametrize("learner_section", [{}, {"micro_tokens": 1}, {"minibatches": 2}, {"epochs": 2}])
def test_the_mismatch_of_engine_and_learner_as_a_mean_and_as_a_maximum(
    tiny_models: dict[str, Path], learner_section: dict[str, int]
) -> None:
    """The engine's log-probabilities are moved by known amounts; a group without signal is not compared."""
    prompt, responses = [1, 5, 6], [[10, 11, 12], [13, 14]]
    found = []
    for moved in (0.0, 0.25):
        learner = learner_of(tiny_models["qwen3"], learner=learner_section, optimiser={"lr": 1e-9})
        engine = [logp.tolist() for logp in learner.logprobs([prompt] * 2, responses)]
        engine[1][0] += moved
        engine[0][2] -= moved / 2
        other = [[logp.tolist()[0]] for logp in learner.logprobs([[1, 7]] * 2, [[20], [21]])]
        flat = group_of([1, 9], [[30], [31]], [0.0, 0.0], [[-99.0], [-99.0]])
        groups = [
            group_of(prompt, responses, [1.0, 0.0], engine),
            flat,
            group_of([1, 7], [[20], [21]], [1.0, 0.0], other),
        ]
        found.append(learner.update(groups))
    assert found[0]["engine_gap"] < 1e-5
    assert 0 <= found[0]["engine_kl"] < 1e-10
    assert found[1]["engine_gap"] == pytest.approx(0.25, abs=1e-4)
    kl = (math.exp(-0.25) + 0.25 - 1 + math.exp(0.125) - 0.125 - 1) / 7
    assert found[1]["engine_kl"] == pytest.approx(kl, rel=1e-3)


def test_nothing_compared_is_no_agreement(tiny_models: dict[str, Path]) -> None:
    metrics = learner_of(tiny_models["llama"]).update(random_groups(2, 4, flat=(0, 1)))
    assert not [name for name in metrics if name.startswith("engine_")]


def test_the_mean_kl_is_that_of_the_distributions(tiny_models: dict[str, Path]) -> None:
    """In bfloat16, on many tokens sampled from one prompt: k3 against the exact sum over the vocabulary."""
    half = learner_of(tiny_models["qwen3"], model={"dtype": "bfloat16"})
    full = learner_of(tiny_models["qwen3"])
    every = [[token] for token in range(VOCABULARY)]
    p, q = (torch.cat(one.logprobs([[1, 5, 6]] * VOCABULARY, every)).double() for one in (full, half))
    exact = float((p.exp() * (p - q)).sum())
    drawn = torch.multinomial(p.exp(), 4000, replacement=True, generator=torch.Generator().manual_seed(0)).tolist()
    engine = [[float(p[token])] for token in drawn]
    group = group_of([1, 5, 6], [[token] for token in drawn], [float(i % 2) for i in range(len(drawn))], engine)
    metrics = half.update([group])
    assert exact > 1e-8
    assert metrics["engine_kl"] == pytest.approx(exact, rel=0.1)
    assert metrics["engine_gap"] > 100 * metrics["engine_kl"], "a maximum of noise says little"


def test_the_importance_cap_reads_the_engines_logprobs(tiny_models: dict[str, Path]) -> None:
    objective = {"kl": 0.0, "importance_cap": 1.5}
    learner = learner_of(tiny_models["qwen3"], objective=objective)
    prompt, responses = [1, 5, 6], [[10, 11], [13, 14]]
    exact = [logp.tolist() for logp in learner.logprobs([prompt] * 2, responses)]
    shifted = [[exact[0][0] - math.log(1.2), exact[0][1] - 9], [exact[1][0] + math.log(2), exact[1][1]]]
    metrics = learner.update([group_of(prompt, responses, [1.0, 0.0], shifted)])
    advantage = 0.5 / math.sqrt(0.25 + 1e-6)
    assert metrics["loss"] == pytest.approx(-advantage * (1.2 + 1.5 - 0.5 - 1) / 4, abs=1e-4)


def test_an_update_makes_the_rewarded_likelier_and_the_rest_rarer(model_path: str) -> None:
    learner = learner_of(model_path, optimiser={"lr": 3e-3})
    prompt, responses, rewards = [1, 5, 6], [[10, 11, 12], [13, 14], [15, 16, 17, 18]], [1.0, 0.0, 0.0]
    before = learner.logprobs([prompt] * 3, responses)
    for _ in range(3):
        learner.update([group_of(prompt, responses, rewards)])
    after = learner.logprobs([prompt] * 3, responses)
    gains = [float((b - a).sum()) for a, b in zip(before, after, strict=True)]
    assert gains[0] > 0.1
    assert max(gains[1:]) < -0.1


def test_a_batch_without_signal_moves_nothing_not_even_by_momentum(tiny_models: dict[str, Path]) -> None:
    learner = learner_of(tiny_models["llama"], optimiser={"lr": 0.01, "weight_decay": 0.1})
    learner.update(random_groups(2, 4))
    before = weights(learner)
    metrics = learner.update(random_groups(2, 4, flat=(0, 1)))
    assert largest_difference(weights(learner), before) == 0.0
    assert (metrics["flat"], metrics["loss"], metrics["grad_norm"], metrics["ratio"]) == (1.0, 0.0, 0.0, 1.0)


def test_a_minibatch_without_signal_between_others(tiny_models: dict[str, Path]) -> None:
    learner = learner_of(tiny_models["llama"], learner={"minibatches": 2})
    metrics = learner.update(random_groups(2, 4, flat=(1,)))
    assert metrics["ratio"] == pytest.approx(1.0, abs=1e-6)
    assert learner.update(random_groups(2, 4, flat=(0,)))["flat"] == 0.5


def test_nothing_to_train_on_is_no_update(tiny_models: dict[str, Path]) -> None:
    learner = learner_of(tiny_models["llama"])
    assert learner.update([]) == {}
    assert learner.update([group_of([1, 5], [[], []], [1.0, 0.0])]) == {}
    assert learner.updates == 0


def test_an_empty_response_counts_in_the_advantage_only() -> None:
    samples, flat = to_samples([group_of([1, 5], [[], [7], [8, 9]], [1.0, 0.0, 1.0])], tiny_config("unused"))
    assert flat == 0.0
    deviation = math.sqrt(2 / 9 + 1e-6)
    assert [s.advantage for s in samples] == pytest.approx([-2 / 3 / deviation, 1 / 3 / deviation])
    assert [s.token_ids for s in samples] == [(7,), (8, 9)]


def test_a_single_text_of_samples_keeps_prompt_tokens_and_logprobs() -> None:
    group = group_of([1, 5], [[7], [8, 9]], [1.0, 0.0], [[-0.5], [-0.25, -2.0]])
    first, second = to_samples([group], tiny_config("unused", advantage={"scale": "none"}))[0]
    assert (first.group, first.prompt_ids, first.vision) == (0, (1, 5), {})
    assert (first.token_ids, first.engine_logprobs, first.advantage) == ((7,), (-0.5,), 0.5)
    assert (second.engine_logprobs, second.advantage) == ((-0.25, -2.0), -0.5)


# --- the KL term and its reference ----------------------------------------------------------------------------------


def test_kl_is_zero_at_the_start_and_pulls_back_later(tiny_models: dict[str, Path]) -> None:
    learner = learner_of(tiny_models["qwen3"], objective={"kl": 1.0}, optimiser={"lr": 0.002, "betas": (0.0, 0.9)})
    groups = random_groups(3, 4)
    assert learner.update(groups)["kl"] == pytest.approx(0, abs=1e-6)
    for _ in range(3):
        learner.update(groups)
    still = random_groups(3, 4, flat=(0, 1, 2))  # the same tokens without reward: only the KL term is left
    distances = [learner.update(still)["kl"] for _ in range(6)]
    assert distances[0] > 1e-3
    assert distances[-1] < 0.7 * distances[0]


def test_a_kl_term_without_a_reference_is_refused(tiny_models: dict[str, Path]) -> None:
    config = tiny_config(tiny_models["llama"], objective={"kl": 0.1})
    with pytest.raises(ValueError, match=r"objective\.kl is positive, so the learner needs a reference"):
        LocalLearner(load_model(config), config)


@peft_warning
def test_adapters_are_trained_alone_and_the_reference_is_the_base(tiny_models: dict[str, Path]) -> None:
    path, model = tiny_models["qwen3"], {"lora": {"rank": 4}}
    learner = learner_of(path, model=model, objective={"kl": 0.5}, optimiser={"lr": 0.05})
    base = learner_of(path)
    frozen = {n: p.detach().clone() for n, p in learner.loaded.model.named_parameters() if not p.requires_grad}
    groups = random_groups(2, 4)
    assert learner.update(groups)["kl"] == pytest.approx(0, abs=1e-7)
    for name, parameter in learner.loaded.model.named_parameters():
        assert name not in frozen or torch.equal(parameter, frozen[name])
    rows = [(g.prompt_ids, r.completion.token_ids) for g in groups for r in g.rollouts]
    prompts, responses = [p for p, _ in rows], [r for _, r in rows]
    logp, ref = torch.cat(learner.logprobs(prompts, responses)), torch.cat(base.logprobs(prompts, responses))
    expected = float(((ref - logp).exp() - (ref - logp) - 1).mean())
    assert expected > 1e-3
    assert learner.update(groups)["kl"] == pytest.approx(expected, rel=1e-4)


# --- the learning rate ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.8, 0.6, 0.4, 0.2, 0.2]),
        ("cosine", [0.5, 1, 1, 0.8828427, 0.6, 0.3171573, 0.2, 0.2]),
    ],
)
def test_golden_schedules(tiny_models: dict[str, Path], schedule: str, rates: list[float]) -> None:
    """One update a step, six steps, two updates of warm-up; then two steps beyond the end."""
    optimiser = {"lr": 1.0, "warmup": 2, "schedule": schedule, "final_lr": 0.2, "clip": 1e-30}
    assert rates_of(tiny_models, optimiser, [Span(i, i + 1, 6) for i in range(8)]) == pytest.approx(rates, abs=1e-6)


def rates_of(tiny_models: dict[str, Path], optimiser: dict[str, Any], spans: Sequence[Span]) -> list[float]:
    """The learning rates of updates on nothing, each with its span of the run."""
    learner = learner_of(tiny_models["llama"], optimiser=optimiser)
    flat = random_groups(1, 2, flat=(0,))
    return [learner.update(flat, span)["lr"] for span in spans]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_schedule_ends_with_the_run_however_many_updates_it_had(
    tiny_models: dict[str, Path], schedule: str
) -> None:
    """A second period in none, every third or each of 50 steps: the same rates at the same places, the same end."""
    optimiser = {"lr": 1.0, "schedule": schedule, "final_lr": 0.0}
    found = []
    for every in (1000, 3, 1):
        spans = []
        for step in range(50):
            spans.append(Span(step, step + 0.5, 50))
            if step % every == every - 1:
                spans.append(Span(step + 0.5, step + 1, 50))
        rates = rates_of(tiny_models, optimiser, spans)
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] < 0.03
        found.append([rate for rate, span in zip(rates, spans, strict=True) if span.begin == int(span.begin)])
    assert found[0] == found[1] == found[2]


def test_minibatches_and_epochs_share_the_span_of_their_batch(tiny_models: dict[str, Path]) -> None:
    optimiser = {"lr": 1.0, "schedule": "linear", "final_lr": 0.0}
    learner = learner_of(tiny_models["llama"], optimiser=optimiser, learner={"minibatches": 2, "epochs": 2})
    groups = random_groups(2, 4, flat=(0, 1))
    assert learner.update(groups, Span(4, 5, 10))["lr"] == pytest.approx((0.6 + 0.575 + 0.55 + 0.525) / 4)
    assert learner.updates == 4


def test_more_steps_stretch_the_schedule_from_where_the_run_is(tiny_models: dict[str, Path]) -> None:
    """Ten steps with two updates of warm-up, and then twenty: as if they had been asked for at once."""
    optimiser = {"lr": 1.0, "warmup": 2, "schedule": "linear", "final_lr": 0.0}
    short, long = [Span(i, i + 1, 10) for i in range(10)], [Span(i, i + 1, 20) for i in range(20)]
    at_once = rates_of(tiny_models, optimiser, long)
    assert rates_of(tiny_models, optimiser, [*short, *long[10:]])[10:] == pytest.approx(at_once[10:], abs=1e-12)
    assert at_once[10] == pytest.approx(1 - 8 / 18)


@given(
    schedule=st.sampled_from(["constant", "linear", "cosine"]),
    warmup=st.integers(0, 20),
    total=st.integers(1, 40),
    final=st.floats(0, 1),
)
def test_schedules_rise_then_never_rise_again(schedule: str, warmup: int, total: int, final: float) -> None:
    config = OptimiserConfig(lr=2.0, warmup=warmup, schedule=schedule, final_lr=final)
    rates = [learning_rate(config, update, (update - warmup) / total) for update in range(61)]
    assert rates[:warmup] == sorted(rates[:warmup])
    assert max(rates) <= 2.0 + 1e-12
    assert all(a >= b - 1e-12 for a, b in zip(rates[warmup:], rates[warmup + 1 :], strict=False))
    assert rates[-1] == pytest.approx(2.0 if schedule == "constant" else 2.0 * final)


def test_a_decaying_schedule_needs_an_end() -> None:
    assert learning_rate(OptimiserConfig(lr=3.0), 99, None) == 3.0
    with pytest.raises(ValueError, match=r"optimiser\.schedule cosine needs to know how far the run is"):
        learning_rate(OptimiserConfig(schedule="cosine"), 0, None)


# --- minibatches ----------------------------------------------------------------------------------------------------


def tasks_of(counts: dict[Task, int]) -> list[Group]:
    """Groups of these tasks, one task after the other, as ``train.periods=combined`` has them."""
    (group,) = random_groups(1, 2)
    tasks = [task for task, count in counts.items() for _ in range(count)]
    return [replace(group, problem=replace(group.problem, id=f"{i}", task=task)) for i, task in enumerate(tasks)]


@given(st.dictionaries(st.sampled_from(TASKS), st.integers(1, 40), min_size=1), st.integers(1, 8))
def test_every_minibatch_has_the_mixture(counts: dict[Task, int], minibatches: int) -> None:
    groups = tasks_of(counts)
    found = mixed(groups)
    assert sorted(group.problem.id for group in found) == sorted(group.problem.id for group in groups)
    samples, _ = to_samples(found, tiny_config("unused"))
    parts = whole_groups(samples, minibatches)
    assert [i for part in parts for i in part] == list(range(len(samples)))
    for part in parts:
        numbers = {samples[i].group for i in part}
        assert len(part) == 2 * len(numbers), "groups stay whole"
        here = Counter(found[number].problem.task for number in numbers)
        for task, count in counts.items():
            assert abs(here[task] - count * len(numbers) / len(groups)) < 2
    for task in counts:
        ids = [int(group.problem.id) for group in found if group.problem.task == task]
        assert ids == sorted(ids), "groups of one task keep their order"


def test_one_kind_does_not_come_first_in_a_combined_batch() -> None:
    found = [group.problem.task for group in mixed(tasks_of({"policy": 4, "pointwise": 2, "reflection": 2}))]
    for half in (found[:4], found[4:]):
        assert Counter(half) == {"policy": 2, "pointwise": 1, "reflection": 1}


def test_the_learner_mixes_what_it_is_given(tiny_models: dict[str, Path]) -> None:
    """Two groups with signal and then two without: in order, the second of two minibatches would have no gradient."""
    groups = random_groups(4, 4, flat=(2, 3))
    tasks: tuple[Task, ...] = ("policy", "policy", "pointwise", "pointwise")
    groups = [replace(g, problem=replace(g.problem, task=task)) for g, task in zip(groups, tasks, strict=True)]
    learner = learner_of(tiny_models["llama"], learner={"minibatches": 2})
    signal: list[bool] = []
    learner.optimiser.register_step_pre_hook(
        lambda optimiser, *_: signal.append(optimiser.param_groups[0]["params"][0].grad is not None)
    )
    learner.update(groups)
    assert signal == [True, True]


def test_fewer_groups_than_minibatches_are_fewer_updates(tiny_models: dict[str, Path]) -> None:
    learner = learner_of(tiny_models["llama"], learner={"minibatches": 5})
    learner.update(random_groups(2, 4))
    assert learner.updates == 2


# --- gradients in half precision ------------------------------------------------------------------------------------


def gradient(learner: LocalLearner, groups: Sequence[Group]) -> Tensor:
    """The gradient that AdamW is given, as one vector."""
    found: list[Tensor] = []
    learner.optimiser.register_step_pre_hook(
        lambda optimiser, *_: found.extend(p.grad.flatten() for p in optimiser.param_groups[0]["params"])
    )
    learner.update(groups)
    assert all(parameter.grad is None for parameter in learner.parameters)
    assert all(part.dtype == torch.float32 for part in found)
    return torch.cat(found).double()


def test_micro_batches_in_half_precision_are_as_exact_as_one_batch(tiny_models: dict[str, Path]) -> None:
    """Against float32, from the same rounded weights: 1.9%, where sums in bfloat16 made 2.4% of 192 micro-batches."""
    groups = random_groups(48, 4)
    exact = learner_of(tiny_models["qwen3"], optimiser={"clip": 1e9})
    errors = []
    for micro_tokens in (10**6, 1):
        half = learner_of(
            tiny_models["qwen3"], model={"dtype": "bfloat16"}, optimiser={"clip": 1e9},
            learner={"micro_tokens": micro_tokens},
        )  # fmt: skip
        if not errors:
            with torch.no_grad():
                for a, b in zip(exact.masters, half.parameters, strict=True):
                    a.copy_(b)
            truth = gradient(exact, groups)
        errors.append(float((gradient(half, groups) - truth).norm() / truth.norm()))
    one, many = errors
    assert 1e-4 < one < 0.03
    assert many < 1.1 * one


# --- saving, resuming, surviving ------------------------------------------------------------------------------------


@peft_warning
@pytest.mark.parametrize("model", [{}, {"lora": {"rank": 2}}, {"dtype": "bfloat16"}], ids=["full", "lora", "bfloat16"])
def test_a_resumed_learner_goes_on_bit_for_bit(
    tiny_models: dict[str, Path], tmp_path: Path, model: dict[str, Any]
) -> None:
    optimiser = {"lr": 0.01, "schedule": "cosine", "warmup": 2}
    learner = learner_of(tiny_models["qwen2"], model=model, optimiser=optimiser)
    for seed in range(2):
        learner.update(random_groups(2, 4, seed=seed), Span(seed, seed + 1, 6))
    learner.save(tmp_path)
    resumed = LocalLearner(load_model(learner.config, tmp_path / "model"), learner.config)
    resumed.load(tmp_path)
    for seed in range(2, 4):
        span = Span(seed, seed + 1, 6)
        one, other = (each.update(random_groups(2, 4, seed=seed), span) for each in (learner, resumed))
        assert one == other
        assert seed == 2 or 0.001 < one["lr"] < 0.01, "the schedule has begun"
    assert largest_difference(weights(learner), weights(resumed)) == 0.0


def test_small_steps_add_up_in_half_precision(tiny_models: dict[str, Path]) -> None:
    """Each step is far below the resolution of most bfloat16 weights; together they are not."""
    optimiser = {"lr": 2e-5}
    half, full = (
        learner_of(tiny_models["qwen2"], model={"dtype": dtype}, optimiser=optimiser)
        for dtype in ("bfloat16", "float32")
    )
    with torch.no_grad():
        for a, b in zip(half.loaded.model.parameters(), full.loaded.model.parameters(), strict=True):
            b.copy_(a)  # the same start, rounded
    before = weights(half)
    for _ in range(20):
        half.update(random_groups(2, 4))
        full.update(random_groups(2, 4))
    agreement, moved, asked = 0.0, 0, 0
    for old, ours, theirs in zip(before, weights(half), weights(full), strict=True):
        assert ours.dtype == torch.bfloat16
        crosses = theirs.to(torch.bfloat16) != old
        asked += int(crosses.sum())
        moved += int((crosses & (ours != old)).sum())
        agreement = max(agreement, float((ours.float() - theirs).abs().max()))
    assert asked > 1000
    assert moved > 0.8 * asked
    assert agreement < 1e-2


def test_without_its_state_a_learner_would_go_on_differently(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    learner = learner_of(tiny_models["qwen2"], optimiser={"lr": 0.01})
    learner.update(random_groups(2, 4))
    learner.export(tmp_path)
    fresh = LocalLearner(load_model(learner.config, tmp_path), learner.config)
    learner.update(random_groups(2, 4, seed=1))
    fresh.update(random_groups(2, 4, seed=1))
    assert largest_difference(weights(learner), weights(fresh)) > 1e-4


def bad_group() -> Group:
    """A reward that is not finite makes every gradient of its batch NaN."""
    rollouts = [
        Rollout(Completion("", (7, 8), (-1.0, -1.0), "stop"), Verdict(reward, "correct"))
        for reward in (float("inf"), 0.0)
    ]
    return Group(random_groups(1, 2)[0].problem, tuple(rollouts), (1, 5))


def test_gradients_that_are_not_finite_are_dropped(tiny_models: dict[str, Path]) -> None:
    learner, clean = (learner_of(tiny_models["llama"], optimiser={"lr": 0.01}) for _ in range(2))
    for one in (learner, clean):
        one.update(random_groups(2, 4))
    before = weights(learner)
    assert math.isnan(learner.update([bad_group()])["grad_norm"])
    assert largest_difference(weights(learner), before) == 0.0
    learner.update(random_groups(2, 4, seed=1))
    clean.update(random_groups(2, 4, seed=1))
    assert largest_difference(weights(learner), weights(clean)) == 0.0


@torch.no_grad()
def test_what_is_saved_is_a_plain_transformers_model(model_path: str, tmp_path: Path) -> None:
    learner = learner_of(model_path, optimiser={"lr": 0.01})
    with torch.enable_grad():
        learner.update(random_groups(2, 4))
    learner.export(tmp_path)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokens = torch.tensor([[1, 5, 6, 7]])
    assert torch.allclose(saved(tokens).logits, learner.loaded.causal_lm(tokens).logits, atol=1e-6)
    assert not torch.allclose(
        saved(tokens).logits, AutoModelForCausalLM.from_pretrained(model_path)(tokens).logits, atol=1e-2
    )
    assert "spark_rl" not in (tmp_path / "config.json").read_text()
    assert load_model(learner.config, tmp_path).tokenizer.get_vocab() == learner.loaded.tokenizer.get_vocab()


@settings(max_examples=15)
@given(seed=st.integers(0, 999), count=st.integers(1, 3), samples=st.integers(2, 5))
def test_the_gradient_pushes_along_the_advantage(tiny_learner_path: str, seed: int, count: int, samples: int) -> None:
    """To first order, the advantage-weighted log-probability of what was sampled grows."""
    learner = learner_of(tiny_learner_path, optimiser={"lr": 1e-5})
    groups = random_groups(count, samples, seed=seed)
    chosen, _ = to_samples(groups, learner.config)

    def value() -> float:
        logp = learner.logprobs([s.prompt_ids for s in chosen], [s.token_ids for s in chosen])
        return sum(s.advantage * float(row.double().sum()) for s, row in zip(chosen, logp, strict=True))

    before = value()
    learner.update(groups)
    assert value() > before


@pytest.fixture(scope="module")
def tiny_learner_path(tiny_models: dict[str, Path]) -> str:
    return str(tiny_models["qwen3"])


# --- dropout of adapters --------------------------------------------------------------------------------------------


def dropping(path: Path, dropout: float, **sections: Any) -> LocalLearner:
    """A learner whose adapters add something already, so that dropping their inputs can be seen."""
    model = {"lora": {"rank": 4, "dropout": dropout}, **sections.pop("model", {})}
    learner = learner_of(path, model=model, optimiser=OPTIMISER, **sections)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        for parameter in learner.parameters:
            parameter.normal_(std=0.2)
    return learner


@peft_warning
def test_dropout_is_in_the_update_alone(tiny_models: dict[str, Path]) -> None:
    learner, plain = dropping(tiny_models["llama"], 0.5), dropping(tiny_models["llama"], 0.0)
    groups = random_groups(3, 4)
    rows = ([g.prompt_ids for g in groups], [g.rollouts[0].completion.token_ids for g in groups])
    for a, b in zip(learner.logprobs(*rows), plain.logprobs(*rows), strict=True):
        assert torch.equal(a, b)
    state = torch.get_rng_state()
    metrics, without = learner.update(groups), plain.update(groups)
    assert torch.equal(torch.get_rng_state(), state)
    assert abs(metrics["ratio"] - 1) > 1e-3, "the policy with dropout over the one that sampled, which had none"
    assert without["ratio"] == pytest.approx(1.0, abs=1e-6)
    assert metrics["engine_kl"] == pytest.approx(without["engine_kl"], rel=1e-5)
    assert largest_difference(weights(learner), weights(plain)) > 1e-3
    assert not any(module.training for module in learner.loaded.model.modules())
    assert torch.equal(learner.logprobs(*rows)[0], learner.logprobs(*rows)[0])


@peft_warning
def test_dropout_is_a_function_of_the_seed_and_the_update(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    path, groups = tiny_models["qwen3"], [random_groups(2, 4, seed=i) for i in range(2)]
    learner, other = dropping(path, 0.3), dropping(path, 0.3, seed=1)
    learner.update(groups[0])
    other.update(groups[0])
    assert largest_difference(weights(learner), weights(other)) > 1e-4
    learner.save(tmp_path)
    torch.manual_seed(11)  # whatever else has been drawn
    resumed = LocalLearner(load_model(learner.config, tmp_path / "model"), learner.config)
    resumed.load(tmp_path)
    assert learner.update(groups[1]) == resumed.update(groups[1])
    assert largest_difference(weights(learner), weights(resumed)) == 0


@peft_warning
def test_layers_that_are_recomputed_drop_the_same_inputs(tiny_models: dict[str, Path]) -> None:
    found = [
        dropping(tiny_models["llama"], 0.5, model={"gradient_checkpointing": recomputed}, objective={"kl": 0.1})
        for recomputed in (False, True)
    ]
    groups = random_groups(2, 4)
    assert found[0].update(groups) == found[1].update(groups)
    assert largest_difference(weights(found[0]), weights(found[1])) == 0


@pytest.mark.parametrize(("version", "ratio"), [(None, 1.0), (0, 1.0), (3, math.exp(0.1))])
def test_groups_of_another_policy_are_weighed_by_what_their_engine_said(
    version: int | None, ratio: float, tiny_models: dict[str, Path]
) -> None:
    """The ratio to the policy that sampled them: 1 for the current one, whatever the engine's rounding says."""
    learner = learner_of(tiny_models["llama"])
    prompt, responses = [1, 5, 9], [[7, 11, 2], [8, 2]]
    known = learner.logprobs([prompt] * 2, responses)
    group = group_of(prompt, responses, [1.0, 0.0], [(logp_T - 0.1).tolist() for logp_T in known])
    rollouts = tuple(replace(r, completion=replace(r.completion, version=version)) for r in group.rollouts)
    assert learner.update([replace(group, rollouts=rollouts)])["ratio"] == pytest.approx(ratio, rel=1e-4)
