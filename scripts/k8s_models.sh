#!/bin/sh
# Installs the schemas of the operators' objects into .tools/k8s, where the check of the manifests
# looks for them. Without npm they are not checked, and the check says so.
set -eu

readonly SCOPE=@kubernetes-models
stamp=.tools/k8s/.models-2

[ ! -e "$stamp" ] || exit 0
if ! command -v npm >/dev/null 2>&1; then
  echo "npm is not installed: the objects of operators are not validated"
  exit 0
fi

mkdir -p .tools/k8s
echo "installing the schemas of operators into .tools/k8s ..."
limit=
! command -v timeout >/dev/null 2>&1 || limit="timeout 180"
# `--ignore-scripts`: they are data. `--no-save`: no lock file that names a registry.
if $limit npm install --prefix .tools/k8s --no-save --no-audit --no-fund --ignore-scripts \
  --loglevel error --fetch-retries 1 \
  "$SCOPE/istio@3.0.1" \
  "$SCOPE/keda@2.0.0" \
  "$SCOPE/sealed-secrets@6.0.0" \
  "$SCOPE/prometheus-operator@6.0.0" \
  "$SCOPE/cert-manager@6.0.0" \
  "$SCOPE/external-secrets@2.0.0" \
  "$SCOPE/argo-cd@4.0.0" \
  "$SCOPE/flux-cd@4.0.0" \
  typescript@5.9.3 >/dev/null </dev/null; then
  touch "$stamp"
else
  echo "npm could not install the schemas of operators: their objects are not validated"
fi
