"""Colors, which say nothing that the words beside them do not."""

PHASES = {
    "Running": "green",
    "Completed": "bright_green",
    "Placing": "yellow",
    "Pending": "yellow",
    "Recovering": "bold yellow",
    "AwaitingApproval": "bold magenta",
    "Suspended": "blue",
    "Failed": "bold red",
}
LEVELS = {"error": "bold red", "wait": "yellow", "note": "magenta"}
LEARNING = {"True": "green", "False": "bold red", "Unknown": "dim"}
LABEL = "bold cyan"
DIM = "dim"


def phase(name: str) -> str:
    """Style of a phase; none for one that this program does not know."""
    return PHASES.get(name, "")
