"""Images as text: ``data:`` strings, and base64 without a name; nothing here opens a path or decodes a picture."""

from __future__ import annotations

import base64
import re

from spark_rl.data.decode import ImageError

_DATA = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_BASE64_PICTURE = re.compile(
    r"(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR|Qk[0-3A-Za-z]|SUkq|SUkr|TU0A)[A-Za-z0-9+/\s]*+={0,2}\s*+\Z"
)
"""The first bytes of PNG, JPEG, GIF, WebP, BMP and TIFF in base64, and nothing but base64 behind them."""
_LEAST_BASE64 = 64
"""Characters: no picture is shorter, and file names hardly ever are so long without a full stop."""


def is_data(text: str) -> bool:
    """Whether a text is a ``data:`` string, of whatever kind."""
    return text[:5].lower() == "data:"


def data_bytes(text: str) -> bytes:
    """The bytes of a ``data:`` string. Raises :class:`ImageError` if it is not base64."""
    head = _DATA.match(text)
    if head is None:
        raise ImageError("only base64 is read: data:image/png;base64,...")
    try:
        return base64.b64decode("".join(text[head.end() :].split()), validate=True)
    except ValueError:
        raise ImageError("not valid base64") from None


def is_base64_picture(text: str) -> bool:
    """Whether a text can only be a picture in base64, and no path."""
    return len(text) >= _LEAST_BASE64 and _BASE64_PICTURE.match(text) is not None


def base64_bytes(text: str) -> bytes:
    """The bytes of base64 that may lack its padding and be broken into lines. Raises :class:`ImageError`."""
    text = "".join(text.split())
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise ImageError("not valid base64") from None
