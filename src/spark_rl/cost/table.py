"""What a measurement found, as tables for the terminal and for Markdown, with the paper's Table 7 beside it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import rich.table

from spark_rl.cost.estimate import ASSUMED, Estimate
from spark_rl.cost.record import RM, SPARK, Arm, Cost, Phase
from spark_rl.report.notation import DASH

PHASES = (
    ("preferences", "sample", "pairs: sampling"),
    ("preferences", "verify", "pairs: verifying"),
    ("reward model", "train", "reward model: training"),
    ("reinforcement learning", "sample", "sampling"),
    ("reinforcement learning", "verify", "verifying"),
    ("reinforcement learning", "score", "reward model: scoring"),
    ("reinforcement learning", "update", "update"),
    ("reinforcement learning", "recycle", "recycling"),
)
"""(stage, phase, what the row is called)."""

SCORES = (
    ("policy_accuracy", "first answers right"),
    ("tts_accuracy", "with test-time scaling, judged in words"),
    ("judge_accuracy", "judge in words, own answers"),
    ("judge_same_accuracy", "judge in words, the same responses"),
    ("pairwise_accuracy", "judge in words, the same pairs"),
    ("rm_judge_accuracy", "reward model, the policy's answers"),
    ("rm_judge_same_accuracy", "reward model, the same responses"),
    ("rm_pairwise_accuracy", "reward model, the same pairs"),
)


VALUES: tuple[Callable[[Phase], float], ...] = (
    lambda phase: phase.seconds,
    lambda phase: phase.generated,
    lambda phase: phase.flops / 1e9,
)
"""What is shown of a phase: seconds, generated tokens, GFLOP."""


@dataclass(frozen=True, slots=True)
class Table:
    """Text in rows and columns."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def rich(self) -> rich.table.Table:
        """For the terminal."""
        table = rich.table.Table(title=self.title, title_justify="left")
        for number, name in enumerate(self.head):
            table.add_column(name, justify="left" if number == 0 else "right")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For a page."""
        lines = [self.head, ("---",) * len(self.head), *self.rows]
        return f"{self.title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def tables(cost: Cost, estimates: Sequence[Estimate] = ()) -> list[Table]:
    """All tables of a measurement, in the order in which they are shown."""
    found = [phase_table(cost), paper_table(cost), *(score_table(cost, exam) for exam in cost.before)]
    return [*found, estimate_table(estimates)] if estimates else found


def markdown(cost: Cost, estimates: Sequence[Estimate]) -> str:
    """The page: the tables, and what the last of them assumes."""
    texts = [table.markdown() for table in tables(cost, estimates)]
    assumed = ["Assumed:\n", *(f"- {line}" for line in ASSUMED)] if estimates else []
    return "\n".join([*texts, *assumed]).rstrip("\n") + "\n"


def phase_table(cost: Cost) -> Table:
    """Seconds, generated tokens and operations of every phase and of their sums; means of the repeats."""

    rows = [(title, *_cells(cost, partial(_phases, stage=stage, name=name))) for stage, name, title in PHASES]
    rows += [
        ("all of RL", *_cells(cost, lambda arm: list(arm.learning.phases))),
        ("all stages", *_cells(cost, lambda arm: [phase for stage in arm.stages for phase in stage.phases])),
    ]
    for title, learning in (("SPARK / RM, RL", True), ("SPARK / RM, all", False)):
        ratios = (cost.ratio(what, learning=learning) for what in ("seconds", "generated", "flops"))
        rows.append((title, *(cell for ratio in ratios for cell in ("", _times(ratio)))))
    head = ("", *(f"{arm} {unit}" for unit in ("s", "tokens", "GFLOP") for arm in ("RM", "SPARK")))
    counts = [f"{count} {what}{'s' * (count != 1)}" for count, what in
              ((cost.steps, "step"), (len(cost.arms[RM]), "repeat"))]  # fmt: skip
    return Table(f"Cost by phase, {counts[0]}, mean of {counts[1]}", head, tuple(rows))


def paper_table(cost: Cost) -> Table:
    """The four rows of Table 7, what was measured of each, and memory."""
    rm, spark = cost.arms[RM], cost.arms[SPARK]
    pairs = statistics.mean(sum(stage.pairs for stage in arm.stages) for arm in rm)
    whole, learning = cost.ratio("flops"), cost.ratio("flops", learning=True)
    rows = [
        ("extra data (preference pairs)", "yes", "no", _number(pairs), "0"),
        ("extra training of a reward model, s", "yes", "no", _number(_seconds(rm, "reward model")), "0"),
        ("operations of the whole, SPARK = 1", "~2 (GPU cost)", "1 (GPU cost)", _inverse(whole), "1"),
        ("operations of RL, SPARK = 1", DASH, DASH, _inverse(learning), "1"),
        ("a response's reward, ms", "RM inference, slower", "rule-based, faster", _reward_ms(rm), _reward_ms(spark)),
        ("stages before RL", "1", "0", str(len(rm[0].extra)), str(len(spark[0].extra))),
        ("models in memory", DASH, DASH, ", ".join(rm[0].models), ", ".join(spark[0].models)),
        ("their weights, MiB", DASH, DASH, _weights(rm), _weights(spark)),
        ("peak memory, MiB", DASH, DASH, _peak(rm), _peak(spark)),
        ("peak memory in RL, MiB", DASH, DASH, _peak(rm, -1), _peak(spark, -1)),
    ]
    head = ("", "paper, RM-based RL", "paper, SPARK", "measured, RM-based RL", "measured, SPARK")
    return Table("The paper's Table 7, and what was measured", head, tuple(rows))


def score_table(cost: Cost, exam: str) -> Table:
    """What both arms reached on an exam, percent, mean of the repeats."""
    rows = []
    for name, title in SCORES:
        after = [[arm.scores[exam].get(name) for arm in cost.arms[which]] for which in (RM, SPARK)]
        rows.append((title, _percent([cost.before[exam].get(name)]), *map(_percent, after)))
    return Table(f"Problems of {exam}, percent", ("", "base", "RM-based RL", "SPARK"), tuple(rows))


def estimate_table(estimates: Sequence[Estimate]) -> Table:
    """The arithmetic of larger models, one column each."""
    rows: list[tuple[str, Callable[[Estimate], str]]] = [
        ("GPUs", lambda e: f"{e.gpus} x {e.gpu}"),
        ("steps", lambda e: f"{e.steps:,}"),
        ("reward model's weights beside the policy, GiB", lambda e: f"{e.rm_gib:.1f}, {e.rm_gib / e.gpus:.1f} a GPU"),
        ("reward model in training, GiB",
         lambda e: f"{e.rm_training_gib:.0f}, {e.rm_training_gib / e.gpus:.1f} a GPU"),
        ("scoring, a step", lambda e: f"{e.score_pflop:.2f} PFLOP, {e.score_seconds:.1f} s"),
        ("a step of RM-based RL", lambda e: f"{e.rm_step_pflop:.1f} PFLOP, {e.rm_step_seconds:.1f} s"),
        ("a step of SPARK", lambda e: f"{e.spark_step_pflop:.1f} PFLOP, {e.spark_step_seconds:.1f} s"),
        ("pairs, reward model", lambda e: f"{e.preferences_pflop:,.0f} + {e.training_pflop:,.0f} PFLOP, "
                                          f"{e.extra_hours:.1f} h"),
        ("GPU hours, RM-based RL", lambda e: f"{e.rm_gpu_hours:,.0f}"),
        ("GPU hours, SPARK", lambda e: f"{e.spark_gpu_hours:,.0f}"),
        ("SPARK / RM-based RL", lambda e: _times(e.ratio)),
    ]  # fmt: skip
    head = ("", *(e.model.rpartition("/")[2] for e in estimates))
    lines = tuple((title, *(of(e) for e in estimates)) for title, of in rows)
    return Table("By arithmetic, not run", head, lines)


def _phases(arm: Arm, stage: str, name: str) -> list[Phase]:
    return [phase for found in arm.stages if found.name == stage for phase in found.phases if phase.name == name]


def _cells(cost: Cost, of: Callable[[Arm], list[Phase]]) -> tuple[str, ...]:
    """Seconds, tokens and GFLOP of some phases, each of RM-based RL and of SPARK, means of the repeats."""
    return tuple(
        _number(statistics.mean(sum(map(value, of(arm))) for arm in cost.arms[name]))
        for value in VALUES
        for name in (RM, SPARK)
    )


def _seconds(arms: Sequence[Arm], stage: str) -> float:
    return statistics.mean(sum(found.seconds for found in arm.stages if found.name == stage) for arm in arms)


def _reward_ms(arms: Sequence[Arm]) -> str:
    """Milliseconds that a response of reinforcement learning waited for its reward."""
    phases = [phase for arm in arms for phase in arm.learning.phases if phase.name in {"verify", "score"}]
    graded = sum(phase.graded for phase in phases)
    return f"{1000 * sum(phase.seconds for phase in phases) / graded:.2f}" if graded else DASH


def _weights(arms: Sequence[Arm]) -> str:
    return f"{sum(arms[0].models.values()) / 2**20:.1f}"


def _peak(arms: Sequence[Arm], *last: int) -> str:
    """Mean over the repeats of the peak of all stages, or of those numbered."""
    peaks = [[stage.peak for stage in ([arm.stages[i] for i in last] or arm.stages)] for arm in arms]
    known = [max(p for p in found if p is not None) for found in peaks if any(p is not None for p in found)]
    return f"{statistics.mean(known):,.0f}" if known else DASH


def _percent(values: Sequence[float | None]) -> str:
    known = [100 * value for value in values if value is not None]
    if not known:
        return DASH
    mean = f"{statistics.mean(known):.1f}"
    return f"{mean} ± {statistics.stdev(known):.1f}" if len(known) > 1 else mean


def _number(value: float) -> str:
    """Short, and empty where there is nothing."""
    return "" if value == 0 else f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _times(ratio: float | None) -> str:
    return DASH if ratio is None else f"{ratio:.2f}x"


def _inverse(ratio: float | None) -> str:
    return DASH if not ratio else f"{1 / ratio:.2f}"
