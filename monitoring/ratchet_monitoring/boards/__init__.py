"""The dashboards, one a file."""

from ratchet_monitoring.boards.fleet import FLEET
from ratchet_monitoring.boards.learning import LEARNING
from ratchet_monitoring.boards.operator_health import OPERATOR_HEALTH
from ratchet_monitoring.boards.speed import SPEED

BOARDS = {"fleet": FLEET, "learning": LEARNING, "speed": SPEED, "operator": OPERATOR_HEALTH}
"""Name of the file -> dashboard."""
