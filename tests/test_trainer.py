"""The trainer of scripts: the same run as the command line's, whatever it is handed, and errors in one line."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict
from peft import IA3Config, LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

import spark_rl
from running import facts, json_lines, write_lines
from spark_rl import Config, ConfigError, DataError, Problem, SparkTrainer, UserError, load_config, train
from spark_rl.arguments import weighted
from spark_rl.cli import main
from spark_rl.given import Given
from spark_rl.model.adapters import lora_settings
from spark_rl.model.places import EMBEDDED
from spark_rl.rewards import WeightedReward
from spark_rl.run import Run
from spark_rl.runs import checkpoints

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's

ROOT = Path(__file__).parents[1]
ROWS = [{"question": f"{a}?{b}?2={a + b - 2}", "answer": "+-"} for a in (5, 7, 9) for b in (1, 3, 4, 6)]
HELDOUT = [{"question": f"{a}?2?1={a - 1}", "answer": "-+"} for a in (4, 6)]
SETTINGS: dict[str, Any] = {
    "model": {"threads": 1, "device": "cpu"},
    "rollout": {"problems": 3, "samples": 2, "max_new_tokens": 16},
    "recycle": {"judge_cap": 2, "reflection_cap": 2, "ready": 2},
    "inference": {"max_new_tokens": 16, "rounds": 1},
    "train": {"steps": 2, "save_every": 1},
}


def settings(run_dir: Path, **sections: Any) -> dict[str, Any]:
    return {**SETTINGS, "run_dir": str(run_dir), **{
        name: {**SETTINGS.get(name, {}), **section} if isinstance(section, dict) else section
        for name, section in sections.items()
    }}  # fmt: skip


def trainer_of(run_dir: Path, model: Any = "embedded", **arguments: Any) -> SparkTrainer:
    """A loaded model gets the settings that the embedded base brings by its name."""
    sections = arguments.pop("sections", {})
    args: Any = settings(run_dir, **sections)
    if not isinstance(model, str):
        args = load_config("tiny", **{**args, "data": {"heldout": None, "transfer": None}})
    data = {"train_dataset": ROWS, "progress": False, "args": args}
    return SparkTrainer(model, **{**data, **arguments})


def base() -> tuple[Any, Any]:
    """The embedded base, loaded as anybody loads a model."""
    folder = EMBEDDED["embedded"]
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def weights(folder: Path, name: str = "model") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / f"{name}.safetensors")
    return found


def same(a: Path, b: Path, name: str = "model") -> bool:
    ours, theirs = weights(a, name), weights(b, name)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.fixture(scope="module")
def by_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the command line's function, with a KL term and a file of data."""
    folder = tmp_path_factory.mktemp("path")
    data = write_lines(folder / "train.jsonl", *ROWS)
    config = load_config(
        "tiny", **settings(folder / "run", data={"train": str(data), "heldout": None, "transfer": None},
                           objective={"kl": 0.01}),
    )  # fmt: skip
    train(config)
    return folder / "run"


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path / "run", train_dataset=ROWS)
    name, parameter = next(iter(trainer.model.named_parameters()))
    with torch.no_grad():
        parameter.view(-1)[0] = float("nan")
    with pytest.raises(ConfigError, match=rf"^the weights are not finite \({name} is the first\), so they are not"):
        trainer.save_model()
    assert not (tmp_path / "run" / "model").exists()


def test_a_name_and_rows_train_like_a_configuration_and_a_file(by_path: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path / "run", sections={"objective": {"kl": 0.01}})
    done = trainer.train()
    assert facts(tmp_path / "run") == facts(by_path)
    assert same(tmp_path / "run" / "model", by_path / "model")
    assert not same(tmp_path / "run" / "model", EMBEDDED["embedded"])
    assert done.global_step == trainer.state.global_step == 2
    assert done.metrics == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [entry["step"] for entry in trainer.state.log_history] == [1, 2]
    trainer.save_model(tmp_path / "out")
    assert same(tmp_path / "out", tmp_path / "run" / "model")
    AutoTokenizer.from_pretrained(tmp_path / "out")


def test_a_loaded_model_trains_like_its_path_and_its_run_is_resumed(
    by_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = base()
    kl = {"objective": {"kl": 0.01}}
    sections = {**kl, "train": {"steps": 1}}
    first = trainer_of(tmp_path / "run", model, processing_class=tokenizer, sections=sections)
    assert first.model is model
    assert first.tokenizer is tokenizer is first.processing_class
    first.train()
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["model"]["path"] == "memory:Qwen2ForCausalLM"
    again, tokenizer = base()  # as in the script of another day
    second = trainer_of(tmp_path / "run", again, train_dataset=Dataset.from_list(ROWS), sections=kl)
    second.train(resume_from_checkpoint=True)
    assert facts(tmp_path / "run") == facts(by_path)
    assert same(tmp_path / "run" / "model", by_path / "model")
    capsys.readouterr()
    assert main(["train", "--resume", "--run-dir", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert "SparkTrainer(...).train(resume_from_checkpoint=True)" in told
    assert len(told.strip().splitlines()) == 1
    assert main(["solve", "--model", str(tmp_path / "run"), "5?1?2=4", "inference.rounds=0"]) == 0


def test_a_stream_is_resumed_where_it_stopped(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, str]]:
        yield from ROWS

    arguments: dict[str, Any] = {"train_dataset": rows, "eval_dataset": ROWS[1:2]}
    straight = trainer_of(tmp_path / "straight", **arguments)
    straight.train()
    asked = {record["problem"] for record in json_lines(tmp_path / "straight" / "rollouts.jsonl")
             if record["task"] == "policy"}  # fmt: skip
    assert asked
    trainer_of(tmp_path / "cut", sections={"train": {"steps": 1}}, **arguments).train()
    trainer_of(tmp_path / "cut", **arguments).train(checkpoints(tmp_path / "cut")[-1])
    assert facts(tmp_path / "cut") == facts(tmp_path / "straight")
    assert same(tmp_path / "cut" / "model", tmp_path / "straight" / "model")
    assert not any("5?3?2" in record["prompt"] for record in json_lines(tmp_path / "cut" / "rollouts.jsonl")
                   if record["task"] == "policy")  # fmt: skip
    assert json.loads((tmp_path / "cut" / "config.json").read_text())["data"]["train"].endswith("(a stream)")


class Diary(TrainerCallback):
    """Writes down what it hears, and stops when it is told to."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.heard: list[str] = []
        self.stop_at = stop_at

    def _hear(self, event: str, args: TrainingArguments, state: TrainerState, objects: dict[str, Any]) -> None:
        assert isinstance(args, TrainingArguments)
        assert {"model", "processing_class"} <= objects.keys()
        self.heard.append(f"{event} {state.global_step}")

    def on_init_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        self._hear("init", args, state, objects)

    def on_train_begin(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        self._hear("begin", args, state, objects)

    def on_step_begin(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        self._hear("step", args, state, objects)

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **objects: Any) -> TrainerControl:
        self._hear("done", args, state, objects)
        control.should_training_stop = state.global_step == self.stop_at
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **objects: Any) -> None:
        self._hear("log", args, state, objects)
        assert "entropy" in logs

    def on_train_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        self._hear("end", args, state, objects)


def test_callbacks_hear_of_the_run_and_can_stop_it(tmp_path: Path) -> None:
    diary = Diary(stop_at=1)
    trainer = trainer_of(tmp_path / "run", callbacks=[diary], sections={"train": {"steps": 5, "save_every": 5}})
    done = trainer.train()
    assert diary.heard == ["init 0", "begin 0", "step 0", "done 1", "log 1", "end 1"]
    assert done.global_step == 1
    assert [folder.name for folder in checkpoints(tmp_path / "run")] == ["step-000001"]


def test_an_untrained_model_answers_judges_and_is_evaluated(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path / "run", eval_dataset={"easy": HELDOUT, "hard": Dataset.from_list(ROWS[:1])})
    trace = trainer.solve("5?1?2=4")
    assert trace.rounds[0].response
    assert [t.problem.question for t in trainer.solve(["5?1?2=4", Problem("p", "7?1?2=6", "+-")])] == [
        "5?1?2=4", "7?1?2=6",
    ]  # fmt: skip
    judgement = trainer.judge("5?1?2=4", r"5+1-2=4 \boxed{+-}")
    assert judgement.verdict in {"Yes", "No", None}
    pair = trainer.judge(["5?1?2=4"], [r"\boxed{+-}"], [r"\boxed{--}"])
    assert pair[0].verdict in {"A", "B", None}
    scores = trainer.evaluate()
    assert scores["eval_easy_n"] == 2
    assert scores["eval_hard_n"] == 1
    assert trainer.state.log_history[-1]["eval_easy_policy_accuracy"] == scores["eval_easy_policy_accuracy"]
    assert trainer.evaluate(HELDOUT, "test")["test_n"] == 2
    file = write_lines(tmp_path / "heldout.jsonl", *HELDOUT)
    assert trainer.evaluate(str(file))["eval_n"] == 2
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def trained_adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("lora") / "run"
    lora = {"rank": 2, "alpha": 4.0, "target_modules": ["q_proj", "v_proj"]}
    trainer_of(run_dir, sections={"model": {"lora": lora}}).train()
    return run_dir


@pytest.mark.parametrize("how", ["setting", "loaded", "wrapped"])
def test_adapters_train_the_same_however_they_are_given(how: str, trained_adapters: Path, tmp_path: Path) -> None:
    lora = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    if how == "setting":
        trainer = trainer_of(tmp_path / "run", peft_config=lora)
        assert trainer.args.model.lora is not None
    elif how == "loaded":
        trainer = trainer_of(tmp_path / "run", base()[0], peft_config=lora)
    else:
        torch.manual_seed(0)
        trainer = trainer_of(tmp_path / "run", get_peft_model(base()[0], lora))
    trainer.train()
    assert isinstance(trainer.model, PeftModel)
    assert same(tmp_path / "run" / "model", trained_adapters / "model", "adapter_model")


def test_adapters_that_no_setting_can_say_are_taken_as_they_are(tmp_path: Path) -> None:
    lora = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", use_rslora=True, lora_dropout=0.0)
    assert lora_settings(lora) is None
    kl = {"objective": {"kl": 0.01}}
    trainer = trainer_of(tmp_path / "run", peft_config=lora, sections={**kl, "train": {"steps": 1}})
    assert trainer.args.model.path == "memory:embedded"
    trainer.train()
    again = trainer_of(tmp_path / "run", peft_config=lora, sections=kl)
    assert again.train(resume_from_checkpoint=True).global_step == 2


def test_gradient_checkpointing_and_the_copy_of_the_kl_term_do_not_share_layers(tmp_path: Path) -> None:
    model, _ = base()
    sections = {"model": {"gradient_checkpointing": True}, "objective": {"kl": 0.01}, "train": {"steps": 1}}
    trainer = trainer_of(tmp_path / "run", model, sections=sections)
    reference = trainer._given().reference
    assert reference is not None
    tokens = torch.tensor([[1, 5, 7]])
    before = reference.model(tokens).logits
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    assert torch.equal(reference.model(tokens).logits, before)


def test_pictures_train_a_model_that_sees(tmp_path: Path) -> None:
    picture = Image.new("RGB", (56, 56), "red")
    rows = [{"question": "count red tiles?", "answer": str(n), "image": picture} for n in range(3)]
    trainer = trainer_of(tmp_path / "run", "embedded-vl", train_dataset=rows, sections={"train": {"steps": 1}})
    trainer.train()
    assert trainer.solve("count red tiles?", images=[picture]).problem.images
    assert trainer.solve("count red tiles?", images=picture).problem.images
    with pytest.raises(DataError, match="one list of images for each of the 2 questions"):
        trainer.solve(["a?", "b?"], images=[picture])


def test_settings_are_a_configuration_a_mapping_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bare = SparkTrainer("embedded", train_dataset=ROWS, progress=False)
    assert bare.args.chat.policy == "solve {question}"  # the recipe of the base, without the recipe's exams
    assert bare.args.data.heldout is None
    assert str(bare.run_dir).startswith("runs/")
    config = load_config("tiny", rollout={"problems": 7}, run_dir="here")
    given = SparkTrainer("embedded", args=config, train_dataset=ROWS, progress=False)
    assert given.args.rollout.problems == 7
    assert given.args.data.heldout == "procedural:missing"
    assert str(given.run_dir) == "here"
    named = SparkTrainer(args={"data": {"train": "procedural:operators", "limit": 5}}, progress=False)
    assert named.args.model.path == "embedded"


def test_a_run_directory_is_made_up_where_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Run(load_config("tiny", model={"threads": 1}, data={"heldout": None, "transfer": None, "limit": 9})) as run:
        assert run.run_dir.parent == Path("runs")
        assert (run.run_dir / "config.json").exists()


def _reward_model() -> Any:
    config = base()[0].config
    config.num_labels = 1
    return AutoModelForSequenceClassification.from_config(config)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": 3}, "model is a int; it must be a name, a path, or a model of transformers"),
        ({"model": torch.nn.Linear(2, 2)}, "model is a Linear"),
        ({"model": "no/such/place"}, "there is no model at 'no/such/place'"),
        ({"processing_class": object()}, "processing_class goes with a loaded model"),
        ({"args": TrainingArguments("x")}, "args is a TrainingArguments; it must be a Config"),
        ({"args": {"rolout": {}}}, "unknown setting rolout; did you mean rollout"),
        ({"args": {"rollout": {"problems": 0}}}, "rollout.problems: input should be greater than or equal to 1"),
        ({"train_dataset": 5}, "train_dataset is a int"),
        ({"train_dataset": []}, "train_dataset has no rows"),
        ({"train_dataset": [{"a": 1}]}, "no column for the question"),
        ({"train_dataset": "none.jsonl"}, "there is no file none.jsonl"),
        ({"train_dataset": lambda: iter(ROWS), "args": {"train": {"steps": None}}}, "say with train.steps"),
        ({"train_dataset": lambda: iter(ROWS), "args": {"data": {"sample": 2}}}, "data.sample needs all rows"),
        ({"train_dataset": iter(ROWS)}, "can be gone through once only"),
        ({"eval_dataset": 5}, "eval_dataset is a int"),
        ({"eval_dataset": DatasetDict()}, "eval_dataset has 0 sets"),
        ({"eval_dataset": dict.fromkeys("abc", HELDOUT)}, r"eval_dataset has 3 sets \(a, b, c\)"),
        ({"callbacks": Diary()}, "callbacks is a Diary; it must be a list"),
        ({"callbacks": [print]}, "must be a transformers.TrainerCallback"),
        ({"reward_funcs": "org/reward-model"}, "reward_funcs has 'org/reward-model'"),
        ({"reward_funcs": [3]}, "reward_funcs has a int"),
        ({"reward_funcs": [print, print], "reward_weights": [1.0]}, "one number for each of the 2 reward_funcs"),
        ({"reward_funcs": print, "reward_weights": [-1.0]}, "numbers of at least 0"),
        ({"peft_config": 3}, "peft_config is a int"),
        ({"peft_config": LoraConfig(target_modules=["none"])}, "none"),
        ({"peft_config": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)}, "use LoraConfig"),
        ({"peft_config": LoraConfig(), "args": {"model": {"lora": {}}}}, "args has model.lora"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_a_wrong_argument_is_one_line(
    arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        SparkTrainer(**{"model": "embedded", "train_dataset": ROWS, "progress": False, **arguments}).train()
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "kind", ["headless", "half", "scratch", "frozen", "reward", "twice", "nowhere", "tokenizer", "spread"]
)
def test_a_model_that_can_not_be_trained_is_one_line(kind: str, tmp_path: Path) -> None:
    model, tokenizer = base()
    arguments: dict[str, Any] = {}
    if kind == "headless":
        model, message = model.model, "has no head that writes text"
    elif kind == "half":
        model, message = model.half(), "model is in float16"
    elif kind == "scratch":
        model, message = AutoModelForCausalLM.from_config(model.config), "does not say where it came from"
        model.name_or_path = ""
    elif kind == "spread":
        model.hf_device_map, message = {"model": 0, "lm_head": "cpu"}, "several devices"
    elif kind == "frozen":
        model, message = model.requires_grad_(False), "has nothing to train"
    elif kind == "reward":
        model, message = _reward_model(), "has no head that writes text|it gives scores"
    elif kind == "twice":
        model, message = get_peft_model(model, LoraConfig(target_modules="all-linear")), "has adapters already"
        arguments["peft_config"] = LoraConfig(target_modules="all-linear")
    elif kind == "nowhere":
        model.name_or_path = ""
        arguments |= {"peft_config": LoraConfig(target_modules="all-linear"), "processing_class": tokenizer}
        message = "this base lies nowhere"
    else:
        arguments["processing_class"], message = "text", "processing_class is a str"
    with pytest.raises(ConfigError, match=message) as error:
        trainer_of(tmp_path / "run", model, **arguments)
    assert "\n" not in str(error.value)


def test_runs_that_can_not_begin_or_go_on_are_one_line(by_path: Path, tmp_path: Path) -> None:
    taken = trainer_of(by_path)
    with pytest.raises(ConfigError, match="already holds a run"):
        taken.train()
    with pytest.raises(ConfigError, match="was made with"):
        taken.train(resume_from_checkpoint=True)
    with pytest.raises(ConfigError, match="is not the last checkpoint"):
        taken.train(checkpoints(by_path)[0])
    with pytest.raises(ConfigError, match="holds no run to go on with"):
        trainer_of(tmp_path / "run").train(resume_from_checkpoint=True)
    with pytest.raises(DataError, match="nothing to evaluate"):
        taken.evaluate()
    with pytest.raises(ConfigError, match="cannot write the model"):
        taken.save_model(by_path / "config.json" / "inside")
    with pytest.raises(ConfigError, match="cannot push to 'me/model'"):
        taken.push_to_hub("me/model")
    for question, response, other in [(3, "a", None), ("a", 3, None), (["a"], ["b", "c"], None), (["a"], ["b"], "c")]:
        with pytest.raises(DataError, match=r"must be|2 texts for 1"):
            taken.judge(question, response, other)  # type: ignore[call-overload]


def test_a_configuration_of_python_says_so(tmp_path: Path) -> None:
    config = load_config("tiny", model={"path": "memory:Qwen2ForCausalLM"}, run_dir=str(tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"model\.path is 'memory:Qwen2ForCausalLM': it was given from Python"):
        train(config)
    Given().check(load_config("tiny"))
    with pytest.raises(ConfigError, match="config is a dict"):
        train({"seed": 0})  # type: ignore[arg-type]


def test_reward_functions_have_weights(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f(completions):\n    return [0.5 for _ in completions]\n")
    assert weighted(print, None) == (WeightedReward(print, 1.0),)
    named, other = weighted([f"{tmp_path / 'a.py'}:f", print], [1, 0.5])
    assert (named.called, named.weight, other) == ("f", 1.0, WeightedReward(print, 0.5))
    assert weighted(None, None) == ()


def test_an_own_reward_function_trains_in_place_of_the_verifier(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def shorter(completions: list[str], answer: list[str], colour: list[str], **_others: Any) -> list[float]:
        seen.append({"answer": answer, "colour": colour})
        return [1 / (1 + len(text)) for text in completions]

    rows = [{"question": f"{a}?2?3={a + 2 - 3}", "answer": "+-", "colour": "red"} for a in range(4, 10)]
    settings = {"rollout": {"problems": 3, "samples": 4, "max_new_tokens": 24}, "run_dir": str(tmp_path / "run"),
                "train": {"steps": 1}, "model": {"threads": 1}}  # fmt: skip
    trainer = SparkTrainer(
        "embedded", reward_funcs=shorter, args=settings, train_dataset=rows[:4], eval_dataset=rows[4:], progress=False
    )
    found = trainer.train()
    assert {text for call in seen for text in call["answer"]} == {"+-"}
    assert {text for call in seen for text in call["colour"]} == {"red"}
    assert found.metrics["before"]["policy_accuracy"] == 0, "no response is so short that its reward reaches 1"
    (metrics,) = json_lines(tmp_path / "run" / "metrics.jsonl")
    assert 0 < metrics["reward/policy"] < 1
    assert metrics["reward_function/shorter"] == pytest.approx(metrics["reward/policy"])


def test_peft_settings_are_those_of_a_configuration() -> None:
    assert lora_settings(LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")) == {
        "rank": 4, "alpha": 8.0, "target_modules": "all-linear",
        **({"dropout": 0.0} if "dropout" in spark_rl.config.LoraConfig.model_fields else {}),
    }  # fmt: skip
    for other in (LoraConfig(), LoraConfig(target_modules=".*q"), LoraConfig(target_modules=["q"], bias="all"),
                  IA3Config(target_modules=["q"])):  # fmt: skip
        assert lora_settings(other) is None


def test_the_package_says_its_version_and_exports_its_errors() -> None:
    assert spark_rl.__version__
    assert issubclass(spark_rl.ConfigError, spark_rl.UserError)
    assert issubclass(Config, object)


@pytest.mark.parametrize("name", ["trainer_ten_rows", "trainer_callback"])
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})  # one thread: others run tests beside us
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    assert len([run for run in (tmp_path / "runs").iterdir() if run.name != "latest"]) == 1
