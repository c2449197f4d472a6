"""The first-in-first-out pool of recycled problems between the two periods of a step (Fig. 2a).

Departures from the paper, which does not describe the pool: it is bounded, what falls out is counted, and its state
can be saved and restored, so that a resumed run trains on the same problems as one that was never interrupted. What is
saved of an image is a reference: the path of its file, or its place in a row of one, with a digest of it, which must be
the same on resume. An image that is nowhere but in memory is saved whole, once, however many problems show it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

from spark_rl.data.images import image_digest, image_text
from spark_rl.data.rowimages import RowImage
from spark_rl.errors import DataError
from spark_rl.problem import Problem

_RARE = ("columns", "pseudo")
"""Fields that are saved only where they hold something (``reward.self``, functions of the user)."""


class Pool:
    """At most ``size`` problems; when more arrive the oldest fall out and are counted in ``dropped``.

    ::

        pool = Pool(2)
        pool.add([a, b, c])         # a falls out
        pool.dropped, len(pool)     # 1, 2
        pool.take(1)                # [b]
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a pool of size {size} holds nothing; give recycle.pool_size at least 1")
        self.size = size
        self.dropped = 0
        self._queue: deque[Problem] = deque()
        self._digests: dict[tuple[str, int, int], str] = {}

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, problems: Iterable[Problem]) -> None:
        """Append in order; the oldest fall out."""
        self._queue.extend(problems)
        while len(self._queue) > self.size:
            self._queue.popleft()
            self.dropped += 1

    def ready(self, n: int) -> bool:
        """Whether ``take(n)`` would give n problems."""
        return len(self._queue) >= n

    def take(self, n: int) -> list[Problem]:
        """Remove and return the oldest problems, at most ``n``."""
        return list(islice(self.oldest(), n))

    def oldest(self) -> Iterator[Problem]:
        """Remove and give the oldest problem, one at a time: for whoever can't say beforehand how many will do."""
        while self._queue:
            yield self._queue.popleft()

    def state(self) -> list[dict[str, Any]]:
        """The problems from oldest to newest, ready for JSON; ``dropped`` is saved beside it.

        Raises:
            ImageError: an image can't be encoded.
        """
        written: set[str] = set()
        return [
            problem_to_dict(replace(problem, images=()))
            | {"images": [_reference(image, self._digests, written) for image in problem.images]}
            for problem in self._queue
        ]

    @classmethod
    def from_state(cls, size: int, state: Iterable[Mapping[str, Any]], dropped: int = 0) -> Pool:
        """The pool that :meth:`state` described; with a smaller ``size`` the oldest fall out and are counted.

        Raises:
            DataError: the file of an image is gone, or is another one now.
        """
        pool = cls(size)
        pool.dropped = dropped
        known: dict[str, str] = {}
        pool.add(
            problem_from_dict({**values, "images": [_referred(image, known) for image in values["images"]]})
            for values in state
        )
        return pool


def _reference(image: object, digests: dict[tuple[str, int, int], str], written: set[str]) -> str | dict[str, Any]:
    """What is saved of an image: the path of a file with its digest, its place in a row of one, the image itself, or
    the digest of one that was written before. A file is read again only if its size or time have changed.
    """
    if isinstance(image, RowImage):
        return {"path": image.path, "row": image.number, "place": list(image.place), "column": image.column,
                "sha256": image.digest.hex()}  # fmt: skip
    text = image_text(image)
    if text[:5].lower() == "data:":
        digest = image_digest(text).hex()
        if digest in written:
            return {"sha256": digest}
        written.add(digest)
        return text
    try:
        found = Path(text.removeprefix("file://")).stat()
    except (OSError, ValueError):  # what can't be read is said where it is asked
        return text
    key = (text, found.st_size, found.st_mtime_ns)
    if key not in digests:
        digests[key] = image_digest(text).hex()
    return {"path": text, "sha256": digests[key]}


def _referred(saved: str | Mapping[str, Any], known: dict[str, str]) -> str | RowImage:
    """The inverse of :func:`_reference`: a path, a ``data:`` string, or a place that was looked at. ``known``: digest
    -> string, path -> digest."""
    if isinstance(saved, str):
        if saved[:5].lower() == "data:":
            known[image_digest(saved).hex()] = saved
        return saved
    if "column" in saved:
        first, second = saved["place"]
        image = RowImage(
            saved["path"], saved["row"], (first, second), saved["column"], bytes.fromhex(saved["sha256"])
        )  # fmt: skip
        image.read()
        return image
    path: str | None = saved.get("path")
    digest: str = saved["sha256"]
    if path is None:
        return known[digest]
    if known.get(path) != digest:
        if not Path(path.removeprefix("file://")).is_file():
            raise DataError(f"{path}: the image of a recycled problem is gone; put it back to resume")
        if image_digest(path).hex() != digest:
            raise DataError(f"{path}: the image of a recycled problem has changed; put the old one back to resume")
        known[path] = digest
    return path


def problem_to_dict(problem: Problem) -> dict[str, Any]:
    """A problem as plain JSON values; images in memory become ``data:`` strings, with the same pixels.

    Raises:
        ImageError: an image can't be encoded.
    """
    values = {field.name: getattr(problem, field.name) for field in fields(Problem)}
    for name in _RARE:
        if not values[name]:
            del values[name]
    lists = {"choices": list(problem.choices), "alternatives": list(problem.alternatives)}
    return values | lists | {"images": [image_text(image) for image in problem.images]}


def problem_from_dict(values: Mapping[str, Any]) -> Problem:
    """The inverse of :func:`problem_to_dict`. Raises ``ValueError`` on keys that a problem does not have or lacks."""
    known = {field.name for field in fields(Problem)}
    if {*values, *_RARE} != known:
        odd = sorted({*values, *_RARE} ^ known)
        raise ValueError(
            f"a saved problem has unknown or missing fields: {', '.join(odd)}; was it saved by another version?"
        )
    return Problem(**{**values, **{name: tuple(values[name]) for name in ("images", "choices", "alternatives")}})
