"""A process of our own interpreter that serves requests over a socket, from the side of whoever asks it.

What it runs is a module's function ``serve`` (:mod:`spark_rl.verify.worker` has what those share). It is a plain
subprocess, whose standard input is the socket, and it ends with this process.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import weakref


class Child:
    """The process, its connection, and who started it."""

    def __init__(self, module: str) -> None:
        """Start ``module.serve``; it is not ready yet.

        Raises:
            OSError: no process can be started.
        """
        boot = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import serve; serve()"
        self.connection, theirs = socket.socketpair()
        with theirs:
            try:
                self.process = subprocess.Popen(  # noqa: S603  # our own interpreter on our own code
                    [sys.executable, "-W", "ignore", "-c", boot, json.dumps(sys.path)],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                )
            except BaseException:
                self.connection.close()
                raise
        self._owner = os.getpid()
        self.stop = weakref.finalize(self, _end, self.process, self.connection, self._owner)
        """Ends the process and waits for it; does nothing when it is called again."""

    @property
    def is_there(self) -> bool:
        """Whether it runs, and this process is no fork of the one that started it."""
        return self._owner == os.getpid() and self.process.poll() is None


def _end(process: subprocess.Popen[bytes], connection: socket.socket, owner: int) -> None:
    connection.close()
    if os.getpid() == owner:  # a forked child must not kill its parent's
        process.kill()
        process.wait()
