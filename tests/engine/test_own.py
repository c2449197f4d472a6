"""An engine of the user's own: found, checked, given the weights, and held to what it promises."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from running import json_lines, small
from spark_rl import ConfigError, UserError, train
from spark_rl.backend import open_backend, open_reasoner
from spark_rl.engine.base import Sampling
from spark_rl.engine.checked import Checked
from spark_rl.errors import EngineError
from spark_rl.given import Given
from spark_rl.problem import Completion, Problem
from tiny import prompts

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_engine.py"
SPEC = f"engine.name={EXAMPLE}:TransformersEngine"
FEW = ("rollout.problems=6", "rollout.samples=4", "recycle.ready=3", "rollout.max_new_tokens=24")


def test_the_example_trains_and_stays_with_the_learner(tmp_path: Path) -> None:
    """Its own copy of the weights is the learner's after every update: no token differs by more than rounding."""
    train(small(tmp_path / "run", *FEW, SPEC, "optimiser.lr=1e-3", "train.steps=3"))
    records = json_lines(tmp_path / "run" / "metrics.jsonl")
    gaps = [value for record in records for name, value in record.items() if name.startswith("engine_gap")]
    assert any(name.startswith("engine_gap/recycled") for record in records for name in record)
    assert max(gaps) < 1e-3
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["engine"]["name"] == f"{EXAMPLE}:TransformersEngine"


def test_weights_that_are_not_taken_over_show(tmp_path: Path) -> None:
    """The measure above can fail."""
    (tmp_path / "deaf.py").write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(EXAMPLE.parent)!r})\n"
        "from own_engine import TransformersEngine\n"
        "class Deaf(TransformersEngine):\n"
        "    def sync(self, weights):\n"
        "        self.version = weights.version\n"
    )
    deaf = small(tmp_path / "run", *FEW, f"engine.name={tmp_path / 'deaf.py'}:Deaf", "optimiser.lr=1e-3",
                 "train.steps=3", "engine.max_kl=null")  # fmt: skip
    train(deaf)
    assert json_lines(tmp_path / "run" / "metrics.jsonl")[-1]["engine_gap"] > 1e-2
    stopped = deaf.model_copy(
        update={"run_dir": str(tmp_path / "b"), "engine": deaf.engine.model_copy(update={"max_kl": 1e-4})}
    )
    with pytest.raises(UserError, match=r"^Deaf and the learner are .* nats a token apart .*engine\.max_kl"):
        train(stopped)


def test_it_answers_without_a_learner(tmp_path: Path) -> None:
    config = small(tmp_path / "run", SPEC, "inference.max_new_tokens=24", "inference.rounds=0")
    plain = small(tmp_path / "run", "inference.max_new_tokens=24", "inference.rounds=0")
    asked = [Problem("p", "5?2?7=10", "")]
    assert open_reasoner(config).solve(asked) == open_reasoner(plain).solve(asked)


def test_an_engine_in_memory_is_used_as_it_is(tmp_path: Path) -> None:
    config = small(tmp_path / "run", *FEW, "train.steps=1")
    engine = open_backend(config).engine
    heard: list[int] = []

    class Listening:
        version = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(engine, name)

        def generate(self, prompts: Any, sampling: Sampling) -> Any:
            heard.append(len(prompts))
            return engine.generate(prompts, sampling)

    train(config, given=Given(engine=Listening()))  # type: ignore[arg-type]
    assert heard[0] == 6


@pytest.mark.parametrize(
    ("code", "spec", "message"),
    [
        ("", "FILE", "must be embedded, vllm, or FILE.py:CLASS"),
        ("", "nowhere.py:Engine", "there is no file"),
        ("class Other: ...", "FILE:Engine", "has no 'Engine'; it defines: Other"),
        ("1 / 0", "FILE:Engine", "can't be imported: ZeroDivisionError: division by zero (mine.py line 1)"),
        ("class Engine:\n  def __init__(self, config, chat): ...", "FILE:Engine", "it lacks generate, sync, sleep"),
        ("class Engine:\n  def __init__(self): ...", "FILE:Engine", "can't be made from (config, chat): TypeError"),
        ("Engine = 3", "FILE:Engine", "is no class but a value of type int"),
    ],
)
def test_what_is_no_engine_is_one_line(tmp_path: Path, code: str, spec: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(code)
    name = spec.replace("FILE", str(tmp_path / "mine.py"))
    with pytest.raises(ConfigError) as found:
        train(small(tmp_path / "run", f"engine.name={name}"))
    assert message in str(found.value)
    assert "\n" not in str(found.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_an_engine_that_is_not_installed_is_said_before_anything_loads(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pip install 'spark-rl\[vllm\]'$"):
        train(small(tmp_path / "run", "engine.name=vllm", "model.path=nowhere"))
    assert not (tmp_path / "run").exists()


GOOD = Completion("a", (5, 2), (-0.5, -0.1), "stop")


def odd(**parts: Any) -> list[list[Completion]]:
    """Two groups whose last completion is not good."""
    return [[GOOD, GOOD], [GOOD, replace(GOOD, **parts)]]


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        (None, "Mine gave a NoneType of something else than lists of completions"),
        ([[GOOD, GOOD]], "Mine gave completions for 1 prompts and was asked 2"),
        ([[GOOD, GOOD], [GOOD]], "Mine, prompt 2 of 2: 1 completions in place of 2"),
        ([[GOOD, GOOD], [GOOD, replace(GOOD, logprobs=(-0.5,))]], "prompt 2 of 2: 2 tokens with 1 log-probabilities"),
        ([[GOOD, replace(GOOD, token_ids=(1, 2, 3), logprobs=(0.0,) * 3)], [GOOD, GOOD]], "3 tokens, and 2 at most"),
        ([[GOOD, GOOD], [GOOD, GOOD, GOOD]], "Mine, prompt 2 of 2: 3 completions in place of 2"),
        (odd(logprobs=None), "prompt 2 of 2: logprobs is of type NoneType in place of a tuple"),
        (odd(token_ids=None), "prompt 2 of 2: token_ids is of type NoneType in place of a tuple"),
        (odd(text=None), "has a text that is none"),
        (odd(finish="abort"), "is no Completion that ended by stop or length"),
        (odd(token_ids=(5, 10)), "Mine, prompt 2 of 2: token 2 is 10, none of the 10 that the model has"),
        (odd(token_ids=(-1, 2)), "token 1 is -1, none of the 10"),
        (odd(token_ids=(5, 2.5)), "token 2 is 2.5, none of the 10"),
        (odd(logprobs=(math.nan, 0.0)), "the log-probability of token 1 is nan, no finite number of 0 or less"),
        (odd(logprobs=(-0.5, -math.inf)), "the log-probability of token 2 is -inf, no finite"),
        (odd(logprobs=(0.5, 0.0)), "the log-probability of token 1 is 0.5, no finite"),
        (odd(logprobs=(None, 0.0)), "the log-probability of token 1 is None, no finite"),
    ],
)
def test_an_engine_that_does_not_keep_its_promise_is_named(drawn: Any, message: str) -> None:
    class Mine:
        def __init__(self, drawn: Any) -> None:
            self.drawn = drawn

        def generate(self, _prompts: Any, _sampling: Sampling) -> Any:
            return self.drawn

    def given_by(engine: Any) -> list[Any]:
        sampling = Sampling(2, max_new_tokens=2)
        return Checked(engine, 10).generate(prompts(2), sampling)

    with pytest.raises(EngineError) as found:
        given_by(Mine(drawn))
    assert message in str(found.value)
    assert isinstance(found.value, UserError)
    empty = Completion("", (), (), "length")
    for right in ([[GOOD, GOOD]] * 2, [[empty, empty], [GOOD, replace(GOOD, logprobs=(-0.5, 1e-6))]]):
        assert given_by(Mine(right)) == right
