from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from spark_rl.report.console import Pace, TrainView, before_after_table, trend
from spark_rl.report.watch import ConsoleWatcher
from window import Window

RECORD: dict[str, Any] = {
    "step": 1, "seconds": 5.9, "tokens": 9000, "tokens_per_second": 1525.0,
    "reward/policy": 0.31, "reward/pointwise": 0.52, "reward/pairwise": 0.47, "reward/reflection": 0.11,
    "status/correct": 0.31, "status/wrong": 0.5, "status/no_answer": 0.15, "status/unparsable": 0.03,
    "status/timeout": 0.01, "label/yes": 0.33, "verdict/yes": 0.87, "label/a": 0.5, "verdict/a": 0.66,
    "entropy": 0.812, "kl": 0.0021, "loss": -0.013, "grad_norm": 0.44, "lr": 1e-4, "length/mean": 48.2,
    "length/max": 128, "clipped": 0.08, "flat": 0.42, "pool": 96, "engine_gap": 1e-5, "engine_kl": 1e-9, "skipped": 2,
    "skipped/policy": 0, "skipped/reflection": 2, "dropped": 3, "unreadable/yes": 0.02, "time/sample": 2.61,
    "time/verify": 0.12, "time/update": 2.23, "time/recycle": 0.01, "recycled/pointwise": 12,
}  # fmt: skip


class FakeClock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def console(terminal: bool, width: int = 120, term: str = "xterm") -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None, _environ={"TERM": term})


def output(target: Console) -> str:
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()


def rendered(view: TrainView, width: int = 120) -> str:
    target = console(terminal=True, width=width)
    target.print(view)
    return output(target)


def test_the_time_left_is_the_mean_of_recent_steps_without_the_first() -> None:
    clock = FakeClock()
    pace = Pace(clock, window=3)
    assert pace.left(10) is None
    clock.now += 60  # the first step pays for warm-up
    pace.tick()
    assert pace.left(9) is None, "one step says nothing about the next"
    for seconds in (4.0, 6.0):
        clock.now += seconds
        pace.tick()
    assert pace.step_seconds == pytest.approx(5.0)
    assert pace.left(7) == pytest.approx(35.0)
    for seconds in (1.0, 2.0, 3.0):
        clock.now += seconds
        pace.tick()
    assert pace.left(4) == pytest.approx(8.0), "only the window of three counts"
    assert pace.left(0) == 0.0


def test_the_time_left_counts_down_within_a_step_and_stalls_when_it_overruns() -> None:
    clock = FakeClock()
    pace = Pace(clock)
    for _ in range(3):
        clock.now += 10
        pace.tick()
    clock.now += 4
    assert pace.left(5) == pytest.approx(46.0)
    clock.now += 400
    assert pace.left(5) == pytest.approx(40.0)


def test_a_pipe_gets_one_plain_line_a_step() -> None:
    clock, target = FakeClock(), console(terminal=False)
    with TrainView(300, console=target, clock=clock) as view:
        for step in (1, 2, 3):
            clock.now += 6.0
            view.step({**RECORD, "step": step})
    lines = output(target).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("step   1/300 | reward policy 0.31 point 0.52 pair 0.47 reflect 0.11 | right 31%")
    assert lines[0].endswith("left –")
    assert lines[2].endswith("left 29 min 42 s")  # 297 steps of 6 s
    assert "\x1b" not in output(target)


@pytest.mark.parametrize("total", [9, 10_000_000])
def test_a_plain_line_fits_into_120_columns(total: int) -> None:
    view = TrainView(total, start_step=total - 1, console=console(terminal=False))
    view.step(dict.fromkeys(RECORD, -1.23456e-12) | {"step": total})
    line = output(view.console).splitlines()[0]
    assert len(line) <= 120
    assert line.startswith(f"step {total}/{total} | reward policy")
    assert line.endswith("left 0.0 s"), "the time left is never what is cut"


def test_a_narrow_pipe_still_gets_whole_lines() -> None:
    target = console(terminal=False, width=40)
    TrainView(300, console=target).step(RECORD)
    assert len(output(target).splitlines()) == 1


def test_markup_in_a_metric_is_only_text() -> None:
    target = console(terminal=True)
    view = TrainView(2, console=target)
    view.step({"step": 1, "[bold]odd": 1.0})
    assert "[bold]odd 1" in rendered(view)


def test_a_note_is_one_line_as_it_is() -> None:
    target = console(terminal=False, width=40)
    ConsoleWatcher(target).note("threads [2] -> 1, " + "long " * 20)
    assert output(target).splitlines() == ["threads [2] -> 1, " + "long " * 20]


def counted(target: Console) -> None:
    watcher = ConsoleWatcher(target)
    watcher.phase("evaluating")
    watcher.progress(5, 20)
    watcher.progress(20, 20)
    watcher.note("a note")
    watcher.end()


def test_a_phase_counts_on_a_terminal_and_not_in_a_pipe() -> None:
    window, target = Window(80, 20), console(terminal=False)
    counted(Console(file=window, force_terminal=True, width=80, _environ={"TERM": "xterm"}))
    counted(target)
    assert window.lines() == ["evaluating ... 20/20", "a note"]
    assert output(target).splitlines() == ["evaluating ...", "a note"]


def test_an_evaluation_in_the_steps_is_one_line_beside_a_whole_view() -> None:
    target = console(terminal=True)
    watcher = ConsoleWatcher(target)
    watcher.begin(300, 0)
    watcher.step(RECORD)
    watcher.phase("evaluating 8 heldout problems at step 1")
    watcher.progress(3, 9)
    assert watcher._view is not None
    assert "evaluating 8 heldout problems at step 1 ... 3/9" in rendered(watcher._view)
    watcher.evaluated(1, {"policy_accuracy": 0.41, "judge_accuracy": None, "tts_accuracy": 0.5})
    assert "evaluating" not in rendered(watcher._view)
    watcher.hint("look here")
    watcher.end()
    assert "step 1 on held-out problems: policy 41.0%, with TTS 50.0%" in output(target)
    assert "hint: look here" in output(target)


def test_an_evaluation_in_a_pipe_is_one_line() -> None:
    target = console(terminal=False)
    watcher = ConsoleWatcher(target)
    watcher.begin(3, 0)
    watcher.phase("evaluating")
    watcher.progress(3, 9)
    watcher.evaluated(2, {"policy_accuracy": 0.41})
    watcher.saved(Path("x"))
    assert output(target).splitlines() == ["step 2 on held-out problems: policy 41.0%"]


def test_what_was_too_long_is_seen_live_and_in_a_plain_line() -> None:
    view = TrainView(3, console=console(terminal=True))
    view.step({"step": 1, "skipped": 3, "skipped/policy": 0, "skipped/reflection": 3})
    assert "too long    policy 0" in rendered(view)
    assert "reflection 3" in rendered(view)
    assert "| too long 3 |" in view.line()
    view.step({"step": 2, "skipped": 0, "skipped/policy": 0, "skipped/reflection": 0})
    assert "too long" not in view.line()


def test_a_dumb_terminal_gets_plain_lines() -> None:
    target = console(terminal=True, term="dumb")
    with TrainView(300, console=target) as view:
        view.step(RECORD)
    assert output(target).startswith("step   1/300")


def test_a_terminal_sees_every_number_of_the_step() -> None:
    target = console(terminal=True)
    with TrainView(300, console=target) as view:
        view.step(RECORD)
    shown = output(target)
    for text in (
        "step 1/300", "1.52k tok/s", "policy 0.31", "pointwise 0.52", "pairwise 0.47", "reflection 0.11",
        "no answer 15%", "unparsable 3%", "Yes labels 33%", "Yes verdicts 87%", "A labels 50%", "A verdicts 66%",
        "entropy 0.812", "KL 0.0021", "grad norm 0.44", "mean length 48.2", "cut off 8%", "flat groups 42%", "pool 96",
        "sample 2.61", "verify 0.12", "update 2.23", "recycle 0.01", "step 5.90",
    ):  # fmt: skip
        assert text in shown, text


@pytest.mark.parametrize("width", [30, 50, 80, 120, 200])
def test_the_live_view_fits_its_terminal(width: int) -> None:
    view = TrainView(300, console=console(terminal=True, width=width))
    view.step(RECORD)
    lines = rendered(view, width).splitlines()
    assert max(len(line) for line in lines) <= width
    assert any("reflection 0.11" in line for line in lines)


def test_what_the_last_step_did_not_have_keeps_its_value() -> None:
    view = TrainView(300, console=console(terminal=True))
    view.step(RECORD)
    view.step({"step": 2, "reward/policy": 0.4})
    assert "policy 0.40" in rendered(view)
    assert "pairwise 0.47" in rendered(view)


def test_a_loss_that_is_not_a_number_is_seen() -> None:
    view = TrainView(300, console=console(terminal=True))
    view.step({"step": 1, "loss": math.nan, "kl": math.inf, "entropy": None})
    shown = rendered(view)
    assert "loss nan" in shown
    assert "KL inf" in shown
    assert "entropy –" in shown
    assert "KL inf" in view.line()


def test_unknown_metrics_are_shown_and_text_is_not() -> None:
    view = TrainView(300, console=console(terminal=True))
    view.step({"step": 1, "curriculum/hard_level": 3, "note": "hello"})
    assert "other       curriculum hard level 3" in rendered(view)
    assert "hello" not in rendered(view)


def test_no_metric_of_a_real_run_is_shown_by_its_raw_key() -> None:
    """The keys that a run of the embedded default writes, and those that rewards of the user's own add."""
    view = TrainView(300, console=console(terminal=True))
    records = [
        json.loads(line) for line in (Path(__file__).parents[1] / "default_metrics.jsonl").read_text().splitlines()
    ]
    own = {"reward_function/brevity": 0.5, "reward_failed/brevity": 0.25, "status/pseudo_correct": 0.5, "time/other": 1}
    for record in records:
        view.step(record | own)
    shown = rendered(view)
    assert "/" not in shown.replace("step 45/300", "").replace("Yes/No", "").replace("A/B", "").replace("tok/s", "")
    assert "_" not in shown
    assert "brevity 0.5 " in shown
    assert "brevity failed 0.25" in shown


@pytest.mark.parametrize(
    ("values", "arrow"),
    [([0.5] * 7, ""), ([0.5] * 8, "→"),
     ([0.1, 0.2, 0.1, 0.2, 0.8, 0.9, 0.8, 0.9], "↗"),
     ([3, 3, 2, 2, 1, 1, 0, 0], "↘"),
     ([0.1, 0.9, 0.1, 0.9, 0.2, 0.9, 0.1, 0.9], "→")],
)  # fmt: skip
def test_an_arrow_needs_more_than_noise(values: list[float], arrow: str) -> None:
    assert trend(values) == arrow


def test_the_arrow_stands_behind_the_number_and_looks_back_twenty_steps() -> None:
    view = TrainView(300, console=console(terminal=True))
    for step in range(1, 51):
        view.step({"step": step, "reward/policy": step / 100, "lr": step})
    assert "policy 0.50 ↗" in rendered(view)
    for step in range(51, 72):
        view.step({"step": step, "reward/policy": 0.5})
    assert "policy 0.50 →" in rendered(view)
    assert "lr 50\n" in rendered(view), "only some numbers have an arrow"


def test_the_chance_level_is_what_the_commoner_label_earns() -> None:
    view = TrainView(300, console=console(terminal=True))
    for yes, a in ((0.2, 0.5), (0.0, 0.7)):
        view.step({"label/yes": yes, "label/a": a})
    assert "chance      Yes/No 0.90      A/B 0.60" in rendered(view)


def test_an_evaluation_says_the_best_so_far_and_the_chance_level_of_the_judge(tmp_path: Path) -> None:
    earlier = {"step": 10, "policy_accuracy": 0.6, "judge_accuracy": 0.5, "tts_accuracy": None}
    (tmp_path / "evaluations.jsonl").write_text(json.dumps(earlier) + "\n")
    target = console(terminal=False)
    watcher = ConsoleWatcher(target, tmp_path)
    watcher.begin(300, 10)
    watcher.evaluated(20, {"policy_accuracy": 0.5, "judge_accuracy": 0.75, "judge_constant_accuracy": 0.8125})
    watcher.end()
    assert output(target) == (
        "step 20 on held-out problems: policy 50.0% (best 60.0% at step 10), judge 75.0% (chance 81.2%)\n"
    )


def narrowed(window: Window, before: int, after: int) -> list[str]:
    """What stands in a window that is made narrower, or wider, while a view stands in it and a step is shown."""
    target = Console(file=window, force_terminal=True, width=before, height=window.height, _environ={"TERM": "xterm"})
    with TrainView(300, console=target) as view:
        target.print("a note above")
        view.step(RECORD)
        window.resize(after)
        target.width = after
        view.step({**RECORD, "step": 2})
        target.print("another note")
        window.write("^C")
        view.step({**RECORD, "step": 3})
    target.print("the end")
    return window.lines()


@pytest.mark.parametrize(
    ("before", "after", "height"),
    [(120, 80, 60), (120, 30, 60), (80, 120, 60), (80, 79, 60), (80, 80, 9), (80, 120, 9)],
)
def test_a_resized_window_holds_no_line_twice(before: int, after: int, height: int) -> None:
    lines = narrowed(Window(before, height), before, after)
    assert [line for line in lines if "note" in line] == ["a note above", "another note"]
    for once in ("step 3/300", "pointwise 0.52", "the end"):
        assert sum(once in line for line in lines) == 1, once
    assert not [line for line in lines if "step 1/300" in line or "step 2/300" in line or "^C" in line]


def test_a_line_that_is_counted_is_one_line_in_any_window() -> None:
    window = Window(30, 20)
    target = Console(file=window, force_terminal=True, width=30, height=20, _environ={"TERM": "xterm"})
    watcher = ConsoleWatcher(target)
    watcher.phase("evaluating four hundred held-out problems")
    for done in range(5):
        watcher.progress(done, 4)
    watcher.end()
    assert [line.rstrip() for line in window.lines()] == ["evaluating four hundred held-o", "ut problems ... 4/4"]


def test_a_resumed_run_starts_where_it_was() -> None:
    clock = FakeClock()
    view = TrainView(300, start_step=100, console=console(terminal=False), clock=clock)
    for step in (101, 102):
        clock.now += 2
        view.step({"step": step})
    assert output(view.console).splitlines()[-1] == "step 102/300 | left 6 min 36 s"  # 198 steps of 2 s


def test_an_error_inside_the_view_passes_through_and_frees_the_terminal() -> None:
    target = console(terminal=True)
    with pytest.raises(RuntimeError, match="boom"), TrainView(3, console=target):
        raise RuntimeError("boom")
    target.print("after")
    assert output(target).endswith("after\n")


def test_the_before_and_after_table() -> None:
    before = {"policy_accuracy": 0.25, "tts_accuracy": 0.2, "judge_f1": None, "n": 200}
    after = {"policy_accuracy": 0.40, "tts_accuracy": 0.46, "judge_f1": 0.5, "n": 200}
    before |= {"policy_accuracy_low": 0.19, "policy_accuracy_high": 0.31}
    after |= {"policy_accuracy_low": 0.333, "policy_accuracy_high": 0.467}
    target = console(terminal=False)
    target.print(before_after_table(before, after, {"before": {"policy_accuracy": 0.1}, "after": {}}))
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in output(target).splitlines() if "│" in line
    ]
    assert rows[0] == ["Held-out problems (n = 200)", "", "", ""]
    assert ["Policy accuracy", "25.0 ± 6.0", "40.0 ± 6.7", "+15.0"] in rows
    assert ["Gain of test-time scaling", "−5.0", "+6.0", "+11.0"] in rows
    assert ["Judge F1", "–", "50.0", "–"] in rows
    assert rows.index(["Transfer problems", "", "", ""]) < rows.index(["Policy accuracy", "10.0", "–", "–"])


def test_a_run_without_evaluation_has_an_empty_table() -> None:
    target = console(terminal=False)
    target.print(before_after_table(None, None))
    assert "Policy accuracy" in output(target)


def test_the_report_never_imports_torch() -> None:
    code = "import sys, spark_rl.report; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
