"""TRL's ``GRPOTrainer`` that recycles (``pip install 'spark-rl[trl]'``, docs/integrations.md)."""

from __future__ import annotations

from spark_rl.errors import UserError

try:
    import trl as _trl
except ImportError:
    raise UserError("spark_rl.integrations.trl needs TRL: pip install 'spark-rl[trl]'") from None

from spark_rl.integrations.trl.trainer import SparkGRPOTrainer

if not hasattr(_trl.GRPOTrainer, "_generate_and_score_completions"):
    raise UserError(
        f"spark_rl.integrations.trl was written for TRL 1.16, not {_trl.__version__}: pip install trl==1.16.0"
    )

__all__ = ["SparkGRPOTrainer"]
