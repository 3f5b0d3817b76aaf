"""What the chart's values make of the operator: all namespaces or some, with or without the right to read nodes."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("chart_values", [["watchNamespaces=null"]])
async def test_all_namespaces(world):
    await (await world.operator(RATCHET_WATCH_NAMESPACES="", RATCHET_RESYNC_SECONDS="0.5")).leads()
    await world.apply()
    assert (await world.completed())["attempt"]["number"] == 1


@pytest.mark.parametrize("chart_values", [["nodes.watch=false"]])
async def test_without_the_right_to_read_nodes(world):
    """Pods alone carry a job through a preemption with notice."""
    operator = await (await world.operator(RATCHET_WATCH_NODES="false", RATCHET_RESYNC_SECONDS="0.5")).leads()
    await world.apply()
    await world.running(step=3)
    spare = await world.kubelet.add_pool("b")
    await world.kubelet.shut_down(next(name for name in world.kubelet.nodes if name not in spare))
    status = await world.completed()
    # Here only the pod's own condition tells a preemption, and a busy kubelet may not get to write it before the pod is
    # gone: then the attempt is one that drained, which costs as little.
    verdict = status["attempts"][0]["verdict"]
    assert verdict in ("Preempted", "Drained")
    assert status["counters"]["preemptions"] == (verdict == "Preempted")
    assert status["counters"]["failures"] == status["counters"]["stepsLost"] == 0
    assert "forbidden" not in operator.log.lower()
