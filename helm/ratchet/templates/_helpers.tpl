{{- define "ratchet.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "ratchet.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "ratchet.labels" -}}
{{ include "ratchet.selectorLabels" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: ratchet
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "ratchet.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "ratchet.fullname" .) .Values.serviceAccount.name }}
{{- else }}{{ default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* What the operator may do to jobs and their attempts: the same rules for the whole cluster or for one namespace. */ -}}
{{- define "ratchet.jobRules" -}}
- apiGroups: [ratchet.dev]
  resources: [rltrainingjobs]
  verbs: [get, list, watch]
- apiGroups: [ratchet.dev]
  resources: [rltrainingjobs/status]
  verbs: [update]
# ownerReferences with blockOwnerDeletion need this where the admission plugin that asks for it is on.
- apiGroups: [ratchet.dev]
  resources: [rltrainingjobs/finalizers]
  verbs: [update]
- apiGroups: [jobset.x-k8s.io]
  resources: [jobsets]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, delete]
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
