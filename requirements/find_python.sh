#!/bin/sh
# Print the Python that `make env` uses: find_python.sh VENV [PYTHON]. In this order: PYTHON where it is given; that of the
# environment that is there; the oldest supported one on the PATH; one that uv has or gets. If there is none, one line says how.
set -u
fail() { echo "make env: $*" >&2; exit 1; }
fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }
has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }  # Debian and Ubuntu ship Python without it

[ "$(uname -sm)" = "Linux x86_64" ] || fail "GeoZero needs Linux on x86_64; this is $(uname -sm)"
if [ -n "${2-}" ]; then
  fits "$2" || fail "$2 is not a Python 3.11, 3.12 or 3.13"
  echo "$2"
  exit
fi
if fits "$1/bin/python"; then
  echo "$1/bin/python"
  exit
fi
bare=
for python in python3.11 python3.12 python3.13 python3; do
  fits "$python" || continue
  if has_venv "$python"; then
    echo "$python"
    exit
  fi
  bare=${bare:-$python}
done
if command -v uv >/dev/null; then
  python=$(uv python find --system ">=3.11,<3.14" 2>/dev/null)
  if [ -z "$python" ] || ! has_venv "$python"; then
    echo "no Python 3.11, 3.12 or 3.13 here that can make environments: getting one with uv" >&2
    uv python install 3.11 >&2 && python=$(uv python find --python-preference only-managed 3.11) || python=
  fi
  [ -n "$python" ] || fail "uv could not get Python 3.11 either (see above): install Python 3.11, 3.12 or 3.13 by hand"
  echo "$python"
  exit
fi
[ -z "$bare" ] || fail "$bare cannot make environments: install python3-venv, for pythonX.Y pythonX.Y-venv (or uv)"
fail "no Python 3.11, 3.12 or 3.13 found: install python3 and python3-venv (or uv), or run make PYTHON=/path/to/python3.12"
