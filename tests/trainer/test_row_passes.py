"""Rows on several devices, some at a time: what a pass or a device holds changes neither gradient nor report."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from ratchet_trainer.checkpoints.identity import flags_with_devices

PROGRAM = """
import json, jax, jax.numpy as jnp, numpy as np
from ratchet_trainer.model.sharding import by_rows, place
from ratchet_trainer.learning.row_passes import row_gradient, row_values

mesh = jax.make_mesh((jax.device_count(), 1, 1), ("data", "fsdp", "tensor"),
                     axis_types=(jax.sharding.AxisType.Auto,) * 3)
rows = place(np.arange(24.0, dtype=np.float32).reshape(12, 2), by_rows(mesh))

def loss(p, rows):
    return jnp.sum(p * rows**2), ({"rows": jnp.float32(len(rows))}, {"largest": rows.max()})

found = []
for passes in (1, 2, 6 // jax.device_count()):
    gradient, report = jax.jit(lambda p: row_gradient(mesh, loss, p, (rows,), passes))(jnp.ones(2))
    values = jax.jit(lambda p: row_values(mesh, lambda p, rows: rows @ p, p, rows, passes))(jnp.ones(2))
    found.append([gradient.tolist(), {k: float(v) for k, v in report.items()}, np.asarray(values).tolist()])
print(json.dumps(found))
"""


@pytest.mark.parametrize("devices", [1, 2])
def test_passes_and_devices_change_no_number(devices: int) -> None:
    flags = {"XLA_FLAGS": flags_with_devices(os.environ["XLA_FLAGS"], devices), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=os.environ | flags)
    assert done.returncode == 0, done.stderr
    even, odd = range(0, 24, 2), range(1, 24, 2)
    for gradient, report, values in json.loads(done.stdout):
        assert gradient == [sum(i * i for i in even), sum(i * i for i in odd)]
        assert report == {"loss": sum(i * i for i in range(24)), "rows": 12, "largest": 23}
        assert values == [float(i + i + 1) for i in even]
