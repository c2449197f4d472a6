"""The paper's arms side by side: several configurations of the one loop, each with several seeds (Tables 1, 2 and 5).

Each is a process of its own (:mod:`spark_rl.matrix`): what is finished is not run again, and what was cut off is
resumed, so an ablation can be stopped and continued like a single run. The page is written anew after each of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from spark_rl.config import PRESETS, Config, load_config
from spark_rl.errors import ConfigError
from spark_rl.matrix import Job, Outcome, Result, on_one_thread, room, run_matrix
from spark_rl.report.ablation import ArmTable, write_ablation_report
from spark_rl.report.arms import Arms

ARMS: Mapping[str, Mapping[str, Any]] = {
    "policy-only": {"recycle": {"preset": "policy-only", **PRESETS["policy-only"]}},
    "reward-only": {
        "recycle": {"preset": "policy-and-reward", **PRESETS["policy-and-reward"]},
        "train": {"policy_update": False},
    },
    "policy-and-reward": {"recycle": {"preset": "policy-and-reward", **PRESETS["policy-and-reward"]}},
    "spark": {},
}
"""Arm name -> the settings in which it differs from the recipe, spelled out to win over what the recipe spells out."""

FORMS: Mapping[str, Mapping[str, Any]] = {
    "spark-answer": {"recycle": {"form": "answer"}},
    "spark-cot": {"recycle": {"form": "cot"}},
}
"""The arms of Table 6, beside ``spark``, which mixes both forms."""

MEASURES = {
    "policy_accuracy": "policy",
    "judge_accuracy": "judge",
    "judge_balanced_accuracy": "judge balanced",
    "judge_f1": "judge F1",
    "pairwise_accuracy": "pairwise",
    "reflection_fix": "fix",
    "reflection_break": "break",
    "tts_accuracy": "with TTS",
}
"""Scores shown, and their column heads; ``gain of TTS`` is computed beside them."""


def ablate(
    recipe: str | None,
    arms: Sequence[str],
    seeds: Sequence[int],
    folder: Path,
    overrides: Sequence[str],
    watcher: Arms | None = None,
    at_once: int | None = None,
) -> dict[str, list[Result]]:
    """Train every arm with every seed and write ``report.html`` into ``folder``, after each run with what is known so
    far; arm -> one ``summary.json`` content a seed, in the order of the seeds.

    ``at_once`` runs are made at a time, by default as many as there is room for.

    Raises:
        ConfigError: a setting is wrong, or there is nothing to compare on.
        UserError: a run failed, because ``folder`` holds one that was made with other settings, say.
    """
    jobs = {(arm, seed): Job(f"{arm}, seed {seed}", arm, arm_config(recipe, arm, seed, folder, overrides))
            for arm in arms for seed in seeds}  # fmt: skip
    first = next(iter(jobs.values())).config
    if first.data.heldout is None:
        raise ConfigError("without held-out problems there is nothing to compare; set data.heldout")

    def known(outcome: Outcome) -> dict[str, list[Result]]:
        found: dict[str, list[Result]] = {}
        for (arm, _), job in jobs.items():
            if job.label in outcome.results:
                found.setdefault(arm, []).append(outcome.results[job.label])
        return found

    def write_page(outcome: Outcome) -> None:
        if results := known(outcome):
            _write_page(folder, results)

    outcome = run_matrix(list(jobs.values()), at_once or room(first), watcher, write_page)
    outcome.check()
    return known(outcome)


def _write_page(folder: Path, results: Mapping[str, Sequence[Result]]) -> None:
    sections = ["heldout", "transfer"] if all("transfer" in s for arm in results.values() for s in arm) else ["heldout"]
    write_ablation_report(folder, results, [compare_arms(results, section) for section in sections])


def arm_config(recipe: str | None, arm: str, seed: int, folder: Path, overrides: Sequence[str]) -> Config:
    """The configuration of one arm with one seed.

    An arm without reflection recycles fewer problems a step, so its second period waits for fewer: every arm that has a
    second period then runs it equally often.
    """
    run_dir = str(folder / f"{arm}-seed{seed}")
    config = on_one_thread(load_config(recipe, overrides, **{**ARMS, **FORMS}[arm], seed=seed, run_dir=run_dir))
    if config.recycle.reflection or not config.recycle.pairwise or config.recycle.judge_cap == 0:
        return config
    ready = min(config.recycle.ready, config.recycle.judge_cap)
    return config.model_copy(update={"recycle": config.recycle.model_copy(update={"ready": ready})})


def scores(summaries: Sequence[Result], when: str, section: str = "heldout") -> dict[str, list[float]]:
    """Measure -> one value a seed, in percent, where it was defined; ``tts_gain`` among them."""
    found: dict[str, list[float]] = {}
    for summary in summaries:
        values = summary[when] if section == "heldout" else summary["transfer"][when]
        for name in MEASURES:
            if values.get(name) is not None:
                found.setdefault(name, []).append(100 * values[name])
        found.setdefault("tts_gain", []).append(100 * (values["tts_accuracy"] - values["policy_accuracy"]))
    return found


def ablation_table(results: Mapping[str, Sequence[Result]], section: str = "heldout") -> Table:
    """:func:`compare_arms` for the terminal."""
    compared = compare_arms(results, section)
    table = Table(*compared.head, title=compared.title, title_justify="left")
    for row in compared.rows:
        table.add_row(*row)
    return table


def compare_arms(results: Mapping[str, Sequence[Result]], section: str = "heldout") -> ArmTable:
    """Measures as rows, the untrained model and the arms as columns: mean and standard deviation over the seeds."""
    seeds = max(map(len, results.values()))
    before = scores([s for summaries in results.values() for s in summaries], "before", section)
    after = {arm: scores(summaries, "after", section) for arm, summaries in results.items()}
    rows: list[tuple[str, ...]] = []
    for name, head in {**MEASURES, "tts_gain": "gain of TTS"}.items():
        sign = "+" if name == "tts_gain" else ""
        base = before.get(name, [])
        cells = (_cell(found.get(name, []), sign) for found in after.values())
        rows.append((head, f"{statistics.mean(base):{sign}.1f}" if base else "–", *cells))
    for cost in ("tokens", "seconds"):
        means = (statistics.mean(s[cost] for s in summaries) for summaries in results.values())
        rows.append((f"{cost} of training", "", *(f"{mean:,.0f}" for mean in means)))
    title = f"{section} problems, percent, mean ± standard deviation over {seeds} seeds"
    return ArmTable(section, title, ("", "base", *results), tuple(rows))


def _cell(values: Sequence[float], sign: str) -> str:
    if not values:
        return "–"
    mean = f"{statistics.mean(values):{sign}.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean
