"""A base model without a chat template, taught each task by examples of its own: training, solving and evaluation."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from running import BASE, SMALL, reasoner_of
from spark_rl import Problem, load_config
from spark_rl.backend import Backend, open_backend
from spark_rl.chat import Prompt
from spark_rl.clock import Clock
from spark_rl.engine.base import Sampling
from spark_rl.evals.ask.exam import exam_of_problems
from spark_rl.evals.ask.runner import Examiner
from spark_rl.model.places import EMBEDDED
from spark_rl.problem import TASKS, Completion, Task
from spark_rl.rollout import Sampler
from spark_rl.verify import Verifier

EXAMPLES: dict[Task, str] = {task: f"An example of {task}.\n" for task in TASKS}
STOPS: dict[Task, tuple[str, ...]] = {task: (f"end of {task}",) for task in TASKS}
PROBLEMS = [Problem("p", "5?2?7=10", "++", kind="exact"), Problem("q", "1?2?3=6", "++", kind="exact")]


class Watched:
    """A real engine whose prompts are kept; its answers hold a box, so that every one can be judged."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.prompts, self.version = engine, [], 0

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        self.prompts += prompts
        found = self.engine.generate(prompts, sampling)
        return [[replace(c, text=f"work \\boxed{{{'+-'[i % 2]}}}") for i, c in enumerate(group)] for group in found]


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    folder = tmp_path_factory.mktemp("base") / "model"
    shutil.copytree(EMBEDDED[BASE], folder)
    (folder / "chat_template.jinja").unlink()
    chat = {"few_shot": EXAMPLES, "stop": STOPS}
    found = open_backend(load_config("tiny", SMALL, model={"path": str(folder)}, chat=chat))
    assert found.loaded.tokenizer.chat_template is None
    return found


def tasks_of(prompts: Sequence[Prompt]) -> set[str]:
    """The tasks asked for; each prompt begins with the examples of one, and ends as that one ends."""
    found = set()
    for prompt in prompts:
        assert prompt.text.count("An example of") == 1
        (task,) = (t for t in TASKS if prompt.text.startswith(EXAMPLES[t]))
        assert prompt.stop == STOPS[task]
        assert (task == "policy") == ("solve " in prompt.text)
        found.add(task)
    return found


def test_training_asks_recycled_tasks_with_their_own_examples(backend: Backend) -> None:
    engine: Any = Watched(backend.engine)
    with Verifier() as verifier:
        sampler = Sampler(engine, backend.chat, verifier, backend.config.rollout)
        groups = sampler.sample(PROBLEMS, 0, Clock()).groups
        recycled = [replace(groups[0].problem, id=f"r{task}", task=task, prompt=f"{task} 1?") for task in TASKS[1:]]
        assert len(sampler.sample(recycled, 1, Clock()).groups) == 3, "one call, three tasks"
    assert tasks_of(engine.prompts) == set(TASKS)


def test_solving_asks_each_role_with_its_own_examples(backend: Backend) -> None:
    engine: Any = Watched(backend.engine)
    reasoner = replace(reasoner_of(backend), engine=engine)
    reasoner.solve(PROBLEMS)
    reasoner.compare(PROBLEMS, [("\\boxed{+}", "\\boxed{-}")] * 2)
    assert tasks_of(engine.prompts) == set(TASKS)


def test_evaluation_asks_and_shows_the_examples(backend: Backend) -> None:
    engine: Any = Watched(backend.engine)
    config = backend.config.inference.model_copy(update={"rounds": 1})
    reasoner = replace(reasoner_of(backend), engine=engine, config=config)
    with Verifier() as verifier:
        (rows,) = Examiner(reasoner, verifier, 500).ask(exam_of_problems("two", PROBLEMS))
    assert tasks_of(engine.prompts) == {"policy", "pointwise", "reflection"}
    assert [row["prompt"] for row in rows] == [f"{EXAMPLES['policy']}solve {p.question}" for p in PROBLEMS]
