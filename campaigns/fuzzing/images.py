"""Pictures as files, as bytes and as paths."""

from __future__ import annotations

import base64
import io
import random
import struct
import zlib
from typing import Any

from PIL import Image

from fuzzing.hostile import NAMES, dumped, hostile, mangled
from fuzzing.rows import use
from fuzzing.watch import Bench, picture
from spark_rl.config import DataConfig
from spark_rl.data import load_problems
from spark_rl.data.images import image_digest, open_image, stored_image


def png_of(width: int, height: int, data: bytes = b"", depth: int = 8, color: int = 2) -> bytes:
    """A PNG whose header says what it likes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack("!I", len(content)) + kind + content + struct.pack("!I", zlib.crc32(kind + content))

    head = struct.pack("!IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def image_bytes(rng: random.Random) -> bytes:
    """Encoded, and wrong in some way."""
    which = rng.randrange(12)
    size = rng.choice(((7, 5), (1, 1), (1, 150), (300, 1), (1, 300), (64, 64)))
    if which == 0:
        side = rng.choice((0, 1, 30_000, 60_000, 2**31 - 1))
        return png_of(
            side,
            rng.choice((side, 1, 0)),
            bytes(rng.choice((0, 100, 5_000_000))),
            rng.choice((1, 8, 16)),
            rng.choice((0, 2, 3, 6)),
        )
    if which == 1:
        file = io.BytesIO()
        frames = [Image.new("P", size, i) for i in range(rng.choice((2, 40)))]
        frames[0].save(file, rng.choice(("GIF", "WEBP", "PNG", "TIFF")), save_all=True, append_images=frames[1:])
        return mangled(rng, file.getvalue())
    if which == 2:
        file, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = rng.choice((0, 1, 6, 9, 65535))
        Image.new("RGB", size).save(file, rng.choice(("JPEG", "PNG", "WEBP", "TIFF")), exif=exif)
        return mangled(rng, file.getvalue())
    if which == 3:  # two formats in one
        return picture("GIF", "L") + picture("PNG") + b"PK\x03\x04" + picture("JPEG")[rng.randrange(40) :]
    if which == 4:
        return rng.choice(
            (
                b"",
                b"\x89PNG",
                b"GIF89a",
                b"BM",
                b"II*\0",
                b"RIFF\xff\xff\xff\xffWEBPVP8X",
                b"<svg xmlns='x'><image href='file:///etc/passwd'/></svg>",
                b"%!PS\n(x) run",
                b"%PDF-1.4",
                b"\0\0\1\0",
                b"8BPS",
                b"P6 9999999 9999999 255\n",
                b"\xff\x0a",
            )
        )
    if which == 5:
        file = io.BytesIO()
        Image.new("RGB", (64, 64)).save(file, "JPEG", progressive=True)
        return mangled(rng, file.getvalue().replace(b"\xff\xda", b"\xff\xda" * rng.choice((1, 150, 300)), 1))
    if which == 6:  # a large one in few bytes
        return rng.choice(
            (
                picture("PNG", "1", (9000, 9000)),
                picture("PNG", "RGB", (3000, 3000)),
                picture("TIFF", "1", (9000, 9000)),
                picture("WEBP", "RGB", (3000, 3000)),
            )
        )
    kind, mode = rng.choice(
        (
            ("PNG", "RGB"),
            ("PNG", "RGBA"),
            ("PNG", "P"),
            ("PNG", "1"),
            ("PNG", "I;16"),
            ("PNG", "LA"),
            ("JPEG", "RGB"),
            ("JPEG", "CMYK"),
            ("JPEG", "L"),
            ("WEBP", "RGBA"),
            ("GIF", "P"),
            ("TIFF", "F"),
            ("TIFF", "I"),
            ("TIFF", "CMYK"),
            ("BMP", "RGB"),
            ("BMP", "1"),
            ("TIFF", "RGB"),
        )
    )
    return mangled(rng, picture(kind, mode, size))


def try_images(rng: random.Random, bench: Bench) -> None:
    """One image of a row, by path, bytes or text."""
    with bench.watch.off():
        place = bench.folder()
        confined = rng.random() < 0.6
        settings = DataConfig.model_validate(
            {
                "images": {
                    "confined": confined,
                    "unusual": rng.choice(("convert", "refuse")),
                    "max_megapixels": rng.choice((1, 16, 50)),
                }
            }
        ).images
        how, data = rng.randrange(6), image_bytes(rng)
        value: Any = data
        if how == 0:
            value = rng.choice(NAMES)
        elif how == 1:
            (place / "made.png").write_bytes(data)
            value = rng.choice(
                ("made.png", "./folder/../made.png", str(place / "made.png"), f"file://{place}/made.png")
            )
        elif how == 2:
            value = f"data:image/{rng.choice(('png', 'jpeg', 'svg+xml'))};base64,{base64.b64encode(data).decode()}"
            value = mangled(rng, value.encode(), rng.choice((0, 1))).decode("latin-1")
        elif how == 3:
            value = {
                rng.choice(("bytes", "data", "base64", "url", "path", "image")): rng.choice(
                    (base64.b64encode(data).decode(), list(data)[:4000])
                )
            }
        elif how == 4:
            value = hostile(rng)
    bench.watch.forbidden = str(bench.scratch / "secret") if confined else ""
    if rng.random() < 0.2 and isinstance(value, str | list | dict):
        (place / "row.jsonl").write_text(dumped({"question": "What?", "answer": "1", "image": value}))
        config = DataConfig.model_validate({"images": settings.model_dump()})
        use(load_problems(str(place / "row.jsonl"), config), bench)
        return
    kept = stored_image(value, place, confined)
    image_digest(kept)
    opened = open_image(kept, settings)
    assert opened.mode == "RGB"
    assert opened.width * opened.height <= settings.max_megapixels * 1e6
