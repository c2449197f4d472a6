"""The configuration: recipes load, mistakes are one line, explicit settings win, nothing changes afterwards."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from spark_rl import config as module
from spark_rl.config import (
    PRESETS,
    Config,
    LoraConfig,
    Section,
    load_config,
    merge_settings,
    parse_config,
    recipe_path,
    saved_settings,
    settings_table,
)
from spark_rl.config.names import FOREIGN
from spark_rl.errors import ConfigError
from spark_rl.files import read_yaml

RECIPES = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
SECTIONS = [c for _, c in inspect.getmembers(module, inspect.isclass) if issubclass(c, Section) and c is not Section]


def refused(*overrides: str, **settings: Any) -> str:
    """What the user is told."""
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_loads_by_path_and_by_name(path: Path) -> None:
    assert load_config(path) == load_config(path.stem)
    assert load_config(path) != Config()


def test_there_is_a_recipe_for_the_embedded_default() -> None:
    config = load_config("tiny")
    assert config.model.path == "embedded"
    assert config.train.steps is not None
    assert config.data.heldout is not None


def test_no_file_and_no_settings_are_the_defaults() -> None:
    assert load_config() == Config() == parse_config({})


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.__name__)
def test_every_setting_has_a_docstring(section: type[Section]) -> None:
    assert section.__doc__
    for name, field in section.model_fields.items():
        is_section = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        assert is_section or field.description, f"{section.__name__}.{name}"


def test_the_settings_table_lists_every_leaf_with_its_default() -> None:
    table = {key: default for key, _, default, _ in settings_table()}
    assert table["rollout.samples"] == 8
    assert table["data.columns.question"] is None
    assert set(table) == set(leaves(Config().model_dump()))
    assert all(about for *_, about in settings_table())


def leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, dict) and value  # an empty mapping is the value of a setting
        flat |= leaves(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


def test_a_saved_configuration_is_read_back_as_it_was() -> None:
    config = load_config("tiny", ["model.lora.rank=4", "chat.stop=[a, b]", "recycle.preset=balanced"])
    assert parse_config(json.loads(json.dumps(config.model_dump(mode="json")))) == config


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rollout.sampels=4", "unknown setting rollout.sampels; did you mean rollout.samples?"),
        ("optimizer.lr=1", "unknown setting optimizer.lr; did you mean optimiser.lr?"),
        ("trian.steps=4", "unknown setting trian.steps; did you mean train.steps?"),
        ("trian=4", "unknown setting trian; did you mean train, a group of settings such as train.steps?"),
        ("rollout.maxNewTokens=4", "unknown setting rollout.maxNewTokens; did you mean rollout.max_new_tokens?"),
        ("train.lr=1", "unknown setting train.lr; did you mean optimiser.lr?"),
        ("samples=4", "unknown setting samples; did you mean rollout.samples or inference.samples?"),
        ("lr=1", "unknown setting lr; did you mean optimiser.lr?"),
        ("recycle.judgecap=1", "unknown setting recycle.judgecap; did you mean recycle.judge_cap?"),
        ("model.lora.rnk=4", "unknown setting model.lora.rnk; did you mean model.lora.rank?"),
        ("data.columns.anwser=x", "unknown setting data.columns.anwser; did you mean data.columns.answer?"),
        ("steps=4", "unknown setting steps; did you mean train.steps?"),
        ("zzz=4", f"unknown setting zzz; known here: {', '.join(Config.model_fields)}"),
    ],
)
def test_an_unknown_setting_names_the_nearest(text: str, said: str) -> None:
    assert refused(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train.epochs=1", "train.episodes is passes over the data; learner.epochs is passes over each batch"),
        ("rollout.top_p=0.9", "there is none: cutting the distribution biases the importance ratio"),
        ("rollout.min_p=0.1", "there is none: cutting the distribution biases the importance ratio"),
        ("inference.top_k=5", "there is none: answers and verdicts are greedy"),
        ("learning_rate=1e-6", "here it is optimiser.lr"),
        ("train.per_device_train_batch_size=8", "rollout.problems is the problems a step"),
        ("gradient_accumulation_steps=2", "there is none: learner.micro_tokens bounds"),
        ("num_generations=8", "here it is rollout.samples"),
        ("actor_rollout_ref.rollout.n=8", "here it is rollout.samples"),
        ("algorithm.kl_ctrl.kl_coef=0.1", "here it is objective.kl"),
        ("use_vllm=true", "set engine.name=vllm"),
    ],
)
def test_a_name_from_elsewhere_is_translated(text: str, said: str) -> None:
    assert said in refused(text)
    assert "did you mean" not in refused(text)


def test_what_names_from_elsewhere_are_translated_to_exists() -> None:
    known = {key for key, *_ in settings_table()} | {f"model.lora.{name}" for name in LoraConfig.model_fields}
    groups = {key.partition(".")[0] for key in known}
    said = {word for text in FOREIGN.values() for word in re.findall(r"[a-z]+(?:\.[a-z_]+)+", text)}
    assert {word for word in said if word.partition(".")[0] in groups} - {"model.lora"} <= known


@pytest.mark.parametrize("name", ["model.name", "data.path", "data.columns.a", "rollout.zzz", "model.form"])
def test_a_name_that_is_like_none_gets_no_wrong_guess(name: str) -> None:
    assert "did you mean" not in refused(f"{name}=1")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("rollout:\n  samples: 4\n  problems: 2\n  samples: 8\n", "'samples' is given twice, on lines 2 and 4"),
        ("seed: 1\nmodel: {path: m}\nseed: 2\n", "'seed' is given twice, on lines 1 and 3"),
        ("chat: {stop: {policy: [a], policy: [b]}}\n", "'policy' is given twice, on line 1"),
        ("data: {train: [{source: a, source: b}]}\n", "'source' is given twice, on line 1"),
    ],
)
def test_a_key_given_twice_is_an_error_that_names_both_lines(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: {said}")


def test_a_merge_key_is_no_second_key(tmp_path: Path) -> None:
    path = tmp_path / "merged.yaml"
    path.write_text("rollout: &common {samples: 4}\nseed: 1\nmodel: {threads: 2, path: m}\nlearner: {}\n")
    assert load_config(path).rollout.samples == 4
    assert read_yaml("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  x: 3\nc: {<<: *a, y: 4}\n")["b"] == {"x": 3, "y": 2}


def test_a_key_given_twice_in_an_override_is_an_error() -> None:
    assert "chat.stop: 'policy' is given twice" in refused("chat.stop={policy: [a], policy: [b]}")


def said_to(override: str) -> str:
    """The error that an override gives, or nothing."""
    return said_by(partial(load_config, None, [override]))


def said_by(make: Callable[[], Config]) -> str:
    try:
        make()
    except ConfigError as error:
        return str(error)
    return ""


@given(st.text(min_size=1, max_size=12).filter(lambda s: "=" not in s), st.text(max_size=12))
def test_whatever_is_typed_gives_a_configuration_or_one_line(key: str, value: str) -> None:
    for name in (key, f"model.{key}"):
        assert len(said_to(f"{name}={value}").splitlines()) <= 1


@given(st.sampled_from([key for key, *_ in settings_table()]), st.text(max_size=12))
def test_whatever_a_setting_is_set_to_gives_a_configuration_or_one_line(key: str, value: str) -> None:
    assert len(said_to(f"{key}={value}").splitlines()) <= 1


@pytest.mark.parametrize("value", [None, True, -1, 2**200, "\0", [], ["paper"], [[]], [{}], {}, {"a": []}, {1: 2}])
def test_a_value_of_any_shape_gives_a_configuration_or_one_line(value: Any) -> None:
    for key, *_ in settings_table():
        *groups, leaf = key.split(".")
        tree: dict[str, Any] = {leaf: value}
        for group in reversed(groups):
            tree = {group: tree}
        assert len(said_by(partial(parse_config, tree)).splitlines()) <= 1, key


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("rollout.samples=many", ("rollout.samples", "integer", "'many'")),
        ("rollout.samples=1", ("rollout.samples", "greater than or equal to 2")),
        ("rollout.samples=2.5", ("rollout.samples", "integer")),
        ("train.steps=1e2", ("train.steps", "integer", "'1e2'")),
        ("rollout.temperature=0", ("rollout.temperature", "greater than 0")),
        ("optimiser.lr=fast", ("optimiser.lr", "number")),
        ("optimiser.lr=.inf", ("optimiser.lr", "finite")),
        ("optimiser.lr=.nan", ("optimiser.lr",)),
        ("optimiser.betas=0.9", ("optimiser.betas", "a list")),
        ("optimiser.betas=[0.9]", ("optimiser.betas",)),
        ("optimiser.betas=[0.9, 1.5]", ("optimiser.betas", "below 1")),
        ("recycle.preset=papr", ("recycle.preset", "'paper'", "'papr'")),
        ("data.kind=maths", ("data.kind:", "'math'", "'maths'")),
        ("model.lora.target_modules=3", ("model.lora.target_modules:", "a list")),
        ("model.lora.rank=0", ("model.lora.rank",)),
        ("model.dtype=float16", ("model.dtype", "bfloat16")),
        ("seed=-1", ("seed",)),
        ("chat.stop=x", ("chat.stop", "a list")),
        ("chat.stop=['']", ("chat.stop", "empty")),
        ("rollout=8", ("rollout is a group of settings", "rollout.problems")),
        ("model=null", ("model is a group of settings",)),
        ("rollout.samples.x=8", ("rollout.samples is a single value",)),
        ("rollout.samples", ("not of the form key=value",)),
        ("=3", ("not of the form key=value",)),
    ],
)
def test_a_wrong_value_says_where_and_what(override: str, parts: tuple[str, ...]) -> None:
    message = refused(override)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["train.policy_update=false", "recycle.preset=policy-only"], "no update would ever happen"),
        (["recycle.ready=100", "recycle.pool_size=99"], "raise pool_size"),
        (["chat.min_pixels=200", "chat.max_pixels=100"], "swap or change them"),
        (["chat.policy=solve it"], "{question}"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides: list[str], part: str) -> None:
    assert part in refused(*overrides)


def test_a_pool_that_is_never_asked_need_not_hold_a_batch() -> None:
    assert load_config(None, ["recycle.preset=policy-only", "recycle.pool_size=1"]).recycle.pool_size == 1


def test_presets_set_what_they_say() -> None:
    def made(preset: str) -> tuple[bool, bool, bool, bool]:
        recycle = load_config(None, [f"recycle.preset={preset}"]).recycle
        return recycle.pointwise, recycle.pairwise, recycle.reflection, recycle.balance

    assert made("paper") == (True, True, True, False)
    assert made("policy-only") == (False, False, False, False)
    assert made("policy-and-reward") == (True, True, False, False)
    assert made("balanced") == (True, True, True, True)
    assert load_config(None, ["recycle.preset=paper"]) == Config()
    assert set(PRESETS) == {"paper", "balanced", "policy-only", "policy-and-reward"}


@pytest.mark.parametrize("order", [1, -1])
def test_an_explicit_setting_wins_over_the_preset_in_either_order(order: int) -> None:
    recycle = load_config(None, ["recycle.preset=policy-only", "recycle.pairwise=true"][::order]).recycle
    assert (recycle.pointwise, recycle.pairwise, recycle.reflection) == (False, True, False)
    assert recycle.preset == "policy-only"


def test_an_explicit_setting_in_the_file_wins_over_a_preset_given_later(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("recycle:\n  reflection: true\n")
    recycle = load_config(path, ["recycle.preset=policy-only"]).recycle
    assert (recycle.pointwise, recycle.reflection) == (False, True)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("optimiser.lr=1e-5", "optimiser.lr", 1e-5),
        ("optimiser.lr=1.0e-05", "optimiser.lr", 1e-5),
        ("optimiser.lr=5E-7", "optimiser.lr", 5e-7),
        ("optimiser.eps=.1e-7", "optimiser.eps", 1e-8),
        ("optimiser.betas=[0.8, 9e-1]", "optimiser.betas", (0.8, 0.9)),
        ('chat.stop=["\\n\\n", "Q:"]', "chat.stop", ("\n\n", "Q:")),
        ("chat.stop=[]", "chat.stop", ()),
        ("train.steps=null", "train.steps", None),
        ("data.heldout=", "data.heldout", None),
        ("data.heldout=split:20", "data.heldout", "split:20"),
        ("model.lora=null", "model.lora", None),
        ("model.lora.target_modules=[q_proj]", "model.lora.target_modules", ("q_proj",)),
        ("model.lora.target_modules=all-linear", "model.lora.target_modules", "all-linear"),
        ("recycle.balance=true", "recycle.balance", True),
        ("chat.policy={question}", "chat.policy", "{question}"),
        ("chat.policy=a = b: {question}", "chat.policy", "a = b: {question}"),
        ("run_dir=2024", "run_dir", "2024"),
        ("run_dir=2024-01-02", "run_dir", "2024-01-02"),
        ("run_dir=null", "run_dir", None),
        ("model.path=1e5", "model.path", "1e5"),
        ("model.path=true", "model.path", "true"),
    ],
)
def test_overrides_are_read_as_what_the_setting_is(override: str, key: str, value: Any) -> None:
    found: Any = load_config(None, [override])
    for name in key.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


def test_later_overrides_win_and_overrides_win_over_settings_and_settings_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("seed: 1\nrollout: {samples: 2, problems: 3}\ntrain: {steps: 9}\n")
    config = load_config(path, ["seed=4", "seed=5"], seed=3, rollout={"samples": 6})
    assert (config.seed, config.rollout.samples, config.rollout.problems, config.train.steps) == (5, 6, 3, 9)


def test_what_the_caller_gives_is_not_changed() -> None:
    settings: dict[str, Any] = {"model": {"lora": {"rank": 2}}}
    assert load_config(None, ["model.lora.rank=4"], **settings).model.lora == module.LoraConfig(rank=4)
    assert settings == {"model": {"lora": {"rank": 2}}}


def test_merging_goes_into_groups() -> None:
    assert merge_settings({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}, "d": {"e": 4}}) == {
        "a": {"b": 1, "c": 3},
        "d": {"e": 4},
    }


@pytest.mark.parametrize("path", ["seed", "rollout.samples"])
def test_a_configuration_is_frozen(path: str) -> None:
    target: Any = Config()
    *parents, leaf = path.split(".")
    for parent in parents:
        target = getattr(target, parent)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(target, leaf, 3)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("rollout: [unclosed\n  : {", "is not valid YAML"),
        ("- 1\n- 2\n", "must hold a mapping of settings, not a list"),
        ("just text", "must hold a mapping of settings, not a str"),
        ("rollout:\n  sampels: 3\n", "did you mean rollout.samples?"),
        ("1: 2\n", "unknown setting 1"),
        ("seed: &a [*a]\n", "contain themselves"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, content: str, part: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_text_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"\xff\xfe\x00seed: 1")
    with pytest.raises(ConfigError, match=r"bad\.yaml is not valid YAML"):
        load_config(path)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert load_config(tmp_path / "empty.yaml") == Config()


def test_a_missing_recipe_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no configuration file 'tny'.*tiny"):
        recipe_path("tny")


def test_yaml_written_from_a_configuration_is_that_configuration(tmp_path: Path) -> None:
    config = load_config("tiny", ["optimiser.lr=3e-6", "chat.system=Zahl – 数"])
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    assert load_config(tmp_path / "again.yaml") == config


def test_the_settings_of_a_run_are_read_back(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run to resume"):
        saved_settings(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="can't be read"):
        saved_settings(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match="mapping"):
        saved_settings(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"seed": 3}))
    assert saved_settings(tmp_path) == {"seed": 3}


def test_a_message_is_one_line_whatever_it_quotes() -> None:
    assert str(ConfigError(textwrap.dedent("""a\r\nb\u2028c"""))) == "a b c"
