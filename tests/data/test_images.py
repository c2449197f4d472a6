"""Images from every kind of source and of every kind of picture; what is broken says how, and nothing crashes."""

from __future__ import annotations

import base64
import io
import math
import os
import struct
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from spark_rl.config import ImagesConfig
from spark_rl.data.images import (
    ImageError,
    check_images,
    fit,
    image_digest,
    image_text,
    open_image,
    stored_image,
)

REFUSE = ImagesConfig(unusual="refuse")
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
ORIENTATION = 0x0112


def picture(width: int = 7, height: int = 5, mode: str = "RGB") -> Image.Image:
    """No two pixels of a row alike, so that a flip or a turn shows."""
    values = np.arange(width * height * 3).reshape(height, width, 3) * 5 % 251
    return Image.fromarray(values.astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png(width: int, height: int, depth: int, colour: int, pixels: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand: header, other chunks, compressed pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
    body = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


PNG = encoded(picture())


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.mode == other.mode == "RGB" and one.size == other.size and one.tobytes() == other.tobytes()


def test_every_way_to_give_an_image_gives_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "a b.png"
    path.write_bytes(PNG)
    text = base64.b64encode(PNG).decode()
    sources = [
        path,
        str(path),
        f"file://{path}",
        PNG,
        picture(),
        Image.open(path),
        f"data:image/png;base64,{text}",
        f"DATA:image/png;charset=utf-8;BASE64,{text[:20]}\n{text[20:]}\n",
    ]
    for source in sources:
        assert same(open_image(source), picture())
    assert check_images(sources) == [None] * len(sources)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_read(form: str) -> None:
    data = encoded(picture(), form)
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    assert same(open_image(data), expected)


@pytest.mark.parametrize(
    ("pixel", "mode", "rgb"),
    [
        (0, "1", (0, 0, 0)),
        (77, "L", (77, 77, 77)),
        ((77, 255), "LA", (77, 77, 77)),
        ((77, 0), "LA", (255, 255, 255)),
        ((10, 20, 30, 255), "RGBA", (10, 20, 30)),
        ((10, 20, 30, 0), "RGBA", (255, 255, 255)),
        ((0, 0, 0, 51), "RGBA", (204, 204, 204)),
        ((0, 255, 255, 0), "CMYK", (255, 0, 0)),
        (65535, "I;16", (255, 255, 255)),
        (257, "I;16", (1, 1, 1)),
        (200, "I;16", (1, 1, 1)),
        (300, "I", (1, 1, 1)),
        (200, "I", (200, 200, 200)),
        (0.5, "F", (128, 128, 128)),
        (40.0, "F", (40, 40, 40)),
    ],
)
def test_every_mode_becomes_rgb_on_white(pixel: Any, mode: str, rgb: tuple[int, int, int]) -> None:
    image = Image.new(mode, (3, 2), pixel)
    assert open_image(image).getpixel((1, 1)) == rgb
    assert image.mode == mode
    assert same(open_image(stored_image(image, Path())), open_image(image))


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    expected = np.rint(values / 257).astype(np.uint8)
    for form in ("PNG", "TIFF"):
        assert np.array_equal(np.asarray(open_image(encoded(Image.fromarray(values), form)))[:, :, 0], expected)
    wide = np.array([[-1000, 0, 1000]], dtype=np.int32)
    assert np.asarray(open_image(Image.fromarray(wide)))[0, :, 0].tolist() == [0, 128, 255]
    holes = np.array([[math.nan, 1.0, math.inf]], dtype=np.float32)
    assert np.asarray(open_image(Image.fromarray(holes)))[0, :, 0].tolist() == [0, 255, 0]


def test_transparency_of_palettes_and_of_single_colours_is_white() -> None:
    palette = picture(mode="P")
    clear = palette.getpixel((0, 0))
    shown = np.asarray(open_image(encoded(palette, "PNG", transparency=clear)))
    assert shown[0, 0].tolist() == [255, 255, 255]
    assert shown[1, 1].tolist() == np.asarray(palette.convert("RGB"))[1, 1].tolist()
    key = (b"tRNS", struct.pack(">HHH", 9, 9, 9))
    data = png(2, 1, 8, 2, b"\0" + bytes([9, 9, 9, 8, 8, 8]), key)
    assert np.asarray(open_image(data)).tolist() == [[[255, 255, 255], [8, 8, 8]]]


def test_inverted_cmyk_of_adobe_is_not_a_negative() -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    shown = open_image(encoded(red, "JPEG", quality=100)).getpixel((8, 8))
    assert isinstance(shown, tuple)
    assert shown[0] > 240
    assert max(shown[1:]) < 15


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_pictures_are_put_upright(form: str, turn: int) -> None:
    """The corner that EXIF calls the top left must end up there, whatever the file's first pixel is."""
    first = {1: 0, 2: 1, 3: 2, 4: 3, 5: 0, 6: 3, 7: 2, 8: 1}[turn]
    image = Image.new("RGB", (64, 48))
    image.paste("white", ((0, 0, 20, 20), (44, 0, 64, 20), (44, 28, 64, 48), (0, 28, 20, 48))[first])
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    data = encoded(image, form, exif=exif)
    for source in (data, Image.open(io.BytesIO(data)), stored_image(Image.open(io.BytesIO(data)), Path())):
        upright = open_image(source)
        assert upright.size == ((64, 48) if turn < 5 else (48, 64))
        pixels = np.asarray(upright)[:, :, 1] > 128
        assert [pixels[4, 4], pixels[4, -4], pixels[-4, -4], pixels[-4, 4]] == [True, False, False, False]


def test_damaged_metadata_does_no_harm() -> None:
    data = encoded(picture(), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(20))
    assert same(open_image(data), picture())


def animation(form: str) -> bytes:
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "lime", "blue")]
    return encoded(
        frames[0], form, save_all=True, append_images=frames[1:], **({"lossless": True} if form == "WEBP" else {})
    )


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_stands_for_an_animation(form: str) -> None:
    assert open_image(animation(form)).getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (animation("GIF"), "animated, which data.images.unusual refuses"),
        (animation("WEBP"), "animated"),
        (animation("PNG"), "animated"),
        (animation("TIFF"), "animated"),
        (encoded(picture(mode="CMYK"), "JPEG"), "CMYK, which data.images.unusual refuses"),
        (encoded(Image.fromarray(np.zeros((3, 3), dtype=np.uint16))), "more than 8 bits, which data.images.unusual"),
        (png(1, 1, 16, 2, b"\0" + bytes(6)), "more than 8 bits"),
        (Image.new("F", (3, 3)), "more than 8 bits"),
    ],
)
def test_unusual_pictures_are_refused_when_told(image: Any, why: str) -> None:
    assert open_image(image).mode == "RGB"
    with pytest.raises(ImageError, match=why):
        open_image(image, REFUSE)
    assert [why in str(error) for error in check_images([image, PNG], REFUSE)] == [True, False]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_grey_palette_and_transparent_pictures_are_never_refused(mode: str) -> None:
    assert open_image(encoded(picture(mode=mode)), REFUSE).mode == "RGB"


@pytest.mark.parametrize("form", FORMATS)
def test_a_truncated_file_is_an_error_and_never_half_a_picture(form: str) -> None:
    data = encoded(picture(64, 64), form)
    for length in (len(data) // 4, len(data) // 2, len(data) * 3 // 4):
        with pytest.raises(ImageError, match=r"truncated|damaged"):
            open_image(data[:length])
        assert check_images([data[:length]]) != [None]


def bomb(form: str) -> bytes:
    """A few kilobytes that say they are at least 144 million pixels."""
    dot = Image.new("RGB", (1, 1))
    if form == "GIF":  # one pixel by its header; its only frame says otherwise
        return encoded(dot, "GIF").replace(b",\0\0\0\0\1\0\1\0", b",\0\0\0\0\xff\xff\xff\xff")
    if form == "VP8":
        return encoded(dot, "WEBP").replace(b"\x9d\1\x2a\1\0\1\0", b"\x9d\1\x2a\xff\x3f\xff\x3f")
    if form == "VP8L":
        return encoded(dot, "WEBP", lossless=True).replace(b"\x2f\0\0\0\0", b"\x2f\xff\xff\xff\x0f")
    if form == "VP8X":
        return animation("WEBP").replace(b"\x08\0\0\x08\0\0", b"\xff\x3f\0\xff\x3f\0", 1)
    if form == "TIFF":
        return encoded(Image.new("1", (12_000, 12_000)), "TIFF", compression="group4")
    return encoded(Image.new("L", (12_000, 12_000)), form)


@pytest.mark.parametrize("guard", [None, 10, 100_000_000])
@pytest.mark.parametrize("form", ["PNG", "GIF", "VP8", "VP8L", "VP8X", "TIFF"])
def test_a_decompression_bomb_is_refused_before_it_goes_off(
    form: str, guard: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever Pillow's own guard is set to, and without its warning."""
    data = bomb(form)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", guard)
    started = time.process_time()
    with pytest.raises(ImageError, match=r"larger than data\.images\.max_megapixels \(64\)"):
        open_image(data)
    assert time.process_time() - started < 0.3


def test_the_limit_on_pixels_is_the_configuration_s_and_not_pillow_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    data = encoded(Image.new("L", (1000, 500)))
    assert open_image(data).size == (1000, 500)
    assert open_image(data, ImagesConfig(max_megapixels=0.5)).size == (1000, 500)
    with pytest.raises(ImageError, match=r"1000 x 500, larger than data\.images\.max_megapixels \(0\.499\)"):
        open_image(data, ImagesConfig(max_megapixels=0.499))


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data = encoded(picture(32, 32), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    assert open_image(data).size == (32, 32)
    with pytest.raises(ImageError, match="more than 200 scans"):
        open_image(data[:start] + data[start:-2] * 300 + data[-2:])


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (b"", "the bytes: empty, no bytes at all"),
        (b"hello", "the bytes: not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image of a known format"),
        (b"\x89PNG\r\n\x1a\n", "a PNG file with a damaged header, or without a single pixel"),
        (png(0, 5, 8, 2, b""), "a PNG file with a damaged header, or without a single pixel"),
        (Image.new("RGB", (0, 5)), "a Image: 0 x 5, without a single pixel"),
        (encoded(Image.new("L", (1, 201))), "1 x 201, narrower than 1:200, which vision models refuse"),
        ("https://example.org/a.png", "https://example.org/a.png: addresses are not fetched; download it"),
        ("s3://bucket/a.png", "addresses are not fetched"),
        ("data:image/png,abc", "the data: string: only base64 is read"),
        ("data:image/png;base64,a*b", "the data: string: not valid base64"),
        ("data:image/png;base64,", "the data: string: empty"),
        ("/nowhere/a.png", "/nowhere/a.png: there is no such file"),
        ("/etc", "/etc: a folder"),
        ("/dev/zero", "/dev/zero: not a regular file"),
        ("a\0b.png", "no path, it has a NUL in it"),
        ("\ud83d.png", "can't be read"),
        ("a" * 5000, "aaa: can't be read .File name too long"),
        ("/dev/null/x.png", r"can't be read \(Not a directory\)"),
        (3, "a int: neither a path nor bytes"),
        (None, "a NoneType: neither a path nor bytes"),
    ],
)  # fmt: skip
def test_what_is_no_picture_says_why_in_a_short_line(image: Any, why: str) -> None:
    with pytest.raises(ImageError, match=why) as caught:
        open_image(image)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)
    assert [str(error) for error in check_images([image])] == [str(caught.value)]


def test_a_narrow_picture_at_the_bound_is_fine() -> None:
    assert open_image(encoded(Image.new("L", (200, 1)))).size == (200, 1)


def test_pipes_are_not_waited_for_and_huge_files_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=r"pipe\.png: not a regular file"):
        open_image(tmp_path / "pipe.png")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(ImageError, match=r"huge\.png: 1,000,000 MB, more than any picture"):
        open_image(tmp_path / "huge.png")


def test_reading_makes_no_warning_and_leaves_the_filters_alone() -> None:
    broken_control = png(1, 1, 8, 2, b"\0" + bytes(3), (b"acTL", struct.pack(">II", 0, 0)))
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert open_image(broken_control).size == (1, 1)
        assert check_images([broken_control, PNG]) == [None, None]
    assert not caught
    assert list(warnings.filters) == before


@given(st.binary(max_size=200), st.sampled_from([b"", *(encoded(picture(), form)[:12] for form in FORMATS)]))
def test_random_bytes_never_crash(data: bytes, head: bytes) -> None:
    try:
        opened = open_image(head + data)
    except ImageError:
        return
    assert opened.mode == "RGB"


SAMPLES = (
    *(encoded(picture(mode="L"), form) for form in FORMATS),
    *(animation(form) for form in ("GIF", "WEBP", "PNG", "TIFF")),
    encoded(picture(), "JPEG", progressive=True),
    encoded(picture(), "TIFF", compression="tiff_lzw"),
)


@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.sampled_from([ImagesConfig(max_megapixels=0.1), REFUSE]),
)
def test_damaged_files_of_every_format_never_crash(
    data: bytes, damage: list[tuple[float, int]], settings: ImagesConfig
) -> None:
    broken = bytearray(data)
    for where, value in damage:
        broken[min(int(where * len(broken)), len(broken) - 1)] = value
    try:
        opened = open_image(bytes(broken), settings)
    except ImageError:
        assert check_images([bytes(broken)], settings) != [None]
        return
    assert opened.mode == "RGB"
    assert opened.width * opened.height <= settings.max_megapixels * 1e6


@given(st.text(max_size=30) | st.text(max_size=30).map("data:image/png;base64,{}".format))
def test_random_text_never_crashes(text: str) -> None:
    with pytest.raises(ImageError):
        open_image(text + ".nothing")


def test_checking_keeps_the_order_and_finds_every_broken_one(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(PNG)
    images = [PNG if i % 3 else b"no" for i in range(50)] + [str(tmp_path / "good.png"), str(tmp_path / "gone.png")]
    found = check_images(images)
    assert [error is None for error in found] == [bool(i % 3) for i in range(50)] + [True, False]
    assert "gone.png" in str(found[-1])


def test_relative_paths_are_found_below_the_root_and_become_absolute(tmp_path: Path) -> None:
    for place in ("a.png", "images/b.png", "image/c.png", "data/2steps/d.png", "images/a.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(PNG)
    expected = {
        "a.png": "a.png",
        "b.png": "images/b.png",
        "c.png": "image/c.png",
        "2steps/d.png": "data/2steps/d.png",
        "./images/../a.png": "a.png",
        "file://a.png": "a.png",
        "gone.png": "gone.png",
    }
    for name, where in expected.items():
        assert stored_image(name, tmp_path) == str(tmp_path / where)
        assert stored_image(Path(name), tmp_path) == str(tmp_path / where) or "://" in name
    assert stored_image(str(tmp_path / "x.png"), Path("/elsewhere")) == str(tmp_path / "x.png")
    assert stored_image("../x.png", tmp_path / "sub") == str(tmp_path / "x.png")


def test_a_relative_root_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert stored_image("a.png", Path("set")) == str(tmp_path / "set" / "a.png")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (PNG, PNG),
        (bytearray(PNG), PNG),
        (memoryview(PNG), PNG),
        ({"bytes": PNG, "path": "a.png"}, PNG),
        ({"bytes": None, "path": "/x/a.png"}, "/x/a.png"),
        ({"path": "/x/a.png"}, "/x/a.png"),
        ("data:image/png;base64,AA==", "data:image/png;base64,AA=="),
    ],
)
def test_what_a_problem_keeps(value: Any, kept: str | bytes) -> None:
    assert stored_image(value, Path("/root")) == kept


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (3, "a int: neither a path nor bytes nor a data: string"),
        ({"bytes": None, "path": None}, "a NoneType: neither"),
        ({}, "a mapping of nothing"),
        ("a\0b", "no path, it has a NUL"),
        ("http://x/a.png", "http://x/a.png: addresses are not fetched"),
        (Image.new("RGB", (0, 3)), "a Image: can't be encoded"),
    ],
)
def test_what_no_problem_can_keep(value: Any, why: str) -> None:
    with pytest.raises(ImageError, match=why):
        stored_image(value, Path())


@pytest.mark.parametrize("form", FORMATS)
def test_bytes_as_text_say_what_they_are_and_keep_their_pixels(form: str) -> None:
    data = encoded(picture(), form)
    text = image_text(data)
    assert text.startswith(f"data:image/{form.lower()};base64,")
    assert same(open_image(text), open_image(data))
    assert image_digest(text) == image_digest(data)


@given(st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "HSV", "YCbCr"]), st.integers(0, 2**32))
def test_pil_images_as_text_keep_their_pixels(mode: str, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 256, (4, 6, 4), dtype=np.uint8)
    image = Image.fromarray(values) if mode == "RGBA" else Image.fromarray(values[:, :, :3]).convert(mode)
    assert same(open_image(image_text(image)), open_image(image))


def test_text_of_paths_is_the_path() -> None:
    assert image_text("a.png") == "a.png"
    assert image_text(Path("b/c.png")) == "b/c.png"


def test_digests_tell_contents_and_not_names(tmp_path: Path) -> None:
    for name, data in (("a.png", PNG), ("b.png", PNG), ("c.png", encoded(picture(3, 3)))):
        (tmp_path / name).write_bytes(data)
    a, b, c = (image_digest(str(tmp_path / name)) for name in ("a.png", "b.png", "c.png"))
    assert a == b == image_digest(PNG) != c
    assert image_digest(picture()) == image_digest(picture()) != image_digest(picture(3, 3))
    assert image_digest("/gone/a.png") == image_digest("/gone/a.png") != image_digest("/gone/b.png")


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 20_000), st.integers(1, 20_000))
def test_fitting_holds_the_bounds_and_the_ratio(width: int, height: int, low: int, high: int) -> None:
    low, high = min(low, high), max(low, high)
    image = Image.new("L", (width, height))
    fitted = fit(image, low, high)
    pixels = fitted.width * fitted.height
    assert pixels <= high
    if low <= width * height <= high:
        assert fitted is image
    grown = fit(image, low, None)
    assert grown.width * grown.height >= min(low, max(low, width * height))
    scale = math.sqrt(pixels / (width * height))
    assert fitted.width <= width * scale + max(2, width / height + 1)
    assert fitted.height <= height * scale + max(2, height / width + 1)


def test_fitting_without_bounds_gives_the_picture_itself() -> None:
    image = picture()
    assert fit(image, None, None) is image
    assert fit(image, 1, 35) is image
    assert fit(Image.new("L", (400, 100)), None, 10_000).size == (200, 50)
    assert fit(Image.new("L", (40, 10)), 10_000, None).size == (200, 50)
    assert fit(Image.new("L", (200, 1)), None, 3).size == (3, 1)


def test_pillow_s_switch_for_truncated_files_stays_off() -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_an_opened_picture_holds_no_metadata_that_would_turn_it_again() -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (20, 10), "red").save(file, "JPEG", exif=exif)
    once = open_image(file.getvalue())
    assert once.size == (10, 20)
    assert not once.info
    assert not once.getexif()
    assert open_image(once).size == (10, 20)
    assert open_image(stored_image(once, Path())).size == (10, 20)
