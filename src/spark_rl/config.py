"""One nested, frozen configuration: every setting of a run, each with its own docstring.

``load_config("configs/tiny.yaml", ["rollout.samples=4"])`` reads a YAML file, applies dotted overrides, validates
everything and returns a :class:`Config`. Nothing here imports torch, so a wrong key or a contradiction is reported in a
fraction of a second, before anything loads. Unknown keys name the nearest known one.

Defaults are the authors' published settings wherever the paper or its release states one (``docs/paper-map.md``).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from spark_rl.errors import UserError
from spark_rl.problem import TASKS, Kind, Task

ANSWER_FORMAT = (
    "{question}\nPlease first conduct reasoning, and then answer the question. "
    "Repeat the final answer using a '\\boxed{{}}'."
)
"""The paper's policy prompt (A.2, Fig. 5): the question, then the answer-format suffix."""


Thinking = tuple[tuple[str, str], ...]
"""Pairs of tags, the opening and the closing one, between which a model thinks aloud before it answers."""

AnswerForm = Literal["evaluated", "equivalent"]
"""What of an answer that equals the gold one is right: what is evaluated, or all of it."""

THINKING: Thinking = (
    ("<think>", "</think>"),  # DeepSeek, Qwen, GLM, MiniMax, Nemotron, Olmo, SmolLM and most others
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<thoughts>", "</thoughts>"),
    ("<reasoning>", "</reasoning>"),
    ("<reflection>", "</reflection>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # Sky-T1, OpenThinker
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("◁think▷", "◁/think▷"),  # Kimi
)
"""The tags of the families in use."""

RECIPE_FOLDERS = (Path(__file__).parent / "configs", Path(__file__).parents[2] / "configs")
"""Where recipes lie: inside an installed package, or at the top of a checkout."""


class ConfigError(UserError):
    """A mistake in the user's configuration, in one line: what is wrong, where, and how to mend it."""


class Section(BaseModel):
    """A group of settings. Frozen; unknown keys are errors; attribute docstrings become ``--help`` texts."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class LoraConfig(Section):
    """Low-rank adapters instead of full fine-tuning."""

    rank: int = Field(16, ge=1)
    """Rank of the adapters."""
    alpha: float = Field(32.0, gt=0)
    """Scaling numerator: updates are scaled by alpha / rank."""
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the linear modules to adapt, or ``all-linear``."""


class ModelConfig(Section):
    """Which model, in which number format, where."""

    path: str = "embedded"
    """A local directory (of a model, of adapters, or of a run, whose trained model is meant), a hub id, or ``embedded``
    for the tiny base that ships with the package. A run stores it as an absolute path; a run whose base has moved is
    resumed with the place where it is now."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of weights and activations. In bfloat16 the optimiser keeps float32 copies of what it trains and
    sums its gradients in float32: small updates would round away otherwise."""
    device: str = "auto"
    """``auto`` (CUDA or MPS if present, else CPU), or any torch device string."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention implementation passed to transformers; ``sdpa`` becomes ``eager`` where a family's scores need it
    (Gemma 2 caps them, gpt-oss adds sinks)."""
    trust_remote_code: bool = False
    """Allow a hub repository to run its own Python code. Off unless you trust the author."""
    gradient_checkpointing: bool = False
    """Trade compute for memory in the backward pass."""
    lora: LoraConfig | None = None
    """Train low-rank adapters only; null trains all weights."""
    threads: int = Field(0, ge=0)
    """CPU threads for torch; 0 uses all cores this process may run on. Two runs of one seed are the same bit for bit
    with the same number of threads."""


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


class ChatConfig(Section):
    """How a problem becomes tokens."""

    template: str | None = None
    """A Jinja chat template (text, or a path ending in ``.jinja``) over ``messages``; null uses the tokenizer's own,
    or plain text for a base model without one."""
    system: str | None = None
    """The system message; null sends none."""
    policy: str = ANSWER_FORMAT
    """The user turn of a policy problem; ``{question}`` is the raw question, ``{{`` and ``}}`` are literal braces."""
    template_arguments: dict[str, Any] = {}
    """What the chat template is given beside the messages, such as ``{enable_thinking: false}``; servers get it as
    ``chat_template_kwargs``. A name that the template never mentions is refused."""
    few_shot: str | dict[Task, str] = ""
    """Text put before the user turn, e.g. worked examples for a base model: one text for policy turns made from
    ``policy``, or a text by task, ``{policy: ..., pointwise: ..., pairwise: ..., reflection: ...}``."""
    min_pixels: int | None = Field(None, ge=1)
    """Images with fewer pixels are enlarged before they become tokens; null uses the processor's own bound."""
    max_pixels: int | None = Field(None, ge=1)
    """Images with more pixels are shrunk before they become tokens; null uses the processor's own bound."""
    stop: tuple[str, ...] | dict[Task, tuple[str, ...]] = ()
    """Strings that end a response (base models rarely emit an end-of-sequence token), for all tasks or by task. A
    special token such as ``<|im_end|>`` is one too, alone."""

    def few_shot_of(self, task: Task) -> str:
        """The text before the user turns of a task."""
        if isinstance(self.few_shot, str):
            return self.few_shot if task == "policy" else ""
        return self.few_shot.get(task, "")

    def stop_of(self, task: Task) -> tuple[str, ...]:
        """The strings that end responses to a task."""
        return self.stop.get(task, ()) if isinstance(self.stop, dict) else self.stop


class RolloutConfig(Section):
    """Sampling groups (Sec. 3.1, step 1)."""

    problems: int = Field(64, ge=1)
    """Problems a step."""
    samples: int = Field(8, ge=2)
    """Responses per problem, n in Eq. 1. At least two, or no advantage exists."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature. There is no top-p or top-k while training: truncation biases the importance ratio."""
    max_prompt_tokens: int = Field(8192, ge=1)
    """Longer prompts are skipped and counted by task. Problems of the data come up again in the next pass; for recycled
    ones the next of the pool take their places. Where it isn't set, training lowers it to what the model's positions
    leave room for; together with ``max_new_tokens`` it may not be more."""
    max_new_tokens: int = Field(768, ge=1)
    """Responses are cut here; a cut response without an answer earns nothing and is counted apart."""
    overlong_reward: Literal["keep", "zero"] = "keep"
    """``zero`` takes the reward from any response that hit the limit, even one with a right answer."""


class EngineConfig(Section):
    """What generates."""

    name: Literal["embedded"] = "embedded"
    """``embedded`` decodes on the learner's own weights: no second copy, nothing to synchronise."""
    max_rows: int = Field(512, ge=1)
    """Sequences decoded together. More is faster until memory or cache runs out."""


class VerifyConfig(Section):
    """The rule-based reward (Eq. 2) and its worker processes."""

    workers: int = Field(2, ge=1)
    """Processes for answers that need symbolic comparison. They start when the first such answer arrives."""
    timeout: float = Field(5.0, gt=0)
    """Seconds of processor time before a comparison is ended and counted as ``timeout``. On the clock it may take ten
    times as long, and a minute at least: a busy machine makes verdicts late, not different."""
    thinking: Thinking = THINKING
    """Pairs of tags, in any case of letters, between which a model thinks: no box in there is an answer, nor one behind
    a tag that is not closed. Special tokens of the tokenizer are not in the text, and can't be tags."""
    recycle_after: int = Field(2000, ge=1)
    """Comparisons before a worker is replaced by a fresh process."""


class RewardConfig(Section):
    """What earns the reward of Eq. 2 in training, beyond being right."""

    form: AnswerForm = "evaluated"
    """``evaluated`` refuses right answers that leave to the reader what the question asks for, such as ``6\\times7`` or
    ``\\sum_{k=1}^{10}k`` for a number, unless the gold answer is written so; they count as ``unparsable`` and are not
    recycled. ``equivalent`` takes every answer that equals the gold one, as evaluations and ``verify()`` always do."""


class AdvantageConfig(Section):
    """Eq. 3."""

    scale: Literal["group", "none"] = "group"
    """``group`` divides by the group's standard deviation (Eq. 3); ``none`` only centres (Dr. GRPO)."""
    eps: float = Field(1e-6, gt=0)
    """The constant inside the root of Eq. 3."""


class ObjectiveConfig(Section):
    """Eq. 4 as a clipped token-level surrogate."""

    clip_low: float = Field(0.2, ge=0, lt=1)
    """Lower clip of the importance ratio: 1 - clip_low."""
    clip_high: float = Field(0.2, ge=0)
    """Upper clip of the importance ratio: 1 + clip_high."""
    kl: float = Field(0.001, ge=0)
    """Weight of the KL term towards the reference model, lambda in Eq. 4; 0 loads no reference."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """Estimator of the KL from samples (http://joschu.net/blog/kl-approx.html). As a loss, k1 has a mean gradient of
    zero: it measures but does not pull."""
    aggregation: Literal["token", "sequence", "fixed"] = "token"
    """``token``: mean over all response tokens (DAPO); ``sequence``: mean of per-response means (GRPO); ``fixed``:
    sum over tokens divided by responses * max_new_tokens (Dr. GRPO)."""
    importance_cap: float | None = Field(None, gt=0)
    """Weight tokens by min(cap, learner / engine probability): corrects an engine that differs from the learner."""


class RecycleConfig(Section):
    """Eq. 5 to 8: what finished groups become. Defaults are the preset ``paper``."""

    preset: Literal["paper", "balanced", "policy-only", "policy-and-reward"] = "paper"
    """Starting values for the other settings of this section; anything set beside it wins. ``policy-only`` recycles
    nothing, ``policy-and-reward`` judges but does not reflect, ``balanced`` is ``paper`` with label balance."""
    pointwise: bool = True
    """Recycle into 'is this response correct?' (Eq. 5)."""
    pairwise: bool = True
    """Recycle mixed groups into 'which of these two is correct?' (Eq. 6)."""
    reflection: bool = True
    """Recycle wrong responses into 'judge it and solve again' (Eq. 7)."""
    form: Literal["mixed", "answer", "cot"] = "mixed"
    """What of a response is shown: its final answer, its whole reasoning, or either at random (Table 6)."""
    pointwise_share: float = Field(0.3, ge=0, le=1)
    """In a mixed group, the probability of one pointwise problem instead of one pairwise."""
    per_group: int = Field(1, ge=1)
    """Judge problems, and reflection problems, made from each group (the authors make one of each)."""
    judge_cap: int = Field(32, ge=0)
    """Judge problems kept a step; a random subset when more were made."""
    reflection_cap: int = Field(32, ge=0)
    """Reflection problems kept a step; a random subset when more were made."""
    balance: bool = False
    """Drop the surplus label, so that Yes and No, and A and B, are equally frequent among a step's judge problems."""
    templates: str = "natural"
    """Template set: a name shipped with the package (``natural``, ``terse``) or a path to a YAML file."""
    pool_size: int = Field(1024, ge=1)
    """Bound of the first-in-first-out pool; the oldest problems fall out."""
    ready: int = Field(64, ge=1)
    """The second period runs when the pool holds this many, and takes this many."""


class OptimiserConfig(Section):
    """AdamW."""

    lr: float = Field(5e-7, gt=0)
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of the first and second moment."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""
    eps: float = Field(1e-8, gt=0)
    """Denominator constant."""
    clip: float = Field(1.0, gt=0)
    """Global gradient norm is clipped here."""
    warmup: int = Field(0, ge=0)
    """Updates of linear warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate after the warm-up. It follows the steps of the run, however many updates they hold; a resume with
    more steps stretches it, and says so."""
    final_lr: float = Field(0.1, ge=0, le=1)
    """Where ``linear`` and ``cosine`` end, as a share of the peak."""


class LearnerConfig(Section):
    """The update."""

    micro_tokens: int = Field(16384, ge=1)
    """Padded tokens in one forward-backward. Bounds memory; changes the result by rounding only."""
    logit_chunk: int = Field(1024, ge=1)
    """Response positions whose logits exist at the same time."""
    minibatches: int = Field(1, ge=1)
    """Updates per batch: the batch is cut into this many parts of whole groups, each with its mixture of tasks. 1 is
    fully on-policy."""
    epochs: int = Field(1, ge=1)
    """Passes over each batch."""


class TrainConfig(Section):
    """The loop (Fig. 2a)."""

    steps: int | None = Field(None, ge=1)
    """Steps to run; null runs ``episodes`` passes over the data."""
    episodes: int = Field(2, ge=1)
    """Passes over the data when ``steps`` is null."""
    periods: Literal["two", "combined"] = "two"
    """``two``: the policy batch, then the recycled batch, each with its own update (the paper). ``combined``: both in
    one update, from the same weights."""
    policy_update: bool = True
    """Whether the policy's own batch is trained on; false is the paper's reward-only ablation."""
    save_every: int = Field(50, ge=1)
    """Steps between checkpoints. The last step is always saved."""
    keep: int = Field(2, ge=1)
    """Checkpoints kept; older ones are removed."""
    sample_rollouts: int = Field(4, ge=0)
    """Rollouts of each task written to ``rollouts.jsonl`` a step; 0 writes none."""


class InferenceConfig(Section):
    """Test-time scaling (Sec. 3.3, Eq. 9 to 11)."""

    rounds: int = Field(2, ge=0)
    """Judge-and-reflect rounds at most, T; 0 answers once."""
    temperature: float = Field(0.0, ge=0)
    """Temperature of answers and verdicts; 0 is greedy."""
    reflect_temperature: float = Field(0.0, ge=0)
    """Temperature of reflections. A greedy reflection that failed once fails again, so more rounds want sampling."""
    repetition_penalty: float = Field(1.0, gt=0)
    """Above 1, tokens that prompt or response already hold become less likely; 1 does nothing. The authors' evaluation
    uses 1.05."""
    form: Literal["cot", "answer"] = "cot"
    """What of the response the judge and the reflection prompt show. The judge of the authors' evaluation sees the
    ``answer`` only."""
    judge_unparsed: Literal["reflect", "accept"] = "reflect"
    """What an unreadable verdict does: the paper's rule is that anything but Yes reflects."""
    max_new_tokens: int = Field(2048, ge=1)
    """Tokens per generation."""


class EvaluationConfig(Section):
    """The before-and-after table of a training run."""

    problems: int = Field(300, ge=1)
    """Held-out problems evaluated (the first N, the same before and after)."""


class Config(Section):
    """Everything a run depends on."""

    seed: int = Field(0, ge=0)
    """The one seed: every random stream of the run is derived from it, the step and its purpose. It fixes a run to the
    bit on one kind of machine, with one number of threads, one ``learner.micro_tokens`` and one version of torch."""
    run_dir: str | None = None
    """Where the run is written; null makes ``runs/<time>-seed<seed>``."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    chat: ChatConfig = ChatConfig()
    rollout: RolloutConfig = RolloutConfig()
    engine: EngineConfig = EngineConfig()
    verify: VerifyConfig = VerifyConfig()
    reward: RewardConfig = RewardConfig()
    advantage: AdvantageConfig = AdvantageConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    recycle: RecycleConfig = RecycleConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    learner: LearnerConfig = LearnerConfig()
    train: TrainConfig = TrainConfig()
    inference: InferenceConfig = InferenceConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _contradictions(self) -> Self:
        """Settings that are fine alone and wrong together."""
        recycling = self.recycle.pointwise or self.recycle.pairwise or self.recycle.reflection
        if not self.train.policy_update and not recycling:
            raise ValueError(
                "train.policy_update is false and recycle makes nothing, so no update would ever happen; "
                "turn one of recycle.pointwise, recycle.pairwise, recycle.reflection on"
            )
        if recycling and self.recycle.ready > self.recycle.pool_size:
            raise ValueError(
                f"recycle.ready ({self.recycle.ready}) is larger than recycle.pool_size ({self.recycle.pool_size}), "
                "so the pool could never be ready; raise pool_size"
            )
        low, high = self.chat.min_pixels, self.chat.max_pixels
        if low is not None and high is not None and low > high:
            raise ValueError(f"chat.min_pixels ({low}) is larger than chat.max_pixels ({high}); swap or change them")
        if "{question}" not in self.chat.policy:
            raise ValueError("chat.policy must contain {question}, or the model never sees the problem")
        if any("" in pair or pair[0].lower() == pair[1].lower() for pair in self.verify.thinking):
            raise ValueError("verify.thinking holds pairs of an opening and another closing tag, none of them empty")
        if any("" in self.chat.stop_of(task) for task in TASKS):
            raise ValueError("chat.stop has an empty string, which would end every response at once; remove it")
        if not all(0 <= beta < 1 for beta in self.optimiser.betas):
            raise ValueError(f"optimiser.betas must be at least 0 and below 1 (got {list(self.optimiser.betas)})")
        return self


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    "balanced": {"balance": True},
    "policy-only": {"pointwise": False, "pairwise": False, "reflection": False},
    "policy-and-reward": {"reflection": False},
}
"""Starting values of ``recycle`` by preset name. ``paper`` is the defaults themselves."""


def load_config(path: str | Path | None = None, overrides: Sequence[str] = (), **settings: Any) -> Config:
    """The configuration from a YAML file, then ``settings`` (nested mappings), then dotted ``key=value`` overrides.

    ``path`` is a file, or the name of a recipe that ships with the project (``tiny``); null starts from the defaults.
    Values are read as YAML, so ``optimiser.lr=1e-5`` is a number and ``chat.stop=["\\n\\n"]`` a list; where a setting
    is text, so is ``run_dir=2024`` or ``chat.policy={question}``.

    Raises:
        ConfigError: one line that says what is wrong, where, and how to mend it.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        tree = _read_yaml(recipe_path(path))
    merge_settings(tree, settings)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"override {override!r} is not of the form key=value, e.g. rollout.samples=4")
        node = tree
        *parents, leaf = keys = key.strip().split(".")
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                node[parent] = {}
            node = node[parent]
        node[leaf] = _value(text, keys)
    return parse_config(tree)


def parse_config(tree: Mapping[str, Any]) -> Config:
    """A validated :class:`Config` from nested mappings, presets applied. Raises :class:`ConfigError`."""
    _check_keys(tree, Config)
    tree = dict(tree)
    recycle = tree.get("recycle")
    if isinstance(recycle, Mapping):
        preset = recycle.get("preset", "paper")
        if preset in PRESETS:
            tree["recycle"] = {**PRESETS[preset], **recycle}
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_one_line(error)) from None


def saved_settings(run_dir: Path) -> dict[str, Any]:
    """The resolved settings that a run was made with. Raises :class:`ConfigError` if there is no such run."""
    path = run_dir / "config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{run_dir} holds no run to resume; start one without --resume") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} can't be read ({error}); restore it or start a new run") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} must hold a mapping of settings; restore it or start a new run")
    return settings


def recipe_path(name: str | Path) -> Path:
    """The file for a configuration given by path or by recipe name. Raises :class:`ConfigError` if there is none."""
    path = Path(name)
    if path.is_file():
        return path
    recipes = {recipe.stem: recipe for folder in RECIPE_FOLDERS for recipe in folder.glob("*.yaml")}
    if str(name) in recipes:
        return recipes[str(name)]
    known = ", ".join(sorted(recipes))
    raise ConfigError(f"no configuration file {str(name)!r}; give a path to a YAML file or one of the recipes: {known}")


def settings_table() -> Iterator[tuple[str, str, Any, str]]:
    """(dotted key, type, default, docstring) for every setting, in order: the source of ``--help`` and the docs."""
    yield from _walk(Config(), "")


def _walk(section: Section, prefix: str) -> Iterator[tuple[str, str, Any, str]]:
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _walk(value, f"{prefix}{name}.")
        else:
            kind = info.annotation.__name__ if isinstance(info.annotation, type) else str(info.annotation)
            kind = kind.replace("typing.", "").replace("spark_rl.config.", "")
            yield f"{prefix}{name}", kind, value, " ".join((info.description or "").split())


def _value(text: str, keys: Sequence[str]) -> Any:
    """What an override's text means to the setting at ``keys``."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    annotation: Any = Config
    for name in keys:
        field = next((s.model_fields[name] for s in _sections(annotation) if name in s.model_fields), None)
        entries = (get_args(member)[1] for member in get_args(annotation) if get_origin(member) is dict)
        annotation = next(entries, None) if field is None else field.annotation
    members = {annotation, *get_args(annotation)}
    is_text = get_origin(annotation) not in {tuple, dict} and str in members
    if isinstance(value, list) and any(get_origin(member) is tuple for member in members):
        return value
    if isinstance(value, dict) and text.lstrip().startswith("{") and any(get_origin(m) is dict for m in members):
        return value
    return text if is_text and not isinstance(value, str | None) else value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, not a {type(tree).__name__}")
    return tree


def merge_settings(tree: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """``tree`` with the nested settings of ``other`` put into it."""
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            merge_settings(tree[key], value)
        else:
            tree[key] = deepcopy(value)
    return tree


def _sections(annotation: Any) -> list[type[Section]]:
    candidates = (annotation, *get_args(annotation))
    return [c for c in candidates if isinstance(c, type) and issubclass(c, Section)]


def _check_keys(tree: Mapping[str, Any], section: type[Section], prefix: str = "") -> None:
    for key, value in tree.items():
        field = section.model_fields.get(str(key))
        if field is None:
            raise ConfigError(f"unknown setting {prefix}{key!s}; {_nearest(f'{prefix}{key}', section, str(key))}")
        inner = _sections(field.annotation)
        free = any(get_origin(member) is dict for member in (field.annotation, *get_args(field.annotation)))
        if isinstance(value, Mapping) and not free:
            if not inner:
                raise ConfigError(f"{prefix}{key} is a single value, not a group of settings")
            _check_keys(value, inner[0], f"{prefix}{key}.")
        elif inner and not (value is None and type(None) in get_args(field.annotation)):
            raise ConfigError(f"{prefix}{key} is a group of settings; set one of them, e.g. {prefix}{key}."
                              f"{next(iter(inner[0].model_fields))}")  # fmt: skip


def _nearest(dotted: str, section: type[Section], key: str) -> str:
    close = difflib.get_close_matches(key, section.model_fields, n=1, cutoff=0.6)
    if close:
        return f"did you mean {dotted[: len(dotted) - len(key)]}{close[0]}?"
    everywhere = {name: name for name, *_ in settings_table()}
    leaves = {name.rpartition(".")[2]: name for name in everywhere}
    found = leaves.get(key) or next(iter(difflib.get_close_matches(dotted, everywhere, n=1, cutoff=0.5)), None)
    if found:
        return f"did you mean {found}?"
    return f"known here: {', '.join(section.model_fields)}"


def _one_line(error: ValidationError) -> str:
    errors = error.errors()
    # of a union, the member that fits furthest says what is wrong inside of it
    first = max((e for e in errors if e["loc"][:2] == errors[0]["loc"][:2]), key=lambda e: len(e["loc"]))
    # of a union, pydantic's location also names the member that was tried
    parts = [str(part) for part in first["loc"]]
    where = ".".join(part for part in parts if part.isdecimal() or (part.isidentifier() and not part[:1].isupper()))
    what = str(first["msg"]).removeprefix("Value error, ").replace("a valid tuple", "a list")
    if not where:
        return what
    return f"{where}: {what[:1].lower()}{what[1:]} (got {first['input']!r})"
