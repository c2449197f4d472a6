"""``spark-rl plan``: what a run takes of memory and time, from its and the model's configuration (docs/plan.md)."""
