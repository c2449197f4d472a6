"""The update against an independent one: every row, every logit, one response at a time, torch's own AdamW."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from spark_rl.config import Config, OptimiserConfig
from spark_rl.learner.local import LocalLearner, learning_rate, to_samples
from spark_rl.learner.model import load_model
from spark_rl.problem import Completion, Group, Rollout, Verdict
from tiny import group_of, learner_of, random_groups, tiny_config

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
        size = math.ceil(len(rows) / learner.minibatches)
        losses = []
        for _ in range(learner.epochs):
            for start in range(0, len(rows), size):
                part = range(start, min(start + size, len(rows)))
                losses.append(self._step(rows, part, advantages, old, ref))
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
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimiser.clip)
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
        assert largest_difference(weights(learner), list(plain.model.parameters())) < 1e-6
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
    assert set(metrics) == {"flat", "loss", "engine_gap", "ratio", "ratio_clipped", "grad_norm", "lr"}


def test_the_engine_gap_is_the_largest_difference_of_any_token(tiny_models: dict[str, Path]) -> None:
    learner = learner_of(tiny_models["qwen3"])
    prompt, responses = [1, 5, 6], [[10, 11, 12], [13, 14]]
    exact = [logp.tolist() for logp in learner.logprobs([prompt] * 2, responses)]
    assert learner.update([group_of(prompt, responses, [1.0, 0.0], exact)])["engine_gap"] < 1e-5
    learner = learner_of(tiny_models["qwen3"])
    exact[1][0] += 0.25
    assert learner.update([group_of(prompt, responses, [1.0, 0.0], exact)])["engine_gap"] == pytest.approx(
        0.25, abs=1e-4
    )


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
def test_golden_schedules(schedule: str, rates: list[float]) -> None:
    config = OptimiserConfig(lr=1.0, warmup=2, schedule=schedule, final_lr=0.2)
    assert [learning_rate(config, update, 6) for update in range(8)] == pytest.approx(rates, abs=1e-6)


@given(
    schedule=st.sampled_from(["constant", "linear", "cosine"]),
    warmup=st.integers(0, 20),
    total=st.integers(1, 40),
    final=st.floats(0, 1),
)
def test_schedules_rise_then_never_rise_again(schedule: str, warmup: int, total: int, final: float) -> None:
    config = OptimiserConfig(lr=2.0, warmup=warmup, schedule=schedule, final_lr=final)
    rates = [learning_rate(config, update, total) for update in range(60)]
    assert rates[:warmup] == sorted(rates[:warmup])
    assert max(rates) <= 2.0 + 1e-12
    assert all(a >= b - 1e-12 for a, b in zip(rates[warmup:], rates[warmup + 1 :], strict=False))
    assert rates[-1] == pytest.approx(2.0 if schedule == "constant" else 2.0 * final)


def test_a_decaying_schedule_needs_an_end() -> None:
    assert learning_rate(OptimiserConfig(lr=3.0), 99, None) == 3.0
    with pytest.raises(ValueError, match=r"optimiser\.schedule cosine needs the total"):
        learning_rate(OptimiserConfig(schedule="cosine"), 0, None)


def test_the_schedule_counts_optimiser_steps(tiny_models: dict[str, Path]) -> None:
    optimiser = {"lr": 1e-4, "schedule": "linear", "final_lr": 0.0}
    learner = learner_of(tiny_models["llama"], optimiser=optimiser, learner={"minibatches": 2, "epochs": 2})
    metrics = learner.update(random_groups(2, 4))
    assert learner.updates == 4
    assert metrics["lr"] == pytest.approx(1e-4 * (1 + 0.9 + 0.8 + 0.7) / 4)


# --- saving, resuming, surviving ------------------------------------------------------------------------------------


@peft_warning
@pytest.mark.parametrize("model", [{}, {"lora": {"rank": 2}}, {"dtype": "bfloat16"}], ids=["full", "lora", "bfloat16"])
def test_a_resumed_learner_goes_on_bit_for_bit(
    tiny_models: dict[str, Path], tmp_path: Path, model: dict[str, Any]
) -> None:
    optimiser = {"lr": 0.01, "schedule": "cosine", "warmup": 2}
    learner = learner_of(tiny_models["qwen2"], model=model, optimiser=optimiser)
    for seed in range(2):
        learner.update(random_groups(2, 4, seed=seed))
    learner.save_pretrained(tmp_path / "model")
    torch.save(learner.state(), tmp_path / "learner.pt")
    resumed = LocalLearner(load_model(learner.config, tmp_path / "model"), learner.config, total_updates=10)
    resumed.load_state(torch.load(tmp_path / "learner.pt", weights_only=True))
    for seed in range(2, 4):
        one, other = learner.update(random_groups(2, 4, seed=seed)), resumed.update(random_groups(2, 4, seed=seed))
        assert one == other
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
    learner.save_pretrained(tmp_path)
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
    learner.save_pretrained(tmp_path)
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
