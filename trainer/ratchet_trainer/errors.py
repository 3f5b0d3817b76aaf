"""Why a run cannot go on, and the exit code that says so.

Decides the names of the trainer's errors and their codes; `app.py` turns them into a termination message. The codes
and what the operator makes of them are the protocol's (`ratchet_api.protocol.Exit`).
"""

from __future__ import annotations

from typing import Any

from ratchet_api.protocol import BUDGET_SPENT, NO_WORKERS, Exit

DRAINED = "Drained"
"""Reason of a process that was told to go."""


class TrainerError(Exception):
    """An error with an exit code of its own. `reason` is the class name: finite, documented, shown by the operator."""

    exit: Exit = Exit.INTERNAL

    @property
    def reason(self) -> str:
        return type(self).__name__


class ConfigurationInvalid(TrainerError):
    """The manifest or its data cannot be trained on; the message names the place and the way out. Never retried."""

    exit = Exit.CONFIGURATION_INVALID


class NonFinite(TrainerError):
    """A loss or gradient is NaN or infinite. An exact replay would fail exactly again, so it is not retried."""

    exit = Exit.DETERMINISTIC_FAILURE


class OldPolicyMismatch(TrainerError):
    """Old and new log-probabilities of untouched weights differ: sampling and training do not see the same policy."""

    exit = Exit.DETERMINISTIC_FAILURE


class StageFailed(TrainerError):
    """A stage reached its limit with `atLimit: Fail` and none of its rules held."""

    exit = Exit.DETERMINISTIC_FAILURE


class GuardTripped(TrainerError):
    """A metric left the bound that a guard with `action: Fail` sets. The same run would trip it again."""

    exit = Exit.DETERMINISTIC_FAILURE


class BudgetExceeded(TrainerError):
    """A stage spent its budget of generated tokens, and the budget says `onExceeded: Fail`."""

    exit = Exit.DETERMINISTIC_FAILURE


class CallPoisoned(TrainerError):
    """Whichever worker of the fleet samples a certain call ends: another one would end, too."""

    exit = Exit.DETERMINISTIC_FAILURE


class VerifierUnavailable(TrainerError):
    """A verifier that asks others, an endpoint, answered nothing at all of a round. Nothing is learned from it; tried
    again by the next attempt, as any failure of the program is."""


class Fenced(TrainerError):
    """A newer owner holds the checkpoint directory; `owner` says who, for the operator to count past it."""

    exit = Exit.FENCED

    def __init__(self, message: str, owner: dict[str, Any] | None = None):
        super().__init__(message)
        self.owner = owner or {}


class StorageUnavailable(TrainerError):
    """The checkpoint directory cannot be reached or is full, after retries."""

    exit = Exit.STORAGE_UNAVAILABLE


class CheckpointUnreadable(TrainerError):
    """No checkpoint can be trusted though there should be one. Never answered by starting from step 0."""

    exit = Exit.CHECKPOINT_UNREADABLE


class AcceleratorUnavailable(TrainerError):
    """The devices of this machine are held by somebody else or do not start. The machine's fault, not the job's."""

    exit = Exit.ACCELERATOR_UNAVAILABLE


class PeerLost(TrainerError):
    """Another process of the gang or the coordinator is gone."""

    exit = Exit.PEER_LOST


class Drain(Exception):
    """Every process leaves at this safe point, or the stage gate stayed shut at a boundary."""

    def __init__(self, text: str = "told to go", boundary: dict[str, Any] | None = None):
        super().__init__(text)
        self.boundary = boundary

    @property
    def reason(self) -> str:
        return DRAINED


class BudgetSpent(Drain):
    """A stage spent its budget of generated tokens: all processes leave, and go on once it is raised."""

    @property
    def reason(self) -> str:
        return BUDGET_SPENT


class NoWorkers(Drain):
    """Too few workers of the fleet were there for too long: all processes leave, and go on once workers run."""

    @property
    def reason(self) -> str:
        return NO_WORKERS


def error_of(reason: str, text: str, owner: dict[str, Any] | None = None) -> TrainerError:
    """The error of that name, as another process tells of it."""
    kinds = {kind.__name__: kind for kind in TrainerError.__subclasses__()}
    return Fenced(text, owner) if reason == Fenced.__name__ else kinds[reason](text)
