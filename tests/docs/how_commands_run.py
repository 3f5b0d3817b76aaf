"""How each documented command is tried: run as printed here, run against the API server, or only read, and why.

A row is a pattern of the whole command and what is done with it; the first row that fits counts. A command that no row
fits is an error: add a row, and prefer running it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Way(StrEnum):
    """What is done with a command."""

    HERE = "run in a copy of the repository, without a cluster"
    CLUSTER = "run against the real API server, in a namespace of its own"
    READ = "read: its options and targets exist"


@dataclass(frozen=True)
class Row:
    """One pattern and what is done with the commands that it fits."""

    pattern: str
    way: Way
    note: str = ""
    """Of what is only read: why. Of what is run: what is different from what is printed."""
    run: str = ""
    """What is run instead, `{}` being the command; empty: the command itself."""


GKE = "needs a project of Google Cloud"
MINUTES = "trains for two minutes; tests/cli/test_examples.py makes a step of every stage of it"
OTHER_TEST = "run by {}"

ROWS = (
    # --- without a cluster ---
    Row(r"ratchet (train|samples|explain|validate|render) (examples/minimal|job)\.yaml", Way.HERE),
    Row(r"ratchet curve examples/minimal\.yaml", Way.HERE),
    Row(
        r"ratchet curve job\.yaml --metric NAME",
        Way.HERE,
        "NAME is train/reward",
        "ratchet curve job.yaml --metric train/reward",
    ),
    Row(r"ratchet (train|samples) FILE", Way.HERE, "FILE is job.yaml", "ratchet train job.yaml"),
    Row(r"ratchet validate FILE( .*)?", Way.HERE, "FILE is job.yaml", "ratchet validate job.yaml"),
    Row(r"ratchet crd .*", Way.HERE),
    Row(r"ratchet examples", Way.HERE),
    Row(r"source <\(ratchet completion bash\)", Way.HERE, "source reads what it prints", "ratchet completion bash"),
    Row(r"ratchet model check DIR", Way.HERE, "DIR is a small model", "ratchet model check tests/golden/qwen3"),
    Row(r'sed -i "s/goog-your-bucket/\$BUCKET/" examples/.*', Way.HERE),
    Row(r"ratchet validate examples/\S+ && ratchet render examples/\S+ \| less", Way.HERE, "less is cat", "{}"),
    Row(r"helm show values helm/ratchet", Way.HERE),
    # --- with the API server ---
    Row(r"kubectl apply -f examples/\S+", Way.CLUSTER),
    Row(r"kubectl get rlj -w", Way.CLUSTER, "without -w, which has no end", "kubectl get rlj"),
    Row(r"kubectl get .*", Way.CLUSTER),
    Row(r"kubectl explain .*", Way.CLUSTER),
    Row(r"ratchet approve sums warm-up", Way.CLUSTER),
    Row(r"kubectl patch rltrainingjobs sums .*", Way.CLUSTER),
    Row(r"kubectl wait --for=condition=Established .*", Way.CLUSTER),
    Row(
        r"kubectl (create serviceaccount|delete rlj --all --all-namespaces|delete crd).*",
        Way.CLUSTER,
        "the control plane is shared by tests, so the server only says that it would",
        "{} --dry-run=server",
    ),
    Row(r"kubectl delete rlj --all", Way.CLUSTER),
    Row(
        r"helm install .*",
        Way.CLUSTER,
        "installed for good by tests/end_to_end/test_demo.py and tests/chart",
        "{} --dry-run=client",
    ),
    # --- only read ---
    Row(
        r"make (demo|test|test-fast|real|realproof|venv|setup|lint|docs)( .*)?",
        Way.READ,
        "minutes each; CI runs most of them",
    ),
    Row(
        r"kubectl create secret .*",
        Way.CLUSTER,
        "the server only says that it would",
        "WANDB_API_KEY=none && {} --dry-run=server",
    ),
    Row(r"make release .*", Way.READ, "pushes images to a registry"),
    Row(r"ratchet train examples/(methods|recipes)/.*", Way.READ, MINUTES),
    Row(r"ratchet explain FILE --measured FOLDER", Way.READ, OTHER_TEST.format("tests/cli")),
    Row(
        r"ratchet train (examples/fleet|job)\.yaml --workers 3",
        Way.READ,
        OTHER_TEST.format("tests/cli/test_commands.py"),
    ),
    Row(r"ratchet prove .*", Way.READ, OTHER_TEST.format("tests/end_to_end/test_proofs.py, shorter")),
    Row(r"ratchet fit .*", Way.READ, OTHER_TEST.format("tests/cli/test_fit_command.py; needs the TPU compiler")),
    Row(r"ratchet model fetch .*", Way.READ, OTHER_TEST.format("tests/cli/test_fetch.py; fetches 93 MB")),
    Row(r"ratchet model export.*", Way.READ, OTHER_TEST.format("tests/cli/test_model.py; shows how it is called")),
    Row(r"ratchet objective check", Way.READ, OTHER_TEST.format("tests/trainer/test_objective_check.py")),
    Row(
        r"(eval .*)?ratchet cluster (up|env|down|preempt|notice|status).*", Way.READ, OTHER_TEST.format("tests/cluster")
    ),
    Row(r"eval .*", Way.READ, "the shell's"),
    Row(r"kubectl wait --for=condition=Completed .*", Way.READ, "waits for a job's end; tests/end_to_end/test_demo.py"),
    Row(r"kubectl apply .*https://.*", Way.READ, "fetches from a server of others"),
    Row(
        r"kubectl --namespace ratchet-system (rollout|logs) .*",
        Way.READ,
        "needs an installed operator; tests/end_to_end",
    ),
    Row(r"helm (upgrade|uninstall|rollback) .*", Way.READ, OTHER_TEST.format("tests/chart and tests/cluster")),
    Row(r"(gcloud|export) .*", Way.READ, GKE),
    Row(r"python bench/.*", Way.READ, "benchmarks of minutes to hours"),
    Row(r"pip wheel --no-deps \..*", Way.READ, OTHER_TEST.format("tests/end_to_end/test_images.py")),
    Row(r"pip install .*", Way.READ, "changes the environment of the tests"),
    Row(r"source \.venv/bin/activate", Way.READ, "the shell's"),
    # Pages of commands that ask a cluster with jobs in it: each has tests of its own.
    Row(
        r"(kubectl )?ratchet (status|watch|logs|top|suspend|resume|approve|report|doctor|init|completion|metrics)\b.*",
        Way.READ,
        OTHER_TEST.format("the test of the command in tests/cli"),
    ),
    Row(r"ratchet demo.*", Way.READ, OTHER_TEST.format("tests/end_to_end/test_demo.py")),
)


def row_of(text: str) -> Row | None:
    """The row of a command; None where there is none."""
    return next((row for row in ROWS if re.fullmatch(row.pattern, text)), None)
