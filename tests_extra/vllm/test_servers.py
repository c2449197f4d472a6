"""vLLM servers for real, on a CPU: token for token what vLLM gives beside the learner, and training with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from parity import QUESTIONS, SAMPLED, Servers, gap, shake, shown, tiny

from running import json_lines, small
from spark_rl import UserError, train
from spark_rl.backend import build_learner, open_backend, open_reasoner
from spark_rl.engine.base import Sampling
from spark_rl.engine.probe import Probed
from spark_rl.engine.vllm import VllmServers
from spark_rl.errors import EngineError
from spark_rl.problem import Problem


def test_completions_are_those_of_vllm_beside_the_learner(
    tied: Any, servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    learner, beside, prompts = tied
    engine = VllmServers(servers.text.config)
    engine.sync(learner.weights())
    beside.sync(learner.weights())
    greedy = Sampling(1, 0.0, 40)
    assert [[replace(c, logprobs=()) for c in group] for group in engine.generate(prompts, greedy)] == [
        [replace(c, logprobs=()) for c in group] for group in beside.generate(prompts, greedy)
    ]
    overlong = replace(prompts[0], token_ids=prompts[0].token_ids * 60)
    asked = [*(replace(prompt, stop=("{",)) for prompt in prompts[:20]), overlong, *prompts[20:]]
    for sampling in (SAMPLED, replace(SAMPLED, n=2, temperature=0.7, repetition_penalty=1.3, first=5)):
        found, expected = engine.generate(asked, sampling), beside.generate(asked, sampling)
        pairs = [pair for x, y in zip(found, expected, strict=True) for pair in zip(x, y, strict=True)]
        same = [(a, b) for a, b in pairs if a.token_ids == b.token_ids]
        assert len(same) >= 0.99 * len(pairs), "rounding may turn a draw, now and then"
        assert all((a.text, a.finish, a.version) == (b.text, b.finish, b.version) for a, b in same)
        assert all(a.logprobs == pytest.approx(b.logprobs, abs=1e-4) for a, b in same)
    assert [(c.text, c.token_ids, c.finish) for c in found[20]] == [("", (), "length")] * 2
    assert "1 of 65 prompts are longer" in caplog.text


def test_weights_are_handed_over_and_a_server_that_was_given_others_is_told(tied: Any, servers: Servers) -> None:
    learner, _, prompts = tied
    engine = VllmServers(servers.text.config)
    engine.sync(learner.weights())
    shake(learner)
    assert gap(engine, learner, prompts) > 0.1
    probed = Probed(engine, learner.logprobs, 0.05)
    probed.generate(prompts, SAMPLED)
    probed.sync(learner.weights())
    assert probed.kl is not None
    assert probed.kl < 1e-6
    assert gap(engine, learner, prompts) < 1e-4
    assert engine.version == learner.updates
    engine._tell("pause?mode=abort")  # a run that is killed here leaves this behind
    engine._tell("start_weight_update")
    other = VllmServers(servers.text.config)
    other.sync(learner.weights())
    assert gap(other, learner, prompts[:8]) < 1e-4
    with pytest.raises(EngineError, match=rf"^{servers.text.url}: it samples from weights '\w+-\d+' and not from"):
        engine.generate(prompts[:8], SAMPLED)


def test_a_run_trains_with_servers_and_goes_on(tmp_path: Path, servers: Servers) -> None:
    where = ("engine.name=vllm", f"engine.servers=[{servers.text.url}]")
    config = small(tmp_path / "run", *where, "optimiser.lr=1e-3", "train.steps=3", "rollout.ahead=1")
    train(config)
    more = config.model_copy(update={"train": config.train.model_copy(update={"steps": 4})})
    train(more, resume=True)
    records = json_lines(tmp_path / "run" / "metrics.jsonl")
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    assert [record["stale"] for record in records[1:3]] == [1.0, 1.0]
    kls = [value for record in records for name, value in record.items() if name.startswith("engine_kl")]
    assert max(kls) < 1e-2


def test_a_server_that_was_started_in_another_way_is_refused(servers: Servers) -> None:
    text = servers.text.config
    longer = text.model_copy(update={"rollout": text.rollout.model_copy(update={"max_new_tokens": 128})})
    with pytest.raises(
        EngineError, match=r"context has 176 tokens, and the run needs 256; start it with: VLLM_"
    ) as caught:
        VllmServers(longer)
    assert "\n" not in str(caught.value)


def test_an_evaluation_hands_the_models_weights_over_first(tied: Any, servers: Servers) -> None:
    learner, _, _ = tied
    VllmServers(servers.text.config).sync(learner.weights())  # those of another model
    problems = [Problem(str(i), text, "") for i, text in enumerate(QUESTIONS[:16])]
    answers = [[trace.rounds[0].response for trace in open_reasoner(config).solve(problems)]
               for config in (servers.text.config, tiny())]  # fmt: skip
    assert answers[0] == answers[1]


def test_images_go_to_servers(servers: Servers) -> None:
    config = servers.sees.config
    engine = VllmServers(config)
    backend = open_backend(config, engine=engine)
    learner = build_learner(backend)
    engine.sync(learner.weights())
    prompts, greedy = shown(backend), Sampling(1, 0.0, 20)
    embedded = config.model_copy(
        update={"engine": config.engine.model_copy(update={"name": "embedded", "servers": ()})}
    )
    found, expected = engine.generate(prompts, greedy), open_backend(embedded).engine.generate(prompts, greedy)
    assert [c.token_ids for (c,) in found] == [c.token_ids for (c,) in expected]
    assert gap(engine, learner, prompts) < 1e-4
    train(config)
    steps = json_lines(Path(str(config.run_dir)) / "metrics.jsonl")
    assert max(step["engine_gap"] for step in steps) < 1e-4
    with pytest.raises(EngineError, match="other tokens of a prompt with images"):
        engine.generate([replace(prompts[0], token_ids=prompts[0].token_ids[:-1])], greedy)


def test_a_server_that_dies_is_named(tied: Any, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, _, prompts = tied
    monkeypatch.setattr("spark_rl.engine.vllm.servers.RETRIES", 1)
    engine = VllmServers(servers.text.config)
    engine.sync(learner.weights())
    engine.generate(prompts[:2], SAMPLED)
    servers.text.kill()
    with pytest.raises(UserError, match=rf"^{servers.text.url}: no connection .* \(asked 2 times\); resume"):
        engine.generate(prompts[:2], SAMPLED)
