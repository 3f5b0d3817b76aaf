"""What XLA compiles while a run goes on, and in which of its calls."""

from __future__ import annotations

from typing import Any

import jax
import pytest

from ratchet_trainer.run import Run


def compiled_in(monkeypatch: pytest.MonkeyPatch, method: str) -> tuple[list[str], list[list[str]]]:
    """Names of all programs that are compiled from here on, and of those in each call of the run's `method`."""
    compiled: list[str] = []
    calls: list[list[str]] = []
    called = getattr(Run, method)

    def listening(self: Run, *arguments: Any) -> Any:
        before = len(compiled)
        found = called(self, *arguments)
        calls.append(compiled[before:])
        return found

    monkeypatch.setattr(Run, method, listening)
    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **more: (
            compiled.append(str(more.get("fun_name"))) if event.endswith("backend_compile_duration") else None
        )
    )
    return compiled, calls
