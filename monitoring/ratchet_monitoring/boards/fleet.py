"""Fleet: all jobs of the chosen namespaces, what they hold, why they wait, and what losses cost."""

from __future__ import annotations

from ratchet_monitoring.colors import CHIPS, ENDS, PHASES
from ratchet_monitoring.panel import GREEN, ORANGE, RED, YELLOW, Board, Panel, Query, Row, stat
from ratchet_monitoring.selectors import BY_JOB, USEFUL, gained

ALL = 'job_namespace=~"$namespace"'
FINE = ((None, GREEN),)
NONE_IS_FINE = ((None, GREEN), (1, ORANGE))


def _count(expr: str) -> str:
    return f"count({expr}) or vector(0)"


FLEET = Board(
    "ratchet-fleet",
    "Ratchet / Fleet",
    "Every job at a glance: what runs, what waits and why, what it costs.",
    of_job=False,
    texts=(("spotPrice", "Price of a Spot chip hour", "1"), ("price", "Price of another chip hour", "2")),
    rows=(
        Row("Now", (
            stat("Running", "Fewer than you started, and none waiting: look for failed ones.",
                 _count(f'ratchet_phase{{{ALL},phase="Running"}}'), bands=FINE),
            stat("Waiting for pods", "More than 0 for long: there is no capacity, or a quota is used up.",
                 _count(f'ratchet_phase{{{ALL},phase=~"Pending|Placing|Recovering"}}'), bands=NONE_IS_FINE),
            stat("Not learning", "More than 0: chips are spent on steps that teach nothing. The job's dashboard says why.",
                 _count(f'ratchet_condition{{{ALL},type="Learning",status="False"}}'), bands=((None, GREEN), (1, RED))),
            stat("Waiting for approval", "More than 0: somebody has to look at a finished stage.",
                 _count(f'ratchet_phase{{{ALL},phase="AwaitingApproval"}}'), bands=((None, GREEN), (1, YELLOW))),
            stat("Failed", "More than 0: no attempt is made any more. Read the condition Failed.",
                 _count(f'ratchet_phase{{{ALL},phase="Failed"}}'), bands=((None, GREEN), (1, RED))),
            stat("Goodput", "Below 80 %: starts, saves, waits or repeated steps take the rest. See the dashboard of speed.",
                 f"avg(sum by ({BY_JOB}) (rate(ratchet_phase_seconds_total{{{ALL},{USEFUL}}}[$__range])) / "
                 f"sum by ({BY_JOB}) (rate(ratchet_phase_seconds_total{{{ALL}}}[$__range])))",
                 unit="percentunit", bands=((None, RED), (0.5, ORANGE), (0.8, GREEN))),
        )),
        Row("Jobs", (
            Panel("Jobs", "A job whose step stands still while its phase is Running.",
                  (Query(f"max by ({BY_JOB}, phase, reason) (ratchet_phase{{{ALL}}})"),
                   Query(f'max by ({BY_JOB}, learning) (label_replace(ratchet_condition{{{ALL},type="Learning"}}, '
                         '"learning", "$1", "reason", "(.*)"))'),
                   Query(f"max by ({BY_JOB}) (ratchet_step{{{ALL}}})", "step"),
                   Query(f"max by ({BY_JOB}) (ratchet_attempt{{{ALL}}})", "attempt"),
                   Query(f"max by ({BY_JOB}) (last_over_time(ratchet_accuracy_ratio{{{ALL}}}[$__range]))", "accuracy",
                         unit="percentunit"),
                   Query(f"max by ({BY_JOB}) (last_over_time(ratchet_tokens_per_second{{{ALL}}}[$__range]))", "tokens/s")),
                  kind="table", width=24, height=7),
            Panel("Jobs by phase", "Recovering or Placing grows while Running falls: capacity is being taken away.",
                  (Query(f"count by (phase) (ratchet_phase{{{ALL}}})", "{{phase}}"),), kind="stacked", width=12,
                  colors=PHASES, steps=True, low=0.0, decimals=0),
            Panel("Why jobs do not run", "WaitingForQuota: Kueue has no room. Waiting for nodes for long: no capacity.",
                  (Query(f'count by (phase, reason) (ratchet_phase{{{ALL},phase!~"Running|Completed"}})',
                         "{{phase}}: {{reason}}"),), kind="stacked", width=12, steps=True, low=0.0, decimals=0,
                  without_data="every job runs or is completed"),
        )),
        Row("Capacity and cost", (
            Panel("Chips held, by capacity", "Spot falls and OnDemand rises: the ladder fell back, and costs more.",
                  (Query(f"sum by (capacity) (ratchet_chips{{{ALL}}})", "{{capacity}}"),), kind="stacked",
                  colors=CHIPS, steps=True, low=0.0, decimals=0),
            Panel("Chips held, by placement", "A placement that you did not want: the one before it has no capacity.",
                  (Query(f"sum by (placement, accelerator, topology) (ratchet_chips{{{ALL}}})",
                         "{{placement}} {{accelerator}} {{topology}}"),), kind="stacked", steps=True, low=0.0, decimals=0),
            Panel("Chip hours in this time", "More than you planned for. spec.budgets ends a stage that costs too much.",
                  (Query(f"sum by (capacity) (increase(ratchet_chip_seconds_total{{{ALL}}}[$__range])) / 3600",
                         "{{capacity}}"),), kind="bars", decimals=2, colors=CHIPS),
            Panel("Cost in this time, at your prices", "More than you planned for.",
                  (Query(f'(sum(increase(ratchet_chip_seconds_total{{{ALL},capacity="Spot"}}[$__range])) or vector(0))'
                         " / 3600 * $spotPrice", "Spot"),
                   Query(f'(sum(increase(ratchet_chip_seconds_total{{{ALL},capacity!="Spot"}}[$__range])) or vector(0))'
                         " / 3600 * $price", "other")), kind="bars", decimals=2),
            Panel("Chip hours by job", "One job takes nearly everything: give it a budget or a queue.",
                  (Query(f"topk(10, sum by ({BY_JOB}) (increase(ratchet_chip_seconds_total{{{ALL}}}[$__range])) / 3600)",
                         "{{job_namespace}}/{{job_name}}"),), kind="bars", decimals=2),
            Panel("Tokens a second, all jobs", "Falls while the number of running jobs stays: something got slower.",
                  (Query(f"sum(ratchet_tokens_per_second{{{ALL}}})", "generated"),), low=0.0),
        )),
        Row("Losses", (
            Panel("Attempts that ended, by cause", "Anything but Preempted again and again is a fault, not the market.",
                  (Query(gained(f"ratchet_restarts_total{{{ALL}}}", "cause"), "{{cause}}"),),
                  kind="bars", without_data="no attempt has ended for good: a verdict is final after two minutes", bands=((None, ORANGE),), colors=ENDS, decimals=0),
            Panel("Steps executed again", "Grows: losses without notice fall between two checkpoints. Save more often.",
                  (Query(f"sum by ({BY_JOB}) (ratchet_steps_lost_total{{{ALL}}})", "{{job_name}}"),), steps=True,
                  low=0.0, decimals=0),
            Panel("Seconds of a recovery, mean", "Grows: capacity comes back later, or restoring and compiling got slower.",
                  (Query(f"sum by ({BY_JOB}) (ratchet_recovery_seconds_total{{{ALL}}}) / "
                         f"sum by ({BY_JOB}) (ratchet_recoveries_total{{{ALL}}} > 0)", "{{job_name}}"),), unit="s", steps=True, low=0.0,
                  without_data="nothing was lost"),
        )),
    ),
)  # fmt: skip
