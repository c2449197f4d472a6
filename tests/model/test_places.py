"""Where a model lies: embedded bases, directories, runs, adapters whose base moved, and the hub, asked last."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from running import SMALL, json_lines, spark_rl_process, write_lines
from spark_rl.cli import main
from spark_rl.config import load_config, saved_settings
from spark_rl.engine.vllm.prompts import is_adapted, source_of
from spark_rl.errors import ConfigError
from spark_rl.manifest import write_manifest
from spark_rl.model import places
from spark_rl.model.load import load_model
from spark_rl.model.places import EMBEDDED, base_of, find_model, layers_of
from spark_rl.run import train
from spark_rl.runs import is_run, trained_weights
from tiny import learner_of, random_groups, tiny_config

# peft asks transformers by a name that this version of transformers calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

LORA = {"lora": {"rank": 2, "alpha": 8.0}}
ROWS = [{"question": f"{n}+1?", "answer": str(n + 1)} for n in range(4)]
QUICK = (
    "model.threads=1", "rollout.problems=2", "rollout.samples=2", "rollout.max_new_tokens=6", "optimiser.lr=0.01",
    "inference.max_new_tokens=6", "inference.rounds=0",
)  # fmt: skip


@pytest.fixture
def user(tmp_path: Path, tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a model, data, and two runs: a finished one and one that has saved nothing."""
    shutil.copytree(tiny_models["llama"], tmp_path / "models" / "llama-small")
    write_lines(tmp_path / "data.jsonl", *ROWS)
    for name in ("first", "second"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "metrics.jsonl").touch()
    shutil.copytree(tiny_models["llama"], tmp_path / "runs" / "first" / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        find_model(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("models/llama-small", "models/llama-small"),
        ("./models/llama-small/", "models/llama-small"),
        ("models/../models/llama-small", "models/llama-small"),
        ("runs/first", "runs/first/model"),
        ("runs/first/model", "runs/first/model"),
    ],
)
def test_a_directory_or_a_run_becomes_an_absolute_directory(user: Path, name: str, found: str) -> None:
    assert find_model(name) == str(user / found)
    assert find_model(user / name) == str(user / found)


def test_embedded_bases_are_known_by_name() -> None:
    assert [find_model(name) for name in EMBEDDED] == [str(folder) for folder in EMBEDDED.values()]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("runs/frist", "there is no model at 'runs/frist'; did you mean runs/first?"),
        ("run/first", "did you mean runs/first?"),
        ("./runs/first/mdoel", "did you mean runs/first/model?"),
        ("model/llama_small", "did you mean models/llama-small?"),
        ("models/lama-small/", "did you mean models/llama-small?"),
        ("embeded", "did you mean embedded?"),
        ("runs/zzzzzzzz", "there is no model at 'runs/zzzzzzzz'; model.path is a directory"),
        ("./nothing", "there is no model at './nothing'; model.path is a directory"),
        ("~/no/such/place", "there is no model at '~/no/such/place'"),
        ("~nobody-of-that-name/model", "there is no model at '~nobody-of-that-name/model'"),
        ("a/b/c", "there is no model at 'a/b/c'"),
        ("my model", "there is no model at 'my model'"),
        ("-x/..", "there is no model at '-x/..'"),
        ("", "has no config.json"),
        ("x" * 5000, "there is no model at"),
        ("data.jsonl", "'data.jsonl' is a file; give the directory that it lies in"),
        ("models/llama-small/model.safetensors", "is a file; give the directory that it lies in: "),
        ("models", "cannot load the model 'models': "),
        ("models", "has no config.json; did you mean "),
        ("runs/second", "has no trained model yet; it has neither finished nor saved a checkpoint"),
    ],
)
@pytest.mark.usefixtures("user")
def test_a_mistake_is_answered_without_the_hub(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "nothing://")  # an unknown scheme raises
    assert said in refusal(name)


@pytest.mark.usefixtures("user")
def test_an_unfinished_runs_newest_checkpoint_is_taken_and_said(user: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (9, 10):
        saved = user / "runs" / "second" / "checkpoints" / f"step-{step:06d}"
        shutil.copytree("models/llama-small", saved / "model")
        write_manifest(saved, step)
    assert trained_weights(Path("runs/second")) == Path("runs/second/checkpoints/step-000010/model")
    assert "runs/second has not finished; the model of its checkpoint step-000010 is taken" in caplog.text
    assert not is_run(user / "models" / "llama-small")


# The hub


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does about models, by the status in their names."""

    asked: list[str]

    def do_HEAD(self) -> None:
        self.asked.append(self.path)
        self.send_response(int(self.path[-3:]))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What a hub on this machine is asked."""
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    places._hub_refusal.cache_clear()
    yield Hub.asked
    places._hub_refusal.cache_clear()
    server.shutdown()
    server.server_close()


def test_the_hub_is_asked_once_for_what_can_be_nothing_else(hub: list[str], tmp_path: Path) -> None:
    assert find_model("owner/model-200") == find_model("owner/model-200") == "owner/model-200"
    assert find_model("gated-403") == "gated-403"
    assert hub == ["/api/models/owner/model-200", "/api/models/gated-403"]
    assert "not on this disk, and the hub shows none of that name (log in with " in refusal("owner/model-404")
    assert "the hub shows none of that name" in refusal("owner/private-401")
    assert "the hub answers 503" in refusal("owner/model-503")
    assert len(hub) == 5
    refusal(str(tmp_path / "model-200"))
    assert len(hub) == 5


def test_a_hub_that_can_not_be_reached_is_said_at_once(hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert "not on this disk, and the hub can't be reached (" in refusal("owner/model-200")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "the hub is not asked (HF_HUB_OFFLINE is set)" in refusal("owner/other-200")
    assert hub == []


def test_a_model_in_the_cache_is_read_from_there_when_the_hub_is_away(
    tmp_path: Path, tiny_models: dict[str, Path], hub: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--owner--mine"
    shutil.copytree(tiny_models["llama"], repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert find_model("owner/mine") == "owner/mine"
    assert places.on_disk("owner/mine") == str(repository / "snapshots" / "abc")
    assert type(load_model(tiny_config("owner/mine")).model).__name__ == "LlamaForCausalLM"
    assert hub == []


# Adapters


def trained_adapters(base: str | Path, folder: Path) -> torch.Tensor:
    """Adapters on a base, saved; returns log-probabilities of the model they make."""
    learner = learner_of(base, model=LORA, optimiser={"lr": 0.05})
    learner.update(random_groups(2, 4))
    learner.export(folder)
    return learner.logprobs([[1, 5, 6]], [[10, 11, 12]])[0]


def logprobs_of(path: str | Path, **model: object) -> torch.Tensor:
    return learner_of(path, model=model).logprobs([[1, 5, 6]], [[10, 11, 12]])[0]


def test_adapters_on_a_relative_base_are_a_model_from_anywhere(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = trained_adapters("models/llama-small", user / "adapters")
    saved = json.loads((user / "adapters" / "adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == str(user / "models" / "llama-small")
    base = logprobs_of("models/llama-small")
    (user / "elsewhere").mkdir()
    monkeypatch.chdir(user / "elsewhere")
    found = logprobs_of("../adapters")
    assert torch.allclose(found, wanted, atol=1e-5)
    assert not torch.allclose(found, base, atol=1e-3)
    whole = load_model(tiny_config("../adapters"))
    assert all(p.requires_grad for p in whole.model.parameters()), "trains like any model"
    assert source_of(tiny_config("../adapters")) == str(user / "models" / "llama-small"), (
        "vLLM reads what they lie upon"
    )
    assert is_adapted(tiny_config("../adapters"))


def test_a_base_is_found_again(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_adapters("embedded", user / "adapters")
    config = user / "adapters" / "adapter_config.json"
    (user / "elsewhere").mkdir()
    monkeypatch.chdir(user / "elsewhere")

    def stored(base: str | None) -> None:
        config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": base}))

    for base in (str(EMBEDDED["embedded"]), "embedded", "/old/site-packages/spark_rl/embedded/text"):
        stored(base)
        assert layers_of(str(user / "adapters")) == (str(EMBEDDED["embedded"]), (user / "adapters",))
    stored("models/llama-small")  # relative to where it was trained
    assert base_of(user / "adapters") == str(user / "models" / "llama-small")
    stored(str(user / "models" / "lama-small"))
    with pytest.raises(ConfigError, match=r"is gone: .*did you mean .*llama-small\?.*say where it is now"):
        base_of(user / "adapters")
    stored(None)
    with pytest.raises(ConfigError, match="names no base_model_name_or_path"):
        base_of(user / "adapters")
    stored(str(user / "adapters"))
    with pytest.raises(ConfigError, match="name themselves as their base"):
        layers_of(str(user / "adapters"))


def test_adapters_on_adapters(user: Path) -> None:
    first = trained_adapters("models/llama-small", user / "one")
    second = trained_adapters("one", user / "two")
    assert json.loads((user / "two" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        user / "one"
    )
    assert layers_of(str(user / "two")) == (str(user / "models" / "llama-small"), (user / "one", user / "two"))
    assert torch.allclose(logprobs_of("two"), second, atol=1e-5)
    assert not torch.allclose(first, second, atol=1e-3)
    fresh = load_model(tiny_config("one", model=LORA))
    again = learner_of("one", model=LORA)
    assert sum(p.requires_grad for p in fresh.model.parameters()) == len(again.parameters)
    assert torch.allclose(again.logprobs([[1, 5, 6]], [[10, 11, 12]])[0], first, atol=1e-5), "new adapters add nothing"


def test_every_command_takes_adapters_from_another_directory(
    user: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["data.heldout=null", "data.transfer=null", "train.steps=1", *QUICK]
    done = spark_rl_process(
        "train", "--model", "models/llama-small", "--data", "data.jsonl", "--run-dir", "runs/lora", "model.lora.rank=2",
        *options, cwd=user,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (user / "runs" / "lora").rename(user / "moved")
    ask = ["--model", "../moved/model", *QUICK]
    lines = (
        ["solve", "1+1?", *ask], ["judge", "--question", "1+1?", "--response", "2", *ask],
        ["eval", "--data", "../data.jsonl", *ask], ["recycle", "--data", "../data.jsonl", *ask],
        ["solve", "1+1?", "--model", "../moved", *QUICK],
        ["train", "--data", "../data.jsonl", "--run-dir", "whole", *ask, *options],
        ["train", "--data", "../data.jsonl", "--run-dir", "again", "model.lora.rank=2", *ask, *options],
        ["train", "--model", "../moved", "--run-dir", "further", "train.steps=1"],
        ["ablate", "--arms", "policy-only", "--seeds", "0", "--run-dir", "arms", "--config", "tiny", *SMALL,
         "model.path=../moved/model", "data.heldout=procedural:missing", "train.steps=1", "evaluation.problems=2"],
    )  # fmt: skip
    (user / "elsewhere").mkdir()
    monkeypatch.chdir(user / "elsewhere")
    for line in lines:
        assert main(line) == 0, f"{line}: {capsys.readouterr().err}"
    assert (user / "elsewhere" / "whole" / "model" / "model.safetensors").exists()
    assert (user / "elsewhere" / "again" / "model" / "adapter_model.safetensors").exists()
    settings = saved_settings(user / "elsewhere" / "further")
    assert settings["model"]["path"] == str(user / "moved" / "model")
    assert settings["rollout"] == saved_settings(user / "moved")["rollout"], "the run's own settings"


def test_train_takes_the_final_model_of_a_run(user: Path) -> None:
    options = ["--data", "data.jsonl", *QUICK, "train.steps=1"]
    assert main(["train", "--model", "models/llama-small", "--run-dir", "runs/third", *options]) == 0
    assert main(["train", "--model", "runs/third", "--run-dir", "runs/fourth", "seed=5"]) == 0
    settings = saved_settings(user / "runs" / "fourth")
    assert settings["model"]["path"] == str(user / "runs" / "third" / "model")
    assert (settings["seed"], settings["data"]["train"]) == (5, str(user / "data.jsonl"))
    assert settings["rollout"]["max_new_tokens"] == 6


# Moved runs


def test_a_run_is_resumed_after_its_parts_moved(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(
        None, [*QUICK, "train.steps=1", "model.lora.rank=2"], model={"path": "models/llama-small"},
        data={"train": "data.jsonl"}, run_dir="runs/lora",
    )  # fmt: skip
    train(config)
    assert saved_settings(user / "runs" / "lora")["model"]["path"] == str(user / "models" / "llama-small")
    other = user / "other"
    other.mkdir()
    for name in ("models", "data.jsonl", "runs"):
        (user / name).rename(other / name)
    (user / "elsewhere").mkdir()
    monkeypatch.chdir(user / "elsewhere")

    def resume(*options: str) -> str:
        done = spark_rl_process("train", "--resume", "--run-dir", other / "runs" / "lora", *options,
                                cwd=user / "elsewhere")  # fmt: skip
        assert done.returncode in {0, 2}, done.stderr
        return done.stderr

    assert "if it moved, say where: model.path=PATH" in resume("train.steps=2")
    moved = "model.path=../other/models/llama-small"
    assert "if it moved, say where: data.train=PATH" in resume("train.steps=2", moved)
    write_lines(user / "changed.jsonl", *ROWS[1:])
    said = resume("train.steps=2", moved, "data.train=../changed.jsonl")
    assert "was made with data.train=" in said
    assert "what lies there is not what the run was made with" in said
    assert "was made with optimiser.lr=" in resume(moved, "data.train=../other/data.jsonl", "optimiser.lr=0.5")
    assert resume("train.steps=2", moved, "data.train=../other/data.jsonl") == ""
    assert [record["step"] for record in json_lines(other / "runs" / "lora" / "metrics.jsonl")] == [1, 2]
    saved = saved_settings(other / "runs" / "lora")
    assert (saved["model"]["path"], saved["data"]["train"]) == (
        str(other / "models" / "llama-small"), str(other / "data.jsonl"),
    )  # fmt: skip
    adapters = other / "runs" / "lora" / "model" / "adapter_config.json"
    assert json.loads(adapters.read_text())["base_model_name_or_path"] == str(other / "models" / "llama-small")
    assert resume("train.steps=3") == "", "it has been said once"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train --model models/llama-smal --data data.jsonl", "did you mean models/llama-small?"),
        ("solve 1+1? --model runs/frist", "did you mean runs/first?"),
        ("eval --data data.jsonl --model runs/second", "has no trained model yet"),
        ("judge --question 1 --response 1 model.path=./modls/llama-small", "did you mean models/llama-small?"),
        ("train --model runs/second", "has no trained model yet"),
    ],
)
def test_a_mistyped_model_is_one_line(user: Path, line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(user.rglob("*"))
    assert main(line.split()) == 2
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1
    assert said in printed
    assert sorted(user.rglob("*")) == before
