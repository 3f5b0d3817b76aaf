"""Is it fast, and what did preemptions cost? One job: where its seconds go, and what losses took."""

from __future__ import annotations

from ratchet_monitoring.colors import CHIPS, ENDS, LEDGER
from ratchet_monitoring.panel import BLUE, GREEN, ORANGE, PLAIN, RED, YELLOW, Board, Panel, Query, Row, stat
from ratchet_monitoring.selectors import BY_JOB, JOB, USEFUL, of_job, quantile, rate_of_job


def _lines(title: str, bad: str, *queries: tuple[str, ...], **more: object) -> Panel:
    return Panel(title, bad, tuple(Query(*query) for query in queries), **more)  # type: ignore[arg-type]


LAST_OF_ALL_ATTEMPTS = f"sort_desc(sum by (phase) (last_over_time(ratchet_phase_seconds_total{{{JOB}}}[$__range])) > 0)"
USELESS = USEFUL.replace("=~", "!~")
_AWAIT = 'phase="await"'
PARTS = ("detect", "drain", "fence", "place", "start", "restore", "compile", "step")
"""Of a recovery, in their order."""

SPEED = Board(
    "ratchet-speed",
    "Ratchet / Is it fast, what did preemptions cost?",
    "One job: where every second goes, and what was lost when capacity was taken away.",
    rows=(
        Row("Now", (
            stat("Tokens a second", "Falls at the same lengths: a slower machine, or a verifier that is waited for.",
                 of_job("ratchet_tokens_per_second"), bands=((None, BLUE),), trend=True),
            stat("Goodput", "Below 80 %: starts, saves, waits or repeated steps take the rest; see the panels below.",
                 f"sum(rate(ratchet_phase_seconds_total{{{JOB},{USEFUL}}}[$__range])) / "
                 f"sum(rate(ratchet_phase_seconds_total{{{JOB}}}[$__range]))",
                 unit="percentunit", bands=((None, RED), (0.5, ORANGE), (0.8, GREEN))),
            stat("Attempt", "Grows fast: see the ends by cause.", of_job("ratchet_attempt"), bands=((None, PLAIN),)),
            stat("Steps executed again", "More than a few a loss: save more often (checkpoint.everySteps).",
                 of_job("ratchet_steps_lost_total"), bands=((None, GREEN), (1, YELLOW), (50, RED))),
            stat("Last recovery", "Minutes: look which part of it takes them.",
                 f"sum({of_job('ratchet_recovery_duration_seconds', by='part')})", unit="s",
                 bands=((None, GREEN), (60, YELLOW), (600, RED)), without_data="nothing was lost"),
            stat("Checkpoint age", "An hour: a loss without notice costs an hour.",
                 f"time() - {of_job('ratchet_last_checkpoint_timestamp_seconds')}", unit="s",
                 bands=((None, GREEN), (900, YELLOW), (3600, RED))),
        )),
        Row("Speed", (
            _lines("Tokens a second", "Steps down at an attempt: it came up on another placement.",
                   (rate_of_job("ratchet_generated_tokens_total"), "generated"),
                   (rate_of_job("ratchet_trained_tokens_total"), "trained on"), width=12, low=0.0),
            _lines("Seconds of a step", "The upper line far above the lower: a few steps wait for something.",
                   (quantile(0.95, "ratchet_step_duration_seconds", JOB), "95 %"),
                   (quantile(0.5, "ratchet_step_duration_seconds", JOB), "median"), unit="s", width=12, low=0.0),
            _lines("Where a second goes", "generate and update should fill nearly all of it. A gap: nothing ran.",
                   *((f"{rate_of_job('ratchet_phase_seconds_total', phase, by='phase')} and on (phase) "
                      f"ratchet_phase_seconds_total{{{JOB}}} > 0", "{{phase}}") for phase in (USEFUL, USELESS)),
                   kind="stacked", unit="percentunit", width=12, low=0.0, high=1.0, colors=LEDGER),
            _lines("Share of the chips' peak", "Below 10 %: batches are too small, or decoding takes most of the time.",
                   (f"sum({rate_of_job('ratchet_model_flops_total')}) / sum({of_job('ratchet_peak_flops_per_second')})",
                    "model flops"), unit="percentunit", width=12, low=0.0,
                   without_data="the peak is known of TPUs only"),
            _lines("Floating-point work of the model, a second", "Falls at the same step time: shorter responses.",
                   (rate_of_job("ratchet_model_flops_total"), "model flops"), unit="flops", width=12, low=0.0),
            _lines("Peak host memory of the processes", "Near the pod's limit: the next save may be killed.",
                   (of_job("ratchet_process_peak_memory_bytes", by="process"), "process {{process}}"), unit="bytes",
                   width=12, low=0.0),
        )),
        Row("Does the fleet keep up?", (
            _lines("Workers", "Below the dashed line for long: no capacity, or workers that fail.",
                   (of_job("ratchet_rollout_workers", 'state="running"'), "running"),
                   (of_job("ratchet_rollout_workers", 'state="desired"'), "of"), width=12, low=0.0, decimals=0,
                   steps=True, dashed=("of",), without_data="the job has no fleet: its trainer samples itself"),
            _lines("Share of time that the trainer waits for rollouts",
                   "Above a half: more workers (rollouts.workers.max) cost less than the trainer's idle chips.",
                   (f"sum({rate_of_job('ratchet_phase_seconds_total', _AWAIT)}) / "
                    f"sum({rate_of_job('ratchet_phase_seconds_total')})", "waits"), unit="percentunit", width=12,
                   low=0.0, high=1.0),
            _lines("Calls without a result", "Never near 0 with lag: the workers do not keep up.",
                   (of_job("ratchet_rollout_waiting_calls"), "waiting"), width=12, low=0.0, decimals=0,
                   without_data="the job has no fleet"),
            _lines("Results a second", "Falls with the same workers: calls became longer, or the store slower.",
                   (of_job("ratchet_rollout_results_per_second"), "results"), width=12, low=0.0,
                   without_data="the job has no fleet"),
            _lines("Workers that ended and were replaced", "Rises evenly: spot capacity as it is. In bursts: look at their verdicts.",
                   (of_job("ratchet_rollout_restarts_total"), "restarts"), width=12, low=0.0, decimals=0, steps=True,
                   without_data="the job has no fleet"),
            _lines("Updates between sampling and learning", "More than lag x updatesPerStep cannot be.",
                   (of_job("ratchet_rollout_staleness"), "updates"), width=12, low=0.0, decimals=0,
                   without_data="rl.rollouts.lag is 0: nothing is sampled ahead"),
            _lines("How old rollouts are", "The share that is capped above 20 %: take a smaller lag, or fewer updates a step.",
                   (of_job("ratchet_rollout_importance_capped_ratio"), "share of tokens capped"), unit="percentunit",
                   width=12, low=0.0, high=1.0, without_data="rl.rollouts.lag is 0: nothing is sampled ahead"),
        )),
        Row("What preemptions cost", (
            _lines("Where all seconds went, all attempts", "init, compile, restore and replay are the price of losses.",
                   (LAST_OF_ALL_ATTEMPTS, "{{phase}}"), kind="bars", unit="s", colors=LEDGER),
            _lines("Parts of the last recovery", "place: capacity came late. compile: no program cache on that placement.",
                   *((of_job("ratchet_recovery_duration_seconds", f'part="{part}"'), part) for part in PARTS),
                   kind="bars", unit="s",
                   without_data="nothing was lost"),
            _lines("Attempts that ended, by cause", "Anything but Preempted again and again is a fault of job or cluster.",
                   (of_job("ratchet_restarts_total", by="cause"), "{{cause}}"), kind="bars", bands=((None, ORANGE),), colors=ENDS, decimals=0,
                   without_data="no attempt has ended for good: a verdict is final after two minutes"),
            _lines("Steps: made and saved", "A wide gap between the lines: that much is lost without notice.",
                   (of_job("ratchet_step"), "made"), (of_job("ratchet_checkpoint_step"), "saved"), width=12, steps=True,
                   low=0.0, decimals=0),
            _lines("Pods ready", "Below the dashed line for long: one host of the gang does not come up.",
                   (of_job("ratchet_pods", 'state="ready"'), "ready"), (of_job("ratchet_pods", 'state="total"'), "of"),
                   width=12, low=0.0, decimals=0, steps=True, dashed=("of",)),
            _lines("Chips held", "Moves to another placement: the ladder has fallen back or returned.",
                   (of_job("ratchet_chips", by="placement, capacity"), "{{placement}} ({{capacity}})"), kind="stacked",
                   width=12, low=0.0, decimals=0, steps=True, colors=CHIPS),
            _lines("Chip hours so far", "Above the budget that you had in mind: spec.budgets ends a stage by itself.",
                   (f"sum by ({BY_JOB}, capacity) (ratchet_chip_seconds_total{{{JOB}}}) / 3600", "{{capacity}}"),
                   kind="stacked", width=12, low=0.0, decimals=2, colors=CHIPS),
        )),
    ),
)  # fmt: skip
