"""How a run is told what to do from outside: to stop, to save, to evaluate. By signals, and by callbacks.

A signal (Ctrl-C, SIGTERM, SIGHUP) lets the step in flight end, because the weights between its two updates are those of
no step: what is saved then is the whole step, and a resumed run goes on bit for bit. Outside of steps nothing is lost
by ending at once, and a second signal ends at once wherever it comes.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from spark_rl.errors import Stopped

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Those that stop a run; Windows has no SIGHUP."""


class Control:
    """What a run reads after each step."""

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        """``say`` is told in one line that a signal has been heard and waits for the end of the step."""
        self.save = False
        """Write a checkpoint after this step."""
        self.evaluate = False
        """Evaluate the held-out problems after this step."""
        self.reason: str | None = None
        """Why the run ends after this step, as if it were its last."""
        self.signal: int | None = None
        """The signal that has stopped the run."""
        self.forced = False
        """Whether a second signal came: then nothing is finished nor saved."""
        self.advice = "nothing is written yet; start it again"
        """What whoever is told of the stop can do."""
        self._say = say
        self._finishing = self._listening = False

    def stop(self, reason: str) -> None:
        """End the run after this step, as if it were its last: with its model, its evaluation and its report."""
        self.reason = self.reason or reason

    def stopped(self, where: str = "") -> Stopped:
        """The end of a run that a signal has stopped; ``where`` says at which step."""
        number = signal.SIGINT if self.signal is None else self.signal
        how = signal.Signals(number).name
        return Stopped(f"stopped by {how}{f' {where}' if where else ''}; {self.advice}", 128 + number)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within, signals stop the run in order. Only in the main thread, where Python handles them.

        What was ignored stays ignored: under ``nohup`` a run outlives its terminal.
        """
        if self._listening or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        heard = [number for number in SIGNALS if before[number] not in {signal.SIG_IGN, None}]
        self._listening = True
        try:
            for number in heard:
                signal.signal(number, self._hear)
            yield
        finally:
            self._listening = False
            for number in heard:
                signal.signal(number, before[number])

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Within, what has begun is finished first.

        Raises:
            Stopped: afterwards, if a signal came.
        """
        self._finishing = True
        try:
            yield
        finally:
            self._finishing = False
        if self.signal is not None:
            raise self.stopped()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.forced = self.signal is not None
        self.signal = self.signal or number
        if self.forced or not self._finishing:
            raise self.stopped()
        # a thread of its own: whatever this one is writing at the moment can't be entered a second time
        threading.Thread(target=self._tell, daemon=True).start()

    def _tell(self) -> None:
        if self._say is not None:
            with suppress(OSError, ValueError):  # the terminal is gone
                self._say("stops when this step is done and saved; a second signal ends at once")
