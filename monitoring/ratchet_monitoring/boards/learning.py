"""Is it learning? One job: rewards, answers, and the signs that come before a run goes wrong."""

from __future__ import annotations

from ratchet_monitoring.colors import DRAWS
from ratchet_monitoring.panel import BLUE, GREEN, ORANGE, PLAIN, RED, YELLOW, Board, Panel, Query, Row, stat
from ratchet_monitoring.selectors import BY_JOB, JOB, last_of_job, of_job

REFERENCE = "the method has no reference"
CRITIC = "the method has no critic"
EVALUATIONS = "no evaluations are declared"
NEUTRAL = ((None, PLAIN),)
RATIO = {"unit": "percentunit", "low": 0.0, "high": 1.0}


def _lines(title: str, bad: str, *queries: tuple[str, ...], **more: object) -> Panel:
    return Panel(title, bad, tuple(Query(*query) for query in queries), **more)  # type: ignore[arg-type]


LEARNING = Board(
    "ratchet-learning",
    "Ratchet / Is it learning?",
    "One job: what its answers earn, and whether a step still teaches it anything.",
    rows=(
        Row("Now", (
            stat("Learning", "Red: the reason stands here, and the condition Learning quotes what was seen.",
                 " or ".join(f'{code} * max by ({BY_JOB}, reason) (ratchet_condition{{{JOB},type="Learning",status="{status}"}})'
                             for code, status in enumerate(("True", "Unknown", "False"), start=1)),
                 legend="{{reason}}", width=5, bands=((None, GREEN), (2, BLUE), (3, RED))),
            stat("Stage", "A stage that ended long before its limit: see the rule in status.stages.",
                 f"max by ({BY_JOB}, stage, method) (ratchet_info{{{JOB}}})", legend="{{stage}} ({{method}})", width=6,
                 bands=NEUTRAL),
            stat("Step", "Stands still while the job runs: see the dashboard of speed.", of_job("ratchet_step"),
                 width=3, bands=NEUTRAL),
            stat("Stage ends at", "Not a fault: it is the limit of the stage, in steps; a rule may end it sooner.",
                 of_job("ratchet_target_steps"), width=3, bands=NEUTRAL),
            stat("Accuracy", "Falls for tens of steps: a lower learning rate, or a drift term.",
                 of_job("ratchet_accuracy_ratio"), unit="percentunit", width=4, decimals=1,
                 bands=((None, BLUE),), trend=True),
            stat("Exact since step", "Above 0: versions, settings or topology changed there; bits may differ from an "
                 "undisturbed run's.", last_of_job("ratchet_exact_since_step"), width=3, bands=((None, GREEN), (1, YELLOW))),
        )),
        Row("Reward and accuracy", (
            _lines("Reward", "Flat at its lowest value from the start: nothing is right, so nothing is learned. Falls: "
                   "the policy breaks.", (of_job("ratchet_reward_mean"), "reward"), width=12),
            _lines("Parts of the reward", "One part rises while accuracy falls: the model earns it without the task.",
                   (of_job("ratchet_reward_part_mean", by="part"), "{{part}}"), width=12),
            _lines("Accuracy", "Training accuracy rises and held-out accuracy does not: it learns the items by heart.",
                   (of_job("ratchet_accuracy_ratio"), "training"),
                   (of_job("ratchet_evaluation_accuracy_ratio", by="evaluation"), "{{evaluation}}", EVALUATIONS), width=12, **RATIO),
            _lines("pass@k, held out", "pass@1 rises while pass@k falls: it gives up diversity for one way of answering.",
                   (of_job("ratchet_pass_at_k_ratio", by="evaluation, k"), "{{evaluation}} k={{k}}"), width=12,
                   without_data="no evaluation has passAt", **RATIO),
        )),
        Row("Does a step teach anything?", (
            _lines("Groups by their answers", "Solved or unsolved near 100 %: the task is too easy or too hard, and a "
                   "step teaches nothing.", (of_job("ratchet_informative_groups_ratio"), "informative"),
                   (of_job("ratchet_solved_groups_ratio"), "all right"),
                   (of_job("ratchet_unsolved_groups_ratio"), "none right"), **RATIO,
                   colors=(("informative", GREEN), ("all right", "light-blue"), ("none right", ORANGE))),
            _lines("Draws, by what became of them", "all_wrong or all_right take over: see the panel to the left.",
                   (f"sum by (disposition) (rate(ratchet_draws_total{{{JOB}}}[$__rate_interval]))", "{{disposition}}"),
                   kind="stacked", unit="suffix:/s", low=0.0, colors=DRAWS),
            _lines("Answers that cannot be judged", "Truncated: raise maxResponseTokens. Not parsable: the verifier reads "
                   "something else than the model writes. Verifier failures: its own fault.",
                   (of_job("ratchet_truncated_ratio"), "truncated"), (of_job("ratchet_unparsable_ratio"), "no answer found"),
                   (of_job("ratchet_verifier_failures_ratio"), "verifier failed"), **RATIO),
        )),
        Row("The policy", (
            _lines("Entropy at sampled tokens, nats", "Goes to 0: it always says the same. Rises without end: it says "
                   "anything.", (of_job("ratchet_entropy_mean"), "entropy"), low=0.0, soft=(0.0, 0.1),
                   bands=((None, RED), (0.005, YELLOW), (0.05, GREEN))),
            _lines("Drift from the reference, nats a token", "Above 0.1 and rising fast: a lower learning rate, or a "
                   "larger kl coefficient.", (of_job("ratchet_kl_mean"), "KL"), low=0.0, soft=(0.0, 0.12), without_data=REFERENCE,
                   bands=((None, GREEN), (0.1, YELLOW), (1, RED))),
            _lines("Length of responses, tokens", "Grows with accuracy standing still: length is rewarded, not answers. "
                   "Falls to a few: it gives up.", (of_job("ratchet_response_tokens_mean"), "training"),
                   (of_job("ratchet_evaluation_response_tokens_mean", by="evaluation"), "{{evaluation}}", EVALUATIONS), low=0.0),
            _lines("Clipped tokens", "Above 20 %: updates are too large for the samples that they are made from.",
                   (of_job("ratchet_clip_ratio", by="side"), "{{side}}"), unit="percentunit", low=0.0, soft=(0.0, 0.25),
                   bands=((None, GREEN), (0.2, YELLOW), (0.5, RED))),
            _lines("Sampler and trainer, nats apart", "Above 0.05: they compute different models; set model.dtype float32 "
                   "or an importanceCap.", (of_job("ratchet_logprob_mismatch_mean"), "mean distance"), low=0.0, soft=(0.0, 0.012),
                   bands=((None, GREEN), (0.01, YELLOW), (0.05, RED))),
            _lines("Probability ratio trainer / sampler", "Away from 1: as the panel to the left.",
                   (of_job("ratchet_sampler_importance_ratio_mean"), "mean ratio"), soft=(0.9, 1.1)),
            _lines("Norm of the gradient", "Peaks that are ten times the rest: the gradient clip works hard; a lower "
                   "learning rate is calmer.", (of_job("ratchet_gradient_norm"), "norm"), low=0.0),
            _lines("Loss", "Of GRPO and its kin: near 0 is normal and says little. Explodes: the run is lost.",
                   (of_job("ratchet_loss"), "policy"), (of_job("ratchet_value_loss"), "critic", CRITIC), soft=(-0.1, 0.1)),
            _lines("What the method says besides", "As the method's page says.",
                   (of_job("ratchet_step_metric", by="metric"), "{{metric}}"),
                   without_data="the method says no more than the panels above"),
        )),
    ),
)  # fmt: skip
