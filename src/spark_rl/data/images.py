"""Images of problems, I in d = (q, a, I) (Sec. 3.1): the one place that turns paths, bytes and text into pictures.

:func:`stored_image` is what a problem keeps (an absolute path, a ``data:`` string or encoded bytes), :func:`open_image`
makes it an 8-bit RGB picture, :func:`check_images` finds the ones that can't be opened, :func:`fit` bounds their size.

======================== ==============================================================================================
picture                  what :func:`open_image` does
======================== ==============================================================================================
EXIF orientation         applied
grey, palette, 1 bit     to RGB
transparent              laid on white
CMYK, 16 bit, animated   to 8-bit RGB, 16 bits scaled, the first frame; or refused (``data.images.unusual``)
32-bit integer, float    scaled from the narrowest of 0..1 (float), 0..255, 0..65535 that holds all values, else from
                         the darkest to the brightest
anything else            :class:`ImageError`, with a short phrase
======================== ==============================================================================================

Images are untrusted. Only PNG, JPEG, GIF, WebP, BMP and TIFF are read, told apart by their first bytes; the size is
taken from the header before anything is decoded; nothing is fetched, and only regular files are opened.

Departures from the authors' release, which hands paths to the processor as they are: everything in the table.

No torch here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import math
import os
import re
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from spark_rl.config import ImagesConfig

SUBFOLDERS = ("", "images", "image", "data")
"""Where relative paths are looked for below the root: published sets name their images from inside these folders."""

MAX_RATIO = 200
"""Longer strips are refused here because the processors of Qwen's models refuse them."""

MAX_SCANS = 200
"""A progressive JPEG decodes the whole picture once per scan. Real ones have about ten."""

_FORMATS: tuple[tuple[re.Pattern[bytes], str, type[ImageFile]], ...] = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "png", PngImageFile),
    (re.compile(rb"\xff\xd8\xff"), "jpeg", JpegImageFile),
    (re.compile(rb"GIF8[79]a"), "gif", GifImageFile),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "webp", WebPImageFile),
    (re.compile(rb"BM"), "bmp", BmpImageFile),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), "tiff", TiffImageFile),
)
"""First bytes, media type behind ``image/``, and reader. Calling the reader itself leaves out Pillow's own limit on
pixels, a global that other code may have changed."""

_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError, RuntimeError,
    MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow's readers raise on damaged files."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what puts the picture upright."""

_ORIENTATION = 0x0112
_PNG_MODES = frozenset(("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"))
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://")
_DATA = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_DEFAULT = ImagesConfig()
_filters = threading.RLock()


class ImageError(ValueError):
    """Why an image can't be used, as a short phrase behind its name."""


def open_image(image: object, settings: ImagesConfig = _DEFAULT) -> Image.Image:
    """The picture, upright, in mode RGB; the caller's own object is never changed.

    Args:
        image: a path, a ``file://`` path, a ``data:`` string in base64, encoded bytes, or a PIL image.
        settings: what is refused (``unusual``, ``max_megapixels``).

    Raises:
        ImageError: it is missing, no image, damaged, too large, too narrow, or refused by ``settings``.
    """
    with _quiet():
        return _picture(image, settings)


def check_images(images: Sequence[object], settings: ImagesConfig = _DEFAULT) -> list[ImageError | None]:
    """For each image what :func:`open_image` would raise, or ``None``. Decodes in threads and keeps no picture."""

    def verdict(image: object) -> ImageError | None:
        try:
            _picture(image, settings, checking=True)
        except ImageError as error:
            return error
        return None

    with _quiet(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        return list(threads.map(verdict, images))


def stored_image(value: object, root: Path) -> str | bytes:
    """What :class:`spark_rl.problem.Problem` keeps of an image: an absolute path, a ``data:`` string or encoded bytes.

    Relative paths are looked for in ``root`` and its :data:`SUBFOLDERS`; ``file://`` is taken off, and what follows is
    taken literally. Of a Hugging Face image, ``{"bytes": ..., "path": ...}``, the bytes win. PIL images become lossless
    bytes, upright. Nothing is decoded: :func:`check_images` tells whether there is a picture.

    Raises:
        ImageError: the value is no image at all, an address on the web, or can't be encoded.
    """
    if isinstance(value, Mapping):
        inner = value.get("bytes")
        value = value.get("path") if inner is None else inner
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Image.Image):
        return _lossless(value)
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str):
        raise ImageError(f"a {type(value).__name__} is no image; give a path, bytes or a data: string")
    if _is_data(value):
        return value
    path = _path(value)
    candidates = [os.path.abspath(root / folder / path) for folder in SUBFOLDERS]  # noqa: PTH100 (resolve() follows links)
    return next((candidate for candidate in candidates if os.path.exists(candidate)), candidates[0])  # noqa: PTH110 (never raises)


def image_text(image: object) -> str:
    """The image as text that :func:`open_image` gives the same pixels for: its path, or a ``data:`` string.

    Raises:
        ImageError: it is neither, and can't be encoded.
    """
    if isinstance(image, str | Path):
        return str(image)
    data = stored_image(image, Path())
    if isinstance(data, str):
        return data
    media = next((f"image/{media}" for magic, media, _ in _FORMATS if magic.match(data)), "application/octet-stream")
    return f"data:{media};base64,{base64.b64encode(data).decode('ascii')}"


def image_digest(image: object) -> bytes:
    """A hash of the encoded bytes, the same for a file, its bytes and its ``data:`` string; of the name if unreadable.

    Other encodings of the same pixels have other hashes.
    """
    try:
        data = _lossless(image) if isinstance(image, Image.Image) else _encoded(image, math.inf)
    except ImageError:
        data = repr(image).encode()
    return hashlib.sha256(data).digest()


def fit(picture: Image.Image, min_pixels: int | None, max_pixels: int | None) -> Image.Image:
    """The picture at its own ratio with at least ``min_pixels`` and at most ``max_pixels``; null leaves a side open.

    Where no size fits both, ``max_pixels`` holds.
    """
    width, height = picture.size
    pixels = width * height
    if max_pixels is not None and pixels > max_pixels:
        scale = math.sqrt(max_pixels / pixels)
        width = min(max_pixels, max(1, math.floor(width * scale)))
        height = max(1, min(math.floor(height * scale), max_pixels // width))
        width = min(width, max_pixels // height)
    elif min_pixels is not None and pixels < min_pixels:
        scale = math.sqrt(min_pixels / pixels)
        wider = math.ceil(width * scale), math.ceil(height * scale)
        if max_pixels is None or math.prod(wider) <= max_pixels:
            width, height = wider
        else:
            width, height = math.floor(width * scale), math.floor(height * scale)
    return picture if (width, height) == picture.size else picture.resize((width, height), Image.Resampling.BICUBIC)


@contextmanager
def _quiet() -> Iterator[None]:
    """Pillow warns of odd metadata; what matters of it comes back as an error. The filters are the whole process's."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _picture(image: object, settings: ImagesConfig, *, checking: bool = False) -> Image.Image:
    """The picture in RGB. ``checking`` decodes every byte but may make it smaller: for JPEG that is much faster."""
    try:
        opened = image if isinstance(image, Image.Image) else _opened(_encoded(image, _most_bytes(settings)), settings)
        _refuse(opened, settings)
        if checking and isinstance(opened, JpegImageFile) and not isinstance(image, Image.Image):
            opened.draft(None, (1, 1))
        opened.load()
        return _upright(_rgb(opened), opened)
    except ImageError as error:
        raise ImageError(f"{_name(image)}: {error}") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{_name(image)}: {_too_large(settings)}") from None
    except _DECODER_ERRORS as error:
        why = " ".join(str(error).split())[:80] or type(error).__name__
        raise ImageError(f"{_name(image)}: truncated or damaged ({why})") from None


def _encoded(image: object, most: float) -> bytes:
    """The bytes of an image given as bytes, ``data:`` string or path; of files at most ``most`` are read."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, str) and _is_data(image):
        head = _DATA.match(image)
        if head is None:
            raise ImageError("only base64 is read: data:image/png;base64,...")
        try:
            return base64.b64decode("".join(image[head.end() :].split()), validate=True)
        except (binascii.Error, ValueError):
            raise ImageError("not valid base64") from None
    if not isinstance(image, str | Path):
        raise ImageError(f"a {type(image).__name__} is no image")
    path = Path(_path(str(image)))
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise ImageError("a folder, not a file")
        if not stat.S_ISREG(found.st_mode):  # reading a pipe or a device may never end
            raise ImageError("not a regular file")
        if found.st_size > most:
            raise ImageError(f"{found.st_size / 1e6:,.0f} MB, more than any picture within data.images.max_megapixels")
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError("there is no such file") from None
    except OSError as error:
        raise ImageError(f"can't be read ({error.strerror})") from None


def _opened(data: bytes, settings: ImagesConfig) -> ImageFile:
    """The header of an encoded image, its pixels not yet decoded."""
    if not data:
        raise ImageError("empty, no bytes at all")
    found = next(((media, reader) for magic, media, reader in _FORMATS if magic.match(data)), None)
    if found is None:
        raise ImageError("not an image of a known format (PNG, JPEG, GIF, WebP, BMP, TIFF)")
    media, reader = found
    if media == "jpeg" and data.count(b"\xff\xda") > MAX_SCANS:
        raise ImageError(f"a JPEG of more than {MAX_SCANS} scans, which would take very long to decode")
    if media == "webp" and _webp_pixels(data) > settings.max_megapixels * 1e6:
        raise ImageError(_too_large(settings))  # the reader makes room for the picture at once
    try:
        return reader(io.BytesIO(data))
    except SyntaxError:
        raise ImageError(f"a {media.upper()} file with a damaged header, or without a single pixel") from None


def _webp_pixels(data: bytes) -> int:
    """Width times height by the header of a WebP file (https://developers.google.com/speed/webp/docs/riff_container);
    0 where it is cut short."""
    chunk, head = data[12:16], data[16:30]
    if len(head) < 14:
        return 0
    if chunk == b"VP8X":
        width, height = (int.from_bytes(head[i : i + 3], "little") + 1 for i in (8, 11))
    elif chunk == b"VP8L":
        bits = int.from_bytes(head[5:9], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(head[i : i + 2], "little") & 0x3FFF for i in (10, 12))
    return width * height


def _refuse(image: Image.Image, settings: ImagesConfig) -> None:
    """Raises :class:`ImageError` for what the header alone shows to be unusable."""
    width, height = image.size
    if not width or not height:
        raise ImageError(f"{width} x {height}, without a single pixel")
    if width * height > settings.max_megapixels * 1e6:
        raise ImageError(f"{width} x {height}, {_too_large(settings)}")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise ImageError(f"{width} x {height}, narrower than 1:{MAX_RATIO}, which vision models refuse")
    if settings.unusual == "refuse":
        deep = image.mode.startswith(("I", "F")) or any(";16" in str(t[3]) for t in getattr(image, "tile", ()))
        for what, found in (("CMYK", image.mode == "CMYK"), ("more than 8 bits", deep)):
            if found:
                raise ImageError(f"{what}, which data.images.unusual refuses")
        if getattr(image, "is_animated", False):
            raise ImageError("animated, which data.images.unusual refuses")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _eight_bit(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(image.convert("RGBA"))
    return page.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits as 8 bits, scaled."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    usual = (65535.0,) if image.mode.startswith("I;16") else (255.0, 65535.0)
    ranges = (1.0, *usual) if image.mode == "F" else usual
    top = next((top for top in ranges if low >= 0.0 and high <= top), None)
    if top is not None:
        low, high = 0.0, top
    return Image.fromarray(np.rint((values - low) / max(high - low, 1e-300) * 255.0).astype(np.uint8))


def _upright(picture: Image.Image, image: Image.Image) -> Image.Image:
    """``picture``, turned as the metadata of ``image``, which it was made from, says."""
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except _DECODER_ERRORS:  # damaged metadata does not damage the picture
        turn = None
    return picture if turn is None else picture.transpose(turn)


def _lossless(image: Image.Image) -> bytes:
    """A PIL image as bytes that decode to the same pixels; PNG where it knows the mode."""
    file = io.BytesIO()
    with _quiet():
        try:
            upright = _upright(image, image)
            upright.save(file, "PNG" if upright.mode in _PNG_MODES else "TIFF")
        except (*_DECODER_ERRORS, KeyError) as error:
            why = " ".join(str(error).split())[:80] or type(error).__name__
            raise ImageError(f"{_name(image)}: can't be encoded ({why})") from None
    return file.getvalue()


def _is_data(text: str) -> bool:
    return text[:5].lower() == "data:"


def _path(text: str) -> str:
    """The path that the text names, ``file://`` taken off."""
    path = text.removeprefix("file://")
    if _URL.match(path):
        raise ImageError(f"{path[:60]}: addresses are not fetched; download it and give a path")
    if "\0" in path:
        raise ImageError(f"{path[:60]!r} is no path")
    return path


def _most_bytes(settings: ImagesConfig) -> float:
    """No uncompressed picture within the bounds, at 16 bits and four channels, needs more."""
    return settings.max_megapixels * 8e6 + 1e6


def _too_large(settings: ImagesConfig) -> str:
    return f"larger than data.images.max_megapixels ({settings.max_megapixels:g})"


def _name(image: object) -> str:
    """How an error names an image: paths by their end, which tells them apart."""
    if isinstance(image, str | Path):
        text = str(image)
        return "the data: string" if _is_data(text) else text if len(text) <= 120 else f"...{text[-120:]}"
    return "the bytes" if isinstance(image, bytes) else f"the {type(image).__name__}"
