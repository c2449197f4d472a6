"""Calling reward functions: what they are given, and that one that fails harms nobody."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from running import ENVIRONMENT
from spark_rl.config import RewardConfig, load_config
from spark_rl.errors import ConfigError
from spark_rl.problem import Problem
from spark_rl.rewards import RewardSet, WeightedReward, load_function, load_rewards
from spark_rl.rewards.call import LIMIT
from spark_rl.rewards.load import check_files

FUNCTIONS = Path(__file__).parent / "functions.py"
FAILURES = {
    "raises": "ValueError: no luck today (functions.py line ",
    "leaves": "SystemExit: 3 (functions.py line ",
    "hangs": "it took longer than reward.timeout (0.3 s)",
    "sleeps": "it took longer than reward.timeout (0.3 s)",
    "waits": "it took longer than reward.timeout (0.3 s)",
    "blocks": "it took longer than reward.timeout (0.3 s)",
    "nan": "it gave 3 of 3 responses no usable number: nan",
    "nothing": "it returned None for every response, and nothing else graded them",
    "short": "it returned 1 values for 3 completions",
    "words": "it gave 3 of 3 responses no usable number: 'good'",
    "none": "it returned a value of type NoneType, not a list of numbers",
    "lazy": "it returned a value of type generator, not a list of numbers",
    "rude": "RudeError (functions.py line ",
    "interrupts": "KeyboardInterrupt (functions.py line ",
}
"""Function of functions.py -> what is said of it."""


def function(name: str) -> Any:
    return load_function(f"{FUNCTIONS}:{name}")


def problem(number: int = 0, **fields: Any) -> Problem:
    return Problem(f"p-{number}", f"{number}?", "42", **fields)


class Opened:
    """Reward sets that are closed in the end, and what they said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.sets: list[RewardSet] = []

    def __call__(self, *functions: Any, timeout: float = 20.0) -> RewardSet:
        self.sets.append(RewardSet(load_rewards(RewardConfig(), functions), timeout, self.said.append))
        return self.sets[-1]


@pytest.fixture
def opened() -> Iterator[Opened]:
    opened = Opened()
    yield opened
    for rewards in opened.sets:
        rewards.close()


def score(rewards: RewardSet, *texts: str, **options: Any) -> list[Any]:
    texts = texts or ("a", "b", "c")
    problems = [problem(number) for number in range(len(texts))]
    return rewards.score(problems, [f"ask {p.question}" for p in problems], texts, [(1, 2)] * len(texts), **options)


# --- what a function is given ---------------------------------------------------------------------------------------


def test_a_function_gets_what_it_names_and_with_kwargs_everything(opened: Opened) -> None:
    seen: dict[str, Any] = {}

    def names(completions: list[str], level: list[Any], absent: str = "default") -> list[float]:
        seen["names"] = (completions, level, absent)
        return [0.0, 1.0]

    def everything(prompts: list[str], **columns: Any) -> list[float]:
        seen["everything"] = {"prompts": prompts, **columns}
        return [0.0, 1.0]

    problems = [
        problem(0, columns={"level": 3, "answer": "a worked one", "tags": ["x"]}),
        problem(1, columns={"level": 4}, task="reflection", prompt="again"),
    ]
    opened(names, everything).score(problems, ["ask 0?", "again"], ["a", "b"], [(1,), (2, 3)])
    assert seen["names"] == (["a", "b"], [3, 4], "default")
    assert seen["everything"] == {
        "prompts": ["ask 0?", "again"], "completions": ["a", "b"], "completion_ids": [[1], [2, 3]],
        "question": ["0?", "1?"], "answer": ["42", "42"], "id": ["p-0", "p-1"], "task": ["policy", "reflection"],
        "level": [3, 4], "tags": [["x"], None],
    }  # fmt: skip


def test_images_are_given_where_there_are_any(opened: Opened) -> None:
    seen: list[Any] = []
    rewards = opened(lambda completions, images=None: seen.append(images) or [1.0] * len(completions))
    rewards.score([problem(images=("a.png",)), problem(1)], ["?", "?"], ["x", "y"])
    rewards.score([problem()], ["?"], ["x"])
    assert seen == [[["a.png"], []], None]


def test_what_a_function_changes_is_its_own(opened: Opened) -> None:
    def spoils(completions: list[str], tags: list[Any]) -> list[float]:
        completions.clear()
        tags[0].append("spoilt")
        return [1.0]

    row = problem(columns={"tags": ["x"]})
    seen: list[Any] = []
    rewards = opened(spoils, lambda completions, tags: seen.append((completions, tags)) or [1.0])
    rewards.score([row], ["?"], ["a"])
    assert seen == [(["a"], [["x"]])]
    assert row.columns == {"tags": ["x"]}


def test_a_missing_column_is_told_before_anything_is_asked(opened: Opened) -> None:
    rewards = opened(lambda completions, level: [1.0])
    with pytest.raises(ConfigError, match="needs 'level', which is no column of the data; there are: prompts,"):
        rewards.check([problem()])
    rewards.check([problem(), problem(1, columns={"level": 2})])
    (one,) = rewards.score([problem()], ["?"], ["a"])
    assert one.values == {"<lambda>": 1.0}, "a batch without the column has None in it"


@pytest.mark.parametrize(
    "values",
    [(1, 0.5, True), [1.0, 0.5, 1], np.array([1.0, 0.5, 1.0]), torch.tensor([1.0, 0.5, 1.0]),
     [np.float32(1.0), torch.tensor(0.5), np.int64(1)]],
    ids=["tuple", "list", "array", "tensor", "scalars"],
)  # fmt: skip
def test_numbers_of_any_kind_are_numbers(opened: Opened, values: Any) -> None:
    assert [s.values["f"] for s in score(opened(WeightedReward(lambda completions: values, name="f")))] == [1, 0.5, 1]


# --- async ----------------------------------------------------------------------------------------------------------


def test_async_functions_of_one_batch_run_at_the_same_time(opened: Opened) -> None:
    meeting = threading.Barrier(2, timeout=10)

    async def meets(completions: list[str]) -> list[float]:
        await asyncio.to_thread(meeting.wait)
        return [1.0] * len(completions)

    class Meets:
        async def __call__(self, completions: list[str]) -> list[float]:
            return await meets(completions)

    assert [s.values for s in score(opened(meets, Meets()), "a")] == [{"meets": 1.0, "Meets": 1.0}]
    assert not opened.said


def test_an_async_function_keeps_its_loop_so_that_clients_go_on_working(opened: Opened) -> None:
    loops: list[Any] = []

    async def remembers(completions: list[str]) -> list[float]:
        loops.append(asyncio.get_running_loop())
        return [1.0] * len(completions)

    rewards = opened(remembers)
    score(rewards), score(rewards)
    assert loops[0] is loops[1]
    rewards.close()
    assert loops[0].is_closed()


def test_functions_are_called_inside_of_a_running_loop_as_in_a_notebook(opened: Opened) -> None:
    async def cell() -> list[Any]:
        rewards = opened(function("half"), partial(function("exact"), answer=["x"] * 3))
        found = score(rewards)
        rewards.close()
        return found

    assert [s.values["half"] for s in asyncio.run(cell())] == [0.5] * 3


# --- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAILURES)
def test_one_that_fails_is_named_and_takes_nothing_from_the_others(opened: Opened, name: str) -> None:
    rewards = opened(function("half"), function(name), timeout=0.3)
    found = score(rewards, alone=name != "nothing")
    assert [s.values["half"] for s in found] == [0.5] * 3
    if name == "nothing":
        assert not any(s.failed for s in found), "it does not apply, and the others do"
        return
    assert [s.failed for s in found] == [(name,)] * 3
    assert [s.values[name] for s in found] == [None] * 3
    (said,) = opened.said
    assert said.startswith(f"the reward function {name} failed: {FAILURES[name]}")
    assert said.endswith(f"the run goes on, and reward_failed/{name} counts")
    assert "\n" not in said


def test_alone_a_function_that_never_applies_has_failed(opened: Opened) -> None:
    assert [s.failed for s in score(opened(function("nothing")))] == [("nothing",)] * 3
    assert FAILURES["nothing"] in opened.said[0]
    assert [s.failed for s in score(opened(function("nothing")), alone=False)] == [()] * 3


def test_a_value_that_is_no_number_spoils_its_own_response_only(opened: Opened) -> None:
    found = score(opened(function("first_is_infinite"), function("half")))
    assert [(s.spoilt, s.failed) for s in found] == [(True, ("first_is_infinite",)), (False, ()), (False, ())]
    measured = opened(WeightedReward(function("first_is_infinite"), 0.0), function("half"))
    assert not any(s.spoilt for s in score(measured)), "one that is only measured spoils nothing"
    (said, _) = opened.said
    assert "it gave 1 of 3 responses no usable number: inf" in said
    assert [s.spoilt for s in score(opened(lambda completions: [LIMIT, -LIMIT, 2 * LIMIT]))] == [False, False, True]


def test_failures_are_said_once_and_a_hint_follows_after_three_in_a_row(opened: Opened) -> None:
    turns = iter("x.xx.xxxx")

    def moody(completions: list[str]) -> list[float]:
        if next(turns) == "x":
            raise ValueError("bad mood")
        return [1.0] * len(completions)

    rewards = opened(moody)
    told = []
    for _ in range(9):
        score(rewards)
        told.append(len(opened.said))
    assert told == [1, 1, 1, 1, 1, 1, 1, 2, 2]
    assert opened.said[1].startswith("the reward function moody has failed 3 times in a row, last: ValueError: bad")
    assert "--resume" in opened.said[1]


def test_a_function_that_hangs_is_ended_and_called_again(opened: Opened) -> None:
    before = set(threading.enumerate())
    rewards = opened(function("hangs"), function("blocks"), function("waits"), timeout=0.2)
    for _ in range(2):
        score(rewards)
    assert set(threading.enumerate()) <= before, "no thread is left behind"


def test_one_that_sleeps_beyond_its_time_is_not_called_twice_at_once(opened: Opened) -> None:
    turns = []

    def slow(completions: list[str]) -> list[float]:
        turns.append(time.monotonic())
        if len(turns) == 1:
            time.sleep(1.5)
        return [1.0] * len(completions)

    rewards = opened(slow, timeout=0.2)
    assert score(rewards)[0].failed == ("slow",)
    assert score(rewards)[0].failed == ("slow",), "it still sleeps"
    assert len(turns) == 1
    time.sleep(1.2)
    assert score(rewards)[0].values == {"slow": 1.0}
    assert len(turns) == 2


# --- loading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "spec", "said"),
    [
        ("", "{file}", "must be FILE.py:NAME, a Python file and what it defines"),
        ("", "mine:reward", "must be FILE.py:NAME"),
        ("", "{folder}/other.py:reward", "there is no file {folder}/other.py"),
        ("def a(): ...\ndef b(): ...", "{file}:c", "mine.py has no 'c'; it defines: a, b"),
        ("from math import pi", "{file}:e", "mine.py has no 'e'; it defines: nothing"),
        ("pi = 3", "{file}:pi", "pi is no function but a value of type int"),
        ("def f(): ...\n1 / 0", "{file}:f", "can't be imported: ZeroDivisionError: division by zero (mine.py line 2)"),
        ("import nowhere_at_all", "{file}:f", "ModuleNotFoundError: No module named 'nowhere_at_all' (mine.py line 1)"),
        ("def f(:", "{file}:f", "mine.py can't be imported: SyntaxError: invalid syntax (mine.py line 1)"),
        ("exit()", "{file}:f", "mine.py can't be imported: SystemExit"),
        ("def f(a, /): ...", "{file}:f", "the reward f must take 'a' by its name; remove the '/' behind it"),
    ],
)  # fmt: skip
def test_what_can_not_be_loaded_is_one_line(tmp_path: Path, content: str, spec: str, said: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_function(spec.format(file=file, folder=tmp_path))
    assert said.format(folder=tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_relative_to_where_the_command_runs_and_imports_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_neighbour_of_mine.py").write_text("VALUE = 0.25")
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom a_neighbour_of_mine import VALUE\n@dataclass\nclass A:\n    x: int\n"
        "def f(completions): return [VALUE for _ in completions]\ndef g(completions): return f(completions)"
    )
    monkeypatch.chdir(tmp_path)
    config = load_config(None, ["reward.function=[mine.py:f, {path: mine.py:g, weight: 3}, ./mine.py:f]"])
    rewards = load_rewards(config.reward)
    assert [(reward.called, reward.weight) for reward in rewards] == [("f", 1.0), ("g", 3.0), ("f-2", 1.0)]
    assert rewards[0].function(completions=["x"]) == [0.25]
    assert rewards[0].function.__globals__ is rewards[1].function.__globals__, "one file is run once"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["reward.verifier=0"], "reward.verifier is 0 and there is no reward.function"),
        ([f"reward.function=[{{path: {FUNCTIONS}:half, weight: 0}}]"], "every weight of reward.function is 0"),
        (["reward.function=[{path: a.py:f, weight: -1}]"], "weight: input should be greater than or equal to 0"),
        (["reward.function=[{file: a.py:f}]"], "reward.function.0.path: field required"),
        (["reward.timeout=0"], "reward.timeout: input should be greater than 0"),
    ],
)
def test_settings_that_can_not_work_are_one_line(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_rewards(load_config(None, overrides).reward)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given", [3, WeightedReward(lambda **_: [], -1.0), WeightedReward(lambda **_: [], float("nan"))]
)
def test_what_python_gives_is_checked_too(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"a reward must be a function|must be a number of at least 0"):
        load_rewards(RewardConfig(), [given])


def test_files_are_looked_for_before_anything_is_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit")
    check_files(load_config(None, [f"reward.function=[{tmp_path}/mine.py:f]"]).reward)
    with pytest.raises(ConfigError, match="there is no file"):
        check_files(load_config(None, [f"reward.function=[{tmp_path}/mine.py:f, gone.py:f]"]).reward)


def test_an_interrupt_ends_the_wait_at_once() -> None:
    program = (
        "import signal, threading\n"
        "from spark_rl.rewards import RewardSet, WeightedReward\n"
        "from spark_rl.problem import Problem\n"
        "def hangs(completions):\n"
        "    print('called', flush=True)\n"
        "    while True: pass\n"
        "RewardSet([WeightedReward(hangs)], 600).score([Problem('p', '?', '1')], ['?'], ['x'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "called\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
