"""Images of problems, I in d = (q, a, I) (Sec. 3.1): the one place that turns paths, bytes and text into pictures.

:func:`stored_image` is what a problem keeps (an absolute path, a ``data:`` string or encoded bytes; where these lie in
a row of a file, their place: :mod:`spark_rl.data.rowimages`), :func:`open_image` makes it an 8-bit RGB picture,
:func:`check_images` finds the ones that can't be opened.

Images are untrusted: nothing is fetched, only regular files of a plausible size are read, and only as the formats that
:mod:`spark_rl.data.decode` lists, which also says what becomes of every kind of picture.

No torch here.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from spark_rl.config import ImagesConfig
from spark_rl.data.decode import ImageError, decode, encode, fit, media_type, quiet
from spark_rl.data.encoded import base64_bytes, data_bytes, is_base64_picture, is_data
from spark_rl.data.rowimages import RowImage, RowImageError
from spark_rl.data.values import RowError, images_of

__all__ = [
    "SUBFOLDERS",
    "ImageError",
    "check_images",
    "fit",
    "image_digest",
    "image_text",
    "open_image",
    "read_image",
    "stored_image",
]

SUBFOLDERS = ("", "images", "image", "data")
"""Where relative paths are looked for below the root: published sets name their images from inside these folders."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://")
_DEFAULT = ImagesConfig()


def open_image(image: object, settings: ImagesConfig = _DEFAULT) -> Image.Image:
    """The picture, upright, in mode RGB; the caller's own object is never changed.

    Args:
        image: a path, a ``file://`` path, a ``data:`` string in base64, encoded bytes, their place, or a PIL image.
        settings: what is refused (``unusual``, ``max_megapixels``).

    Raises:
        ImageError: it is missing, no image, damaged, too large, too narrow, or refused by ``settings``.
    """
    with quiet(), _named(image):
        return _picture(image, settings)


def check_images(images: Sequence[object], settings: ImagesConfig = _DEFAULT) -> list[ImageError | None]:
    """For each image what :func:`open_image` would raise, or ``None``. Decodes in threads and keeps no picture."""

    def verdict(image: object) -> ImageError | None:
        try:
            with _named(image):
                _picture(image, settings, checking=True)
        except ImageError as error:
            return error
        return None

    with quiet(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        return list(threads.map(verdict, images))


def stored_image(value: object, root: Path, confined: bool = False) -> str | bytes:
    """What :class:`spark_rl.problem.Problem` keeps of an image: an absolute path, a ``data:`` string or encoded bytes.

    Relative paths are looked for in ``root`` and its :data:`SUBFOLDERS`; ``file://`` is taken off, and what follows is
    taken literally. A mapping is read as :func:`spark_rl.data.values.images_of` reads it; long base64 text that begins
    like a picture is one. PIL images become lossless bytes, upright. Nothing is decoded: :func:`check_images` tells
    whether there is a picture.

    Args:
        value: what a row, a command or a message holds.
        root: where relative paths start.
        confined: refuse paths that leave ``root``, absolute ones and those by links too. What is kept then has no
            links left in it.

    Raises:
        ImageError: the value is no image at all, an address on the web, outside of ``root``, or can't be encoded.
    """
    if isinstance(value, Mapping):
        try:
            held = images_of(value)
        except RowError as error:
            raise ImageError(str(error)) from None
        if len(held) > 1:
            raise ImageError(f"a mapping of {len(held)} images, not of one")
        value = held[0] if held else None
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    with _named(value):
        if isinstance(value, Image.Image):
            return encode(value)
        if not isinstance(value, str | Path):
            raise ImageError("neither a path nor bytes nor a data: string")
        text = str(value)
        if is_data(text):
            return text
        if is_base64_picture(text):
            return base64_bytes(text)
        path = _path(text)
        # the path may not exist, and resolve() would follow links; an over-long one exists nowhere
        candidates = [os.path.abspath(root / folder / path) for folder in SUBFOLDERS]  # noqa: PTH100
        found = next((candidate for candidate in candidates if os.path.exists(candidate)), candidates[0])  # noqa: PTH110
        return _inside(found, root) if confined else found


def _inside(path: str, root: Path) -> str:
    """The path without links, if it is below ``root``. Nothing is said of what lies outside, not even whether it is."""
    try:
        real, base = Path(os.path.realpath(path)), Path(os.path.realpath(root))
    except (OSError, ValueError):
        raise ImageError("can't be read") from None
    if not real.is_relative_to(base):
        raise ImageError(f"outside of {base}, which data.images.confined refuses")
    return str(real)


def image_text(image: object) -> str:
    """The image as text that :func:`open_image` gives the same pixels for: its path, or a ``data:`` string.

    Raises:
        ImageError: it is neither, and can't be encoded.
    """
    if isinstance(image, str | Path):
        return str(image)
    data = stored_image(read_image(image), Path())
    if isinstance(data, str):
        return data
    return f"data:{media_type(data)};base64,{base64.b64encode(data).decode('ascii')}"


def read_image(image: object) -> object:
    """What a row of a file holds where the image is a :class:`RowImage`; any other image as it is.

    Raises:
        ImageError: it is not there any more.
    """
    return image.read() if isinstance(image, RowImage) else image


def image_digest(image: object) -> bytes:
    """A hash of the encoded bytes, the same for a file, its bytes and its ``data:`` string; of the name if unreadable.

    Other encodings of the same pixels have other hashes.
    """
    if isinstance(image, RowImage):
        return image.digest
    try:
        data = encode(image) if isinstance(image, Image.Image) else _encoded(image, math.inf)
    except ImageError:
        data = repr(image).encode()
    return hashlib.sha256(data).digest()


def _picture(image: object, settings: ImagesConfig, *, checking: bool = False) -> Image.Image:
    encoded = image if isinstance(image, Image.Image) else _encoded(image, _most_bytes(settings))
    return decode(encoded, settings, checking=checking)


def _encoded(image: object, most: float) -> bytes:
    """The bytes of an image given as bytes, ``data:`` string, path or place in a row; of files at most ``most`` are
    read."""
    image = read_image(image)
    if isinstance(image, bytes):
        return image
    if isinstance(image, str) and is_data(image):
        return data_bytes(image)
    if not isinstance(image, str | Path):
        raise ImageError("neither a path nor bytes nor a data: string")
    path = Path(_path(str(image)))
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode) and found.st_size <= most:
            return path.read_bytes()
    except FileNotFoundError:
        raise ImageError("there is no such file") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"can't be read ({getattr(error, 'strerror', None) or 'no path'})") from None
    if stat.S_ISREG(found.st_mode):
        raise ImageError(f"{found.st_size / 1e6:,.0f} MB, more than any picture within data.images.max_megapixels")
    # reading a pipe or a device may never end
    raise ImageError("a folder" if stat.S_ISDIR(found.st_mode) else "not a regular file")


def _path(text: str) -> str:
    """The path that the text names, ``file://`` taken off."""
    path = text.removeprefix("file://")
    if _URL.match(path):
        raise ImageError("addresses are not fetched; download it and give a path")
    if "\0" in path:
        raise ImageError("no path, it has a NUL in it")
    return path


def _most_bytes(settings: ImagesConfig) -> float:
    """No uncompressed picture within the bounds, at 16 bits and four channels, needs more."""
    return settings.max_megapixels * 8e6 + 1e6


@contextmanager
def _named(image: object) -> Iterator[None]:
    """Puts the image's name in front of what is wrong with it: of long paths the end, which tells them apart."""
    try:
        yield
    except RowImageError:
        raise
    except ImageError as error:
        name = "the bytes" if isinstance(image, bytes | RowImage) else f"a {type(image).__name__}"
        if isinstance(image, str | Path):
            text = " ".join(str(image)[-200:].splitlines())
            name = "the data: string" if is_data(str(image)) else text if len(text) <= 120 else f"...{text[-120:]}"
        raise ImageError(f"{name}: {error}") from None
