"""The Python package `ratchet`: what it is made of, and that what docs and notebook say of it runs as printed."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import threading
import xml.etree.ElementTree
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import nbformat
import pytest
from nbclient import NotebookClient
from pydantic import BaseModel, ValidationError

import ratchet
from ratchet.html import curve
from ratchet_api import job as api
from ratchet_cluster.cluster import Cluster

ROOT = Path(__file__).parents[2]
CLUSTER = "cluster"


def snippets(kind: str = "") -> list[str]:
    """The Python blocks of docs/python.md, in order; `kind`: those that need a cluster."""
    text = (ROOT / "docs" / "python.md").read_text()
    return [code for word, code in re.findall(r"```python ?(\w*)\n(.*?)```", text, re.S) if word == kind]


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The names that the snippets of docs/python.md leave, run one after the other in a folder of their own."""
    before, names = Path.cwd(), {}
    os.chdir(tmp_path_factory.mktemp("docs"))
    try:
        for code in snippets():
            exec(compile(code, "docs/python.md", "exec"), names)
        yield names
    finally:
        os.chdir(before)


def types_of(model: type[BaseModel], found: dict[str, type[BaseModel]]) -> dict[str, type[BaseModel]]:
    """The model, and all that its fields may hold."""

    def inside(annotation: Any) -> None:
        is_model = inspect.isclass(annotation) and issubclass(annotation, BaseModel)
        if is_model and annotation.__name__ not in found:
            types_of(annotation, found)
        for part in get_args(annotation):
            inside(part)

    found[model.__name__] = model
    for field in model.model_fields.values():
        inside(field.annotation)
    return found


def test_all_names_the_public_names_and_no_other() -> None:
    public = {
        name for name, value in vars(ratchet).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert sorted(ratchet.__all__) == sorted(public)


def test_every_type_of_the_spec_is_there_and_has_the_fields_of_the_api() -> None:
    wanted = types_of(api.Spec, {})
    for name, model in wanted.items():
        ours = getattr(ratchet, name, None)
        assert ours is not None, f"ratchet.{name} is missing"
        assert issubclass(ours, model)
        assert ours.model_fields.keys() == model.model_fields.keys()


def test_fields_have_pythons_names_and_those_of_a_manifest() -> None:
    by_name = ratchet.Checkpoint(directory="/c/x", every_steps=5)
    assert by_name == ratchet.Checkpoint.model_validate({"directory": "/c/x", "everySteps": 5})
    with pytest.raises(ValidationError, match="everyStep"):
        ratchet.Checkpoint.model_validate({"directory": "/c/x", "everyStep": 5})


def test_a_job_built_in_python_is_the_one_that_its_yaml_says(documented: dict[str, Any], tmp_path: Path) -> None:
    job = documented["job"]
    file = tmp_path / "job.yaml"
    file.write_text(job.to_yaml())
    again = ratchet.load(file)
    assert again.manifest() == job.manifest()
    assert again.typed() == job.typed()
    validated = subprocess.run(
        [sys.executable, "-m", "ratchet_cli.main", "validate", str(file)], capture_output=True, text=True
    )
    assert validated.returncode == 0, validated.stderr


def test_a_manifest_with_problems_is_refused_with_file_and_line(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "job.yaml"
    file.write_text((ROOT / "examples" / "minimal.yaml").read_text().replace("steps: 80", "steps: -1"))
    with pytest.raises(ratchet.InvalidJob, match=r"job.yaml:\d+: spec.stages\[0\].advance.steps") as caught:
        ratchet.load(file)
    assert len(caught.value.problems) == 1
    with pytest.raises(ratchet.InvalidJob, match="cannot be read"):
        ratchet.load(tmp_path / "nothing.yaml")
    assert capsys.readouterr() == ("", ""), "an error is raised, not printed"


def test_the_snippets_of_the_docs_run_and_leave_a_finished_run(documented: dict[str, Any]) -> None:
    run = documented["run"]
    assert run.finished
    assert run.step == 8
    assert documented["again"].result["weightsSha256"] == run.result["weightsSha256"]
    assert [row["step"] for row in documented["rows"].to_dict("records")] == list(range(1, 9))
    assert set(documented["answers"]["accuracy"]) <= {0.0}


def test_without_pandas_rows_are_dicts(documented: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    rows = documented["run"].metrics()
    assert [(row["step"], row["stage"]) for row in rows] == [(s, "warm-up" if s < 5 else "reason") for s in range(1, 9)]
    assert all(isinstance(row["train/loss"], float) for row in rows)
    assert {"prompt", "response", "reward"} <= documented["run"].samples()[0].keys()


def test_what_a_notebook_shows_is_well_formed_and_escaped(documented: dict[str, Any]) -> None:
    for shown in (documented["run"], documented["job"]):
        xml.etree.ElementTree.fromstring(f"<div>{shown._repr_html_()}</div>")
    assert "<svg" in documented["run"]._repr_html_()
    drawn = curve("<b>", [(1, 0.5), (2, float("nan")), (3, 0.5)])
    assert "<b>" not in xml.etree.ElementTree.fromstring(drawn).tag
    assert "&lt;b&gt;" in drawn
    assert curve("loss", [(1, 0.5)]) == curve("loss", []) == ""


def test_what_cannot_be_read_is_one_line_with_its_place(documented: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ratchet.NothingToRead, match="no metrics yet") as nothing:
        ratchet.metrics(tmp_path)
    with pytest.raises(ratchet.NothingToRead, match="no samples of step 99; there are those of steps 5, 6"):
        documented["run"].samples(99)
    with pytest.raises(ratchet.RatchetError, match="no working folder"):
        ratchet.run_of(tmp_path)
    assert "\n" not in str(nothing.value)


def test_a_folder_that_is_in_use_stops_with_the_code_of_the_command(documented: dict[str, Any], tmp_path: Path) -> None:
    from ratchet_trainer.tools.local import Folder

    job = documented["job"]
    with Folder(tmp_path, job.name, job.typed()).locked(), pytest.raises(ratchet.TrainingStopped) as caught:
        ratchet.train(job, tmp_path)
    assert "is in use by process" in str(caught.value)
    assert caught.value.code == os.EX_TEMPFAIL


def test_the_notebook_runs_and_holds_no_outputs(tmp_path: Path) -> None:
    notebook = nbformat.read(ROOT / "examples" / "notebook.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    done = NotebookClient(notebook, timeout=250, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    done.execute()
    shown = [output for cell in done.nb.cells for output in cell.get("outputs", ())]
    assert any("<svg" in str(output.get("data", {}).get("text/html", "")) for output in shown)


# In a cluster


@pytest.fixture
def there(
    documented: dict[str, Any], api_server: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> ratchet.Job:
    """The documented job, in a namespace of its own."""
    for name, value in api_server.env().items():
        monkeypatch.setenv(name, value)
    return ratchet.submit(documented["job"], namespace)


def says(api_server: Cluster, job: ratchet.Job, step: int, **conditions: tuple[str, str, str]) -> None:
    """Writes a status, as the operator would."""
    status = {
        "phase": "Running",
        "progress": {"step": step, "text": f"{step}/8"},
        "conditions": [
            {
                "type": kind,
                "status": said,
                "reason": reason,
                "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
            for kind, (said, reason, message) in conditions.items()
        ],
    }
    patch = json.dumps({"status": status})
    scope = ("-n", job.namespace, "--subresource=status", "--type=merge")
    api_server.kubectl("patch", "rlj", job.name, *scope, "-p", patch)


def test_the_snippets_for_a_cluster_run(
    documented: dict[str, Any], api_server: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in api_server.env().items():
        monkeypatch.setenv(name, value)
    names = {**documented, "namespace": namespace}
    for code in snippets(CLUSTER):
        exec(compile(code, "docs/python.md", "exec"), names)
    assert [job.name for job in ratchet.jobs(namespace)] == ["little-sums"]
    assert "little-sums" in ratchet.jobs(namespace)._repr_html_()
    assert ratchet.get("little-sums", namespace).data["spec"]["suspend"] is False


def test_a_watch_shows_each_change_and_ends_with_the_job(there: ratchet.Job, api_server: Cluster) -> None:
    seen: list[ratchet.Job] = []
    begun = threading.Event()

    def look() -> None:
        for job in there.watch(timeout=60):
            seen.append(job)
            begun.set()

    watching = threading.Thread(target=look)
    watching.start()
    assert begun.wait(30)
    says(api_server, there, 3, Placed=("True", "Placed", ""))
    says(api_server, there, 8, Placed=("True", "Placed", ""), Completed=("True", "AllStagesDone", "done"))
    watching.join(60)
    assert not watching.is_alive()
    assert [job.step for job in seen][0::2] == [0, 8]
    assert seen[-1].ended
    assert there.wait("Completed", timeout=30).step == 8
    xml.etree.ElementTree.fromstring(f"<div>{seen[-1]._repr_html_()}</div>")


def test_waiting_says_what_the_condition_says(there: ratchet.Job, api_server: Cluster) -> None:
    with pytest.raises(ratchet.WaitTimeout, match="is the operator running"):
        there.wait("Placed", timeout=1)
    says(api_server, there, 0, Placed=("False", "NoCapacity", "no node for a chip"))
    with pytest.raises(ratchet.WaitTimeout, match=r"Placed is False after 1 s \(NoCapacity\): no node for a chip"):
        there.wait("Placed", timeout=1)
    says(api_server, there, 3, Failed=("True", "StageFailed", "the guard tripped"))
    with pytest.raises(ratchet.JobFailed, match="Completed will not be True"):
        there.wait("Completed", timeout=30)
    with pytest.raises(ratchet.RatchetError, match="Done is no condition of a job; there are Accepted"):
        there.wait("Done")


def test_what_the_cluster_refuses_is_one_line(there: ratchet.Job, documented: dict[str, Any]) -> None:
    with pytest.raises(ratchet.ClusterError, match=r"is in namespace .* already") as twice:
        ratchet.submit(documented["job"], there.namespace)
    with pytest.raises(ratchet.JobNotFound, match="did you mean little-sums"):
        ratchet.get("little-sum", there.namespace)
    with pytest.raises(ratchet.RatchetError, match="no stage last; it has warm-up, reason"):
        there.approve("last")
    with pytest.raises(ratchet.NothingToRead, match="claim checkpoints"):
        there.metrics()
    assert "\n" not in str(twice.value)


def test_a_job_that_is_deleted_is_said_to_be(there: ratchet.Job, api_server: Cluster) -> None:
    seen = there.watch(timeout=60)
    next(seen)
    api_server.kubectl("delete", "rlj", there.name, "-n", there.namespace, "--wait=false")
    with pytest.raises(ratchet.JobNotFound, match=f"{there.name}.*(was deleted|no job)|no job {there.name}"):
        for _ in seen:
            pass


def test_no_cluster_is_one_line_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ratchet.ClusterError) as caught:
        ratchet.get("sums")
    assert "\n" not in str(caught.value)
