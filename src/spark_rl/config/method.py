"""Settings of the method, in the order of the paper: rollouts, rewards, update, recycling, the loop, test time."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from spark_rl.config.section import Section

Thinking = tuple[tuple[str, str], ...]
"""Pairs of tags, the opening and the closing one, between which a model thinks aloud before it answers."""

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

AnswerForm = Literal["evaluated", "equivalent"]
"""What of an answer that equals the gold one is right: what is evaluated, or all of it."""


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
    ahead: int = Field(0, ge=0, le=8)
    """Steps that sampling is ahead of training: the next batches are sampled while this one is updated, from weights
    that are as many steps old. 0 is the paper, and on-policy. Needs an engine with weights of its own, which does not
    sleep then."""
    overlong_reward: Literal["keep", "zero"] = "keep"
    """``zero`` takes the reward from any response that hit the limit, even one with a right answer."""


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


class RewardFunction(Section):
    """One of several reward functions of your own."""

    path: str
    """``file.py:name``: the file, relative to where the command is started, and the function in it."""
    weight: float = Field(1.0, ge=0)
    """Its weight in the mean; 0 only measures it."""


class SelfRewardConfig(Section):
    """Training without gold answers, rewarded by the model's own verdict (docs/without-gold.md)."""

    hidden: float = Field(0.0, ge=0, le=1)
    """Share of the training problems whose gold answer is hidden, the same in each pass and after a resume. Problems
    without an answer that the verifier can use count as hidden whatever the share."""
    judge: Literal["current", "frozen"] = "current"
    """Which weights judge the answer that most responses of a group give: the current ones, or those of ``model.path``,
    with which the run began: a second copy of them, in this process."""
    judgements: int = Field(4, ge=1)
    """Sampled judgements of that answer. It is the pseudo gold if more than half of them say Yes; otherwise its group
    is left out of the update."""
    floor: float | None = Field(0.7, ge=0, le=1)
    """Share of the pseudo golds that must be right where gold answers are there to compare with. Before it is reached
    over a window, problems without a gold answer are not asked; when it falls below afterwards, or none is accepted
    there in a window, the run ends itself. Null uses all pseudo golds and never ends; it is needed where no problem has
    a gold answer."""
    window: int = Field(10, ge=1)
    """Steps over which that share is taken."""


class RewardConfig(Section):
    """What earns the reward of Eq. 2 in training, beyond being right, and functions of your own (docs/rewards.md)."""

    form: AnswerForm = "evaluated"
    """``evaluated`` refuses right answers that leave to the reader what the question asks for, such as ``6\\times7`` or
    ``\\sum_{k=1}^{10}k`` for a number, unless the gold answer is written so; they count as ``unparsable`` and are not
    recycled. ``equivalent`` takes every answer that equals the gold one, as evaluations and ``verify()`` always do."""
    function: str | tuple[str | RewardFunction, ...] | None = None
    """Reward functions of your own: ``file.py:name``, or a list of them, with weights as ``{path: file.py:name,
    weight: 0.5}``. The reward of a response is the weighted mean of what they give. Null: the verifier alone."""
    verifier: float | None = Field(None, ge=0)
    """Weight of the verifier's reward in the mean. Null: 1 without functions, 0 with them. Above 0 its status says
    which responses are right when they are recycled."""
    threshold: float = 1.0
    """The reward from which on a response counts as right, when it is recycled or evaluated, where the verifier has no
    weight."""
    timeout: float = Field(60.0, gt=0)
    """Seconds on the clock that a function may take for one batch; then it has failed, and the run goes on."""
    self: SelfRewardConfig | None = None
    """Training without gold answers: hides some, and takes the model's own verdict in their place. Its settings are
    ``hidden``, ``judge``, ``judgements``, ``floor`` and ``window`` (docs/without-gold.md). Null: every problem has a
    gold answer."""


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
    importance_cap: Annotated[float, Field(gt=0)] | Literal["auto"] | None = "auto"
    """Weight tokens by min(cap, learner / engine probability): corrects an engine that differs from the learner.
    ``auto`` is 2 with an engine that has weights of its own, and null with the embedded one, which has the learner's.
    Null never weighs them."""


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

    @property
    def on(self) -> bool:
        """Whether anything is recycled."""
        return self.pointwise or self.pairwise or self.reflection


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    "balanced": {"balance": True},
    "policy-only": {"pointwise": False, "pairwise": False, "reflection": False},
    "policy-and-reward": {"reflection": False},
}
"""Starting values of ``recycle`` by preset name. ``paper`` is the defaults themselves."""


class OptimiserConfig(Section):
    """AdamW."""

    lr: float = Field(5e-7, gt=0, le=1e30)
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
    """Padded tokens in one forward-backward: each prompt once, its responses, and for each of these a share of its
    prompt, whose keys and values it keeps (a sixteenth in a model of 7 billion parameters). Bounds memory; changes the
    result by rounding only."""
    logit_chunk: int | None = Field(None, ge=1)
    """Response positions whose logits exist at the same time, recomputed in the backward pass. Null follows the
    vocabulary: 67 million logits (256 MiB) exist at most, 1,024 positions at a time, and those that fit are kept."""
    minibatches: int = Field(1, ge=1)
    """Updates per batch: the batch is cut into this many parts of whole groups, each with its mixture of tasks. 1 is
    fully on-policy."""
    epochs: int = Field(1, ge=1)
    """Passes over each batch."""
    offload: bool = False
    """Keep the shards of weights, gradients and moments in the memory of the CPU, where a learner of several ranks is
    on GPUs: slower, and a GPU holds little but activations. Nothing in a learner of one process."""


HELDOUT_SCORES = (
    "policy_accuracy", "tts_accuracy", "judge_accuracy", "judge_balanced_accuracy", "judge_precision", "judge_recall",
    "judge_f1", "judge_unreadable", "judge_ece", "judge_brier", "judge_auroc", "pairwise_accuracy",
    "reflection_fix", "reflection_break",
)  # fmt: skip
"""The shares that an evaluation of held-out problems measures (:mod:`spark_rl.evals.heldout`)."""


class TrainConfig(Section):
    """The loop (Fig. 2a)."""

    steps: int | None = Field(None, ge=1)
    """Steps to run; null runs until ``tokens``, or ``episodes`` passes over the data."""
    tokens: int | None = Field(None, ge=1)
    """The run ends with the step after which so many tokens have been generated in training, of policy and recycled
    responses, or with the last of ``steps``. Arms of a comparison end at equal tokens so; the learning rate's schedule
    and the time left follow an estimate of the steps. Null ends by steps alone."""
    episodes: int = Field(2, ge=1)
    """Passes over the data when ``steps`` and ``tokens`` are null."""
    periods: Literal["two", "combined"] = "two"
    """``two``: the policy batch, then the recycled batch, each with its own update (the paper). ``combined``: both in
    one update, from the same weights."""
    policy_update: bool = True
    """Whether the policy's own batch is trained on; false is the paper's reward-only ablation."""
    save_every: int = Field(50, ge=1)
    """Steps between checkpoints. The last step is always saved."""
    keep: int = Field(2, ge=1)
    """Checkpoints kept; older ones are removed, but for the one of the best evaluation (``best``)."""
    eval_every: int | None = Field(None, ge=1)
    """Steps between evaluations of the held-out problems, written to ``evaluations.jsonl``; the last step is evaluated
    too. Null evaluates before and after only. Evaluating changes nothing of what is trained."""
    best: str | None = None
    """A held-out score, such as ``tts_accuracy``: the checkpoint of the evaluation where it was best is kept, as
    ``RUN/best``, which is a model like ``RUN``. Needs ``eval_every``."""
    patience: int | None = Field(None, ge=1)
    """Evaluations in a row without a better ``best`` after which the run ends, with its model and report; null trains
    all steps."""
    sample_rollouts: int = Field(4, ge=0)
    """Problems a step whose whole groups are written to ``rollouts.jsonl``, with the whole groups of the judge, pair
    and reflection problems made of them; 0 writes none."""
    report_every: int | None = Field(10, ge=1)
    """Steps between renewals of ``report.html`` while the run goes on; null writes it at the end only. A renewal waits
    until all of them together have taken less than 2 % of the time."""

    @field_validator("best")
    @classmethod
    def _known_score(cls, best: str | None) -> str | None:
        if best is None or best in HELDOUT_SCORES:
            return best
        near = difflib.get_close_matches(best, HELDOUT_SCORES, n=1, cutoff=0.5)
        meant = f"did you mean {near[0]}?" if near else f"choose from {', '.join(HELDOUT_SCORES)}"
        raise ValueError(f"there is no such held-out score; {meant}")


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
    accept: float | None = Field(None, ge=0, le=1)
    """P(Yes), the model's own probability of Yes against No, from which on an answer is accepted; below it the model
    reflects. Null accepts on a Yes."""
    judgements: int = Field(1, ge=1)
    """Judgements of an answer, whose P(Yes) are averaged; more than one accept from ``accept``, or one half, on. They
    differ only at a ``temperature`` above 0."""
    select: Literal["last", "majority", "verdict", "weighted"] = "last"
    """Which answer is given. ``last``: that of the last round. The others draw ``samples`` answers and make no rounds:
    ``majority`` gives what most agree on, ``verdict`` what the model is surest of by its P(Yes) (best-of-n),
    ``weighted`` what has most P(Yes) together."""
    samples: int = Field(1, ge=1)
    """Answers that ``select`` chooses from, at a ``temperature`` above 0."""
    max_new_tokens: int = Field(2048, ge=1)
    """Tokens per generation."""

    @model_validator(mode="after")
    def _samples_are_chosen_from(self) -> Self:
        if (self.select == "last") != (self.samples == 1):
            raise ValueError(
                "samples and select go together: several samples want select=majority, verdict or weighted, and these "
                "want several samples"
            )
        if self.temperature == 0 and max(self.samples, self.judgements) > 1:
            raise ValueError("several samples or judgements are all alike at temperature 0; set temperature above 0")
        return self

    @property
    def scales(self) -> bool:
        """Whether more than a first answer is made."""
        return self.rounds > 0 or self.samples > 1


class EvaluationConfig(Section):
    """The before-and-after table of a training run."""

    problems: int = Field(300, ge=1)
    """Held-out problems evaluated (the first N, the same before and after)."""
