"""Where problems come from: files, data sets and the procedural families, all turned into ``Problem`` records.

Importing this package needs neither torch nor ``datasets``; readers of heavy formats are imported when first used.
"""

from __future__ import annotations

from spark_rl.data.load import load_problems
from spark_rl.data.overlap import check_disjoint, remove_overlap
from spark_rl.errors import DataError

__all__ = ["DataError", "check_disjoint", "load_problems", "remove_overlap"]
