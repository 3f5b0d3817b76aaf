{{- /*
Refuses a release where another one would work on the same jobs. Only a real cluster can be asked: `helm template` finds
nothing, so GitOps is not held up, and not protected either.

Deployments of all namespaces are looked at only where this release has cluster-wide objects anyway: who may install no
more than roles of some namespaces may not list those. Then the roles of the watched namespaces tell.
*/ -}}
{{- define "ratchet.refuseOverlap" -}}
{{- if .Values.refuseOverlap }}
{{- $people := and .Values.rbac.create .Values.rbac.aggregateClusterRoles }}
{{- $nodes := and .Values.rbac.create .Values.nodes.watch }}
{{- if or (not .Values.watchNamespaces) .Values.crds.install $people $nodes .Values.priorityClass.create .Values.rollouts.priorityClass.create .Values.webhook.enabled }}
{{- range (lookup "apps/v1" "Deployment" "" "").items }}
{{- if include "ratchet.isOther" (list $ .) }}
{{- include "ratchet.refuseSameNamespaces" (list $ .) }}
{{- end }}
{{- end }}
{{- else if .Values.rbac.create }}
{{- range $namespace := .Values.watchNamespaces }}
{{- range (lookup "rbac.authorization.k8s.io/v1" "Role" $namespace "").items }}
{{- if and (include "ratchet.isOther" (list $ .)) (not (hasSuffix "-lease" .metadata.name)) }}
{{- include "ratchet.refuse" (list $ . $namespace) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if .Values.crds.install }}
{{- include "ratchet.refuseForeignDefinition" . }}
{{- end }}
{{- end }}
{{- end }}

{{- /* "true" for an operator's object of another release. The list is (root, object). */ -}}
{{- define "ratchet.isOther" -}}
{{- $root := index . 0 }}
{{- $meta := (index . 1).metadata }}
{{- $labels := default (dict) $meta.labels }}
{{- $place := get (default (dict) $meta.annotations) "meta.helm.sh/release-namespace" | default $meta.namespace }}
{{- $ours := and (eq (get $labels "app.kubernetes.io/instance") $root.Release.Name) (eq $place $root.Release.Namespace) }}
{{- $operator := eq (get $labels "app.kubernetes.io/component") "operator" }}
{{- if and (eq (get $labels "app.kubernetes.io/part-of") "ratchet") $operator (not $ours) }}true{{ end }}
{{- end }}

{{- /* The list is (root, Deployment of another release): what it watches is in its environment. */ -}}
{{- define "ratchet.refuseSameNamespaces" -}}
{{- $root := index . 0 }}
{{- $other := index . 1 }}
{{- $ours := $root.Values.watchNamespaces }}
{{- range (index $other.spec.template.spec.containers 0).env }}
{{- if eq .name "RATCHET_WATCH_NAMESPACES" }}
{{- $theirs := compact (splitList "," (default "" .value)) }}
{{- if or (not $ours) (not $theirs) }}
{{- include "ratchet.refuse" (list $root $other ($theirs | empty | ternary "all namespaces" (join ", " $theirs))) }}
{{- end }}
{{- range $ours }}
{{- if has . $theirs }}{{ include "ratchet.refuse" (list $root $other .) }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "ratchet.refuse" -}}
{{- $meta := (index . 1).metadata }}
{{- $release := get $meta.labels "app.kubernetes.io/instance" }}
{{- $place := get (default (dict) $meta.annotations) "meta.helm.sh/release-namespace" | default $meta.namespace }}
{{- fail (printf "watchNamespaces: release %s in namespace %s works on %s already, and two operators must not work on the same jobs. Either give each release namespaces of its own (watchNamespaces, and crds.install=false in the second), or remove the other: helm uninstall %s --namespace %s; jobs outlive that." $release $place (index . 2) $release $place) }}
{{- end }}

{{- define "ratchet.refuseForeignDefinition" -}}
{{- $name := "rltrainingjobs.ratchet.dev" }}
{{- with lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" $name }}
{{- $marks := default (dict) .metadata.annotations }}
{{- $release := get $marks "meta.helm.sh/release-name" }}
{{- $place := get $marks "meta.helm.sh/release-namespace" }}
{{- if or (ne $release $.Release.Name) (ne $place $.Release.Namespace) }}
{{- $whose := $release | empty | ternary "was not installed by helm" (printf "belongs to release %s in namespace %s" $release $place) }}
{{- fail (printf "crds.install: CustomResourceDefinition %s %s. Either leave it as it is with crds.install=false, or hand it over to this release: kubectl label crd %s app.kubernetes.io/managed-by=Helm --overwrite && kubectl annotate crd %s --overwrite meta.helm.sh/release-name=%s meta.helm.sh/release-namespace=%s" $name $whose $name $name $.Release.Name $.Release.Namespace) }}
{{- end }}
{{- end }}
{{- end }}
