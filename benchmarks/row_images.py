"""What a data set of pictures in Parquet rows takes: its memory after loading, and the time of one picture.

    python benchmarks/row_images.py [--pictures 6000] [--side 160] [--group 100]

Pictures of noise as PNG, in row groups of ``--group`` rows. Random reads are those of a shuffled epoch, on a warm page
cache. Where all pictures are in memory, as before, is shown by ``--group`` as large as ``--pictures``.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]
from PIL import Image

from spark_rl.config import DataConfig
from spark_rl.data import load_problems
from spark_rl.data.images import open_image


def resident() -> float:
    """Megabytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def write(path: Path, pictures: int, side: int, group: int) -> None:
    """A file of so many pictures."""
    rng = np.random.default_rng(0)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("question", pa.string()), ("answer", pa.string()), ("image", kind)])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, pictures, group):
            rows = []
            for number in range(first, min(first + group, pictures)):
                file = io.BytesIO()
                pixels = rng.integers(0, 255, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(file, "PNG", compress_level=1)
                image = {"bytes": file.getvalue(), "path": f"{number}.png"}
                rows.append({"question": f"q{number}", "answer": "2", "image": image})
            writer.write_table(pa.Table.from_pylist(rows, schema), row_group_size=group)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=6000)
    parser.add_argument("--side", type=int, default=160)
    parser.add_argument("--group", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, few = Path(folder) / "set.parquet", Path(folder) / "few.parquet"
        write(few, 200, arguments.side, arguments.group)
        load_problems(str(few), DataConfig())  # what is loaded at first use
        write(path, arguments.pictures, arguments.side, arguments.group)
        before, started = resident(), time.perf_counter()
        problems = load_problems(str(path), DataConfig())
        seconds, after = time.perf_counter() - started, resident()
        print(f"{path.stat().st_size / 1e6:,.0f} MB of pictures, loaded and checked in {seconds:.1f} s: "
              f"{after - before:+,.0f} MB")  # fmt: skip
        asked = random.Random(0).sample(problems, 200)
        started = time.perf_counter()
        for problem in asked:
            open_image(problem.images[0])
        each = (time.perf_counter() - started) / len(asked)
        print(f"one picture in random order: {1e3 * each:.1f} ms; then {resident() - before:+,.0f} MB")


if __name__ == "__main__":
    main()
