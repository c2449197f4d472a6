"""Folders that ``datasets`` has saved, whose Arrow files are looked through before they are mapped into memory.

Of a file that was cut short, or whose offsets lead elsewhere, the operating system ends whoever reads the memory that
it is mapped to; no Python catches that. Buffers may be compressed, so some kilobytes can be gigabytes. Both are found
in a process of its own, which reads every file once (Sec. 3.1).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from spark_rl.data.parquet import MOST_BYTES, MOST_TIMES
from spark_rl.errors import DataError
from spark_rl.files import read_object

_TOO_MUCH = 3
"""Exit status for a bomb."""
_ROOM = 2 * 2**30
"""Address space beside what the files may become."""
_LOOK = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
import pyarrow as pa
from spark_rl.data.parquet import VALUE_BYTES, expanded_bytes
most, total = int(sys.argv[2]), 0
if sys.platform == "linux":
    import resource
    mapped = sum(__import__("os").path.getsize(path) for path in sys.argv[3:])
    resource.setrlimit(resource.RLIMIT_AS, (most + mapped + %d,) * 2)
for path in sys.argv[3:]:
    with pa.memory_map(path) as file:
        for batch in pa.ipc.open_stream(file):
            batch.validate(full=True)
            total += sum(max(expanded_bytes(column), VALUE_BYTES * len(column)) for column in batch.columns)
            if total > most:
                sys.exit(%d)
""" % (_ROOM, _TOO_MUCH)  # noqa: UP031  # a program with braces of its own


def check_arrow(folder: Path) -> None:
    """Whether the Arrow files of a folder, and of the splits in it, can be read.

    Raises:
        DataError: one is damaged or lies elsewhere, or they would expand to more than Parquet files may.
    """
    for state in (folder / "state.json", *folder.glob("*/state.json")):
        named = read_object(state).get("_data_files")
        for entry in named if isinstance(named, list) else ():
            name = entry.get("filename") if isinstance(entry, dict) else None
            if isinstance(name, str) and (Path(name).name != name or not name or (state.parent / name).is_symlink()):
                raise DataError(f"{state} names {name!r:.80}, which is no file beside it; save the data set anew")
    files = sorted({*folder.glob("*.arrow"), *folder.glob("*/*.arrow")})
    if not files:
        return  # who reads the folder says what is missing
    size = sum(file.stat().st_size for file in files if file.is_file())
    most = max(MOST_BYTES, MOST_TIMES * size)
    look = [sys.executable, "-c", _LOOK, json.dumps(sys.path), str(most), *map(str, files)]
    done = subprocess.run(look, capture_output=True, check=False, text=True, errors="replace")  # noqa: S603
    said = (done.stderr.strip().splitlines() or [f"reading it ends with {done.returncode}"])[-1]
    if done.returncode == _TOO_MUCH or (done.returncode and "MemoryError" in said):
        raise DataError(f"{folder}: {size / 1e6:,.1f} MB that expand to more than {most / 1e9:,.1f} GB; save it anew")
    if done.returncode:
        raise DataError(f"{folder} is no data set saved by datasets: an Arrow file in it is damaged ({said[:200]})")
