"""As whom trainers run: the Pod Security Standard `restricted`, asked of the API server itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plan_story import Story
from running_operator import until

from ratchet_operator.app import Config
from ratchet_operator.snapshot import Values

ENFORCE = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}


def pod(values: Values | None = None, **spec):
    """The trainer's pod of a job that was just applied."""
    story = Story(**spec)
    story.values = replace(story.values, **(values or {}))
    return story.decide().create[1]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


def test_without_a_word_trainers_are_a_user_without_rights_on_a_read_only_root():
    spec = pod()
    context, own = spec["securityContext"], spec["containers"][0]["securityContext"]
    assert (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"]) == (True, 10001, 10001)
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert {"name": "tmp", "emptyDir": {}} in spec["volumes"]
    assert {"name": "tmp", "mountPath": "/tmp"} in spec["containers"][0]["volumeMounts"]


def test_home_is_a_folder_that_the_user_can_write_to_unless_the_manifest_names_another():
    def homes(**template):
        return [e["value"] for e in pod(podTemplate=template)["containers"][0]["env"] if e["name"] == "HOME"]

    assert homes() == ["/tmp"]
    assert homes(env=[{"name": "HOME", "value": "/checkpoints/home"}]) == ["/checkpoints/home"]


def test_the_manifest_goes_before_the_operators_values():
    values = {"run_as_user": 2000, "run_as_group": 2001, "read_only_root": False}
    spec = pod(values)
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsGroup"]) == (2000, 2001)
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is False
    spec = pod(values, podTemplate={"runAsUser": 3000, "runAsGroup": 0, "readOnlyRootFilesystem": True})
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsGroup"]) == (3000, 0)
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize(
    ("values", "template"), [({}, {"runAsUser": 0}), ({"run_as_user": 0}, {})], ids=["manifest", "values"]
)
def test_root_is_refused_with_a_way_out_where_the_values_do_not_allow_it(values, template):
    story = Story(podTemplate=template)
    story.values = replace(story.values, **values)
    assert story.decide().create == ()
    said = story.condition("Accepted")["message"]
    assert said.startswith("spec.podTemplate.runAsUser: 0 is root")
    assert "trainer.allowRoot" in said
    context = pod(values | {"allow_root": True}, podTemplate=template)["securityContext"]
    assert (context["runAsUser"], context["runAsNonRoot"]) == (0, False)


def test_the_operator_is_told_by_its_environment():
    told = {"RATCHET_RUN_AS_USER": "0", "RATCHET_RUN_AS_GROUP": "5", "RATCHET_ALLOW_ROOT": "true"}
    values = Config.from_environment(told | {"RATCHET_READ_ONLY_ROOT": "false"}).values
    assert (values.run_as_user, values.run_as_group, values.allow_root, values.read_only_root) == (0, 5, True, False)
    assert Config.from_environment({}).values == Values()
    for wrong in ("-1", "1.5", "root", str(2**31)):
        with pytest.raises(ValueError, match="RATCHET_RUN_AS_USER"):
            Config.from_environment({"RATCHET_RUN_AS_USER": wrong})


async def test_a_namespace_that_enforces_restricted_admits_the_trainers(world):
    await world.api.patch(f"/api/v1/namespaces/{world.namespace}", ENFORCE, "application/merge-patch+json")
    await (await world.operator()).leads()
    await world.apply()
    await world.running()
    await world.completed()


async def test_it_refuses_one_that_is_root(world):
    """The test above would see a pod that is not as `restricted` wants it."""
    await world.api.patch(f"/api/v1/namespaces/{world.namespace}", ENFORCE, "application/merge-patch+json")
    await (await world.operator(RATCHET_ALLOW_ROOT="true")).leads()
    await world.apply(podTemplate={"runAsUser": 0})

    async def refused():
        return [e["message"] for e in await world.items("events") if e["reason"] == "FailedCreate"]

    (said, *_) = await until("the Job controller's pod is refused", refused)
    assert 'violates PodSecurity "restricted' in said
    assert "runAsNonRoot != true" in said
