"""Messages for unknown settings: the name that it has here, why there is none, or the nearest.

People bring names along from TRL, verl and OpenRLHF. Those that mean something here are listed; for any other name the
nearest of the same group is offered, then the same name of another group, and otherwise nothing: a wrong guess costs
more than none.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping

NEAR = 0.75
"""How alike two names must be for one to be a misspelling of the other."""

VAGUE = ("name", "path", "id", "root", "form", "eps", "kind")
"""Names that mean something else in every group: one of another group is no guess."""

_TRUNCATION = (
    "there is none: cutting the distribution biases the importance ratio of the update; rollout.temperature is all "
    "that shapes sampling"
)
_DEVICES = "set cluster.learners and cluster.engines; the learners divide the weights among them (FSDP2)"
_NO_CRITIC = "there is none: advantages come from the group (Eq. 3), so there is no critic"
_TRACKER = "here it is track, e.g. track=[wandb]; every step is in metrics.jsonl and report.html of the run too"
_MICRO = "there is none: learner.micro_tokens bounds the tokens of a forward-backward, and changes nothing else"

FOREIGN: Mapping[str, str] = {
    # passes over data and over batches, which are easily confused
    "epochs": "train.episodes is passes over the data; learner.epochs is passes over each batch",
    "num_epochs": "train.episodes is passes over the data; learner.epochs is passes over each batch",
    **dict.fromkeys(("num_train_epochs", "total_epochs", "num_episodes"), "here it is train.episodes"),
    **dict.fromkeys(("num_iterations", "ppo_epochs", "max_epochs"), "here it is learner.epochs"),
    **dict.fromkeys(("max_steps", "total_training_steps", "num_steps"), "here it is train.steps"),
    # sampling
    **dict.fromkeys(("top_p", "top_k", "min_p"), _TRUNCATION),
    "temperature": "rollout.temperature is that of training, inference.temperature that of answers and verdicts",
    **dict.fromkeys(
        ("inference.top_p", "inference.top_k", "inference.min_p"),
        "there is none: answers and verdicts are greedy, or drawn from the whole distribution (inference.temperature)",
    ),
    "repetition_penalty": "there is none in training, where it would bias the importance ratio; "
    "inference.repetition_penalty is that of solve, judge and eval",
    **dict.fromkeys(
        ("num_generations", "n_samples_per_prompt", "n", "group_size", "num_return_sequences", "num_samples"),
        "here it is rollout.samples",
    ),
    **dict.fromkeys(
        ("max_completion_length", "max_response_length", "response_length", "generate_max_len", "max_tokens"),
        "here it is rollout.max_new_tokens, and inference.max_new_tokens for solve, judge and eval",
    ),
    **dict.fromkeys(
        ("max_prompt_length", "prompt_length", "prompt_max_len"), "here it is rollout.max_prompt_tokens"
    ),
    **dict.fromkeys(
        ("batch_size", "per_device_train_batch_size", "train_batch_size", "rollout_batch_size",
         "generation_batch_size"),
        "rollout.problems is the problems a step; learner.minibatches cuts them into updates, and learner.micro_tokens "
        "bounds the memory",
    ),
    **dict.fromkeys(("mini_batch_size", "ppo_mini_batch_size", "num_mini_batches"), "here it is learner.minibatches, a "
                    "number of parts"),
    **dict.fromkeys(
        ("gradient_accumulation_steps", "micro_batch_size", "micro_train_batch_size", "ppo_micro_batch_size",
         "ppo_micro_batch_size_per_gpu", "ppo_max_token_len_per_gpu"), _MICRO,
    ),
    "micro_rollout_batch_size": "here it is engine.max_rows",
    "mask_truncated_completions": "there is none; rollout.overlong_reward=zero takes the reward from cut responses",
    # the update
    **dict.fromkeys(("learning_rate", "actor_learning_rate"), "here it is optimiser.lr"),
    **dict.fromkeys(("warmup_steps", "lr_warmup_steps", "num_warmup_steps"), "here it is optimiser.warmup"),
    **dict.fromkeys(("warmup_ratio", "lr_warmup_ratio"), "there is none: optimiser.warmup counts updates"),
    **dict.fromkeys(("lr_scheduler_type", "lr_scheduler", "scheduler"), "here it is optimiser.schedule"),
    **dict.fromkeys(("min_lr", "min_lr_ratio", "lr_min"), "here it is optimiser.final_lr, a share of optimiser.lr"),
    **dict.fromkeys(("max_grad_norm", "grad_clip", "max_norm", "clip_grad"), "here it is optimiser.clip"),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "adam_betas"), "here it is optimiser.betas, a list of two"),
    "adam_epsilon": "here it is optimiser.eps",
    **dict.fromkeys(
        ("beta", "kl_coef", "kl_loss_coef", "init_kl_coef", "kl_beta", "kl_penalty"), "here it is objective.kl"
    ),
    "kl_loss_type": "here it is objective.kl_estimator",
    **dict.fromkeys(
        ("epsilon", "clip_range", "cliprange", "clip_ratio", "eps_clip"),
        "here it is objective.clip_low and objective.clip_high",
    ),
    "clip_ratio_low": "here it is objective.clip_low",
    **dict.fromkeys(("epsilon_high", "clip_ratio_high"), "here it is objective.clip_high"),
    **dict.fromkeys(("loss_type", "loss_agg_mode"), "here it is objective.aggregation"),
    **dict.fromkeys(("scale_rewards", "norm_adv_by_std_in_grpo"), "here it is advantage.scale"),
    **dict.fromkeys(("adv_estimator", "advantage_estimator"), "there is none: advantages are those of Eq. 3 "
                    "(advantage.scale)"),
    **dict.fromkeys(("gamma", "lam", "lambd", "gae_lambda", "critic", "critic_learning_rate", "vf_coef"), _NO_CRITIC),
    **dict.fromkeys(("entropy_coef", "entropy_coeff", "ent_coef"), "there is none: the objective of Eq. 4 has no "
                    "entropy term"),
    "disable_dropout": "there is none: dropout is always off, so that engine and learner see one distribution",
    **dict.fromkeys(("reward_funcs", "reward_fn", "reward_function", "custom_reward_function"), "here it is "
                    "reward.function"),
    # model, data and places
    **dict.fromkeys(("model_name_or_path", "pretrain", "model_name", "model_id"), "here it is model.path"),
    **dict.fromkeys(("torch_dtype", "bf16", "fp16", "precision"), "here it is model.dtype, float32 or bfloat16"),
    **dict.fromkeys(("attn_implementation", "flash_attn", "use_flash_attention"), "here it is model.attention"),
    **dict.fromkeys(("load_in_4bit", "load_in_8bit", "quantization"), "there is none: weights are float32 or bfloat16 "
                    "(model.dtype)"),
    **dict.fromkeys(("lora_r", "lora_rank"), "here it is model.lora.rank"),
    "lora_alpha": "here it is model.lora.alpha",
    "lora_dropout": "here it is model.lora.dropout",
    "lora_target_modules": "here it is model.lora.target_modules",
    "use_peft": "model.lora.rank=16 trains adapters; model.lora=null trains all weights",
    **dict.fromkeys(("model.name", "model.id", "model.model"), "here it is model.path"),
    **dict.fromkeys(
        ("data.path", "data.name", "data.file", "data.files", "dataset", "dataset_name", "train_dataset",
         "train_files", "prompt_data"), "here it is data.train",
    ),
    **dict.fromkeys(("eval_dataset", "val_files", "test_files", "val_dataset"), "here it is data.heldout"),
    **dict.fromkeys(("dataset_split", "prompt_split"), "here it is data.split"),
    **dict.fromkeys(("input_key", "prompt_key"), "here it is data.columns.question"),
    **dict.fromkeys(("label_key", "answer_key"), "here it is data.columns.answer"),
    "image_key": "here it is data.columns.images",
    **dict.fromkeys(("max_samples", "max_train_samples"), "here it is data.limit"),
    "system_prompt": "here it is chat.system",
    "chat_template": "here it is chat.template",
    "enable_thinking": "here it is chat.template_arguments={enable_thinking: false}",
    **dict.fromkeys(("stop_strings", "stop_sequences"), "here it is chat.stop"),
    **dict.fromkeys(
        ("output_dir", "save_path", "ckpt_path", "default_local_dir", "experiment_name", "run_name"),
        "here it is run_dir",
    ),
    **dict.fromkeys(("save_steps", "save_freq"), "here it is train.save_every"),
    "save_total_limit": "here it is train.keep",
    **dict.fromkeys(("eval_steps", "eval_strategy", "eval_interval", "test_freq"), "here it is train.eval_every"),
    **dict.fromkeys(("report_to", "use_wandb", "wandb", "logger", "project_name", "logging_steps"), _TRACKER),
    **dict.fromkeys(
        ("use_vllm", "vllm_mode", "vllm_gpu_memory_utilization", "gpu_memory_utilization", "vllm_num_engines"),
        "set engine.name=vllm, and what it needs in engine.options (docs/vllm.md)",
    ),
    **dict.fromkeys(
        ("vllm_server_base_url", "vllm_server_host", "vllm_server_port"),
        "set engine.name=vllm and engine.servers=[http://host:8000] (docs/vllm.md)",
    ),
    **dict.fromkeys(
        ("deepspeed", "fsdp", "fsdp_config", "n_gpus_per_node", "nnodes", "num_nodes", "tensor_model_parallel_size",
         "tensor_parallel_size"), _DEVICES,
    ),
}  # fmt: skip
"""Name elsewhere -> what to say of it here."""


def hint(dotted: str, group: Collection[str], settings: Collection[str]) -> str:
    """What to say to an unknown setting.

    Args:
        dotted: the setting as it was given, ``trian.steps``.
        group: the names that there are where it stands; those of the top where its group is unknown too.
        settings: every dotted setting there is.
    """
    section, _, leaf = dotted.rpartition(".")
    for name in (dotted, leaf):
        if (foreign := FOREIGN.get(name.lower().replace("-", "_"))) is not None:
            return foreign
    prefix = f"{section}." if section and any(name.startswith(f"{section}.") for name in settings) else ""
    here = prefix or not section
    if here and (close := _close(leaf, group)) is not None:
        groups = [name for name in settings if name.startswith(f"{prefix}{close}.")]
        return f"did you mean {prefix}{close}{f', a group of settings such as {groups[0]}' if groups else ''}?"
    elsewhere = [name for name in settings if _plain(name.rpartition(".")[2]) == _plain(leaf)]
    if elsewhere and not (prefix and leaf in VAGUE):
        near = [name for name in elsewhere if _alike(name.rpartition(".")[0], section) >= NEAR]
        return f"did you mean {' or '.join(near or elsewhere)}?"
    alike = [name for name in settings if _alike(name.rpartition(".")[2], leaf) >= NEAR]
    if (near_all := _close(dotted, alike)) is not None:
        return f"did you mean {near_all}?"
    if section and not prefix and (meant := _close(section.partition(".")[0], group)) is not None:
        inside = [name.removeprefix(f"{meant}.") for name in settings if name.startswith(f"{meant}.")]
        return f"did you mean {meant}? There are {', '.join(inside)}" if inside else f"did you mean {meant}?"
    return f"known here: {', '.join(group)}"


def _close(name: str, known: Collection[str]) -> str | None:
    """The known name that is most like ``name``, if one is like it at all; case and separators do not matter."""
    best = max(known, key=lambda one: _alike(one, name), default=None)
    return best if best is not None and _alike(best, name) >= NEAR else None


def _alike(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, _plain(one), _plain(other)).ratio()


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())
