{{- define "skerry.name" -}}
{{- if contains "skerry" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-skerry{{ end }}
{{- end }}

{{- define "skerry.selector" -}}
app.kubernetes.io/name: skerry-hub
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "skerry.labels" -}}
{{ include "skerry.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
