"""``spark-rl plan``: published numbers of weights, changes that make a plan fit, time, and how it talks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tiny import tiny_config

from spark_rl.cli import main
from spark_rl.config import load_config
from spark_rl.errors import ConfigError, UserError
from spark_rl.plan.duration import plan_duration
from spark_rl.plan.hardware import GIB, VLLM_ASLEEP, gpu_of
from spark_rl.plan.make import fits, make_plan
from spark_rl.plan.memory import Rehearsals, plan_memory
from spark_rl.plan.shape import Lengths, model_config, sizes_of, without_data

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's
LENGTHS = Lengths(prompt=40, response=20, judged=80, longest=32)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768),
        ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 8_292_166_656),
        ("Qwen/Qwen2.5-VL-32B-Instruct", 33_452_718_336),
    ],
)
def test_weights_are_those_that_the_repositories_publish(name: str, weights: int) -> None:
    config = load_config(None, ["model.freeze=[]"])
    assert sizes_of(without_data(model_config(name), config)).weights == weights


def test_changes_are_computed_and_the_last_one_fits(tiny_models: dict[str, Path]) -> None:
    config = tiny_config(tiny_models["qwen2"], learner={"micro_tokens": 8192}, objective={"kl": 0.001})
    rehearsals = Rehearsals(model_config(config.model.path))
    recomputed = load_config(None, ["model.gradient_checkpointing=true"], **config.model_dump())
    memory = plan_memory(rehearsals, recomputed, gpu_of("80"), 1, LENGTHS)
    gpu = gpu_of(f"{1.001 * memory.peak(memory.worst) / GIB:.6f}")
    plan = make_plan(rehearsals, config, gpu, 1, LENGTHS)

    assert not plan.fits
    assert plan.hints[-1].fits
    changes = [hint.change for hint in plan.hints]
    changed = load_config(None, changes, **config.model_dump())
    assert fits(plan_memory(rehearsals, changed, gpu, 1, LENGTHS), gpu), "the changes do what the plan says"


def test_more_gpus_hold_less_each_and_take_less_time(tiny_models: dict[str, Path]) -> None:
    config, gpu = tiny_config(tiny_models["llama"], engine={"name": "vllm"}), gpu_of("h100-80gb")
    rehearsals = Rehearsals(model_config(config.model.path))
    two, four = (plan_memory(rehearsals, config, gpu, gpus, LENGTHS) for gpus in (2, 4))
    assert fits(two, gpu)
    assert four.peak("update") < two.peak("update")
    sizes = rehearsals.sizes(config)
    seconds = [plan_duration(config, gpu, n, sizes, LENGTHS, m) for n, m in ((2, two), (4, four))]
    assert seconds[0] is not None
    assert seconds[1] is not None
    assert seconds[1].step < seconds[0].step
    assert seconds[0].tokens == 2 * 64 * 8 * 20


def test_the_command_prints_and_writes_a_plan(
    tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plan.json"
    given = ["--model", str(tiny_models["qwen2"]), "--config", "tiny", "--gpu", "h100-80gb", "--price", "2"]
    assert main(["plan", *given, "--json", str(out), "train.steps=10"]) == 0
    facts = json.loads(out.read_text())
    assert facts["fits"] is True
    assert facts["steps"] == 10
    assert facts["cost"] == pytest.approx(2 * facts["hours"])
    assert facts["lengths_from"].startswith("the first"), "the prompts of the data are counted"
    assert sum(facts["memory"]["update"].values()) == pytest.approx(facts["peaks"]["update"])
    printed = capsys.readouterr().out
    assert "cost " in printed
    assert "headroom" in printed


def test_servers_take_nothing_of_the_learners_gpus(
    tiny_models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["plan", "--model", str(tiny_models["qwen2"]), "--gpu", "h100-80gb", "--prompt-tokens", "20"]
    found = {}
    for name, more in {"beside": [], "servers": ["engine.servers=[http://node1:8000]"]}.items():
        assert main([*given, "--json", str(tmp_path / name), "engine.name=vllm", *more]) == 0
        found[name] = json.loads((tmp_path / name).read_text())
    assert "sampling" in capsys.readouterr().out
    beside, servers = found["beside"], found["servers"]
    assert all("engine" in parts for parts in beside["memory"].values())
    assert beside["host"] > 0
    for parts in servers["memory"].values():
        assert not {"engine", "KV cache"} & parts.keys()
    assert servers["host"] == 0
    for phase in ("log-probs", "update"):
        assert beside["peaks"][phase] - servers["peaks"][phase] == pytest.approx(VLLM_ASLEEP)
    assert beside["seconds"].keys() - servers["seconds"].keys() == {"sample"}
    assert servers["seconds"]["weights to the engine"] == beside["seconds"]["weights to the engine"]


def test_a_size_alone_has_no_speed(tiny_models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--model", str(tiny_models["qwen2"]), "--gpu", "24", "--prompt-tokens", "20"]) == 0
    assert "name a GPU" in capsys.readouterr().out


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--gpu", "h10"]) == 2
    error = capsys.readouterr().err
    assert "did you mean h100-80gb?" in error
    assert error.count("\n") == 1
    with pytest.raises(UserError, match="neither a size"):
        gpu_of("fast")
    with pytest.raises(ConfigError, match="nowhere"):
        model_config("./nowhere")
