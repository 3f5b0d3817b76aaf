{{- /* Names */ -}}
{{- define "ratchet.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "ratchet.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "ratchet.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "ratchet.fullname" .) .Values.serviceAccount.name }}
{{- else }}{{ default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "ratchet.workerPriorityClassName" -}}
{{- if .Values.rollouts.priorityClassName }}{{ .Values.rollouts.priorityClassName }}
{{- else if .Values.rollouts.priorityClass.create }}{{ default (printf "%s-workers" (include "ratchet.fullname" .)) .Values.rollouts.priorityClass.name }}
{{- end }}
{{- end }}

{{- define "ratchet.priorityClassName" -}}
{{- if .Values.priorityClassName }}{{ .Values.priorityClassName }}
{{- else if .Values.priorityClass.create }}{{ default (include "ratchet.fullname" .) .Values.priorityClass.name }}
{{- end }}
{{- end }}

{{- define "ratchet.image" -}}
{{- $image := .Values.image }}
{{- printf "%s:%s" $image.repository ($image.tag | default .Chart.AppVersion) }}
{{- with $image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- /* What selects the operator's pods. A Deployment's selector can never be changed, so nothing is added here. */ -}}
{{- define "ratchet.selectorLabels" -}}
app.kubernetes.io/name: {{ include "ratchet.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Labels of every object. The list is (root, component, further labels); the chart's own win. */ -}}
{{- define "ratchet.labelsOf" -}}
{{- $root := index . 0 }}
{{- $own := dict
  "app.kubernetes.io/name" (include "ratchet.name" $root)
  "app.kubernetes.io/instance" $root.Release.Name
  "app.kubernetes.io/component" (index . 1)
  "app.kubernetes.io/part-of" "ratchet"
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/managed-by" $root.Release.Service
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") }}
{{- toYaml (merge $own (index . 2) $root.Values.commonLabels) }}
{{- end }}

{{- define "ratchet.labels" -}}
{{- include "ratchet.labelsOf" (list . "operator" (dict)) }}
{{- end }}

{{- /* `annotations:` of an object, nothing where there are none. The list is (root, its own annotations); those win. */ -}}
{{- define "ratchet.annotations" -}}
{{- with merge (dict) (index . 1) (index . 0).Values.commonAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* metadata of an object of the release's namespace. The list is (root, name suffix). */ -}}
{{- define "ratchet.metadata" -}}
name: {{ include "ratchet.fullname" (index . 0) }}{{ index . 1 }}
namespace: {{ (index . 0).Release.Namespace }}
{{ include "ratchet.commonMetadata" (index . 0) }}
{{- end }}

{{- /* Labels and annotations of an object that has only the common ones. */ -}}
{{- define "ratchet.commonMetadata" -}}
labels: {{- include "ratchet.labels" . | nindent 2 }}
{{- include "ratchet.annotations" (list . (dict)) }}
{{- end }}

{{- /* "true" where an optional object is wanted. The list is (root, value, API version that the cluster must serve), and
for objects of that API the value's name. */ -}}
{{- define "ratchet.wanted" -}}
{{- $value := index . 1 | toString }}
{{- if and (eq $value "true") (gt (len .) 3) }}
{{- include "ratchet.needs" (list (index . 0) (index . 2) (index . 3) "the Prometheus operator, or Google's managed Prometheus," (printf "take %s=auto, which waits until it is there" (index . 3))) }}
{{- end }}
{{- if or (eq $value "true") (and (eq $value "auto") ((index . 0).Capabilities.APIVersions.Has (index . 2))) }}true{{ end }}
{{- end }}

{{- /* Refuses objects of an API that the cluster does not serve, where helm's own words name no way out. `helm template`
cannot ask a cluster; it knows only the kinds of Kubernetes itself, which apiregistration.k8s.io is none of. The list is
(root, API version, value, what serves it, another way). */ -}}
{{- define "ratchet.needs" -}}
{{- $served := (index . 0).Capabilities.APIVersions }}
{{- if and ($served.Has "apiregistration.k8s.io/v1") (not ($served.Has (index . 1))) }}
{{- fail (printf "%s: this cluster does not serve %s. Either install %s first, or %s." (index . 2) (index . 1) (index . 3) (index . 4)) }}
{{- end }}
{{- end }}

{{- /* What selects trainer pods: every one of them has the label, whatever its job. */ -}}
{{- define "ratchet.trainerExpression" -}}
{key: ratchet.dev/job-name, operator: Exists}
{{- end }}
