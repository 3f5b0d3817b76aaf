"""Methods: a table. A row says which answer a method takes in each of the six slots, and with which constants.

Decides presets. How the manifest's settings of a stage replace their parts is the trainer's matter
(`ratchet_trainer/algorithm/methods.py`); formulas are in its slots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """A row: form of advantage, surrogate, aggregation, clip widths below and above 1, which prompts are drawn, what
    cut responses earn, and what else is sampled. `kl` and `reference`: these parts of `rl`, as a manifest would have
    them; None: without."""

    advantage: str
    surrogate: str
    aggregation: str
    clip: tuple[float, float]
    selection: str = "uniform"
    cut: str = "keep"
    expansion: str = "none"
    kl: Mapping[str, str] | None = None
    reference: Mapping[str, str] | None = None


# Without a drift term where nothing is said of one, whatever the paper had: a verified reward leaves no model to drift
# from, and a reference costs a copy of the weights. `rl.kl` turns it on.
PRESETS = {
    # arXiv 2402.03300, equation 3.
    "grpo": Preset("mean-std", "ppo", "seq-mean-token-mean", (0.2, 0.2)),
    # arXiv 2505.11595: grpo whose rewards look at the steps of wrong responses (`rewards[].correctPrefix`).
    "sgpo": Preset("mean-std", "ppo", "seq-mean-token-mean", (0.2, 0.2)),
    # arXiv 2503.20783: neither the deviation of the group nor the length of the response weighs.
    "dr-grpo": Preset("mean", "ppo", "seq-mean-token-sum-norm", (0.2, 0.2)),
    # arXiv 2503.14476, equation 8; its punishment of long responses is a part of the reward.
    "dapo": Preset("mean-std", "ppo", "token-mean", (0.2, 0.28), expansion="dynamicSampling"),
    # arXiv 2510.19807: grpo as long as no group fails whole.
    "scaf-grpo": Preset("mean-std", "ppo", "seq-mean-token-mean", (0.2, 0.2), expansion="hints"),
    # arXiv 2505.15692, with grpo's share of tokens; its templates are the manifest's.
    "template-rl": Preset("mean-std", "ppo", "seq-mean-token-mean", (0.2, 0.2), expansion="templates"),
    # arXiv 2507.18071: the ratio of a whole response hardly moves, so the widths are small.
    "gspo": Preset("mean-std", "gspo", "seq-mean-token-mean", (3e-4, 4e-4)),
    # arXiv 2506.13585, whose widths are not published: these are verl's.
    "cispo": Preset("mean-std", "cispo", "token-mean", (0.2, 0.28)),
    # arXiv 2402.14740: REINFORCE of whole responses, so tokens are summed; the clip acts from a second update on.
    "rloo": Preset("leave-one-out", "ppo", "seq-mean-token-sum", (0.2, 0.2)),
    # arXiv 2501.03262.
    "reinforce++-baseline": Preset("batch-whitened", "ppo", "token-mean", (0.2, 0.2)),
    # arXiv 1707.06347 with gamma = lambda = 1 and a value clip of 0.2, as VinePPO's baseline (arXiv 2410.01679).
    "ppo": Preset("gae", "ppo", "token-mean", (0.2, 0.2)),
    # arXiv 2410.01679: as ppo, with values that are sampled.
    "vineppo": Preset("vine", "ppo", "token-mean", (0.2, 0.2)),
    # arXiv 2502.12272, version 1 with a buffer of learnable prompts, version 6 without.
    "sfl": Preset("gae", "ppo", "token-mean", (0.2, 0.2), "learnability"),
    "lilo": Preset("gae", "ppo", "token-mean", (0.2, 0.2), "learnability"),
    # arXiv 2504.14286: no drift term, and a cut response earns nothing.
    "srpo": Preset("mean-std", "ppo", "token-mean", (0.2, 0.2), "historyResampling", "mask"),
    # arXiv 2505.24864, section 3; the coefficient, which it does not publish, is that of NeMo-RL's recipe for v2.
    "prorl": Preset(
        "mean-std",
        "ppo",
        "seq-mean-token-mean",
        (0.2, 0.4),
        kl={"estimator": "k3", "in": "loss", "coefficient": "1e-4"},
        expansion="dynamicSampling",
        reference={"kind": "plateau", "optimizer": "reset"},
    ),
    # NVIDIA's report on ProRL v2 of August 2025, with the numbers of NeMo-RL's recipe prorlv2.
    "prorl-v2": Preset(
        "batch-whitened",
        "ppo",
        "token-mean",
        (0.2, 0.27),
        kl={"estimator": "k2", "in": "loss", "coefficient": "1e-4"},
        expansion="dynamicSampling",
        reference={"kind": "plateau", "optimizer": "keep"},
    ),
}
