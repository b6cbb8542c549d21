{{- define "bridge.labels" -}}
app.kubernetes.io/name: bridge
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "bridge.selector" -}}
app.kubernetes.io/name: bridge
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* The name of a workload: that of the release, and behind it the roles if they are split. */}}
{{- define "bridge.workload" -}}
{{- if .spec.roles }}{{ .root.Release.Name }}-{{ .name }}{{ else }}{{ .root.Release.Name }}{{ end }}
{{- end }}
