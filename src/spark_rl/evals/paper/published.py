"""What the paper prints in its Tables 1 to 6: numbers to stand beside ours, never measured here.

Scores are percent, as printed; ``-`` is what the paper leaves empty. Nothing is rounded again or mended: where a
printed average isn't the mean of its printed row, both stand. There is one: Table 5, Policy-Only with TTS, prints 56.6
where its row has 56.67 (digits that the paper rounded away could explain it, as they move a mean by up to 0.05). The
paper never says how Avg-M, Avg-R and Avg-All are made; its rows fit plain means of the mathematics columns, of the
reward columns (the mathematics subsets count as full members) and of all columns. An average with a missing member is
not printed.

What the paper doesn't say is kept as unknown: whether a row was made with test-time scaling (``tts``), except where
Table 5 sets a row against its twin with it. The released script of SPARK-VL-7B does run test-time scaling, and Table 5
repeats its row of Table 1, so that row probably holds it.

Departures: models carry their section's name ("+ Policy-Only" of the paper is "Qwen2.5-VL-7B + GRPO Policy-Only"), and
benchmarks the spelling of their own sites, one spelling in all tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PAPER = "arXiv 2509.22624"

Scores = tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table, and where our results hold the same thing."""

    title: str
    benchmark: str
    """Our name of the benchmark."""
    part: str | None = None
    """The breakdown that holds it, or ``None`` for the headline."""
    instead: Mapping[str, str] = field(default_factory=dict)
    """Protocol of a sheet -> protocol of the benchmark that fills this column there, where it isn't the same. The first
    is the one that the paper's number compares with."""


@dataclass(frozen=True, slots=True)
class Average:
    """The plain mean of some columns."""

    title: str
    of: tuple[str, ...]
    """Titles of its columns."""


@dataclass(frozen=True, slots=True)
class Published:
    """One row as printed."""

    table: int
    model: str
    scores: Scores
    """Percent, one for each of the table's columns."""
    averages: Scores
    """Percent, one for each of the table's averages, as printed."""
    tts: bool | None = None
    """Test-time scaling; ``None`` where the paper doesn't say."""


@dataclass(frozen=True, slots=True)
class PaperTable:
    """One of the paper's tables."""

    number: int
    title: str
    columns: tuple[Column, ...]
    averages: tuple[Average, ...]
    rows: tuple[Published, ...]
    base: str | None = None
    """The model that the printed differences are taken from: of the last row to this one."""
    differences: Scores = ()
    """The row with a triangle: columns, then averages."""
    protocols: tuple[str, ...] = ("reference",)
    """Protocols of ours that its numbers may stand beside."""
    note: str = ""
    """What to know before comparing."""


_VLM = (
    Column("MathVista", "mathvista"),
    Column("MathVision", "mathvision"),
    Column("WeMath", "wemath"),
    Column("MathVerse", "mathverse"),
    Column("DynaMath", "dynamath"),
    Column("LogicVista", "logicvista"),
    Column("MMK12", "mmk12"),
)
_LLM = (
    Column("AIME24", "aime24"),
    Column("AIME25", "aime25"),
    Column("AMC23", "amc23"),
    Column("GSM8K", "gsm8k"),
    Column("MATH-500", "math500"),
    Column("MMLU-STEM", "mmlu_stem"),
)
# The paper asks the reward sets "the official evaluation prompts"; RewardBench 2 has no scorer but the official one.
_RB2_BY = {"reference": "official", "rule": "official"}
_RB2 = (
    Column("RB2", "rewardbench2", instead=_RB2_BY),
    Column("RB2-Math", "rewardbench2", "subset/math", _RB2_BY),
)
_VLRB_BY = {"reference": "official"}
_VLRB = (
    Column("VL-RB", "vl_rewardbench", instead=_VLRB_BY),
    Column("VL-RB-Math", "vl_rewardbench", "group/reasoning", _VLRB_BY),
)
ANY_JUDGE = "any judge"
"""In :attr:`Column.instead`: the one protocol that asks a judge, if there is no other."""
_GENERAL = (
    Column("MMBench", "mmbench"),
    Column("MMStar", "mmstar"),
    Column("MMMU", "mmmu"),
    Column("MM-Vet", "mmvet", instead={"rule": ANY_JUDGE}),
    Column("ScienceQA", "scienceqa"),
    Column("POPE", "pope"),
    Column("SEED-Bench", "seedbench"),
    Column("RealWorldQA", "realworldqa"),
)


def _averages(maths: tuple[Column, ...], reward: tuple[Column, ...]) -> tuple[Average, ...]:
    m, r = (tuple(column.title for column in part) for part in (maths, reward))
    return Average("Avg-M", m), Average("Avg-R", r), Average("Avg-All", m + r)


def _numbers(text: str) -> Scores:
    return tuple(None if word == "-" else float(word) for word in text.split())


def _rows(number: int, columns: int, text: str, tts: Mapping[str, bool]) -> tuple[Published, ...]:
    """Rows written as ``model | columns | averages``."""
    rows = []
    for line in text.strip().splitlines():
        model, scores, averages = (part.strip() for part in line.split("|"))
        rows.append(Published(number, model, _numbers(scores), _numbers(averages), tts.get(model)))
        assert len(rows[-1].scores) == columns, line
    return tuple(rows)


_TTS = {
    "Qwen2.5-VL-7B": False,
    "Qwen2.5-VL-7B + TTS": True,
    "Qwen2.5-VL-7B + GRPO Policy-Only": False,
    "Qwen2.5-VL-7B + GRPO Policy-Only + TTS": True,
}
"""As Table 5 has it."""

TABLES: tuple[PaperTable, ...] = (
    PaperTable(
        1, "SPARK-VL-7B on mathematics and reward benchmarks", _VLM + _RB2 + _VLRB, _averages(_VLM, _RB2 + _VLRB),
        _rows(1, 11, """
        Qwen2.5-VL-7B                      | 68.2 25.1 62.1 49.2 53.3 40.4 45.1  45.8 38.8 47.7 35.5 | 49.1 42.0 46.5
        OpenVLThinker-7B                   | 70.2 25.3 64.3 47.9 -    -    60.6  48.5 37.3 33.2 33.1 | -    38.0 -
        Vision-R1-7B                       | 73.5 27.4 75.0 52.4 54.9 37.1 36.7  32.6 28.1 -    -    | 51.0 -    -
        R1-OneVision-7B                    | 64.1 29.9 61.8 47.1 -    39.1 39.8  35.7 33.1 37.6 37.4 | -    36.0 -
        VL-ReThinker-7B                    | 73.7 28.4 67.9 54.0 57.3 42.7 64.9  42.3 35.0 47.1 32.5 | 55.6 39.2 49.6
        MM-Eureka-7B                       | 73.0 26.9 66.1 50.3 56.9 48.9 64.5  44.9 41.0 48.8 36.8 | 55.2 42.9 50.7
        Qwen2.5-VL-7B + GRPO Policy-Only   | 72.0 28.5 67.9 51.2 54.9 44.9 66.9  46.1 40.4 51.5 62.1 | 55.2 50.0 53.3
        Qwen2.5-VL-7B + GRPO Reward-Only   | 72.1 27.9 67.1 51.0 54.7 44.0 58.8  48.1 39.3 53.9 62.7 | 53.7 51.0 52.7
        Qwen2.5-VL-7B + GRPO Policy&Reward | 74.2 28.9 70.9 51.3 56.3 46.2 67.9  48.9 43.7 54.4 63.9 | 56.5 52.7 55.1
        SPARK-VL-7B                        | 75.9 31.1 70.3 53.0 58.7 50.7 71.8  49.3 39.2 62.7 65.1 | 58.8 54.1 57.1
        """, _TTS),
        "Qwen2.5-VL-7B", _numbers("7.7 6.0 8.2 3.8 5.4 10.3 26.7  3.5 0.4 15.0 29.6  9.7 12.1 10.6"),
    ),
    PaperTable(
        2, "SPARK-7B on mathematics and reward benchmarks", _LLM + _RB2, _averages(_LLM, _RB2),
        _rows(2, 8, """
        Qwen2.5-7B                      | 6.7  6.7  50.0 91.9 76.2 75.8  49.5 41.0 | 51.2 45.3 49.7
        Simple-RL-Zero                  | 16.7 6.7  62.5 92.0 78.0 64.5  31.0 38.7 | 53.4 34.9 48.8
        Eurus-2-7B-PRIME                | 26.7 -    57.8 -    79.2 71.0  -    -    | -    -    -
        Open-Reasoner-Zero-7B           | 13.3 -    47.0 -    79.2 70.3  31.4 37.3 | -    34.4 -
        Qwen2.5-Math                    | 13.3 -    50.6 -    79.8 60.2  -    -    | -    -    -
        Qwen2.5-7B + GRPO Policy-Only   | 6.7  6.7  52.5 92.4 76.0 76.2  48.4 40.4 | 51.8 44.4 49.9
        Qwen2.5-7B + GRPO Reward-Only   | 13.3 3.3  50.0 90.2 73.6 79.3  43.6 40.4 | 51.6 42.0 49.2
        Qwen2.5-7B + GRPO Policy&Reward | 16.7 3.3  50.0 92.7 76.6 80.1  48.3 43.7 | 53.2 46.0 51.4
        SPARK-7B                        | 16.7 6.7  62.5 93.2 79.4 81.1  58.8 55.7 | 56.6 57.3 56.8
        """, {}),
        "Qwen2.5-7B", _numbers("10.0 0.0 12.5 1.3 3.2 5.3  9.3 14.7  5.4 12.0 7.1"),
    ),
    PaperTable(
        3, "SPARK-VL-32B on mathematics and reward benchmarks", _VLM + _RB2 + _VLRB, _averages(_VLM, _RB2 + _VLRB),
        _rows(3, 11, """
        Qwen2.5-VL-32B                      | 74.7 38.4 69.1 48.5 61.3 55.4 52.9  57.0 59.6 59.2 56.0 | 57.2 58.0 57.5
        VL-ReThinker-32B                    | 78.8 40.5 76.7 56.9 62.9 51.8 72.9  53.9 51.8 49.9 23.5 | 62.9 44.8 56.3
        Vision-R1-32B                       | 73.2 35.7 78.9 53.8 62.9 54.2 55.2  53.4 68.9 -    -    | 59.1 -    -
        MM-Eureka-32B                       | 74.8 34.4 73.4 56.5 62.1 53.4 72.2  56.4 58.5 58.3 56.6 | 61.0 57.5 59.7
        Qwen2.5-VL-32B + GRPO Policy&Reward | 78.2 40.2 77.1 57.7 60.9 57.4 72.3  56.3 56.4 57.1 53.6 | 63.4 55.9 60.7
        SPARK-VL-32B                        | 79.1 40.2 76.7 59.2 62.9 59.4 77.4  60.3 62.7 61.4 59.6 | 65.0 61.0 63.5
        """, {}),
        "Qwen2.5-VL-32B", _numbers("4.4 1.8 7.6 10.7 1.6 4.0 24.5  3.3 3.1 2.2 3.6  7.8 3.0 6.0"),
    ),
    PaperTable(
        4, "SPARK-VL-7B on general multimodal benchmarks", _GENERAL,
        (Average("Average", tuple(column.title for column in _GENERAL)),),
        _rows(4, 8, """
        Qwen2.5-VL-7B    | 82.2 64.1 58.0 69.7 89.0 85.9 77.0 68.4 | 74.3
        VL-ReThinker-7B  | 82.3 65.4 59.0 69.3 87.8 86.1 76.3 69.3 | 74.4
        MM-Eureka-7B     | 84.2 65.3 57.8 68.9 88.8 85.8 76.8 65.1 | 74.1
        SPARK-VL-7B      | 84.4 67.3 58.7 71.5 90.8 88.2 77.2 68.5 | 75.8
        """, {}),
        "Qwen2.5-VL-7B", _numbers("2.2 3.2 0.7 1.8 1.8 2.3 0.2 0.1  1.5"),
        protocols=("rule",),
        note="The paper doesn't say how it asked and scored these benchmarks (POPE: F1 is a guess); compare with care.",
    ),
    PaperTable(
        5, "Ablation on test-time scaling", _VLM, (Average("Average", tuple(column.title for column in _VLM)),),
        _rows(5, 7, """
        Qwen2.5-VL-7B                          | 68.2 25.1 62.1 49.2 53.3 40.4 45.1 | 49.1
        Qwen2.5-VL-7B + TTS                    | 68.5 18.4 24.1 29.9 52.7 43.1 42.8 | 39.9
        Qwen2.5-VL-7B + GRPO Policy-Only       | 72.0 28.5 67.9 51.2 54.9 44.9 66.9 | 55.2
        Qwen2.5-VL-7B + GRPO Policy-Only + TTS | 73.1 28.7 67.5 51.9 57.7 48.9 68.9 | 56.6
        SPARK-VL-7B                            | 75.9 31.1 70.3 53.0 58.7 50.7 71.8 | 58.8
        """, _TTS),
    ),
    PaperTable(
        6, "Ablation on answer- and CoT-based data", _VLM + _RB2 + _VLRB, _averages(_VLM, _RB2 + _VLRB),
        _rows(6, 11, """
        SPARK + Ans     | 73.8 29.1 69.0 51.9 58.1 46.2 69.9  47.2 41.8 57.9 63.9 | 56.9 52.7 55.3
        SPARK + CoT     | 73.6 29.7 67.4 50.4 57.3 48.4 71.3  52.5 44.0 62.3 60.8 | 56.9 54.9 56.2
        SPARK + Ans&CoT | 75.9 31.1 70.3 53.0 58.7 50.7 71.8  49.3 39.2 62.7 65.1 | 58.8 54.1 57.1
        """, {}),
    ),
)  # fmt: skip
