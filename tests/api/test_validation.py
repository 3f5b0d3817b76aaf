"""What is wrong in a manifest is said with its path and a way out."""

from __future__ import annotations

import pytest
from manifests_for_tests import full

from ratchet_api.job import parse_spec
from ratchet_api.validate import problems


def bend(path: str, value):
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


def test_the_full_manifest_is_right():
    assert problems(full()) == []


@pytest.mark.parametrize(("path", "value", "reported", "words"), WRONG, ids=[f"{p}={v!r:.20}" for p, v, *_ in WRONG])
def test_a_wrong_value_is_named_with_its_place_and_a_way_out(path, value, reported, words):
    found = problems(bend(path, value))
    assert [p for p in found if p.path == reported and words in p.message], [str(p) for p in found]


@pytest.mark.parametrize("document", [None, [], "text", 7, {"spec": []}, {"spec": {"stages": 3}}, {}])
def test_anything_at_all_gets_an_answer(document):
    assert problems(document)


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


@pytest.mark.parametrize("rl", GOOD, ids=[str(i) for i in range(len(GOOD))])
def test_what_goes_together_is_taken(rl):
    manifest = bend("spec.stages[1].rl", {"dataset": "sums", "promptsPerStep": 8, **rl})
    assert [str(p) for p in problems(manifest)] == []


def test_a_rule_may_wait_for_drift_where_there_is_a_reference():
    manifest = bend("spec.stages[1].advance.when[0].metric", "kl")
    assert problems(manifest) == []
    del manifest["spec"]["stages"][1]["rl"]["reference"]
    assert problems(manifest) == [], "a penalty brings a reference along"
    del manifest["spec"]["stages"][1]["rl"]["kl"]
    assert "set rl.reference {kind: frozen} or rl.kl" in str(problems(manifest)[0])


def test_hints_need_a_file_that_says_where_they_are():
    manifest = bend("spec.stages[1].rl", {"dataset": "hinted", "promptsPerStep": 8, "method": "scaf-grpo"})
    jsonl = {"path": "/data/hinted.jsonl", "claimName": "data"}
    manifest["spec"]["stages"][1]["advance"]["when"][0]["metric"] = "train/unhelped"
    manifest["spec"]["datasets"].append({"name": "hinted", "jsonl": jsonl})
    (problem,) = problems(manifest)
    assert str(problem).startswith("spec.stages[1].rl.expansion: kind hints needs hints, and data set hinted has none")
    assert "say in its hints which key they have" in problem.message
    jsonl["hints"] = "help.tiers"
    assert problems(manifest) == []


@pytest.mark.parametrize(
    ("metric", "method", "emits"),
    [
        ("scored_rollouts", "sfl", True),
        ("train/scored_rollouts", "lilo", True),
        ("scored_rollouts", "srpo", False),
        ("train/exhausted", "srpo", True),
        ("active_items", "srpo", True),
        ("active_items", "lilo", False),
        ("value_loss", "sfl", True),
        ("value_loss", "lilo", True),
        ("value_loss", "srpo", False),
        ("value_loss", "vineppo", False),
        ("kl", "prorl", True),
        ("kl", "prorl-v2", True),
        ("kl", "srpo", False),
        ("rounds", "dapo", True),
        ("train/dropped_wrong", "dapo", True),
        ("train/surplus", "grpo", False),
        ("hinted", "dapo", False),
    ],
)
def test_a_rule_may_wait_for_what_its_stages_slots_say(metric, method, emits):
    manifest = bend("spec.stages[1].advance.when[0].metric", metric)
    manifest["spec"]["stages"][1]["rl"] = {"dataset": "sums", "promptsPerStep": 8, "method": method}
    assert (problems(manifest) == []) == emits


def test_what_a_preset_decides_is_not_written_into_the_manifest():
    spec = parse_spec(bend("spec.stages[1].rl", {"dataset": "sums"})["spec"])
    rl = spec.manifest()["stages"][1]["rl"]
    assert (rl["objective"], rl["advantage"]) == ({}, {})
    assert not {"kl", "reference", "selection", "expansion"} & rl.keys()


@pytest.mark.parametrize(
    ("hosts", "shards", "way_out"),
    [(8, 4, "set it to 8"), (3, 8, "take a number of devices that is a power of two"), (4, 8, None)],
)
def test_in_mode_exact_the_devices_divide_the_shards(hosts, shards, way_out):
    job = full()
    job["spec"]["placements"] = [{"name": "here", "cpu": {"hosts": hosts}}]
    job["spec"]["reproducibility"] = {"mode": "Exact", "virtualShards": shards}
    found = [str(p) for p in problems(job) if "virtualShards" in str(p)]
    assert (way_out is None) == (found == [])
    assert all(way_out in text and "spec.placements[0]" in text for text in found)


def with_curation(*order: str):
    """The manifest whose stage `reason` trains on what a curate stage keeps, with its stages in this order."""
    manifest = full()
    stages = {stage["name"]: stage for stage in manifest["spec"]["stages"]}
    stages["reason"]["rl"]["dataset"] = "chosen"
    manifest["spec"]["stages"] = [stages[name] for name in order]
    return manifest


def test_a_stage_may_train_on_what_one_before_it_keeps():
    assert problems(with_curation("warm-up", "choose", "reason")) == []
    assert problems(with_curation("choose", "warm-up", "reason")) == []
    (problem,) = problems(with_curation("warm-up", "reason", "choose"))
    assert str(problem).startswith("spec.stages[1].rl: data set chosen is made by stage choose, which is not before")


def test_an_evaluation_is_not_on_what_a_stage_keeps():
    manifest = with_curation("warm-up", "choose", "reason")
    manifest["spec"]["evaluations"] = [{"name": "e", "dataset": "chosen", "items": 4, "everySteps": 5}]
    assert "is made by stage choose to be trained on; name another data set" in str(problems(manifest)[0])


def test_hints_may_be_made_by_the_stage_that_makes_the_data_set():
    manifest = with_curation("warm-up", "choose", "reason")
    choose, reason = manifest["spec"]["stages"][1:]
    reason["rl"] = {"dataset": "chosen", "promptsPerStep": 8, "method": "scaf-grpo"}
    reason["advance"] = {"steps": 40}
    assert problems(manifest) == []
    del choose["curate"]["hints"]
    (problem,) = problems(manifest)
    assert "data set chosen has none; have stage choose make some (curate.hints)" in str(problem)
