"""Whether trainers can reach the bucket that they keep checkpoints in: from where, and as whom.

On GKE a pod is somebody for Google Cloud by its Kubernetes service account (Workload Identity Federation): the nodes
must hand out such identities, and the account must either carry the annotation that names a Google service account or
be given rights on the bucket itself, which cannot be seen from inside the cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ratchet_operator.checks.finding import Finding, error, warning
from ratchet_operator.checks.node_pools import ACCELERATOR, by_pool, labels

Raw = Mapping[str, Any]

ANNOTATION = "iam.gke.io/gcp-service-account"
METADATA_SERVER = "iam.gke.io/gke-metadata-server-enabled"
REGION = "topology.kubernetes.io/region"
CONTINENTS = {"US": "us-", "EU": "europe-", "ASIA": "asia-"}
"""Multi-regions of Cloud Storage, and how the names of their regions begin."""
PAIRS = {
    "NAM4": ("us-central1", "us-east1"),
    "EUR4": ("europe-north1", "europe-west4"),
    "ASIA1": ("asia-northeast1", "asia-northeast2"),
}
"""Predefined dual-regions."""


@dataclass(frozen=True)
class StorageLocation:
    """A bucket as `gcloud storage buckets describe gs://BUCKET` shows it."""

    bucket: str
    location: str
    """A region, a dual-region or a multi-region, in any case of letters: us-east5, NAM4, US; empty: not known."""
    data_locations: tuple[str, ...] = ()
    """The two regions of a dual-region that was put together by its owner."""


@dataclass(frozen=True)
class Account:
    """The service account that trainers run as."""

    namespace: str
    name: str
    manifest: Raw | None
    """The ServiceAccount object; None if there is none of that name."""


def findings(bucket: StorageLocation, account: Account, nodes: Iterable[Raw]) -> list[Finding]:
    """What keeps trainers on the TPU nodes from the bucket, or makes it slow and dear."""
    tpus = [node for node in nodes if ACCELERATOR in labels(node)]
    return [*_far_away(bucket, tpus), *_nobody(bucket, account), *_without_identity(tpus)]


def _far_away(bucket: StorageLocation, nodes: list[Raw]) -> Iterator[Finding]:
    regions = sorted({labels(node)[REGION] for node in nodes if REGION in labels(node)})
    for region in regions if bucket.location else ():
        if not _holds(bucket, region):
            pools = sorted(by_pool(node for node in nodes if labels(node).get(REGION) == region))
            yield error(
                f"bucket {bucket.bucket}",
                f"it is in {bucket.location}, the nodes of {', '.join(pools) or 'no pool'} are in {region}: every "
                "checkpoint would cross regions, slowly and for money",
                f"make one where the nodes are: gcloud storage buckets create gs://NAME --location={region} "
                "--uniform-bucket-level-access",
            )


def _holds(bucket: StorageLocation, region: str) -> bool:
    """Whether the bucket's data are kept in that region, as far as its location tells."""
    place = bucket.location.upper()
    if place in CONTINENTS:
        return region.startswith(CONTINENTS[place])
    held = bucket.data_locations or PAIRS.get(place) or (bucket.location,)
    return region.lower() in {one.lower() for one in held}


def _nobody(bucket: StorageLocation, account: Account) -> Iterator[Finding]:
    about = f"service account {account.namespace}/{account.name}"
    if account.manifest is None:
        make = f"kubectl create serviceaccount {account.name} --namespace {account.namespace}"
        yield error(about, "there is none of that name", make)
        return
    annotations = (account.manifest.get("metadata") or {}).get("annotations") or {}
    if (google := annotations.get(ANNOTATION)) is None:
        subject = f"subject/ns/{account.namespace}/sa/{account.name}"
        yield warning(
            about,
            f"it has no annotation {ANNOTATION}, so it has rights on gs://{bucket.bucket} only if they were given to "
            "itself, which the cluster does not know",
            f"gcloud storage buckets add-iam-policy-binding gs://{bucket.bucket} --role=roles/storage.objectUser "
            "--member=principal://iam.googleapis.com/projects/PROJECT_NUMBER/locations/global/workloadIdentityPools/"
            f"PROJECT_ID.svc.id.goog/{subject}",
        )
    elif not google.endswith(".iam.gserviceaccount.com"):
        yield error(
            about,
            f"its annotation {ANNOTATION} is {google!r}, which is no Google service account",
            "write NAME@PROJECT_ID.iam.gserviceaccount.com",
        )


def _without_identity(nodes: list[Raw]) -> Iterator[Finding]:
    for pool, members in sorted(by_pool(nodes).items()):
        if any(labels(node).get(METADATA_SERVER) != "true" for node in members):
            yield error(
                f"node pool {pool}",
                f"its nodes give pods no identity of their own (label {METADATA_SERVER} is not true)",
                f"gcloud container node-pools update {pool} --cluster=CLUSTER --location=LOCATION "
                "--workload-metadata=GKE_METADATA",
            )
