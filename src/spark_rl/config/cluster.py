"""Settings of where learner and engine run."""

from __future__ import annotations

from pydantic import Field

from spark_rl.config.section import Section


class ClusterConfig(Section):
    """Learners and engines in processes of their own, placed by Ray (docs/cluster.md). Results are those of one
    process but for rounding, however many there are."""

    learners: int = Field(0, ge=0)
    """Processes among which weights, moments and each batch are divided, one a GPU; 0 trains in this process."""
    engines: int = Field(0, ge=0)
    """Processes that generate, each with a copy of the weights and a part of the prompts, one a GPU; 0 generates in
    this process. Where there are too few GPUs for both, the n-th engine and the n-th learner share one."""
    address: str | None = None
    """The Ray cluster to join: ``auto`` (the one that this machine belongs to) or an address. Null starts Ray on this
    machine for the run."""
