#!/bin/sh
# Builds millstream and everything it needs as wheels, then installs those, and nothing else,
# into a virtual environment. The Dockerfile runs this, and so does the test of the image.
#
#   image_install.sh PREFIX EXTRAS      in a directory that holds the sources
set -eu

prefix=$1
extras=$2
python=${PYTHON:-python3}
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT

"$python" -m pip wheel --quiet --disable-pip-version-check --wheel-dir "$wheels" ".[$extras]"

# Without pip: what runs in production installs nothing.
"$python" -m venv --without-pip "$prefix"
"$python" -m pip --python "$prefix/bin/python" install --quiet --disable-pip-version-check \
  --no-index --find-links "$wheels" --compile "millstream[$extras]"
