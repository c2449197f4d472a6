"""One of two processes of a run: writes what it holds at the end. torchrun starts it (test_trainer.py)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from small import trainer

from spark_rl.integrations.trl.rows import COLUMN


def main() -> None:
    folder = Path(sys.argv[1])
    made = trainer(folder / "out", per_device_train_batch_size=6, max_steps=3)  # a group lies on both ranks
    batches: list[list[str]] = []
    mixed = made._mixed

    def seen(rows: list[dict[str, object]]) -> list[dict[str, object]]:
        given = mixed(rows)
        batches.append([f"{row[COLUMN].task} {row['prompt']}" for row in given])
        assert len({frozenset(row) for row in given}) == 1, "the same columns in all rows"
        return given

    made._mixed = seen
    made.train()
    rank = made.accelerator.process_index
    held = {"pool": made.pool.state(), "generations": made._generations, "batches": batches}
    (folder / f"rank{rank}.json").write_text(json.dumps(held), encoding="utf-8")


if __name__ == "__main__":
    main()
