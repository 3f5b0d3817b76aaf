{{- /* What the operator may do to jobs and their attempts: the same rules for the whole cluster or for one namespace.
A test runs the operator and compares this list with what it asked for: nothing is missing, nothing is too much. */ -}}
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
  verbs: [list, watch, patch, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, delete]
# Looked at before an attempt takes a slice. Not Secrets: whoever may see that one exists may read it.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get]
- apiGroups: [""]
  resources: [resourcequotas]
  verbs: [list]
# What keeps an attempt's pods from being made is said in events alone; it is copied into the job's condition.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
{{ include "ratchet.eventRules" . }}
{{- end }}

{{- define "ratchet.eventRules" -}}
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{- define "ratchet.subjects" -}}
- kind: ServiceAccount
  name: {{ include "ratchet.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
