"""What colors mean, one meaning on every dashboard: green is what a run is for, red is what went wrong.

Names are Grafana's, of its palette or `#RRGGBB`.
"""

from __future__ import annotations

GREEN, YELLOW, ORANGE, RED, BLUE, PURPLE = "green", "yellow", "orange", "red", "blue", "purple"
PLAIN = "text"
"""Of a number that is neither good nor bad: what text is written in."""
GREY = "#8E8E8E"

Colors = tuple[tuple[str, str], ...]
"""Series -> color. A series is named in full, or by /REGULAR EXPRESSION/."""

LEDGER: Colors = (
    ("generate", GREEN),
    ("await", "light-yellow"),
    ("verify", "dark-green"),
    ("update", BLUE),
    ("evaluate", "light-blue"),
    ("save", PURPLE),
    ("wait", YELLOW),
    ("init", RED),
    ("compile", ORANGE),
    ("restore", "semi-dark-orange"),
    ("replay", "light-red"),
    ("drain", "light-purple"),
    ("other", GREY),
)
"""Categories of seconds: green and blue is useful work, orange and red the price of losses."""

PHASES: Colors = (
    ("Running", GREEN),
    ("Completed", BLUE),
    ("Pending", YELLOW),
    ("Placing", YELLOW),
    ("Recovering", ORANGE),
    ("AwaitingApproval", PURPLE),
    ("Suspended", GREY),
    ("Failed", RED),
)
ENDS: Colors = (("Preempted", BLUE), ("/Completed|Suspended|Drained/", GREY))
"""Verdicts on attempts; all others are orange."""
PASSES: Colors = (
    ("done", GREEN),
    ("conflict", YELLOW),
    ("fenced", PURPLE),
    ("refused", ORANGE),
    ("unreachable", ORANGE),
    ("bug", RED),
)
ANSWERS: Colors = (("new", GREEN), ("same", BLUE), ("failed", YELLOW), ("mismatch", ORANGE), ("invalid", RED))
DRAWS: Colors = (
    ("trained", GREEN),
    ("carried", BLUE),
    ("all_right", "light-blue"),
    ("all_wrong", ORANGE),
    ("dropped", GREY),
    ("failed", RED),
)
CODES: Colors = (
    ("/ 2..$/", GREEN),
    ("/ (409|404)$/", YELLOW),
    ("/ (400|401|403|422)$/", ORANGE),
    ("/ (429|5..|none)$/", RED),
)
"""Answers of an API server, as METHOD CODE."""
CHIPS: Colors = (("/Spot/", GREEN), ("/OnDemand/", ORANGE), ("/Reserved|Reservation|FlexStart/", BLUE))
