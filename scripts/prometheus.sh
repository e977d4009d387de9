#!/bin/sh
# Puts prometheus and promtool into .tools/prometheus, where the tests look for them, unless they are
# on PATH. The system's package is unpacked and not installed: it needs no root, and starts nothing.
set -eu

target=.tools/prometheus

if command -v prometheus >/dev/null 2>&1 && command -v promtool >/dev/null 2>&1; then exit 0; fi
[ ! -x "$target/usr/bin/promtool" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1 || ! command -v dpkg >/dev/null 2>&1; then
  echo "prometheus is not installed and there is no apt-get: tests of alerts are skipped"
  exit 0
fi

mkdir -p "$target"
echo "unpacking prometheus from the system's packages into .tools ..."
(cd "$target" && apt-get download --quiet prometheus >/dev/null 2>&1 && dpkg -x prometheus_*.deb . &&
  rm -f prometheus_*.deb) ||
  echo "prometheus could not be downloaded (apt-get update?): tests of alerts are skipped"
