from __future__ import annotations

import io
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from spark_rl.report.console import Pace, TrainView, before_after_table
from spark_rl.report.watch import ConsoleWatcher

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
    view.step({"step": 1, "[bold]odd[/bold]": 1.0})
    assert "[bold]odd[/bold] 1" in rendered(view)


def test_a_note_is_one_line_as_it_is() -> None:
    target = console(terminal=False, width=40)
    ConsoleWatcher(target).note("threads [2] -> 1, " + "long " * 20)
    assert output(target).splitlines() == ["threads [2] -> 1, " + "long " * 20]


def test_a_phase_counts_on_a_terminal_and_not_in_a_pipe() -> None:
    for terminal, lines in ((True, ["evaluating ... 20/20", "a note"]), (False, ["evaluating ...", "a note"])):
        target = console(terminal=terminal)
        watcher = ConsoleWatcher(target)
        watcher.phase("evaluating")
        watcher.progress(5, 20)
        watcher.progress(20, 20)
        watcher.note("a note")
        watcher.end()
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output(target))
        assert [line.rstrip("\r").rpartition("\r")[2] for line in plain.rstrip("\n").split("\n")] == lines


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
    assert "too long   policy 0" in rendered(view)
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
    view.step({"step": 1, "curriculum/level": 3, "note": "hello"})
    assert "curriculum/level 3" in rendered(view)
    assert "hello" not in rendered(view)


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
