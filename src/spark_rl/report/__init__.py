"""What people look at during and after a run: the metric log, the terminal view and the HTML report.

Nothing here imports torch, and the report needs no network, neither to be written nor to be read.
"""

from __future__ import annotations

from spark_rl.intervals import wilson
from spark_rl.report.console import TrainView, before_after_table
from spark_rl.report.html import write_report
from spark_rl.report.metrics import MetricsLog, read_metrics

__all__ = ["MetricsLog", "TrainView", "before_after_table", "read_metrics", "wilson", "write_report"]
