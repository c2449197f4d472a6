r"""The rule-based verifier: from a response to a verdict (Eq. 2). Imports neither torch nor sympy.

``verify(r"... \boxed{\frac12}", "0.5")`` grades one response; :class:`Verifier` grades many, with its own workers.
"""

from __future__ import annotations

from spark_rl.verify.boxed import answer_part, extract_boxed, last_box_span
from spark_rl.verify.pool import Verifier, verify
from spark_rl.verify.verdict import read_verdict

__all__ = ["Verifier", "answer_part", "extract_boxed", "last_box_span", "read_verdict", "verify"]
