#!/usr/bin/env bash
# Resolve pyproject.toml afresh and write the exact versions CI installs:
#   scripts/lock.sh PYTHON FILE      e.g. scripts/lock.sh python3.11 requirements/ci-py311.txt
set -euo pipefail
python=${1:?usage: scripts/lock.sh PYTHON FILE}
file=${2:?usage: scripts/lock.sh PYTHON FILE}
root=$(cd "$(dirname "$0")/.." && pwd)
venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
"$python" -m venv "$venv"
"$venv/bin/pip" install -qq --upgrade pip 'setuptools>=77'
"$venv/bin/pip" install -qq "$root[test]"
{
  echo "# Written by scripts/lock.sh from pyproject.toml; do not edit by hand."
  "$venv/bin/pip" freeze --all --exclude stepjax --exclude pip
} >"$root/$file.new"
mv "$root/$file.new" "$root/$file"
echo "$file: $(grep -c == "$root/$file") packages"
