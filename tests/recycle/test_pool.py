from __future__ import annotations

import hashlib
import io
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spark_rl.config import RecycleConfig
from spark_rl.data.images import open_image
from spark_rl.errors import DataError
from spark_rl.problem import Group, Problem
from spark_rl.recycle import Pool, problem_from_dict, problem_to_dict, recycle

from .groups import groups


def problem(number: int) -> Problem:
    return Problem(id=f"p-{number}", question="?", answer=str(number))


OPERATIONS = st.tuples(st.sampled_from(["add", "take"]), st.integers(0, 5))


@given(st.integers(1, 6), st.lists(OPERATIONS))
def test_first_in_first_out_within_its_bound(size: int, operations: list[tuple[str, int]]) -> None:
    """Against the plainest model: a list from which the front is cut."""
    pool, model, arrived, lost = Pool(size), list[int](), 0, 0
    for operation, n in operations:
        assert pool.ready(n) == (len(model) >= n)
        if operation == "add":
            pool.add(problem(arrived + i) for i in range(n))
            model += range(arrived, arrived + n)
            arrived += n
            surplus = max(0, len(model) - size)
            lost, model = lost + surplus, model[surplus:]
        else:
            assert [p.id for p in pool.take(n)] == [f"p-{i}" for i in model[:n]]
            model = model[n:]
        assert len(pool) == len(model)
        assert pool.dropped == lost


@given(groups(), st.integers(0, 100))
def test_a_restored_pool_goes_on_alike(step: list[Group], seed: int) -> None:
    pool = Pool(20)
    pool.add(recycle(step, RecycleConfig(per_group=3), random.Random(seed)))
    twin = Pool.from_state(20, json.loads(json.dumps(pool.state())), pool.dropped)
    assert (len(twin), twin.dropped) == (len(pool), pool.dropped)
    for each in (pool, twin):
        each.add([problem(1), problem(2)])
    assert twin.dropped == pool.dropped
    assert twin.take(25) == pool.take(25)


def test_a_smaller_pool_keeps_the_newest() -> None:
    pool = Pool(4)
    pool.add(problem(i) for i in range(4))
    smaller = Pool.from_state(2, pool.state(), dropped=5)
    assert smaller.dropped == 7
    assert [p.id for p in smaller.take(9)] == ["p-2", "p-3"]


def test_the_oldest_are_taken_no_further_than_asked() -> None:
    pool = Pool(4)
    pool.add(problem(i) for i in range(4))
    oldest = pool.oldest()
    assert [next(oldest).id, next(oldest).id] == ["p-0", "p-1"]
    assert len(pool) == 2
    assert [p.id for p in oldest] == ["p-2", "p-3"]
    assert len(pool) == 0


def encoded(form: str) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((9, 7), 50).convert("RGB").save(file, form)
    return file.getvalue()


def test_paths_and_text_are_saved_as_they_are() -> None:
    seen = Problem(id="p", question="?", answer="1", images=("a.png", Path("b/c.png"), "data:image/png;base64,AA=="))
    back = problem_from_dict(json.loads(json.dumps(problem_to_dict(seen))))
    assert back.images == ("a.png", "b/c.png", "data:image/png;base64,AA==")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_resumed_pool_gives_the_same_pixels(form: str) -> None:
    data = encoded(form)
    images = (data, Image.open(io.BytesIO(data)), Image.new("RGBA", (3, 3), (9, 9, 9, 90)))
    pool = Pool(3)
    pool.add([Problem(id="p", question="?", answer="1", images=images)])
    (back,) = Pool.from_state(3, json.loads(json.dumps(pool.state()))).take(1)
    assert back.images[0].startswith(f"data:image/{form.lower()};base64,")
    for one, other in zip(images, back.images, strict=True):
        assert open_image(one).tobytes() == open_image(other).tobytes()


def test_of_an_image_file_a_reference_is_saved(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG"))
    pool = Pool(3)
    pool.add([Problem(id=f"p{i}", question="?", answer="1", images=(str(path),)) for i in range(2)])
    state = json.loads(json.dumps(pool.state()))
    assert state[0]["images"] == [{"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}]
    assert [one.images for one in Pool.from_state(3, state).take(2)] == [(str(path),)] * 2
    path.write_bytes(encoded("JPEG"))
    assert pool.state()[0]["images"] != state[0]["images"], "a file that has changed is read again"
    with pytest.raises(DataError, match=rf"^{path}: the image of a recycled problem has changed; put the old one back"):
        Pool.from_state(3, state)
    path.unlink()
    with pytest.raises(DataError, match=rf"^{path}: the image of a recycled problem is gone; put it back to resume$"):
        Pool.from_state(3, state)


def test_an_image_in_memory_is_saved_once(tmp_path: Path) -> None:
    data, path = encoded("PNG"), tmp_path / "a.png"
    path.write_bytes(data)
    pool = Pool(9)
    pool.add([Problem(id=f"p{i}", question="?", answer="1", images=(data, str(path), data)) for i in range(3)])
    state = json.loads(json.dumps(pool.state()))
    assert sum(isinstance(image, str) for values in state for image in values["images"]) == 1
    restored = Pool.from_state(9, state)
    assert json.loads(json.dumps(restored.state())) == state
    for one in restored.take(3):
        assert [open_image(image).tobytes() for image in one.images] == [open_image(data).tobytes()] * 3
        assert one.images[1] == str(path)


def test_an_image_that_is_none_cannot_be_saved() -> None:
    with pytest.raises(ValueError, match="a int: neither a path nor bytes"):
        problem_to_dict(Problem(id="p", question="?", answer="1", images=(3,)))


def test_foreign_states_are_refused() -> None:
    values = problem_to_dict(problem(1))
    with pytest.raises(ValueError, match="difficulty"):
        problem_from_dict(values | {"difficulty": 3})
    with pytest.raises(ValueError, match="answer"):
        problem_from_dict({key: value for key, value in values.items() if key != "answer"})


def test_a_pool_needs_room() -> None:
    with pytest.raises(ValueError, match="pool_size"):
        Pool(0)
