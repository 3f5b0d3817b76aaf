"""Who else is told of a run's metrics: `spec.trackers`.

Decides what a manifest may say of TensorBoard, Weights & Biases, MLflow and trackio. Credentials are no part of it:
they come from the environment, spec.podTemplate.env. How trackers follow a run is in `ratchet_trainer/trackers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ratchet_api.base import ApiModel, Rule

if TYPE_CHECKING:
    from ratchet_api.job import Spec

PLACE = r"^(/|(gs|s3)://[a-z0-9]).*$"
PATH = r"^/.*$"
NAME = r"^[A-Za-z0-9_.-]+$"
"""A project's name: what all of the trackers take, and what stands in an address as it is."""
TRACKING_URI = r"^(https?://[^@\s]+|/\S+)$"


class TensorBoard(ApiModel):
    """Event files for TensorBoard: `tensorboard --logdir DIRECTORY`. Needs no package."""

    directory: str | None = Field(
        default=None,
        min_length=2,
        max_length=1024,
        pattern=PLACE,
        description="Folder of many jobs: a path on the volume of the checkpoints, gs:// or s3://; the job's files are "
        "in NAMESPACE/NAME below it. Absent: tensorboard, in the directory of the checkpoints.",
    )


class Wandb(ApiModel):
    """A run of Weights & Biases. The key comes from spec.podTemplate.env, as WANDB_API_KEY from a Secret; a server of
    one's own is WANDB_BASE_URL. Needs the package wandb in the image."""

    project: str = Field(min_length=1, max_length=128, pattern=NAME, description="Project of the run.")
    entity: str | None = Field(
        default=None, min_length=1, max_length=128, pattern=NAME, description="User or team; absent: that of the key."
    )
    mode: Literal["Online", "Offline"] = Field(
        default="Online",
        description="Offline: nothing is sent, files are kept for `wandb sync`.",
    )
    directory: str | None = Field(
        default=None,
        min_length=2,
        max_length=1024,
        pattern=PATH,
        description="Folder of the files of mode Offline: a path on the volume of the checkpoints. Absent: wandb, in "
        "the directory of the checkpoints, which must be a path then.",
    )

    rules: ClassVar = (
        Rule(
            "!has(self.directory) || (has(self.mode) && self.mode == 'Offline')",
            "directory is for mode Offline; leave it out, or set mode: Offline",
            lambda w: w.directory is None or w.mode == "Offline",
            ".directory",
        ),
    )


class Mlflow(ApiModel):
    """A run of MLflow. Credentials of a server come from spec.podTemplate.env, as MLFLOW_TRACKING_TOKEN or
    MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD. Needs the package mlflow-skinny or mlflow in the image."""

    tracking_uri: str | None = Field(
        default=None,
        alias="trackingURI",
        min_length=2,
        max_length=1024,
        pattern=TRACKING_URI,
        description="Server, http:// or https:// without credentials, or the folder of a file store, a path on the "
        "volume of the checkpoints. Absent: mlflow, in the directory of the checkpoints, which must be a path then.",
    )
    experiment: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern=NAME,
        description="Experiment of the run; it is made if there is none. Absent: the job's name.",
    )


class Trackio(ApiModel):
    """A run of trackio, in a local store: trackio, in the directory of the checkpoints, which must be a path. Needs the
    package trackio in the image."""

    project: str = Field(min_length=1, max_length=128, pattern=NAME, description="Project of the run.")


class Trackers(ApiModel):
    """Who else is told of every committed step. Trackers follow a run: one that fails or hangs costs no step, is told
    of in status.trackers, and is given what it lacks later."""

    tensor_board: TensorBoard | None = Field(default=None, description="Event files for TensorBoard; absent: none.")
    wandb: Wandb | None = Field(default=None, description="A run of Weights & Biases; absent: none.")
    mlflow: Mlflow | None = Field(default=None, description="A run of MLflow; absent: none.")
    trackio: Trackio | None = Field(default=None, description="A run of trackio; absent: none.")

    @property
    def wanted(self) -> dict[str, ApiModel]:
        """The trackers that are asked for, by their names in a manifest."""
        given = {"tensorBoard": self.tensor_board, "wandb": self.wandb, "mlflow": self.mlflow, "trackio": self.trackio}
        return {name: told for name, told in given.items() if told is not None}


TRACKERS = Field(
    default=None, description="TensorBoard, Weights & Biases, MLflow and trackio, told of every committed step."
)


def misplaced_trackers(spec: Spec) -> Iterator[tuple[str, str]]:
    """Path and message of each tracker whose files would not be there after the pod is gone."""
    if spec.trackers is None:
        return
    home, volume = spec.checkpoint.directory, spec.checkpoint.directory.split("/")[1]
    on_path = home.startswith("/")
    for field, place, local, way in _places(spec.trackers):
        path = f"spec.trackers.{field}"
        if place is None and local and not on_path:
            yield path, f"a local store needs a path, and the checkpoints are in a bucket, {home}; {way}"
        elif place is not None and place.startswith("/") and not on_path:
            yield path, f"{place} would go with the pod, as the checkpoints are in a bucket, {home}; {way}"
        elif place is not None and place.startswith("/") and place.split("/")[1] != volume:
            yield (
                path,
                f"{place} is not on the volume of the checkpoints and would go with the pod; take a folder below "
                f"/{volume}, or leave it out",
            )


def _places(trackers: Trackers) -> Iterator[tuple[str, str | None, bool, str]]:
    """Of each tracker: field, place, whether it is a path's where none is given, and the way out of a bucket."""
    if trackers.tensor_board is not None:
        yield "tensorBoard.directory", trackers.tensor_board.directory, False, "name a bucket, or leave it out"
    if trackers.wandb is not None:
        yield "wandb.directory", trackers.wandb.directory, trackers.wandb.mode == "Offline", "take mode: Online"
    if trackers.mlflow is not None:
        yield "mlflow.trackingURI", trackers.mlflow.tracking_uri, True, "name a server, http:// or https://"
    if trackers.trackio is not None:
        yield "trackio", None, True, "keep them on a claim"
