#!/bin/sh
# Makes sure that a redis-server of at least 7.0 is on PATH, and a valkey-server where one is at
# hand. Installs from the system's packages when it may, and never starts a service: every test
# starts its own server, on its own port.
set -eu

readonly REDIS_AT_LEAST=7 VALKEY_AT_LEAST=8

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
  command -v apt-get >/dev/null 2>&1 || return 1
  [ "$(id -u)" -eq 0 ] || { command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; }
}

# The major version that a server binary reports, 0 when there is none.
major() {
  "$1" --version 2>/dev/null | sed -n 's/.*v=\([0-9]*\)\..*/\1/p' | grep . || echo 0
}

# The major version that the package manager offers, 0 when it knows none.
candidate() {
  apt-cache policy "$1" 2>/dev/null |
    sed -n 's/^ *Candidate: \([0-9]*:\)\{0,1\}\([0-9]*\)\..*/\2/p' | grep . || echo 0
}

# Debian's packages start what they install. policy-rc.d refuses that, for this call only, and
# `disable` keeps it so after the next boot.
install_quietly() (
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'as_root rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod +x "$policy"
  fi
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install --yes --quiet --no-install-recommends "$1" >/dev/null || return
  as_root systemctl disable "$1" >/dev/null 2>&1 || true
)

if [ "$(major redis-server)" -lt "$REDIS_AT_LEAST" ] && may_install; then
  echo "installing redis-server from the system's packages ..."
  as_root apt-get update --quiet >/dev/null || true
  install_quietly redis-server || true
fi

if [ "$(major redis-server)" -lt "$REDIS_AT_LEAST" ]; then
  echo "the tests need redis-server $REDIS_AT_LEAST.0 or newer on PATH: install the package redis-server (macOS: brew install redis)" >&2
  exit 1
fi

# Valkey is a second backend, worth having and never required.
if [ "$(major valkey-server)" -lt "$VALKEY_AT_LEAST" ] && may_install &&
  [ "$(candidate valkey-server)" -ge "$VALKEY_AT_LEAST" ]; then
  echo "installing valkey-server from the system's packages ..."
  install_quietly valkey-server || echo "valkey-server could not be installed; its tests are skipped"
fi
