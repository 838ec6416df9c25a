{{- define "opstream.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "opstream.selector" -}}
app.kubernetes.io/name: opstream
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "opstream.labels" -}}
{{ include "opstream.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "opstream.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "opstream.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "opstream.name" .) }}
{{- end }}

{{/* What every process knows of the broker and of its log. */}}
{{- define "opstream.env" -}}
- name: OPSTREAM_NATS_URL
  value: {{ join "," .root.Values.nats.urls | quote }}
{{- if .root.Values.nats.keysSecret }}
- name: OPSTREAM_NATS_NKEY
  value: /etc/opstream/nats/role.nk
{{- end }}
{{- if .root.Values.nats.tls.caSecret }}
- name: OPSTREAM_NATS_TLS_CA
  value: /etc/opstream/nats-ca/ca.crt
{{- end }}
{{- if .root.Values.nats.tls.clientSecret }}
- name: OPSTREAM_NATS_TLS_CERT
  value: /etc/opstream/nats-tls/tls.crt
- name: OPSTREAM_NATS_TLS_KEY
  value: /etc/opstream/nats-tls/tls.key
{{- end }}
- name: OPSTREAM_LOG_LEVEL
  value: {{ .root.Values.logLevel }}
{{- if has .component (list "api" "projector") }}
{{- with .root.Values.index.urlSecret }}
- name: OPSTREAM_INDEX
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: url}
{{- else }}
{{- with .root.Values.index.url }}
- name: OPSTREAM_INDEX
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- with .extra }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Only the key of the process's own role. */}}
{{- define "opstream.volumes" -}}
- name: tmp
  emptyDir: {}
{{- if .root.Values.nats.keysSecret }}
- name: nats
  secret:
    secretName: {{ .root.Values.nats.keysSecret }}
    defaultMode: 0440
    items:
      - key: {{ .role }}.nk
        path: role.nk
{{- end }}
{{- with .root.Values.nats.tls.caSecret }}
- name: nats-ca
  secret:
    secretName: {{ . }}
    items:
      - {key: ca.crt, path: ca.crt}
{{- end }}
{{- with .root.Values.nats.tls.clientSecret }}
- name: nats-tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end }}

{{- define "opstream.mounts" -}}
- name: tmp
  mountPath: /tmp
{{- if .root.Values.nats.keysSecret }}
- name: nats
  mountPath: /etc/opstream/nats
  readOnly: true
{{- end }}
{{- if .root.Values.nats.tls.caSecret }}
- name: nats-ca
  mountPath: /etc/opstream/nats-ca
  readOnly: true
{{- end }}
{{- if .root.Values.nats.tls.clientSecret }}
- name: nats-tls
  mountPath: /etc/opstream/nats-tls
  readOnly: true
{{- end }}
{{- end }}

{{- define "opstream.podSecurity" -}}
serviceAccountName: {{ include "opstream.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
{{ toYaml . | indent 2 }}
{{- end }}
{{- end }}

{{- define "opstream.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Two pods of one deployment are on two machines if there are two. */}}
{{- define "opstream.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
{{ include "opstream.selector" . | indent 8 }}
{{- end }}

{{/* A process that starts waits for its broker: the startup probe gives it as long as its own limit. */}}
{{- define "opstream.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: {{ .port }}}
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet: {path: /healthz, port: {{ .port }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: {{ .port }}}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end }}
