"""Small copies of a problem's images, kept beside its rollouts and shown in the report.

Whatever goes in, what comes out is a PNG made here, as a ``data:`` string: neither a file's bytes nor text from a
record ever reaches a page.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from spark_rl.config import ImagesConfig
from spark_rl.data.images import ImageError, open_image

SIDE = 160
"""Pixels of the longest side."""
MOST = 4
"""Images of one problem."""
BUDGET = 24_000
"""Characters of all thumbnails of one problem together."""

_COLOURS = 64
_PREFIX = "data:image/png;base64,"
_RECORDED = ImagesConfig(max_megapixels=1.0)


def thumbnails(images: Sequence[Any]) -> list[str]:
    """``data:`` strings of the first :data:`MOST` images, within :data:`BUDGET`. One that can't be opened any more
    (its file is gone, say) is left out."""
    shown = images[:MOST]
    return [small for image in shown if (small := _thumbnail(image, ImagesConfig(), BUDGET // len(shown))) is not None]


def recorded_thumbnails(values: object) -> list[str]:
    """What :func:`thumbnails` wrote, read back from an untrusted record: decoded and encoded again."""
    if not isinstance(values, list):
        return []
    texts = [v for v in values[:MOST] if isinstance(v, str) and v.startswith(_PREFIX) and len(v) <= BUDGET]
    return [small for text in texts if (small := _thumbnail(text, _RECORDED, BUDGET)) is not None]


def _thumbnail(image: object, settings: ImagesConfig, longest: int) -> str | None:
    """A PNG of few colours, smaller until it is at most ``longest`` characters."""
    try:
        picture = open_image(image, settings)
    except ImageError:
        return None
    side = SIDE
    while True:
        picture.thumbnail((side, side))
        file = io.BytesIO()
        picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
        text = _PREFIX + base64.b64encode(file.getvalue()).decode("ascii")
        if len(text) <= longest:
            return text
        side = side * 3 // 4
