"""Tests that need vLLM or Ray, in an environment of their own (``make test-vllm``, ``make test-cluster``)."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's `make test-vllm &` has it, for every child too
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # tiny models and small runs are made there
