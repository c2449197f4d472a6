"""From encoded bytes to an 8-bit RGB picture, and back to bytes; nothing here knows of paths or rows.

======================== ==============================================================================================
picture                  what :func:`decode` does
======================== ==============================================================================================
EXIF orientation         applied
grey, palette, 1 bit     to RGB
transparent              laid on white
CMYK, 16 bit, animated   to 8-bit RGB, 16 bits scaled, the first frame; or refused (``data.images.unusual``)
32-bit integer, float    scaled from the narrowest of 0..1 (float), 0..255, 0..65535 that holds all values, else from
                         the darkest to the brightest
anything else            :class:`ImageError`, with a short phrase
======================== ==============================================================================================

Images are untrusted. Only PNG, JPEG, GIF, WebP, BMP and TIFF are read, told apart by their first bytes, and the size is
taken from the header before anything is decoded.

Departures from the authors' release, which leaves all of this to the processor: everything in the table. No torch here.
"""

from __future__ import annotations

import io
import math
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

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
from spark_rl.errors import plain

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
    AssertionError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
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
_PNG_MODES = frozenset(("1", "L", "LA", "I;16", "P", "RGB", "RGBA"))
_TIFF_MODES = frozenset(("I", "F", "CMYK"))
_filters = threading.RLock()


class ImageError(ValueError):
    """Why an image can't be used, as a short phrase behind its name; neither steers a terminal."""

    def __init__(self, why: str) -> None:
        super().__init__(plain(why))


def decode(image: bytes | Image.Image, settings: ImagesConfig, *, checking: bool = False) -> Image.Image:
    """The picture, upright, in mode RGB, without metadata; a PIL image is not changed. Call it inside :func:`quiet`.

    ``checking`` decodes every byte but may return a smaller picture: for JPEG that is much faster.

    Raises:
        ImageError: no image, damaged, too large, too narrow, or refused by ``settings``.
    """
    try:
        opened = image if isinstance(image, Image.Image) else _opened(image, settings)
        _refuse(opened, settings)
        if checking and isinstance(opened, JpegImageFile) and opened is not image:
            opened.draft(None, (1, 1))
        opened.load()
        picture = _upright(_rgb(opened), opened)
        pixels = Image.new("RGB", picture.size)
        pixels.paste(picture)  # without what the file said of itself: who read that would turn the picture again
        return pixels
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(_too_large(settings)) from None
    except _DECODER_ERRORS as error:
        raise ImageError(f"truncated or damaged ({_why(error)})") from None


def encode(image: Image.Image) -> bytes:
    """The picture, upright and without metadata, as bytes that decode to the same pixels, transparency included.

    Raises:
        ImageError: it can't be encoded.
    """
    file = io.BytesIO()
    with quiet():
        try:
            image.load()
            kept = _upright(image, image).copy()
            kept.info = {key: value for key, value in image.info.items() if key == "transparency"}
            if kept.mode not in _PNG_MODES | _TIFF_MODES:
                kept = _rgb(kept)
            kept.save(file, "TIFF" if kept.mode in _TIFF_MODES else "PNG")
        except _DECODER_ERRORS as error:
            raise ImageError(f"can't be encoded ({_why(error)})") from None
    return file.getvalue()


def media_type(data: bytes) -> str:
    """``image/png`` and so on, by the first bytes."""
    known = (f"image/{media}" for magic, media, _ in _FORMATS if magic.match(data))
    return next(known, "application/octet-stream")


def fit(picture: Image.Image, min_pixels: int | None, max_pixels: int | None) -> Image.Image:
    """The picture at its own ratio with at least ``min_pixels`` and at most ``max_pixels``; null leaves a side open.

    Sides are whole numbers: where the bounds leave no room between them, ``max_pixels`` holds.
    """
    width, height = picture.size
    pixels = width * height
    if max_pixels is not None and pixels > max_pixels:
        width, height = _shrunk(width, height, max_pixels)
    elif min_pixels is not None and pixels < min_pixels:
        scale = math.sqrt(min_pixels / pixels)
        width, height = math.ceil(width * scale), math.ceil(height * scale)
        if max_pixels is not None and width * height > max_pixels:
            width, height = _shrunk(width, height, max_pixels)
    return picture if (width, height) == picture.size else picture.resize((width, height), Image.Resampling.BICUBIC)


def _shrunk(width: int, height: int, pixels: int) -> tuple[int, int]:
    """The largest size near this ratio with at most ``pixels`` pixels and no side of none."""
    scale = math.sqrt(pixels / (width * height))
    shorter = max(1, math.floor(min(width, height) * scale))
    longer = min(pixels // shorter, math.floor(max(width, height) * scale))
    return (longer, shorter) if width >= height else (shorter, longer)


@contextmanager
def quiet() -> Iterator[None]:
    """Pillow warns of odd metadata; what matters of it comes back as an error. The filters are the whole process's."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


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


def _too_large(settings: ImagesConfig) -> str:
    return f"larger than data.images.max_megapixels ({settings.max_megapixels:g})"


def _why(error: BaseException) -> str:
    return " ".join(str(error).split())[:80] or type(error).__name__
