"""``spark-rl export``: what it writes is a model for plain transformers, with a true card, and never half of one."""

from __future__ import annotations

import base64
import json
import resource
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from answering import Json, answering
from huggingface_hub import ModelCard, constants
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from running import small
from spark_rl.cli import main, parse
from spark_rl.commands import resolve
from spark_rl.commands.models import inference_config
from spark_rl.config import load_config
from spark_rl.errors import ConfigError
from spark_rl.export import export_run, model_card, push
from spark_rl.manifest import write_manifest
from spark_rl.model.load import load_model
from spark_rl.report.repeat import asking_command, repeating_command
from spark_rl.run import train
from tiny import learner_of, random_groups, tiny_config
from vision import make_vlm

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

TOKENS = torch.tensor([[1, 5, 6, 7, 80]])
LORA = {"lora": {"rank": 2}}


def run_of(model: Path, run: Path, **settings: Any) -> Any:
    """A run directory with a model that has been trained for one update, and its learner."""
    learner = learner_of(model, model=settings, optimiser={"lr": 0.02})
    with torch.enable_grad():
        learner.update(random_groups(2, 4))
    learner.export(run / "model")
    learner.save(run / "checkpoints" / "step-000003")
    write_manifest(run / "checkpoints" / "step-000003", 3)
    written = tiny_config(model, model=settings, optimiser={"lr": 0.02}).model_dump(mode="json")
    (run / "config.json").write_text(json.dumps(written))
    return learner


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of the embedded base with adapters and two exams."""
    run = tmp_path_factory.mktemp("runs") / "small"
    exams = ("data.heldout=procedural:missing", "data.transfer=procedural:operators", "evaluation.problems=4")
    train(small(run, *exams, "model.lora.rank=2", "train.steps=1", "optimiser.lr=1e-3"))
    return run


@torch.no_grad()
@pytest.mark.parametrize("model", [{}, {"dtype": "bfloat16"}], ids=["float32", "bfloat16"])
def test_a_whole_model_is_copied_as_it_is(tiny_models: dict[str, Path], tmp_path: Path, model: dict[str, Any]) -> None:
    learner = run_of(tiny_models["qwen2"], tmp_path / "run", **model)
    folder = export_run(tmp_path / "run", merge=True)
    assert folder == tmp_path / "run" / "export"
    stock = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert stock.dtype == learner.loaded.causal_lm.dtype
    assert torch.equal(stock(TOKENS).logits, learner.loaded.causal_lm(TOKENS).logits)
    assert AutoTokenizer.from_pretrained(folder).eos_token_id == 2


@torch.no_grad()
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_are_merged_or_not_and_are_the_same_model(
    tiny_models: dict[str, Path], tmp_path: Path, dtype: str
) -> None:
    learner = run_of(tiny_models["llama"], tmp_path / "run", dtype=dtype, **LORA)
    wanted = learner.loaded.causal_lm(TOKENS).logits
    merged = export_run(tmp_path / "run", tmp_path / "merged", merge=True)
    plain = export_run(tmp_path / "run", tmp_path / "new" / "plain")
    whole = AutoModelForCausalLM.from_pretrained(merged).eval()
    assert {weight.dtype for weight in load_file(merged / "model.safetensors").values()} == {getattr(torch, dtype)}
    assert not (merged / "adapter_config.json").exists()
    adapted = AutoPeftModelForCausalLM.from_pretrained(plain, dtype=getattr(torch, dtype)).eval()
    tolerance = 1e-5 if dtype == "float32" else 0.1
    assert torch.allclose(whole(TOKENS).logits, wanted, atol=tolerance)
    assert torch.allclose(adapted(TOKENS).logits, wanted, atol=tolerance)
    assert not torch.allclose(AutoModelForCausalLM.from_pretrained(tiny_models["llama"])(TOKENS).logits.to(wanted),
                              wanted, atol=tolerance)  # fmt: skip
    assert AutoTokenizer.from_pretrained(plain).eos_token_id == AutoTokenizer.from_pretrained(merged).eos_token_id == 2


@torch.no_grad()
def test_a_model_that_sees_is_merged_with_its_processor(tmp_path: Path) -> None:
    learner = run_of(make_vlm("qwen2_5_vl", tmp_path / "base"), tmp_path / "run", **LORA)
    folder = export_run(tmp_path / "run", merge=True)
    whole = AutoModelForImageTextToText.from_pretrained(folder).eval()
    assert torch.allclose(whole(TOKENS).logits, learner.loaded.causal_lm(TOKENS).logits, atol=1e-4)
    assert (folder / "processor_config.json").is_file()
    assert ModelCard.load(folder / "README.md").data.pipeline_tag == "image-text-to-text"


def test_a_checkpoint_is_exported_by_its_step_or_as_the_best(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_of(tiny_models["llama"], run)
    (run / "best").symlink_to("checkpoints/step-000003")
    for name in (3, "3", "best"):
        folder = export_run(run, tmp_path / f"of-{name!r}", checkpoint=name)
        assert AutoModelForCausalLM.from_pretrained(folder).config.model_type == "llama"
        assert "this is a checkpoint" in (folder / "README.md").read_text()


# --- the card -------------------------------------------------------------------------------------------------------


def test_a_run_writes_its_card_and_the_card_is_true(trained: Path) -> None:
    card = ModelCard.load(trained / "model" / "README.md")
    assert card.content == model_card(trained)
    assert card.data.library_name == "peft"
    assert card.data.pipeline_tag == "text-generation"
    assert card.data.base_model is None, "the embedded base is not on the hub"
    assert {"spark-rl", "lora"} <= set(card.data.tags)
    assert card.data.license is None
    summary = json.loads((trained / "summary.json").read_text())
    row = next(line for line in card.text.splitlines() if line.startswith("| Policy accuracy |"))
    before, after = (100 * summary[when]["policy_accuracy"] for when in ("before", "after"))
    assert row.startswith(f"| Policy accuracy | {before:.1f} ± ")
    assert f" | {after:.1f} ± " in row
    for said in ("LoRA, rank 2, alpha 32, dropout 0, all-linear", "1 of 6 problems, 4 responses each", "n = 4",
                 f"`procedural:missing` ({summary['problems']['train']:,} problems)", "solve {question}",
                 "Not stated yet", "Problems of a kind that was not trained on",
                 f"torch {summary['versions']['torch']}"):  # fmt: skip
        assert said in card.text


def test_the_command_of_the_card_makes_the_same_run(trained: Path) -> None:
    written = json.loads((trained / "config.json").read_text())
    asking, line = (part.partition("\n```")[0] for part in model_card(trained).split("```sh\n")[1:])
    assert asking == "spark-rl solve QUESTION --model PATH --config tiny inference.max_new_tokens=40"
    program, *arguments = shlex.split(line)
    assert program == "spark-rl"
    again = resolve(parse(arguments)).model_dump(mode="json")
    for name in ("model.threads", "run_dir"):
        tree: Any = again
        *above, leaf = name.split(".")
        for part in above:
            tree = tree[part]
        tree[leaf] = written["model"]["threads"] if above else written["run_dir"]
    assert again == written


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("qwen2.5-vl-7b", ["optimiser.lr=1e-6", "data.ranges={a b: [null, 0.5]}"]),
        (None, ["model.path=org/model", "recycle.preset=policy-only", 'chat.stop=["\\n\\n", "it\'s"]', "data.train=x"]),
        (None, ["model.path=org/model", "chat.system=a \"quoted\" line: yes", "model.lora.rank=4", "model.freeze=[]"]),
        ("tiny", ['chat.policy="é\\n# {question}"', "recycle.preset=balanced", "seed=3", "recycle.pointwise=false"]),
    ],
)  # fmt: skip
def test_any_settings_can_be_said_in_a_command(recipe: str | None, overrides: list[str]) -> None:
    wanted = load_config(recipe, overrides)
    command_line = repeating_command(wanted.model_dump(mode="json"))
    assert command_line is not None
    assert resolve(parse(shlex.split(command_line)[1:])) == wanted
    asked = inference_config(parse(shlex.split(asking_command(wanted.model_dump(mode="json")))[1:]), needs_model=False)
    assert (asked.chat, asked.inference) == (wanted.chat, wanted.inference)
    assert asked.recycle.templates == wanted.recycle.templates


def test_settings_of_another_version_are_in_no_command() -> None:
    assert repeating_command({"chat": {"nonsense": 1}}) is None
    assert asking_command({"chat": {"nonsense": 1}}) == "spark-rl solve QUESTION --model PATH"


def test_what_was_in_memory_is_in_no_command() -> None:
    settings = load_config("tiny", data={"train": "memory:rows (10 problems, abc)"}).model_dump(mode="json")
    assert repeating_command(settings) is None


def test_names_on_the_hub_are_links_and_paths_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    mine = tmp_path / "mine.jsonl"
    settings = load_config(None, model={"path": "org/model"}, data={"train": ["org/set:main@train", str(mine)]})
    (run / "config.json").write_text(settings.model_dump_json())
    card = ModelCard(model_card(run))
    assert card.data.base_model == "org/model"
    assert card.data.datasets == ["org/set"]
    assert card.data.to_dict()["base_model_relation"] == "finetune"
    assert "[org/set:main@train](https://huggingface.co/datasets/org/set); `mine.jsonl`" in card.text
    assert str(tmp_path) not in card.text, "what lies below this directory is named from here"
    again = tmp_path / "again"
    (again / "model").mkdir(parents=True)
    (again / "config.json").write_text(settings.model_copy(update={
        "model": settings.model.model_copy(update={"path": str(run / "model")})}).model_dump_json())  # fmt: skip
    assert ModelCard(model_card(again)).data.base_model == "org/model", "of the run before it"


# --- refusals, and nothing by halves --------------------------------------------------------------------------------


def test_refusals_are_one_line_each(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    for arguments, said in (
        ((tmp_path / "full",), "full is not a run"),
        ((trained, tmp_path / "full"), "is there already; remove it or choose another --out"),
        ((trained, tmp_path / "full" / "file" / "x"), "file is a file"),
        ((trained, None, False, 7), "has no checkpoint of step 7; it has 1"),
        ((trained, None, False, "best"), "marks no checkpoint as its best"),
    ):
        with pytest.raises(ConfigError) as caught:
            export_run(*arguments)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    assert (tmp_path / "full" / "file").read_text() == "mine"


def test_the_command_line_says_what_it_wrote_and_what_is_wrong(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    code, out, err = exported(capsys, trained, "--merge", "--out", "empty", "--json", "facts.json")
    assert code == 0, err
    assert out.splitlines()[-2:] == ["model   empty", "card    empty/README.md"]
    assert json.loads((tmp_path / "facts.json").read_text())["model"] == "empty"
    assert load_model(load_config("tiny", model={"path": "empty", "threads": 1})).causal_lm.num_parameters() > 0
    code, _, err = exported(capsys, "empty")
    assert (code, err) == (2, "spark-rl: 'empty' is not a run; export takes the directory of one\n")
    with pytest.raises(SystemExit):
        main(["export", str(trained), "--checkpoint", "last"])
    assert "'last' is neither the step of a checkpoint nor 'best'" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing_behind(trained: Path, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(ConfigError, match=r"^cannot write .*new: ") as caught:
            export_run(trained, tmp_path / "new", merge=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# --- the hub --------------------------------------------------------------------------------------------------------


@contextmanager
def hub(refuse: int = 0) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The address of a server that speaks as much of the hub's protocol as an upload needs, and what was uploaded."""
    files: dict[str, bytes] = {}

    class Hub(Json, BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            here = f"http://localhost:{server.server_port}"
            if refuse:
                self.answer({"error": f"no, {self.headers.get('Authorization', '').removeprefix('Bearer ')}"}, refuse)
            elif self.path.endswith("/repos/create"):
                self.answer({"url": f"{here}/{'/'.join(filter(None, ('me', json.loads(body)['name'])))}"})
            elif "/preupload/" in self.path:
                asked = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                         for file in json.loads(body)["files"]]  # fmt: skip
                self.answer({"files": asked})
            elif "/commit/" in self.path:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                self.answer({"success": True, "commitOid": "0" * 40, "commitUrl": f"{here}/me/model/commit/{'0' * 40}"})
            else:
                self.answer({"errors": [], "warnings": []})

        def do_GET(self) -> None:
            self.answer({"name": "me", "type": "user", "sha": "0" * 40, "id": "me/model", "siblings": []})

    server = ThreadingHTTPServer(("localhost", 0), Hub)
    with answering(server):
        yield f"http://localhost:{server.server_port}", files


def exported(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, output and errors of ``spark-rl export``."""
    code = main(["export", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the address of the hub, and logs in."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    return lambda address: monkeypatch.setattr(constants, "ENDPOINT", address)


def test_a_push_puts_all_files_on_the_hub(
    trained: Path, tmp_path: Path, online: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with hub() as (address, files):
        online(address)
        code, out, err = exported(capsys, trained, "--merge", "--out", tmp_path / "new", "--push", "me/model")
    assert code == 0, err
    assert out.splitlines()[-1] == f"hub     {address}/me/model"
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= files.keys()


def test_what_the_hub_refuses_is_one_line_without_the_token(
    trained: Path, online: Callable[[str], None], tiny_models: dict[str, Path]
) -> None:
    with hub(refuse=401) as (address, _):
        online(address)
        with pytest.raises(ConfigError) as caught:
            push(tiny_models["llama"], "me/model")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("cannot push to 'me/model': ")
    assert "log in with `hf auth login`" in str(caught.value)
    assert "hf_secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot push to 'me/model': "):  # nobody listens there any more
        push(tiny_models["llama"], "me/model")
    with pytest.raises(ConfigError, match=r"the base of the adapters in .* is a folder of this disk"):
        push(trained / "model", "me/model")


def test_nothing_is_pushed_offline_or_under_a_name_that_can_not_be(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (trained, "--out", tmp_path / "new", "--push")
    code, _, err = exported(capsys, *options, "me/model")
    assert (code, err) == (2, "spark-rl: cannot push to 'me/model': the hub is not asked (HF_HUB_OFFLINE is set)\n")
    assert "cannot push to 'a/b/c': " in exported(capsys, *options, "a/b/c")[2]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    said = exported(capsys, *options, "me/model")[2]
    assert said == "spark-rl: cannot push to 'me/model': nobody is logged in; run `hf auth login` or set HF_TOKEN\n"
    assert not (tmp_path / "new").exists(), "found out before the work"


def test_adapters_upon_adapters_are_exported_merged_only(trained: Path, tmp_path: Path) -> None:
    run_of(trained / "model", tmp_path / "run", **LORA)
    with pytest.raises(ConfigError, match="is one of adapters itself, which only spark-rl puts together"):
        export_run(tmp_path / "run")
    folder = export_run(tmp_path / "run", merge=True)
    assert AutoModelForCausalLM.from_pretrained(folder).config.model_type == "qwen2"
