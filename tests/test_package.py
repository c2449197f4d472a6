"""The package as a whole: what importing costs, which names it promises, and the rules of the house."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import spark_rl
from running import ENVIRONMENT
from spark_rl.commands import settings_markdown

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
HEAVY = ("torch", "transformers", "datasets", "peft", "sympy", "math_verify")


def modules_after(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after running ``code``."""
    program = f"import sys\n{code}\nprint('modules', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = modules_after("import spark_rl, spark_rl.cli")
    assert "spark_rl.cli" in loaded
    assert loaded.isdisjoint({*HEAVY, "pydantic", "rich", "yaml", "numpy"})


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    call = f"spark_rl.cli.main({arguments!r})"
    loaded = modules_after(f"import spark_rl.cli\ntry:\n    {call}\nexcept SystemExit as end:\n    assert not end.code")
    assert loaded.isdisjoint({*HEAVY, "pydantic", "rich", "yaml", "numpy"})


def test_configuration_and_records_and_recyclers_need_no_torch() -> None:
    loaded = modules_after(
        "from spark_rl import Problem, Config, load_config\n"
        "import spark_rl.recycle, spark_rl.verify, spark_rl.data, spark_rl.chat, spark_rl.report, spark_rl.commands\n"
        "load_config('tiny')"
    )
    assert "spark_rl.recycle" in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("name", spark_rl.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert callable(getattr(spark_rl, name)) or name == "__version__"


@pytest.mark.parametrize("name", ["recycle", "verify", "train"])
def test_a_function_is_not_hidden_by_the_package_of_its_name(name: str) -> None:
    code = f"import spark_rl.recycle.mixture, spark_rl.verify.pool, spark_rl.run\nfrom spark_rl import {name}\n"
    assert modules_after(f"{code}import spark_rl\nassert {name}.__name__ == spark_rl.{name}.__name__ == {name!r}")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = spark_rl.trian


def test_the_contracts_have_the_stated_signatures() -> None:
    from spark_rl import Group, Problem, Rollout, Verdict
    from spark_rl.advantage import group_advantages
    from spark_rl.engine.base import Engine
    from spark_rl.inference import solve
    from spark_rl.learner.base import Learner
    from spark_rl.objective import policy_loss
    from spark_rl.recycle import recycle
    from spark_rl.verify import extract_boxed, verify

    def names(thing: object) -> list[str]:
        return list(inspect.signature(thing).parameters)  # type: ignore[arg-type]

    assert names(verify) == ["response", "answer", "kind", "choices"]
    assert verify(r"\boxed{6}", "6") == Verdict(1.0, "correct", "6")
    assert extract_boxed(r"a \boxed{b}") == "b"
    assert names(group_advantages)[:2] == ["rewards_PG", "eps"]
    assert names(policy_loss)[:6] == [
        "logp_BT", "old_logp_BT", "ref_logp_BT", "advantages_B", "mask_BT", "config",
    ]  # fmt: skip
    assert names(recycle)[:3] == ["groups", "config", "rng"]
    assert names(solve)[:2] == ["problems", "engine"]
    assert {"generate", "sync", "version", "close"} <= set(dir(Engine))
    assert {"update", "logprobs", "weights", "save", "load", "export"} <= set(dir(Learner))
    assert {"id", "question", "answer", "images"} <= set(names(Problem))
    assert names(Rollout) == ["completion", "verdict"]
    assert names(Group)[:3] == ["problem", "rollouts", "prompt_ids"]


@pytest.mark.parametrize("path", [p for p in SOURCES if p.read_text().strip()], ids=lambda p: p.stem)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_no_file_is_a_drawer_for_odds_and_ends() -> None:
    names = {path.stem for path in (ROOT / "src").rglob("*") if path.is_file()}
    assert names.isdisjoint({"utils", "util", "common", "helpers", "helper", "misc", "manager", "managers"})


def test_nothing_is_left_to_do_later() -> None:
    marks = ("TO" + "DO", "FIX" + "ME", "X" + "XX")
    found = [(path.name, mark) for path in SOURCES for mark in marks if mark in path.read_text()]
    assert found == []


def test_recipes_ship_inside_the_wheel_where_the_package_looks_for_them() -> None:
    from spark_rl.config import RECIPE_FOLDERS

    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["src/spark_rl"]
    assert wheel["force-include"] == {"configs": "spark_rl/configs"}
    assert Path(spark_rl.__file__).parent / "configs" in RECIPE_FOLDERS
    assert (ROOT / "src/spark_rl/py.typed").exists()


def test_the_command_is_installed_by_its_name() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"spark-rl": "spark_rl.cli:main"}


def test_the_list_of_settings_is_the_one_the_code_has() -> None:
    written = Path(__file__).parents[1] / "docs" / "configuration.md"
    assert written.read_text(encoding="utf-8") == settings_markdown(), "run `make docs`"
