"""The full manifest with one value replaced: what is wrong with it, by path, and what goes together."""

from __future__ import annotations

from typing import Any

from manifests_for_tests import full


def bend(path: str, value: Any) -> dict[str, Any]:
    """The full manifest with one value replaced; the path as in the error messages."""
    manifest = full()
    node = manifest
    *parents, last = path.replace("[", ".[").split(".")
    for part in parents:
        node = node[int(part[1:-1])] if part.startswith("[") else node[part]
    if value is KeyError:
        del node[last]
    elif last.startswith("["):
        node[int(last[1:-1])] = value
    else:
        node[last] = value
    return manifest


PREFIX = {"name": "prefix", "correctPrefix": {"python": {"entrypoint": "steps:check"}}}
OF_EACH = {"name": "prefix", "correctPrefix": {**PREFIX["correctPrefix"], "scope": "wrongResponses"}}
GUARD = {"metric": "train/accuracy", "atMost": "0"}
EARLY = {"metric": "curate/accuracy", "atMost": "0", "action": "Advance"}
CHOOSE = {"name": "c", "curate": {"dataset": "sums"}}
TEMPLATES = [{"name": "a", "text": "{question}"}, {"name": "b", "text": "{question}!"}]
PER_TEMPLATE = {"kind": "templates", "templates": TEMPLATES, "baseline": "perTemplate"}
RL = {"dataset": "sums", "promptsPerStep": 8}
WRONG = [
    # path bent, value, path reported, words that must appear
    ("spec.model.presett", "tiny", "spec.model.presett", "did you mean preset?"),
    ("spec.seed", "7", "spec.seed", "integer"),
    ("spec.seed", True, "spec.seed", "integer"),
    ("spec.seed", 1.5, "spec.seed", "integer"),
    ("spec.stages", [], "spec.stages", "at least 1"),
    ("spec.checkpoint", KeyError, "spec.checkpoint", "required"),
    ("spec.stages[1].name", "warm-up", "spec", "warm-up"),
    ("spec.stages[1].rl.dataset", "nowhere", "spec", "not in spec.datasets"),
    ("spec.stages[1].sft", {"dataset": "sums"}, "spec.stages[1]", "exactly one way"),
    ("spec.stages[1].rl.temperature", 0.5, "spec.stages[1].rl.temperature", 'quote it: "0.5"'),
    ("spec.stages[1].rl.temperature", "0", "spec.stages[1].rl.temperature", "greater than 0"),
    ("spec.stages[1].rl.temperature", "1e999", "spec.stages[1].rl.temperature", "greater than 0"),
    ("spec.stages[1].rl.groupSize", 0, "spec.stages[1].rl.groupSize", "greater than or equal to 1"),
    ("spec.stages[1].rl.groupSize", 1, "spec.stages[1].rl", "use groupSize 2 or more, or advantage.estimator gae"),
    ("spec.stages[1].rl.method", "unheard-of", "spec.stages[1].rl.method", "'reinforce++-baseline', 'ppo'"),
    (
        "spec.stages[1].rl",
        {"dataset": "sums", "method": "gspo", "objective": {"aggregation": "token-mean"}},
        "spec.stages[1].rl",
        "leave objective.aggregation out",
    ),
    ("spec.stages[1].rl.objective.surrogate", "gspo", "spec.stages[1].rl", "or take surrogate ppo or cispo"),
    ("spec.stages[1].rl.objective.surrogate", "cispo", "spec.stages[1].rl", "leave it out with gspo and cispo"),
    ("spec.stages[1].rl.objective.dualClip", "1", "spec.stages[1].rl.objective", "must be greater than 1"),
    ("spec.stages[1].rl.objective.entropy", 0.01, "spec.stages[1].rl.objective.entropy", 'quote it: "0.01"'),
    ("spec.stages[1].rl.advantage", {"gamma": "0.9"}, "spec.stages[1].rl", "take advantage.estimator gae"),
    (
        "spec.stages[1].rl.advantage",
        {"estimator": "gae", "gamma": "1.1"},
        "spec.stages[1].rl.advantage.gamma",
        "between 0 and 1",
    ),
    (
        "spec.stages[1].rl.advantage.estimator",
        "mean",
        "spec.stages[1].rl",
        "advantage.delta belongs to advantage.estimator mean-std",
    ),
    (
        "spec.stages[1].rl.advantage.vine",
        {},
        "spec.stages[1].rl",
        "vine belongs to advantage.estimator vine (method vin",
    ),
    (
        "spec.stages[1].rl.advantage",
        {"estimator": "vine", "vine": {"steps": "lines", "stepTokens": 4}},
        "spec.stages[1].rl.advantage.vine",
        "stepTokens belongs to steps: tokens",
    ),
    ("spec.stages[1].rl.advantage", {"estimator": "vine", "lambda": "1"}, "spec.stages[1].rl", "belong to a critic"),
    ("spec.stages[1].rl.advantage", {"estimator": "vine", "delta": "1"}, "spec.stages[1].rl", "delta belongs to adv"),
    ("spec.stages[1].rl.advantage", {"estimator": "vine"}, "spec.stages[1].rl", "take kl {in: loss}"),
    (
        "spec.stages[1].rl",
        {"dataset": "sums", "promptsPerStep": 8, "method": "vineppo", "groupSize": 1},
        "spec.stages[1].rl",
        "use groupSize 2 or more",
    ),
    (
        "spec.stages[1].rl.advantage",
        {"estimator": "vine", "vine": {"continuations": 0}},
        "spec.stages[1].rl.advantage.vine.continuations",
        "greater than or equal to 1",
    ),
    (
        "spec.stages[1].rl.advantage",
        {"estimator": "vine", "vine": {"steps": "newline"}},
        "spec.stages[1].rl.advantage.vine.steps",
        "'lines', 'sentences' or 'tokens'",
    ),
    ("spec.stages[1].rl.kl", {"in": "loss"}, "spec.stages[1].rl.kl.coefficient", "required"),
    ("spec.stages[1].rl.kl.in", "loss", "spec.stages[1].rl.kl", "use estimator k2 or k3, or in: reward"),
    ("spec.stages[1].rl.kl.inn", "loss", "spec.stages[1].rl.kl.inn", "did you mean in?"),
    ("spec.stages[1].rl.reference.kind", "none", "spec.stages[1].rl", "leave reference out or take kind frozen or"),
    ("spec.stages[1].rl.reference.kind", "scheduled", "spec.stages[1].rl.reference", "kind scheduled needs it"),
    ("spec.stages[1].rl.reference.everySteps", 5, "spec.stages[1].rl.reference", "belongs to kind scheduled"),
    (
        "spec.stages[1].rl.reference.optimizer",
        "keep",
        "spec.stages[1].rl.reference",
        "to kind scheduled and to kind pl",
    ),
    (
        "spec.stages[1].rl.reference.patience",
        5,
        "spec.stages[1].rl.reference",
        "belong to kind plateau; take that kind",
    ),
    ("spec.stages[1].rl.reference.metric", "reward", "spec.stages[1].rl.reference", "belong to kind plateau"),
    ("spec.stages[1].rl.reference.minDelta", "0.1", "spec.stages[1].rl.reference", "belong to kind plateau"),
    (
        "spec.stages[1].rl.reference",
        {"kind": "plateau", "everySteps": 5},
        "spec.stages[1].rl.reference",
        "everySteps belongs to kind scheduled",
    ),
    (
        "spec.stages[1].rl.reference",
        {"kind": "plateau", "patience": 0},
        "spec.stages[1].rl.reference.patience",
        "greater than or equal to 1",
    ),
    (
        "spec.stages[1].rl",
        {"dataset": "sums", "promptsPerStep": 8, "method": "prorl", "reference": {"kind": "none"}},
        "spec.stages[1].rl",
        "leave kl out and take another method",
    ),
    ("spec.stages[1].advance.when[0].metric", "value_loss", "spec.stages[1]", "needs a critic; take rl.method ppo"),
    ("spec.stages[1].rl.expansion", {"kind": "tree"}, "spec.stages[1].rl.expansion.kind", "Input should be 'none'"),
    ("spec.stages[1].rl.expansion", {"maxRounds": 3}, "spec.stages[1].rl", "kind dynamicSampling; take that kind, or"),
    (
        "spec.stages[1].rl.expansion",
        {"kind": "dynamicSampling", "maxRounds": 0},
        "spec.stages[1].rl.expansion.maxRounds",
        "greater than",
    ),
    (
        "spec.stages[1].rl.expansion",
        {"kind": "dynamicSampling", "surplus": "keep"},
        "spec.stages[1].rl.expansion.surplus",
        "'drop' or",
    ),
    (
        "spec.stages[1].rl",
        {"dataset": "sums", "method": "ppo", "groupSize": 1, "expansion": {"kind": "dynamicSampling"}},
        "spec.stages[1].rl",
        "one response always is; use groupSize 2",
    ),
    ("spec.stages[1].rl.expansion", {"exemptSteps": 3}, "spec.stages[1].rl", "kind hints; take that kind, or leave it"),
    (
        "spec.stages[1].rl.expansion",
        {"kind": "hints", "trueHard": {}},
        "spec.stages[1].rl.expansion.trueHard.patience",
        "required",
    ),
    ("spec.stages[1].rl.expansion", {"kind": "hints", "text": "Hint!"}, "spec.stages[1].rl", "text has no {hint}"),
    (
        "spec.stages[1].rl.expansion",
        {"kind": "hints"},
        "spec.stages[1].rl.expansion",
        "data set sums has none; take a file",
    ),
    (
        "spec.stages[1].rl.expansion",
        {"kind": "templates"},
        "spec.stages[1].rl",
        "give expansion.templates, for example",
    ),
    (
        "spec.stages[1].rl.expansion",
        {"kind": "templates", "templates": []},
        "spec.stages[1].rl.expansion.templates",
        "at least 1",
    ),
    (
        "spec.stages[1].rl.expansion",
        {"kind": "templates", "templates": [{"name": "a", "text": "b"}]},
        "spec.stages[1].rl.expansion.templates[0]",
        "no {question}",
    ),
    (
        "spec.stages[1].rl.expansion",
        {"kind": "templates", "templates": [*TEMPLATES, TEMPLATES[0]]},
        "spec.stages[1].rl.expansion",
        "two entries have the name",
    ),
    (
        "spec.stages[1].rl.expansion",
        {"kind": "templates", "templates": [*TEMPLATES, {"name": "c", "text": "{question}?"}]},
        "spec.stages[1].rl",
        "make it a multiple of their number",
    ),
    (
        "spec.stages[1].rl.expansion",
        {"templates": TEMPLATES},
        "spec.stages[1].rl",
        "kind templates; take that kind, or",
    ),
    (
        "spec.stages[1].rl",
        RL | {"groupSize": 2, "expansion": PER_TEMPLATE},
        "spec.stages[1].rl",
        "some would have a single one",
    ),
    ("spec.stages[1].rl", RL | {"method": "ppo", "expansion": PER_TEMPLATE}, "spec.stages[1].rl", "vine compares none"),
    ("spec.stages[1].rl", RL | {"method": "vineppo", "expansion": PER_TEMPLATE}, "spec.stages[1].rl", "compares none"),
    (
        "spec.stages[1].rl",
        RL | {"selection": {"kind": "learnability", "reuse": True}, "expansion": PER_TEMPLATE},
        "spec.stages[1].rl",
        "puts it otherwise; leave reuse out",
    ),
    ("spec.stages[1].rl.selection.kind", "random", "spec.stages[1].rl.selection.kind", "'uniform', 'learnability'"),
    ("spec.stages[1].rl.selection.rollouts", 1, "spec.stages[1].rl.selection.rollouts", "greater than or equal to 2"),
    ("spec.stages[1].rl.selection.low", "0.2", "spec.stages[1].rl", "selection.low belongs to selection.kind diff"),
    ("spec.stages[1].rl.selection.dropUnsolvedAfter", 3, "spec.stages[1].rl", "selection.kind historyResampling; take"),
    ("spec.stages[1].rl.selection.kind", "uniform", "spec.stages[1].rl", "candidates belongs to selection.kind learn"),
    ("spec.stages[1].rl.selection.kind", KeyError, "spec.stages[1].rl", "candidates belongs to selection.kind learn"),
    ("spec.stages[1].rl.selection.buffer.size", 33, "spec.stages[1].rl", "buffer.size is more than there are candid"),
    ("spec.stages[1].rl.selection.candidates", 15, "spec.stages[1].rl", "take a smaller buffer, or more candidates"),
    ("spec.stages[1].rl.selection.buffer.share", "0", "spec.stages[1].rl.selection.buffer", "or take kind uniform"),
    ("spec.stages[1].rl.selection.buffer.share", "0.1", "spec.stages[1].rl", "less than one prompt"),
    ("spec.stages[1].rl.selection.buffer.share", "1.1", "spec.stages[1].rl.selection.buffer.share", "between 0 and 1"),
    ("spec.stages[1].rl.selection.reuse", True, "spec.stages[1].rl", "leave reuse out, or the buffer (method lilo)"),
    (
        "spec.stages[1].rl.selection",
        {"kind": "learnability", "candidates": 7},
        "spec.stages[1].rl",
        "below promptsPerStep, so a step could not be filled",
    ),
    (
        "spec.stages[1].rl.selection",
        {"kind": "learnability", "reuse": True, "rollouts": 8},
        "spec.stages[1].rl",
        "these are groupSize; leave selection.rollouts out",
    ),
    (
        "spec.stages[1].rl",
        {"dataset": "sums", "promptsPerStep": 8, "method": "lilo", "groupSize": 1},
        "spec.stages[1].rl",
        "set selection.rollouts to 2 or more",
    ),
    (
        "spec.stages[1].rl.selection",
        {"kind": "difficultyBand", "low": "0.8"},
        "spec.stages[1].rl",
        "the band would be empty; the defaults are 0.2 and 0.8",
    ),
    ("spec.stages[1].rl", {"dataset": "sums", "method": "sgpo"}, "spec.stages[1].rl", "or take method grpo"),
    ("spec.stages[1].rl.rewards", [PREFIX], "spec.stages[1].rl", "lose against it; add {name: accuracy}"),
    ("spec.stages[1].rl.rewards", [{**PREFIX, "of": "score"}], "spec.stages[1].rl.rewards[0]", "is one thing"),
    *(
        (
            "spec.stages[1].rl",
            {"dataset": "sums", "promptsPerStep": 8, "method": method, "rewards": [{"name": "accuracy"}, PREFIX]},
            "spec.stages[1].rl",
            "with scope failedGroups is for prompts that fail whole",
        )
        for method in ("dapo", "vineppo")
    ),
    (
        "spec.stages[1].rl.rewards",
        [PREFIX, {"name": "right", "weight": "0"}],
        "spec.stages[1].rl",
        "add {name: accuracy}, with a weight above 0",
    ),
    ("spec.stages[1].rl.rewards", [{"name": "a", "weight": "0"}], "spec.stages[1].rl", "every part of rewards has wei"),
    (
        "spec.stages[1].rl.rewards",
        [{"name": "a", "weight": "-1e200"}],
        "spec.stages[1].rl.rewards[0]",
        "weight is beyond 1e15",
    ),
    (
        "spec.stages[1].rl.rewards",
        [{"name": "a", "unfinished": {"value": "1e16"}}],
        "spec.stages[1].rl.rewards[0].unfinished",
        "value is beyond 1e15",
    ),
    (
        "spec.stages[1].rl.rewards",
        [{"name": "p", "correctPrefix": {}}],
        "spec.stages[1].rl.rewards[0].correctPrefix",
        "by a function (python) or by an endpoint (http)",
    ),
    (
        "spec.stages[1].rl.rewards",
        [{"name": "p", "correctPrefix": {"python": {"entrypoint": "a:b"}, "gamma": "1.1"}}],
        "spec.stages[1].rl.rewards[0].correctPrefix",
        "between 0 and 1; 0.5 is usual",
    ),
    (
        "spec.stages[1].rl.rewards",
        [{"name": "a", "cycle": {"on": 100}}],
        "spec.stages[1].rl.rewards[0].cycle.off",
        "required",
    ),
    (
        "spec.stages[1].rl.rewards",
        [{"name": "a", "unfinished": {"value": -1}}],
        "spec.stages[1].rl.rewards[0].unfinished.value",
        'quote it: "-1"',
    ),
    ("spec.stages[0].curate", {"dataset": "sums"}, "spec.stages[0]", "exactly one way: sft, rl or curate"),
    ("spec.stages[0].advance", KeyError, "spec.stages[0]", "a stage that trains needs advance {steps: ...}"),
    ("spec.stages[1]", CHOOSE | {"advance": {"steps": 9}}, "spec.stages[1]", "a curate stage has none"),
    ("spec.stages[1]", CHOOSE | {"guards": [GUARD]}, "spec.stages[1]", "no guard can watch another metric"),
    ("spec.stages[1]", CHOOSE | {"guards": [EARLY]}, "spec.stages[1]", "its guards can only have action: Fail"),
    ("spec.stages[1]", {"name": "c", "curate": {"dataset": "x"}}, "spec", "a stage names a data set that is not in"),
    (
        "spec.stages[1]",
        {"name": "c", "curate": {"dataset": "sums", "keep": {"low": "0.9", "high": "0.1"}}},
        "spec.stages[1].curate.keep",
        "low is above high",
    ),
    (
        "spec.stages[1]",
        {"name": "c", "curate": {"dataset": "sums", "samples": 1}},
        "spec.stages[1].curate",
        "set samples to 2 or more",
    ),
    (
        "spec.stages[1]",
        {"name": "c", "curate": {"dataset": "sums", "promptsPerStep": 7}},
        "spec.stages[1].curate.promptsPerStep",
        "use a multiple of 2",
    ),
    ("spec.datasets[1]", {"name": "file", "fromStage": "reason"}, "spec.datasets[1].fromStage", "is no curate stage"),
    (
        "spec.datasets[1]",
        {"name": "file", "fromStage": "reason", "verifier": "math"},
        "spec.datasets[1]",
        "items of a stage are asked and verified as where they come from; leave out system",
    ),
    ("spec.datasets[1]", {"name": "file"}, "spec.datasets[1]", "huggingFace or fromStage"),
    ("spec.stages[1].rl.advantage.cut", "drop", "spec.stages[1].rl.advantage.cut", "'keep' or 'mask'"),
    ("spec.stages[1].advance.when[0].metric", "exhausted", "spec.stages[1]", "{kind: historyResampling} (method srpo)"),
    ("spec.stages[0].advance.when[0].metric", "train/kl", "spec.stages[0]", "sft stage emits"),
    ("spec.stages[1].rl.updatesPerStep", 5, "spec.stages[1]", "divisible by rl.updatesPerStep"),
    ("spec.stages[1].rl.promptsInFlight", 9, "spec.stages[1].rl", "promptsInFlight is more than promptsPerStep"),
    ("spec.stages[1].rl.promptBuckets", [16], "spec.stages[1].rl", "promptBuckets needs promptsInFlight"),
    ("spec.stages[1].rl.promptsInFlight", 0, "spec.stages[1].rl.promptsInFlight", "greater than or equal to 1"),
    ("spec.stages[1].rl.promptsPerStep", 7, "spec.stages[1].rl.promptsPerStep", "use a multiple of 2"),
    ("spec.stages[0].advance.minSteps", 21, "spec.stages[0].advance", "no rule could ever hold"),
    ("spec.stages[0].advance.when[0].metric", "accuracy", "spec.stages[0]", "sft stage emits"),
    ("spec.stages[0].advance.when[0].atLeast", "1", "spec.stages[0].advance.when[0]", "exactly one of atLeast"),
    ("spec.stages[0].sft.batchSize", 9, "spec.stages[0].sft.batchSize", "for example 10"),
    ("spec.placements[0].topology", "3x5", "spec.placements[0].topology", "4x4"),
    ("spec.placements[0].chipsPerNode", KeyError, "spec.placements[0].chipsPerNode", "8 (1 host) or 4 (2 hosts)"),
    ("spec.placements[0].cpu", {}, "spec.placements[0]", "on TPUs"),
    ("spec.checkpoint.directory", "gs://bucket/a", "spec.checkpoint", "gs:// needs none"),
    ("spec.checkpoint.directory", "relative", "spec.checkpoint.directory", "pattern"),
    ("spec.checkpoint.directory", None, "spec.checkpoint.directory", "required"),
    ("metadata.name", "9lives", "metadata.name", "beginning with a letter"),
    ("metadata.name", "a" * 40, "metadata.name", "at most 39"),
    ("metadata.name", "Upper", "metadata.name", "lower-case"),
    ("apiVersion", "ratchet.dev/v1", "apiVersion", "ratchet.dev/v1alpha1"),
    ("kind", "Job", "kind", "RLTrainingJob"),
    ("sepc", {}, "sepc", "did you mean spec?"),
]

GOOD = [
    {"method": "grpo"},
    {"method": "sgpo", "rewards": [{"name": "right"}, PREFIX]},
    {"method": "dr-grpo", "rewards": [{"name": "graded", "of": "score"}, {**PREFIX, "cycle": {"on": 1, "off": 9}}]},
    {"method": "grpo", "rewards": [{"name": "right"}, {"name": "ends", "weight": "0.5", "unfinished": {}}]},
    {"method": "dr-grpo", "objective": {"aggregation": "seq-mean-token-sum"}},
    {"method": "gspo", "advantage": {"delta": "1e-4"}},
    {"method": "gspo", "objective": {"surrogate": "ppo", "aggregation": "token-mean", "dualClip": "3"}},
    {"method": "cispo", "objective": {"clipHigh": "4.0"}},
    {"method": "rloo", "kl": {"coefficient": "1e-3", "estimator": "k2"}},
    {"method": "reinforce++-baseline", "reference": {"kind": "frozen"}},
    {"method": "grpo", "reference": {"kind": "scheduled", "everySteps": 100, "optimizer": "reset"}},
    {"method": "vineppo"},
    {"method": "vineppo", "advantage": {"vine": {"steps": "tokens", "stepTokens": 1, "continuations": 9}}},
    {"method": "grpo", "advantage": {"estimator": "vine", "cut": "mask", "vine": {"maxSteps": 4}}},
    {"method": "vineppo", "kl": {"coefficient": "1e-4"}},
    {"method": "vineppo", "advantage": {"estimator": "mean-std", "delta": "1e-4"}},
    {"method": "prorl"},
    {"method": "prorl-v2", "kl": {"coefficient": "1e-3"}, "reference": {"kind": "frozen"}},
    {"method": "grpo", "reference": {"kind": "plateau"}},
    {"method": "ppo", "reference": {"kind": "plateau", "metric": "value_loss", "patience": 39, "minDelta": "-0.1"}},
    {"method": "ppo", "groupSize": 1, "advantage": {"lambda": "0.95", "gamma": "0", "valueClip": "0.2"}},
    {"method": "grpo", "groupSize": 1, "advantage": {"estimator": "gae", "criticLearningRate": "1e-5"}},
    {"method": "ppo", "advantage": {"estimator": "mean-std", "delta": "1e-4"}},
    {"method": "sfl"},
    {"method": "sfl", "selection": {"candidates": 64, "buffer": {"everySteps": 1, "size": 64, "share": "1"}}},
    {"method": "lilo", "groupSize": 1, "selection": {"rollouts": 8}, "advantage": {"lambda": "0.95"}},
    {"method": "lilo", "selection": {"reuse": True, "rollouts": 8}},
    {"method": "lilo", "selection": {"kind": "uniform"}},
    {"method": "srpo", "advantage": {"delta": "1e-4", "cut": "keep"}, "selection": {"dropUnsolvedAfter": 2}},
    {"method": "rloo", "selection": {"kind": "difficultyBand", "low": "0", "high": "1", "explore": "0"}},
    {"method": "grpo", "selection": {"kind": "learnability", "buffer": {}}},
    {"method": "dapo", "expansion": {"maxRounds": 1, "surplus": "carry"}},
    {"method": "template-rl", "expansion": {"templates": TEMPLATES, "baseline": "perTemplate"}},
    {"method": "dapo", "rewards": [{"name": "accuracy"}, OF_EACH]},
    {"method": "sgpo", "rewards": [{"name": "accuracy"}, PREFIX], "expansion": {"kind": "none"}},
    {"method": "ppo", "groupSize": 2, "expansion": {"kind": "templates", "templates": TEMPLATES}},
    {"method": "dapo", "groupSize": 1, "expansion": {"kind": "none"}, "advantage": {"estimator": "gae"}},
    {"method": "srpo", "expansion": {"kind": "dynamicSampling", "promptsPerRound": 64, "surplus": "drop"}},
    {
        "method": "grpo",
        "kl": {"coefficient": "0.1", "estimator": "k1", "in": "reward"},
        "reference": {"kind": "frozen"},
    },
]
