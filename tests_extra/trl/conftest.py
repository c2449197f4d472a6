"""TRL asks whether there is a vLLM: what lies beside this folder is none."""

from __future__ import annotations

import sys
from pathlib import Path

BESIDE = str(Path(__file__).parents[1])
sys.path[:] = [folder for folder in sys.path if folder != BESIDE]
