"""Settings of where problems come from and how their rows and images are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import AliasChoices, Field, model_validator

from spark_rl.config.section import Section
from spark_rl.problem import Kind


class ColumnsConfig(Section):
    """Which columns of the data hold what. Null means: found by the usual names."""

    question: str | None = None
    """Column of the question text."""
    context: str | None = None
    """Column of text that stands before the question. Null: ``Body``, ``context``, ``passage``, ``paragraph``,
    ``article``, ``story``, ``scenario``, ``table``, ``premise`` or ``instruction``, unless ``question`` is named."""
    answer: str | None = None
    """Column of the gold answer. A list in it means several accepted answers, any of which is right."""
    choices: str | None = None
    """Column of the options of multiple-choice questions; null also finds columns ``A``, ``B``, ... or ``option_a``."""
    images: str | None = None
    """Column of the image or images."""
    id: str | None = None
    """Column of a unique id; row numbers otherwise."""


class ImagesConfig(Section):
    """The images of problems: where relative paths start, and what becomes of images that are not plain pictures."""

    root: str | None = None
    """Folder that relative image paths start from; null means the folder of the data file."""
    confined: bool = False
    """Treat image paths that leave ``root`` as ``broken``: absolute ones, ``..`` and symbolic links too. For data that
    somebody else wrote."""
    broken: Literal["error", "skip"] = "error"
    """What a missing, truncated, empty or oversized image does: stop with its row named, or skip the row and count."""
    unusual: Literal["convert", "refuse"] = "convert"
    """CMYK, 16-bit and animated images: ``convert`` makes them 8-bit RGB (of an animation the first frame is taken),
    ``refuse`` treats them as ``broken``. Grey, palette and transparent images are always converted, on white."""
    max_megapixels: float = Field(64.0, gt=0)
    """Images that would be larger when decoded are ``broken``: a small file can hold a decompression bomb."""


class TrainSource(Section):
    """One of several sources of training problems."""

    source: str = Field(validation_alias=AliasChoices("source", "path"))
    """Where its problems come from: whatever ``data.train`` takes."""
    weight: float | None = Field(None, gt=0)
    """Its share of the problems that are drawn, relative to the other sources' weights."""


class DataConfig(Section):
    """Where problems come from."""

    train: str | tuple[str | TrainSource, ...] = "procedural:missing"
    """A JSON, JSONL, CSV, TSV or Parquet file, a directory saved by ``datasets``, a hub data set (``name``,
    ``name:config``, ``name:config@split``), or ``procedural:FAMILY`` (``missing``, ``operators``). Or a list of them:
    plain ones are put together, ``{source: a.jsonl, weight: 2}`` draws by weight: of every pass over the data each
    source has its share, whatever its size."""
    split: str = "train"
    """Split of a hub data set."""
    layout: Literal[
        "auto", "columns", "message", "gsm8k", "simplerl",
        "mathvista", "mathverse", "wemath", "dynamath", "logicvista", "pope",
    ] = "auto"  # fmt: skip
    """Row layout: plain columns, the reference ``message``/``answer`` JSON, GSM8K (``#### N``), SimpleRL-Zoo, or a
    published vision-language set whose columns are not plain ones. ``auto`` tells them apart."""
    columns: ColumnsConfig = ColumnsConfig()
    """Column names for the layout ``columns``."""
    images: ImagesConfig = ImagesConfig()
    """How the images of problems are read."""
    kind: Kind | Literal["auto"] = "auto"
    """How answers are compared: ``math``, ``choice``, ``exact``, or ``auto`` (``choice`` when a row has options)."""
    limit: int | None = Field(None, ge=1)
    """Use only the first N problems."""
    ranges: dict[str, tuple[float | None, float | None]] | None = None
    """Train only on rows whose columns hold numbers within bounds, both included, null for no bound:
    ``{PassRate_32BTrained: [null, 0.99]}`` leaves out what is always solved."""
    sample: int | None = Field(None, ge=1)
    """Train only on N random problems of what ``ranges`` leaves; ``limit`` then counts among them."""
    sample_seed: int = Field(0, ge=0)
    """Seed of ``sample``, apart from the run's, so that runs with other seeds train on the same problems."""
    heldout: str | None = None
    """Problems never trained on, evaluated before and after: any source that ``train`` takes, or ``split:N`` for N
    random problems of the training data, which are in no other set. Null skips the evaluation."""
    transfer: str | None = None
    """A second set of problems, of a family that is not trained on, evaluated before and after; the same sources."""

    @model_validator(mode="after")
    def _sources(self) -> Self:
        """Several sources are different ones, and all or none of them have a weight."""
        if isinstance(self.train, str):
            return self
        names = [entry if isinstance(entry, str) else entry.source for entry in self.train]
        if not names:
            raise ValueError("train is an empty list; name at least one source")
        twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
        if twice is not None:
            raise ValueError(f"train names {twice!r} twice; give it a weight of 2 instead")
        weighted = [isinstance(entry, TrainSource) and entry.weight is not None for entry in self.train]
        if any(weighted) and not all(weighted):
            raise ValueError(f"train gives {names[weighted.index(False)]!r} no weight and others one; give all or none")
        return self

    @property
    def shares(self) -> Mapping[str, float] | None:
        """Source -> its share of what is drawn, together 1; null where every problem is drawn once a pass."""
        weights = {
            entry.source: entry.weight
            for entry in (() if isinstance(self.train, str) else self.train)
            if isinstance(entry, TrainSource) and entry.weight is not None
        }
        return {source: weight / sum(weights.values()) for source, weight in weights.items()} or None
