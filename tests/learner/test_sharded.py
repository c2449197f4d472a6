"""Several ranks against one process: the same gradients, metrics and log-probabilities, whatever the batch holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from learner.ranks import on_ranks
from plan.measure import resident
from plan.test_memory import model_of
from spark_rl.backend import open_backend
from spark_rl.config import Config
from spark_rl.engine.base import Sampling
from spark_rl.errors import ConfigError
from spark_rl.learner.handout import load_on_first_rank
from spark_rl.learner.local import LocalLearner
from spark_rl.learner.plan import plan_ranks
from spark_rl.learner.policy import PolicyLearner
from spark_rl.learner.sharded import ShardedLearner
from spark_rl.model.load import load_model
from spark_rl.model.weights import gathered
from spark_rl.problem import Group, Problem, Rollout, Verdict
from tiny import group_of, random_groups, tiny_config
from vision import draw_image, make_vlm

OPTIMISER = {"lr": 0.01, "eps": 0.01}
"""A large ``eps`` keeps AdamW from blowing rounding noise of 1e-9 up to a full step."""

peft_warning = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


@dataclass(frozen=True)
class Case:
    """A model, its settings, and the batches of a few updates."""

    path: Path
    sections: dict[str, Any]
    batches: list[list[Group]]

    @property
    def config(self) -> Config:
        return tiny_config(self.path, **{"optimiser": OPTIMISER, **self.sections})


@dataclass
class Outcome:
    """What a learner makes of a case."""

    metrics: list[dict[str, float]] = field(default_factory=list)
    gradients: list[dict[str, Tensor]] = field(default_factory=list)
    """Clipped, one entry an optimiser step, by name."""
    logprobs: list[Tensor] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)


def sharded(config: Config, path: Path | None = None) -> ShardedLearner:
    """As a run makes it: the first rank alone reads the model."""
    reference = load_on_first_rank(config) if config.objective.kl > 0 and config.model.lora is None else None
    return ShardedLearner(load_on_first_rank(config, path), config, reference)


def follow(learner: PolicyLearner, batches: Sequence[Sequence[Group]]) -> Outcome:
    """Update on each batch; what there is to compare."""
    found, names = Outcome(), [name for name, p in learner.loaded.model.named_parameters() if p.requires_grad]
    optimiser: torch.optim.Optimizer = learner.optimiser  # type: ignore[attr-defined]

    def keep(*_: object) -> None:
        (parameters,) = optimiser.param_groups
        named = zip(names, parameters["params"], strict=True)
        found.gradients.append({n: gathered(p.grad).clone() for n, p in named if p.grad is not None})

    hook = optimiser.register_step_pre_hook(keep)
    found.metrics = [learner.update(groups) for groups in batches]
    hook.remove()
    rows = [(g.prompt_ids, r.completion.token_ids, g.vision) for g in batches[-1] for r in g.rollouts]
    prompts, responses, vision = zip(*rows, strict=True)
    found.logprobs = learner.logprobs(prompts, responses, vision)
    found.weights = {name: tensor.detach().clone() for name, tensor in learner.weights().named()}
    return found


def apart(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The norm of the difference, relative to theirs."""
    assert ours.keys() == theirs.keys()
    difference = sum(float((ours[n].double() - theirs[n].double()).square().sum()) for n in theirs)
    return math.sqrt(difference / max(1e-30, sum(float(t.double().square().sum()) for t in theirs.values())))


def with_images(path: Path) -> list[list[Group]]:
    """Batches of a model that sees: images in some groups, then in none."""
    backend = open_backend(tiny_config(path))
    pictures = [draw_image(1, 56, 56), draw_image(2, 84, 56)]
    seen = [Problem("a", "What?", "1", images=(pictures[0],)), Problem("b", "Both?", "1", images=tuple(pictures))]
    plain = [Problem("c", "Why?", "1"), Problem("d", "What is 1 plus 1?", "2"), Problem("e", "How?", "1")]
    batches = []
    for step, problems in enumerate(([*seen, *plain], plain)):
        prompts = [backend.chat.encode(problem) for problem in problems]
        found = backend.engine.generate(prompts, Sampling(3, 1.0, 6, seed=step))
        batches.append([
            Group(
                problem, tuple(Rollout(c, Verdict(float(i == 1), "correct" if i == 1 else "wrong"))
                               for i, c in enumerate(completions)), prompt.token_ids, prompt.vision,
            )
            for problem, prompt, completions in zip(problems, prompts, found, strict=True)
        ])  # fmt: skip
    return batches


def from_elsewhere(groups: Sequence[Group]) -> list[Group]:
    """Every second group sampled by another policy."""
    return [
        replace(group, rollouts=tuple(replace(r, completion=replace(r.completion, version=9)) for r in group.rollouts))
        if i % 2 else group for i, group in enumerate(groups)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def cases(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    qwen2, llama = tiny_models["qwen2"], tiny_models["llama"]
    vlm = make_vlm("qwen2_5_vl", tmp_path_factory.mktemp("qwen2_5_vl"))
    tiles = make_vlm("idefics3", tmp_path_factory.mktemp("idefics3"))
    usual = [random_groups(5, 4, seed=n, flat=(1, 2)) for n in range(2)]
    short = [group_of([1, 5, 6], [[10], [11], [12]], [1.0, 0.0, 0.0])]
    lora = {"rank": 4, "alpha": 8.0}
    images = {path: with_images(path) for path in (vlm, tiles)}
    return {
        "tied weights": Case(qwen2, {}, usual),
        "recomputed": Case(qwen2, {"model": {"gradient_checkpointing": True}}, usual),
        "small pieces": Case(
            llama,
            {"learner": {"micro_tokens": 30, "logit_chunk": 3}, "objective": {"kl": 0, "aggregation": "sequence"}},
            usual,
        ),
        "kl": Case(llama, {"objective": {"kl": 0.3}}, usual),
        "adapters with kl": Case(qwen2, {"model": {"lora": lora}, "objective": {"kl": 0.3}}, usual),
        "one row with signal": Case(llama, {}, [random_groups(1, 2, seed=3), usual[0]]),
        "one token": Case(llama, {}, [short]),
        "all flat": Case(llama, {}, [usual[0], random_groups(3, 4, flat=(0, 1, 2)), usual[1]]),
        "all flat with kl": Case(llama, {"objective": {"kl": 0.3}}, [usual[0], random_groups(3, 2, flat=(0, 1, 2))]),
        "minibatches": Case(llama, {"learner": {"minibatches": 2, "epochs": 2}}, usual),
        "another policy": Case(llama, {"objective": {"kl": 0, "importance_cap": 2.0}}, [from_elsewhere(usual[0])]),
        "offloaded": Case(qwen2, {"learner": {"offload": True}}, usual),
        "clipped": Case(qwen2, {"optimiser": {**OPTIMISER, "clip": 0.01}}, usual),
        "images": Case(vlm, {"learner": {"micro_tokens": 60}}, images[vlm]),
        "images, adapters": Case(vlm, {"model": {"lora": lora}, "learner": {"micro_tokens": 60}}, images[vlm]),
        "images, tower trained": Case(vlm, {"model": {"freeze": []}, "learner": {"micro_tokens": 60}}, images[vlm]),
        "tiles, tower trained": Case(tiles, {"model": {"freeze": [], "gradient_checkpointing": True}}, images[tiles]),
    }  # fmt: skip


@pytest.fixture(scope="module")
def expected(cases: dict[str, Case]) -> dict[str, Outcome]:
    """What one process makes of each."""
    return {name: follow(local(case.config), case.batches) for name, case in cases.items()}


def local(config: Config, path: Path | None = None) -> LocalLearner:
    reference = load_model(config) if config.objective.kl > 0 and config.model.lora is None else None
    return LocalLearner(load_model(config, path), config, reference)


@dataclass
class Loading:
    """How a rank comes to its weights."""

    grown: int
    """Bytes of the process, while it is given its part of a large model."""
    refused: str
    """What it says to a model that can't be loaded."""
    weights: dict[str, dict[str, Tensor]]
    """Of some cases: parameters and buffers, whole, as the first rank read them and as each rank read them itself."""


def on_a_rank(
    cases: dict[str, Case], large: Config, broken: Config
) -> tuple[dict[str, Outcome], list[str], str, Loading]:
    """What a rank makes of each case, whose images it asked for, what it says to a KL term without reference, and how
    it is given models.
    """
    outcomes = {name: follow(sharded(case.config), case.batches) for name, case in cases.items()}
    config = next(iter(cases.values())).config
    kl = config.model_copy(update={"objective": config.objective.model_copy(update={"kl": 0.1})})
    with pytest.raises(ValueError, match="needs a reference model") as caught:
        ShardedLearner(load_model(kl), kl)
    return outcomes, asked_for(cases["images"]), str(caught.value), loading(cases, large, broken)


def loading(cases: dict[str, Case], large: Config, broken: Config) -> Loading:
    weights = {}
    for name in HANDED_OUT:
        config = half(cases[name])
        weights[name] = everything_in(sharded(config))
        weights[f"{name}, each rank"] = everything_in(ShardedLearner(load_model(config), config, load_model(config)))
    with pytest.raises(ConfigError) as caught:
        sharded(broken)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    learner = sharded(large)
    grown = resident("VmHWM") - before
    assert learner.loaded.held == {}, "all of it is let go"
    return Loading(grown, str(caught.value), weights)


def half(case: Case) -> Config:
    """Its model in bfloat16."""
    return case.config.model_copy(update={"model": case.config.model.model_copy(update={"dtype": "bfloat16"})})


def everything_in(learner: PolicyLearner) -> dict[str, Tensor]:
    model = learner.loaded.model
    return {n: gathered(t).detach().clone() for n, t in (*model.named_parameters(), *model.named_buffers())}


def asked_for(case: Case) -> list[str]:
    asked: list[str] = []
    kept = {group.problem.id: group.vision for group in case.batches[0]}

    def vision_of(group: Group) -> Any:
        asked.append(group.problem.id)
        return kept[group.problem.id]

    config = tiny_config(case.path)
    learner = ShardedLearner(load_model(config), config, vision_of=vision_of)
    metrics = learner.update([replace(group, vision={}) for group in case.batches[0]])
    assert metrics["engine_gap"] < 1e-3
    return asked


NOISY = ("another policy", "images, tower trained", "tiles, tower trained")
"""Where one process parts from itself by up to 1.4e-6 when ``learner.micro_tokens`` alone is another."""

LARGE = 12 * 4 * (3 * 512 * 2048 + 512 * (512 + 256 + 256 + 512)) + 4 * 512 * 2000
"""Bytes of the large model, norms and biases left out."""
HANDED_OUT = ("tied weights", "adapters with kl", "images")
"""Of which the weights are compared."""
ON_ONE = ("tied weights", "recomputed", "kl", "adapters with kl", "images")
"""Enough for a single rank, which has no one to wait for."""


@pytest.fixture(scope="module", params=[1, 2, 3])
def results(
    request: pytest.FixtureRequest, cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[dict[str, Outcome], list[str], str, Loading]]:
    """Of so many ranks."""
    folder, ranks = tmp_path_factory.mktemp("ranks"), request.param
    chosen = {name: case for name, case in cases.items() if ranks > 1 or name in ON_ONE}
    large = model_of(folder / "large", rows=2000, hidden_size=512, intermediate_size=2048, num_hidden_layers=12)
    broken = model_of(folder / "broken")
    state = load_file(broken / "model.safetensors")
    state["model.norm.weight"] /= 0
    save_file(state, broken / "model.safetensors", {"format": "pt"})
    return on_ranks(ranks, on_a_rank, folder, chosen, tiny_config(large), tiny_config(broken))


@peft_warning
def test_ranks_make_of_a_batch_what_one_process_makes(
    expected: dict[str, Outcome], results: list[tuple[dict[str, Outcome], list[str], str, Loading]]
) -> None:
    ranks, chosen = len(results), results[0][0]
    for name in chosen:
        one, noise = expected[name], 2.0 if name in NOISY else 1.0
        for rank, (outcomes, *_) in enumerate(results):
            found, where = outcomes[name], f"{name} on rank {rank}"
            assert len(found.gradients) == len(one.gradients), where
            for step, (ours, theirs) in enumerate(zip(found.gradients, one.gradients, strict=True)):
                assert apart(ours, theirs) < noise * (1e-6 if step == 0 else 3e-5), (where, step)
            assert apart(found.weights, one.weights) < 3e-5, where
            for ours_m, theirs_m in zip(found.metrics, one.metrics, strict=True):
                assert ours_m == {key: pytest.approx(value, rel=1e-4, abs=1e-5) for key, value in theirs_m.items()}
            for a, b in zip(found.logprobs, one.logprobs, strict=True):
                assert torch.allclose(a, b, atol=1e-4), where
            assert found.metrics == results[0][0][name].metrics, "the same on every rank"
    asked = [problem for _, problems, *_ in results for problem in problems]
    assert {"a", "b"} <= set(asked)
    assert len(asked) <= 5 + ranks - 1, "a group is asked for where it is computed; few are divided"


@peft_warning
def test_the_first_rank_reads_a_model_for_all(
    cases: dict[str, Case], results: list[tuple[dict[str, Outcome], list[str], str, Loading]]
) -> None:
    expected = {name: everything_in(local(half(cases[name]))) for name in HANDED_OUT}
    for *_, found in results:
        assert "holds NaN or infinity in model.norm.weight" in found.refused, "the same line on every rank"
        for name, ours in found.weights.items():
            theirs = expected[name.removesuffix(", each rank")]
            assert ours.keys() == theirs.keys(), name
            assert all(torch.equal(ours[key], value.to(ours[key].dtype)) for key, value in theirs.items()), name
    for *_, found in results[1:]:
        # and what allocators keep, which under load was more than the tensor
        assert LARGE / len(results) < found.grown < LARGE / len(results) + LARGE / 4, "its shards and one tensor"


def test_the_learning_curve_is_that_of_one_process(tmp_path: Path) -> None:
    """The embedded base on the groups that one process sampled and learned from."""
    config = tiny_config("embedded", optimiser={"lr": 1e-4}, rollout={"max_new_tokens": 24})
    backend, learner = open_backend(config), None
    learner = LocalLearner(backend.loaded, config)
    problems = [Problem(str(n), f"What is {n} plus {n + 1}?", str(2 * n + 1)) for n in range(6)]
    prompts, batches, curve = [backend.chat.encode(problem) for problem in problems], [], []
    for step in range(5):
        found = backend.engine.generate(prompts, Sampling(4, 1.0, 24, seed=step))
        batches.append([
            Group(
                problem, tuple(Rollout(c, Verdict(float(len(c.token_ids) % 2), "correct")) for c in completions),
                prompt.token_ids,
            )
            for problem, prompt, completions in zip(problems, prompts, found, strict=True)
        ])  # fmt: skip
        curve.append(learner.update(batches[-1]))
        backend.engine.sync(learner.weights())
    for found_curve in on_ranks(2, learned, tmp_path, config, batches):
        for ours, theirs in zip(found_curve, curve, strict=True):
            noise = {"engine_gap": 1e-4}  # the largest difference of any token
            assert ours == {k: pytest.approx(v, rel=1e-3, abs=noise.get(k, 1e-5)) for k, v in theirs.items()}


def learned(config: Config, batches: Sequence[Sequence[Group]]) -> list[dict[str, float]]:
    learner = sharded(config)
    return [learner.update(groups) for groups in batches]


# --- the plan -------------------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(
    groups=st.lists(st.tuples(st.integers(1, 30), st.lists(st.integers(0, 40), min_size=1, max_size=6)), max_size=12),
    budget=st.integers(1, 200), ranks=st.integers(1, 5),
)  # fmt: skip
def test_a_plan_gives_every_rank_as_many_calls(groups: list[tuple[int, list[int]]], budget: int, ranks: int) -> None:
    prompts = [i for i, (_, lengths) in enumerate(groups) for _ in lengths]
    widths = [width for width, lengths in groups for _ in lengths]
    lengths = [length for _, lengths in groups for length in lengths]
    plan = plan_ranks(prompts, widths, lengths, budget, ranks)
    assert len(plan) == ranks
    assert sorted(i for batches in plan for batch in batches for i in batch.rows) == list(range(len(lengths)))
    assert len({len(batches) for batches in plan}) == 1
    for together in zip(*plan, strict=True):
        assert len({len(batch.parts or ()) for batch in together}) == 1
        assert all(batch.parts for batch in together), "at least one call each"
        for batch in together:
            places = [place for part in batch.parts or () for place in part]
            assert len(places) == len(set(places))
            real = {i for i, row in enumerate(batch.rows) if lengths[row]}
            assert real <= set(places)
            tokens = len({prompts[i] for i in batch.rows}) * max([widths[i] for i in batch.rows], default=0)
            assert tokens + sum(lengths[i] for i in batch.rows) <= budget or len(batch.rows) == 1


def test_a_batch_that_fits_one_rank_is_divided_evenly() -> None:
    plan = plan_ranks([i // 8 for i in range(64)], [20] * 64, [10 + i % 7 for i in range(64)], 16384, 4)
    rows = [sum(len(batch.rows) for batch in batches) for batches in plan]
    assert [len(batches) for batches in plan] == [1, 1, 1, 1]
    assert max(rows) <= 2 * min(rows)
    assert [a for a, b in pairwise(rows) if abs(a - b) > 8] == []
