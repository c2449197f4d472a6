"""RM-based RL in the same harness, and what it costs beside recycling (Sec. 4.5, Table 7).

:mod:`.preferences` and :mod:`.reward_model` are the two stages that RM-based RL has before it can begin, :mod:`.arms`
runs it and SPARK on the same problems, :mod:`.judge` asks both judges about the same answers, :mod:`.record` holds what
was measured, :mod:`.estimate` what can be computed for 7B and 32B, and :mod:`.table` shows both.
"""

from __future__ import annotations
