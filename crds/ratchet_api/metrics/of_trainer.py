"""Metrics that a trainer exports: how the training goes, and where its time goes.

All are of process 0 but those whose owner is every process. A gauge shows the last complete step; a counter begins at
0 with each attempt, which Prometheus takes for what it is, a reset.
"""

from __future__ import annotations

from ratchet_api.metrics.metric import Metric


def _gauge(name: str, help: str, source: str = "", **more: object) -> Metric:
    group = str(more.pop("group", "learning"))
    return Metric(name, "gauge", group, help, source=source, **more)  # type: ignore[arg-type]


STEP_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)

TRAINER: tuple[Metric, ...] = (
    _gauge(
        "ratchet_reward_mean", "Mean reward of the step's first rollouts, before any filtering.", "train/reward",
        known_as={"TRL": "reward", "verl": "critic/rewards/mean", "NeMo-RL": "reward", "Tunix": "rewards/mean"},
    ),
    _gauge(
        "ratchet_reward_part_mean", "Mean of one part of the reward (rl.rewards), before weights.", "reward/NAME",
        labels=("part",),
        known_as={"TRL": "rewards/{fn}/mean", "verl": "critic/score/mean", "Tunix": "rewards/score/mean"},
    ),
    _gauge(
        "ratchet_accuracy_ratio", "Share of the step's first rollouts that were right.", "train/accuracy",
        known_as={"TRL": "rewards/accuracy_reward/mean", "NeMo-RL": "accuracy"},
    ),
    _gauge("ratchet_loss", "Loss of the step, mean of its updates.", "train/loss",
           known_as={"TRL": "loss", "verl": "actor/pg_loss", "NeMo-RL": "loss", "Tunix": "loss"}),
    _gauge(
        "ratchet_entropy_mean", "Mean entropy of the policy at the sampled tokens, in nats.", "train/entropy",
        known_as={"TRL": "entropy", "verl": "actor/entropy", "NeMo-RL": "approx_entropy", "Tunix": "entropy"},
    ),
    _gauge(
        "ratchet_kl_mean", "Mean drift of the policy from its reference at a token, in nats.", "train/kl",
        only="a reference is there (rl.reference or rl.kl)",
        known_as={"TRL": "kl", "verl": "actor/kl_loss", "NeMo-RL": "kl_penalty", "Tunix": "kl"},
    ),
    _gauge("ratchet_value_loss", "Loss of the critic.", "train/value_loss", only="methods with a critic (ppo)",
           known_as={"verl": "critic/vf_loss", "Tunix": "vf_loss"}),
    _gauge(
        "ratchet_clip_ratio", "Share of the trained tokens whose ratio was clipped, by side (low, high).",
        "train/clip_fraction_NAME", labels=("side",),
        known_as={
            "TRL": "clip_ratio/low_mean, clip_ratio/high_mean", "verl": "actor/pg_clipfrac",
            "NeMo-RL": "probs_ratio_clamped", "Tunix": "pg_clipfrac",
        },
    ),
    _gauge(
        "ratchet_response_tokens_mean", "Mean length of the step's responses, in tokens.", "train/response_tokens",
        known_as={
            "TRL": "completions/mean_length", "verl": "response_length/mean",
            "NeMo-RL": "mean_gen_tokens_per_sample", "Tunix": "generation/completions/mean_length",
        },
    ),
    _gauge(
        "ratchet_truncated_ratio", "Share of the responses that were cut at maxResponseTokens.", "train/truncated",
        known_as={
            "TRL": "completions/clipped_ratio", "verl": "response_length/clip_ratio",
            "Tunix": "generation/completions/clip_ratio",
        },
    ),
    _gauge("ratchet_unparsable_ratio", "Share of the responses in which no answer was found.", "train/unparsable"),
    _gauge(
        "ratchet_verifier_failures_ratio", "Share of the responses whose verifier crashed or ran out of time.",
        "train/verifier_failures",
    ),
    _gauge(
        "ratchet_unsolved_groups_ratio", "Share of the step's prompts to which no response was right.",
        "train/unsolved", known_as={"NeMo-RL": "baseline_reward/pct_0"},
    ),
    _gauge(
        "ratchet_solved_groups_ratio", "Share of the step's prompts to which every response was right.",
        "train/solved", known_as={"NeMo-RL": "baseline_reward/pct_1"},
    ),
    _gauge(
        "ratchet_informative_groups_ratio",
        "Share of the step's prompts whose responses earned different rewards; the others teach nothing.",
        "train/informative",
        known_as={
            "TRL": "1 - frac_reward_zero_std", "NeMo-RL": "baseline_reward/pct_mixed",
            "Tunix": "advantage/nonzero_frac",
        },
    ),
    _gauge(
        "ratchet_logprob_mismatch_mean",
        "Mean distance of the sampler's log-probability of a token from the trainer's, same weights, in nats.",
        "train/logprob_mismatch",
        known_as={
            "TRL": "sampling/sampling_logp_difference/mean", "verl": "training/rollout_probs_diff_mean",
            "NeMo-RL": "gen_kl_error", "Tunix": "sampler_trainer/logp_diff_mean",
        },
    ),
    _gauge(
        "ratchet_sampler_importance_ratio_mean",
        "Mean of the trainer's probability of a token over the sampler's; without lag of the same weights, and then "
        "far from 1 is a fault.",
        "train/importance_ratio",
        known_as={
            "TRL": "sampling/importance_sampling_ratio/mean", "verl": "rollout_corr/*",
            "NeMo-RL": "token_mult_prob_error", "Tunix": "sampler_is/*",
        },
    ),
    _gauge(
        "ratchet_rollout_staleness",
        "Updates between the weights that a step's rollouts were sampled with and its own.",
        "train/staleness", group="fleet", only="rl.rollouts.lag is above 0",
    ),
    _gauge(
        "ratchet_rollout_importance_capped_ratio",
        "Share of tokens whose importance weight reached its cap: how far rollouts' weights are from those trained.",
        "train/importance_capped", group="fleet", only="rl.rollouts.lag is above 0",
    ),
    _gauge(
        "ratchet_evaluation_accuracy_ratio", "Share of right answers of the last evaluation.",
        "evaluation/NAME/accuracy", labels=("evaluation",), only="evaluations are declared",
        known_as={"verl": "val-core/{ds}/best@N/mean", "NeMo-RL": "val:accuracy"},
    ),
    _gauge(
        "ratchet_pass_at_k_ratio",
        "Chance that one of k answers to an item is right (arXiv 2107.03374), last evaluation.",
        "evaluation/NAME/pass_at_K", labels=("evaluation", "k"), only="evaluations with passAt",
        known_as={"verl": "val-core/{ds}/best@N/mean", "NeMo-RL": "pass_k"},
    ),
    _gauge(
        "ratchet_evaluation_response_tokens_mean", "Mean length of the last evaluation's answers, in tokens.",
        "evaluation/NAME/response_tokens", labels=("evaluation",), only="evaluations are declared",
    ),
    _gauge(
        "ratchet_step_metric", "Every other metric of the step's record, under the name that rules and guards use.",
        labels=("metric",), only="the method says more of itself than the metrics above",
    ),
    _gauge("ratchet_gradient_norm", "Norm of the gradient of the step's last update, before clipping.",
           known_as={"TRL": "grad_norm", "verl": "actor/grad_norm", "NeMo-RL": "grad_norm"}),
    Metric(
        "ratchet_draws_total", "counter", "learning",
        "Prompts drawn, by what became of them: trained, all_right, all_wrong, dropped, failed, carried.",
        labels=("disposition",),
    ),
    Metric(
        "ratchet_updates_skipped_total", "counter", "learning",
        "Optimizer calls left out: no group could teach anything, or the loss was no number.",
    ),
    _gauge(
        "ratchet_exact_since_step",
        "First step from which the run is exact on its present topology and versions; 0 means from the start.",
        group="recovery",
    ),
    Metric("ratchet_steps_total", "counter", "speed", "Steps done by this attempt."),
    Metric(
        "ratchet_step_duration_seconds", "histogram", "speed", "Time of a step, from its draw to its record.",
        buckets=STEP_SECONDS,
        known_as={"TRL": "step_time", "verl": "timing_s/step", "Tunix": "perf/global_step_time"},
    ),
    Metric("ratchet_generated_tokens_total", "counter", "speed", "Tokens sampled by this attempt.",
           known_as={"TRL": "num_tokens", "verl": "perf/total_num_tokens"}),
    Metric("ratchet_trained_tokens_total", "counter", "speed", "Response tokens that this attempt trained on."),
    _gauge(
        "ratchet_tokens_per_second", "Tokens generated a second (trained on, in a supervised stage), last step.",
        group="speed",
        known_as={
            "TRL": "generation_tok_per_s", "verl": "perf/throughput", "NeMo-RL": "valid_tokens_per_sec_per_gpu",
        },
    ),
    Metric(
        "ratchet_phase_seconds_total", "counter", "speed",
        "Seconds of this attempt in each category of the ledger: init, compile, restore, replay, generate, await, "
        "verify, update, evaluate, save, wait, drain, other. They add up to its wall time.",
        labels=("phase",),
        known_as={"verl": "timing_s/gen, timing_s/update_actor", "Tunix": "perf/weight_sync_time"},
    ),
    Metric(
        "ratchet_model_flops_total", "counter", "speed",
        "Floating-point operations that the model needs for what was done: 2 a parameter and generated token, 6 a "
        "parameter and trained one; recomputation, prompts and attention are not counted.",
        known_as={"Tunix": "tflops_per_step", "verl": "perf/mfu/actor (times the peak)"},
    ),
    _gauge(
        "ratchet_peak_flops_per_second", "Peak of the attempt's chips in bfloat16, as their maker publishes it.",
        group="speed", only="TPUs",
    ),
    _gauge(
        "ratchet_process_peak_memory_bytes", "Largest host memory that a trainer process has had.",
        group="speed", labels=("process",), owner="every trainer process",
    ),
)  # fmt: skip
