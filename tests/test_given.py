"""What Python hands a run, and runs that an earlier version began."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from running import small
from spark_rl import ConfigError, Given, Problem, train
from spark_rl.checkpoint import check_run
from spark_rl.config import load_config, saved_settings
from spark_rl.data.batches import Streamed
from spark_rl.given import load_all_problems
from spark_rl.model.load import load_model


def problems(numbers: range) -> list[Problem]:
    return [Problem(f"p{n}", f"{n}+1", str(n + 1)) for n in numbers]


def test_a_stream_holds_out_more_than_is_evaluated(tmp_path: Path) -> None:
    """Of forty held-out problems five are evaluated, and none of the forty is trained on."""
    stream = Streamed(lambda: iter(problems(range(60))), 10)
    config = small(tmp_path, "evaluation.problems=5", "train.steps=2")
    _, exams = load_all_problems(config, Given(batches=stream, heldout=problems(range(40))))
    assert len(exams["heldout"]) == 5
    assert [problem.question for step in range(2) for problem in stream.of(step)] == [f"{n}+1" for n in range(40, 60)]


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Its settings lack those that came later: each had the value then that changes nothing."""
    train(small(tmp_path / "run"))
    path = tmp_path / "run" / "config.json"
    settings: dict[str, Any] = json.loads(path.read_text())
    for section, names in {"train": ("eval_every", "best", "patience"), "model": ("freeze",),
                           "reward": ("function", "verifier", "threshold", "timeout")}.items():  # fmt: skip
        for name in names:
            del settings[section][name]
    path.write_text(json.dumps(settings))
    check_run(tmp_path / "run", load_config(None, **saved_settings(tmp_path / "run")), resume=True)
    other = load_config(None, ["reward.threshold=0.5"], **saved_settings(tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"was made with reward\.threshold=1\.0, not 0\.5"):
        check_run(tmp_path / "run", other, resume=True)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_adapters_on_an_embedding_are_refused(family: str, target: str, tiny_models: dict[str, Path]) -> None:
    """They would be saved in a form that does not load again."""
    config = load_config(None, model={"path": str(tiny_models[family]), "lora": {"target_modules": [target]}})
    with pytest.raises(ConfigError, match="embedding, whose adapters can't be saved and merged here"):
        load_model(config)


def test_an_engine_given_from_python_is_checked_before_anything_is_written(tmp_path: Path) -> None:
    class Half:
        version = 0

        def generate(self, prompts: Any, sampling: Any) -> Any: ...

    with pytest.raises(ConfigError, match="the engine given, a Half, is no engine: it lacks sync, sleep, wake, close"):
        train(small(tmp_path / "run"), given=Given(engine=Half()))  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_settings_are_the_packages_own_errors(tmp_path: Path) -> None:
    from spark_rl import Config

    for wrong in ({"seed": -1}, {"foo": 1}, {"run_dir": ""}):
        with pytest.raises(ConfigError) as found:
            Config(**wrong)
        assert "\n" not in str(found.value)
    assert Config(run_dir=tmp_path).run_dir == str(tmp_path)
    with pytest.raises(ConfigError, match=r"settings are nested: \{'train': \{'steps': \.\.\.\}\}"):
        load_config(None, **{"train.steps": 1})
