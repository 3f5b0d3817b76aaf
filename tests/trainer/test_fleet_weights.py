"""What workers get of the weights: all bits that sampling uses, and no more bytes than these have."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from ratchet_api.job import Lora, Model
from ratchet_trainer.fleet.versions import Versions
from ratchet_trainer.model.lora import trained
from ratchet_trainer.process import distributed
from ratchet_trainer.step.sampling_weights import _as_sampled, weights_of
from ratchet_trainer.step.stage import programs_of
from ratchet_trainer.storage import Location


@pytest.mark.parametrize("lora", [None, Lora(rank=2, alpha="4", targets=["o_proj"])], ids=["whole", "adapters"])
@pytest.mark.parametrize(("dtype", "share"), [("float32", 1.0), ("bfloat16", 0.5)])
def test_no_bit_that_sampling_uses_is_lost_on_the_way(tmp_path, dtype, share, lora):
    one = programs_of(Model(preset="tiny", lora=lora), distributed.one_device(), None, dtype)
    params, _ = one.start(3)
    arrays, versions = _as_sampled(params, dtype), Versions(Location.parse(tmp_path), 1)
    digest = versions.publish(arrays)
    loaded = versions.load(digest)
    assert loaded is not None
    again = one.whole(weights_of(loaded, trained(one.template[0])), 3)
    for given, found in zip(jax.tree.leaves(params), jax.tree.leaves(again), strict=True):
        assert (found.dtype, found.shape) == (given.dtype, given.shape)
    sampled = jax.tree.leaves(one.sampler.weights(params)), jax.tree.leaves(one.sampler.weights(again))
    for given, found in zip(*sampled, strict=True):
        np.testing.assert_array_equal(np.asarray(given, np.float32), np.asarray(found, np.float32))
    whole = sum(x.nbytes for x in jax.tree.leaves(trained(params)))
    assert sum(x.nbytes for x in arrays.values()) == pytest.approx(share * whole, rel=0.05)
