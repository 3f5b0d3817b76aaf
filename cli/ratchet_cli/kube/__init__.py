"""Asking the cluster of the kubeconfig, for every command that does.

    with asked(namespace, context) as kube:          # a command's options; errors end the command in one line
        job = jobs.get(kube, "sums")
        pods = kube.list(f"/api/v1/namespaces/{kube.namespace}/pods", labelSelector="ratchet.dev/job-name=sums")

Who is asked, with which credentials, is kubectl's to say: it runs as a proxy on a socket that only this user can open
(`kubectl_proxy`). Where there is no kubectl, as in the operator's image, the official Python client takes its place
(`python_client`). Objects are plain JSON, read with `parts`: a cluster may be older or newer than this program.
"""

from ratchet_cli.kube import jobs
from ratchet_cli.kube.ask import Kube, Object
from ratchet_cli.kube.connect import asked, cluster_options, connect
from ratchet_cli.kube.errors import KindMissing, KubeError, NotFound, Refused, Unreachable

__all__ = [
    "KindMissing",
    "Kube",
    "KubeError",
    "NotFound",
    "Object",
    "Refused",
    "Unreachable",
    "asked",
    "cluster_options",
    "connect",
    "jobs",
]
