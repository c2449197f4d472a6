"""The worker processes: started late, killed in time, replaced, and gone in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from spark_rl.config import VerifyConfig
from spark_rl.errors import VerifierError
from spark_rl.problem import Kind
from spark_rl.verify import Verifier, pool, verify
from spark_rl.verify.pool import ATTEMPTS, Comparison, Item

HANGS = r"\boxed{\sum_{a=1}^{999}\sum_{b=1}^{999}\sum_{c=1}^{999}\sqrt{abc}}"
SYMBOLIC = r"\boxed{\sqrt{12}}"
GOLD = r"2\sqrt{3}"


@pytest.fixture
def verifier() -> Iterator[Verifier]:
    with Verifier(VerifyConfig(workers=1, timeout=1.0)) as one:
        yield one


def alive(pid: int) -> bool:
    """Whether the process exists, unreaped children included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def test_cheap_answers_start_no_process() -> None:
    items: list[Item] = [
        (r"\boxed{\frac{1}{2}}", "0.5", "math", ()),
        (r"\boxed{43}", "42", "math", ()),
        (r"\boxed{(1,2]}", "(1,2]", "math", ()),
        (r"\boxed{B}", "B", "choice", ("x", "y")),
        (r"\boxed{No}", "Yes", "verdict", ()),
        ("no box", "42", "math", ()),
    ]
    with Verifier(VerifyConfig()) as verifier:
        statuses = [verdict.status for verdict in verifier.verify_many(items)]

        assert statuses == ["correct", "wrong", "correct", "correct", "wrong", "no_answer"]
        assert verifier.pids == ()


def test_order_is_kept_and_equal_work_is_shared() -> None:
    items: list[Item] = []
    expected = []
    for number in range(2, 12):
        items.append((rf"\boxed{{\sqrt{{{number}}}}}", rf"\sqrt{{{number + number % 2}}}", "math", ()))
        expected.append("wrong" if number % 2 else "correct")
        items.append((rf"\boxed{{{number}}}", str(number), "math", ()))
        expected.append("correct")
    items += [(SYMBOLIC, GOLD, "math", ())] * 50
    expected += ["correct"] * 50
    with Verifier(VerifyConfig(workers=2, recycle_after=40)) as verifier:
        assert [verdict.status for verdict in verifier.verify_many(items)] == expected
        assert verifier.kills == 0


def test_a_timeout_kills_the_process_and_later_items_still_work(verifier: Verifier) -> None:
    assert verifier.verify(SYMBOLIC, GOLD).status == "correct"
    (before,) = verifier.pids

    verdict = verifier.verify(HANGS, GOLD)

    assert (verdict.status, verdict.reward) == ("timeout", 0.0)
    assert verifier.kills == 2, "at the first look and at the limit"
    assert not alive(before)
    assert verifier.pids != (before,)
    assert verifier.verify(SYMBOLIC, GOLD).status == "correct"


def test_start_up_is_not_charged_to_the_item() -> None:
    with Verifier(VerifyConfig(workers=1, timeout=0.1)) as verifier:
        start = time.perf_counter()
        first = verifier.verify(SYMBOLIC, GOLD)

        assert first.status == "correct"
        assert time.perf_counter() - start > 0.1  # loading the reader alone takes longer than the limit


def test_a_worker_is_replaced_after_its_share_of_work() -> None:
    with Verifier(VerifyConfig(workers=1, recycle_after=2)) as verifier:
        pids = []
        for _ in range(4):
            assert verifier.verify(SYMBOLIC, GOLD).status == "correct"
            pids.append(verifier.pids[0])

        assert len(set(pids)) == 3
        assert pids[0] != pids[1] == pids[2] != pids[3]
        assert not alive(pids[0])


def test_a_worker_killed_while_idle_is_survived(verifier: Verifier) -> None:
    verifier.verify(SYMBOLIC, GOLD)
    (pid,) = verifier.pids
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)

    assert verifier.verify(SYMBOLIC, GOLD).status == "correct"
    assert verifier.pids != (pid,)


def test_a_worker_killed_while_it_starts_costs_a_retry(verifier: Verifier) -> None:
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(verifier.verify, SYMBOLIC, GOLD)
        assert wait_for(lambda: bool(verifier.pids))
        (pid,) = verifier.pids
        os.kill(pid, signal.SIGKILL)

        assert asked.result().status == "correct"
    assert verifier.pids != (pid,)
    assert verifier.deaths == 1


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole limit at the first look."""
    monkeypatch.setattr(pool, "FIRST_LOOK", 60.0)


@pytest.mark.usefixtures("patient")
def test_a_worker_killed_while_it_works_costs_a_retry() -> None:
    """The second worker gives the verdict that the first would have given: here, that time is up."""
    with Verifier(VerifyConfig(workers=1, timeout=2.0)) as verifier:
        verifier.verify(SYMBOLIC, GOLD)
        (pid,) = verifier.pids
        killer = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
        killer.start()

        verdict = verifier.verify(HANGS, GOLD)
        killer.join()

        assert verdict.status == "timeout"
        assert (verifier.deaths, verifier.kills) == (1, 1)
        assert verifier.verify(SYMBOLIC, GOLD).status == "correct"


def test_all_workers_killed_change_no_verdict() -> None:
    items: list[Item] = [(rf"\boxed{{\sqrt{{{n}}}}}", rf"\sqrt{{{n + n % 2}}}", "math", ()) for n in range(2, 80)]
    with Verifier(VerifyConfig(workers=2)) as verifier, ThreadPoolExecutor(1) as thread:
        asked = thread.submit(verifier.verify_many, items)
        assert wait_for(lambda: len(verifier.pids) == 2)
        for seconds in (0.1, 1.5):
            time.sleep(seconds)
            for pid in verifier.pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

        statuses = [verdict.status for verdict in asked.result()]
    assert statuses == ["wrong" if n % 2 else "correct" for n in range(2, 80)]


@pytest.mark.usefixtures("patient")
def test_an_item_under_which_every_worker_dies_is_unparsable() -> None:
    with Verifier(VerifyConfig(workers=1, timeout=60.0)) as verifier, ThreadPoolExecutor(1) as thread:
        verifier.verify(SYMBOLIC, GOLD)
        asked = thread.submit(verifier.verify, HANGS, GOLD)
        killed: set[int] = set()

        def kill_what_works() -> bool:
            killed.update(pid for pid in verifier.pids if pid not in killed and works(pid))
            for pid in killed:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return asked.done()

        assert wait_for(kill_what_works, 60.0)
        assert asked.result().status == "unparsable"
        assert (verifier.deaths, verifier.kills) == (ATTEMPTS, 0)
        assert verifier.verify(SYMBOLIC, GOLD).status == "correct"


def works(pid: int) -> bool:
    """Whether a worker is past its start and busy: it has silenced itself and uses the processor."""
    try:
        silent = str(Path(f"/proc/{pid}/fd/2").readlink()) == os.devnull
        before = cpu(pid)
        time.sleep(0.2)
        return silent and cpu(pid) > before
    except (FileNotFoundError, ProcessLookupError):
        return False


def cpu(pid: int) -> int:
    """Clock ticks of processor time that a process has used."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def test_a_worker_that_cannot_start_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with Verifier(VerifyConfig(workers=1)) as verifier, pytest.raises(VerifierError, match="did not start"):
        verifier.verify(SYMBOLIC, GOLD)


@pytest.mark.usefixtures("patient")
def test_time_on_the_clock_decides_nothing() -> None:
    """A worker that is stopped for longer than its limit, as on a busy machine, is right in the end."""
    with Verifier(VerifyConfig(workers=1, timeout=1.0)) as verifier, ThreadPoolExecutor(1) as thread:
        verifier.verify(SYMBOLIC, GOLD)
        (pid,) = verifier.pids
        os.kill(pid, signal.SIGSTOP)
        right = thread.submit(verifier.verify, r"\boxed{\sqrt{48}}", r"4\sqrt{3}")
        time.sleep(2.5)
        os.kill(pid, signal.SIGCONT)

        assert right.result().status == "correct"
        assert (verifier.pids, verifier.kills) == ((pid,), 0)

        hangs = thread.submit(verifier.verify, HANGS, GOLD)
        for _ in range(5):  # a fifth of a second of work for each of standing still
            time.sleep(0.1)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.4)
            os.kill(pid, signal.SIGCONT)
        assert not hangs.done(), "two and a half seconds have passed, of which the worker had half a second"
        assert hangs.result().status == "timeout"
        assert not alive(pid)


@pytest.mark.usefixtures("patient")
def test_what_waits_without_working_is_ended_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "REPLY_GRACE", -59.0)
    with Verifier(VerifyConfig(workers=1, timeout=1.0)) as verifier:
        verifier.verify(SYMBOLIC, GOLD)
        (pid,) = verifier.pids
        os.kill(pid, signal.SIGSTOP)

        assert verifier.verify(SYMBOLIC, GOLD).status == "timeout"
        assert not alive(pid)
        assert verifier.kills == 1


def test_many_threads_share_the_workers() -> None:
    with Verifier(VerifyConfig(workers=2)) as verifier, ThreadPoolExecutor(8) as threads:

        def ask(number: int) -> tuple[str, str]:
            right = verifier.verify(rf"\boxed{{\sqrt{{{number}}}+0}}", rf"\sqrt{{{number}}}")
            wrong = verifier.verify_many([(rf"\boxed{{\sqrt{{{number}}}+1}}", rf"\sqrt{{{number}}}", "math", ())])
            return right.status, wrong[0].status

        assert list(threads.map(ask, range(2, 42))) == [("correct", "wrong")] * 40
        assert len(verifier.pids) == 2


def test_nothing_is_left_after_close() -> None:
    verifier = Verifier(VerifyConfig(workers=2, timeout=0.5))
    verifier.verify_many([(SYMBOLIC, GOLD, "math", ()), (HANGS, GOLD, "math", ()), (r"\boxed{\pi}", "e", "math", ())])
    pids = verifier.pids
    assert len(pids) == 2

    verifier.close()
    verifier.close()

    assert not any(alive(pid) for pid in pids)
    assert verifier.pids == ()
    assert verifier.verify(r"\boxed{5}", "5").status == "correct"
    with pytest.raises(RuntimeError, match="closed"):
        verifier.verify(SYMBOLIC, GOLD)


def test_a_forgotten_verifier_leaves_no_process() -> None:
    verifier = Verifier(VerifyConfig(workers=1))
    verifier.verify(SYMBOLIC, GOLD)
    (pid,) = verifier.pids

    del verifier

    assert wait_for(lambda: not alive(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_limited(verifier: Verifier) -> None:
    verifier.verify(SYMBOLIC, GOLD)
    limits = Path(f"/proc/{verifier.pids[0]}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max address space")]

    assert int(line.split()[3]) <= 2 << 30


def run_script(tmp_path: Path, code: str) -> subprocess.CompletedProcess[str]:
    """A user's script in its own process, with no guard around its top level."""
    script = tmp_path / "script.py"
    script.write_text(code, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-W", "error", str(script)], capture_output=True, text=True, timeout=240, env=env, check=False
    )


def test_a_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        "print('top level')\n"
        "from spark_rl.verify import verify\n"
        rf"print(verify(r'{SYMBOLIC}', r'{GOLD}').status)" + "\n",
    )

    assert done.stdout.split("\n") == ["top level", "correct", ""]
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path, busy: bool) -> None:
    hang = f"threading.Thread(target=verifier.verify, args=(r'{HANGS}', '2')).start(); time.sleep(0.3)" if busy else ""
    done = run_script(
        tmp_path,
        "import os, signal, threading, time\n"
        "from spark_rl.config import VerifyConfig\n"
        "from spark_rl.verify import Verifier\n"
        "verifier = Verifier(VerifyConfig(workers=1, timeout=1.0))\n"
        f"verifier.verify(r'{SYMBOLIC}', r'{GOLD}')\n"
        f"print(verifier.pids[0], flush=True)\n{hang}\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n",
    )

    pid = int(done.stdout)
    assert done.returncode == -signal.SIGKILL
    assert wait_for(lambda: not running(pid), 15.0)


def running(pid: int) -> bool:
    """Whether the process still runs; an orphan that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_importing_the_verifier_stays_light() -> None:
    code = (
        "import sys, spark_rl.verify; "
        "print(sorted({'torch', 'transformers', 'sympy', 'math_verify'} & set(sys.modules)))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)

    assert done.stdout.strip() == "[]"


def test_the_convenience_function_grades_every_kind() -> None:
    assert verify(r"so \boxed{\frac12}", "0.5").reward == 1.0
    assert verify(r"so \boxed{\sqrt{12}}", GOLD).reward == 1.0
    assert verify(r"so \boxed{(B)}", "B", "choice", ("x", "y")).reward == 1.0
    assert verify(r"so \boxed{yes}", "Yes", kind="verdict").reward == 1.0
    assert verify(r"so \boxed{-+}", "+-", kind="exact").reward == 0.0


GOLDS = (
    (r"\boxed{0.5}", ("2", r"\frac{1}{2}"), "math", (), "correct", "the second"),
    (r"\boxed{2}", ("2", r"\frac{1}{2}"), "math", (), "correct", "the first"),
    (r"\boxed{3}", ("2", r"\frac{1}{2}"), "math", (), "wrong", "neither"),
    (r"\boxed{2, \frac{1}{2}}", ("2", r"\frac{1}{2}"), "math", (), "wrong", "both at once is another answer"),
    (r"\boxed{\sqrt{12}}", ("4", r"2\sqrt{3}"), "math", (), "correct", "one that a worker decides"),
    (r"\boxed{\sqrt{13}}", (r"3\sqrt{2}", r"2\sqrt{3}"), "math", (), "wrong", "both decided by workers"),
    (HANGS, ("2", GOLD), "math", (), "timeout", "one comparison never ended"),
    ("no box", ("2", "3"), "math", (), "no_answer", "nothing said"),
    (r"\boxed{C}", ("A", "C"), "choice", ("7", "8", "9"), "correct", "letters"),
    (r"\boxed{B}", ("A", "C"), "choice", ("7", "8", "9"), "wrong", "another letter"),
    (r"\boxed{maybe}", ("A", "C"), "choice", ("7", "8", "9"), "unparsable", "no letter"),
    (r"\boxed{b}", ("a", "b"), "exact", (), "correct", "text"),
)


@pytest.mark.parametrize(("response", "golds", "kind", "choices", "status", "why"), GOLDS, ids=[r[-1] for r in GOLDS])
def test_of_several_gold_answers_any_is_right(
    verifier: Verifier,
    response: str,
    golds: tuple[str, ...],
    kind: Kind,
    choices: tuple[str, ...],
    status: str,
    why: str,
) -> None:
    assert verifier.verify(response, golds, kind, choices).status == status, why
    assert verifier.verify(response, golds[::-1], kind, choices).status == status, f"{why}, in the other order"


def test_one_unusable_gold_answer_of_several_is_an_error(verifier: Verifier) -> None:
    for golds, said in (((), "is empty"), (("A", " "), "is empty"), (("A", "pear"), "neither a letter nor the text")):
        for response in (r"\boxed{A}", "no box"):
            with pytest.raises(ValueError, match=said):
                verifier.verify(response, golds, "choice", ("apple", "plum"))


def test_options_can_be_compared_in_a_worker(verifier: Verifier) -> None:
    options = ("7", "8")
    asked = [Comparison("choice", "A", "A", options), Comparison("choice", "A", "B", options)]

    assert verifier.compare_many(asked) == ["correct", "wrong"]
    assert len(verifier.pids) == 1


def test_named_comparisons_keep_their_order_and_are_made_once() -> None:
    pairs = [("math", GOLD, r"\sqrt{12}"), ("reference", r"\sqrt{12}", GOLD), ("reference", "90", r"90^\circ")]
    with Verifier(VerifyConfig(workers=2, recycle_after=10)) as verifier:
        assert verifier.compare_many([*pairs, *[pairs[1]] * 50]) == ["correct", "wrong", "correct", *["wrong"] * 50]
        assert verifier.compare_many([]) == []
        first = verifier.pids
        verifier.compare_many([pairs[1]] * 50)
        assert verifier.pids == first, "a worker was spent: equal comparisons were made more than once"


def test_named_comparisons_are_killed_at_the_limit(verifier: Verifier) -> None:
    hangs = ("math", r"x+\sqrt{2}", r"\sum_{a=1}^{999}\sum_{b=1}^{999}\sum_{c=1}^{999}\sqrt{abc}")

    assert verifier.compare_many([hangs, ("reference", "4", "4.0")]) == ["timeout", "correct"]
    assert verifier.kills == 2


def test_a_batch_of_killers_does_not_cost_the_limit_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SLOW", 2)
    killers: list[Item] = [(HANGS.replace("abc", f"abc+{n}"), GOLD, "math", ()) for n in range(12)]
    with Verifier(VerifyConfig(workers=2, timeout=0.5)) as verifier:
        verdicts = verifier.verify_many([*killers, (SYMBOLIC, GOLD, "math", ())])
        assert [verdict.status for verdict in verdicts] == ["timeout"] * 12 + ["correct"]
        assert verifier.kills == 12 + 2
        verifier.verify_many(killers[:1])
        assert verifier.kills == 12 + 2 + 2, "the next batch has looks of its own"


def test_what_is_slow_and_ends_is_right_in_the_end() -> None:
    """More than a second of work."""
    gold, answer = (rf"\sum_{{{a}=1}}^{{50}}\sum_{{{b}=1}}^{{50}}\sqrt{{ab}}" for a, b in ("ab", "ba"))
    with Verifier(VerifyConfig(workers=1)) as verifier:
        assert verifier.verify(rf"\boxed{{{answer}}}", gold).status == "correct"
        assert verifier.kills == 1, "it was put off"


def test_an_unknown_comparison_is_an_error(verifier: Verifier) -> None:
    with pytest.raises(ValueError, match=r"unknown comparison 'guess'; known are math, choice, reference"):
        verifier.compare_many([("guess", "1", "1")])
    assert verifier.pids == ()


def test_every_named_comparison_can_be_loaded() -> None:
    from importlib import import_module

    from spark_rl.verify.worker import COMPARISONS

    for name, where in COMPARISONS.items():
        module, _, function = where.partition(":")
        assert callable(getattr(import_module(module), function)), name
