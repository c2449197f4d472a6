"""Random streams: every one is a function of the run's seed and of what it is for."""

from __future__ import annotations

import hashlib


def stream_seed(seed: int, *purpose: object) -> int:
    """A seed for one random stream of a run: a hash of the run's seed and what the stream is for.

    Streams depend on nothing but their names, so a resumed run draws the same numbers without saving any state.
    """
    text = ":".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
