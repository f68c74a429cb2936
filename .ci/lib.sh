# Stages of .ci/run and what they share. Sourced with root, work, results, only set.

# The first interpreter of exactly this minor version: PATH first, then pyenv's.
find_python() {
  local version=$1 candidate
  for candidate in "python$version" python3 \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python3; do
    candidate=$(command -v "$candidate" 2>/dev/null) || continue
    if "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" \
      2>/dev/null; then
      echo "$candidate"
      return 0
    fi
  done
  return 1
}

wanted() {
  local name
  [ ${#only[@]} -eq 0 ] && return 0
  for name in "${only[@]}"; do
    [ "$name" = "$1" ] && return 0
  done
  return 1
}

# stage NAME COMMAND...: run it, time it, remember how it ended, go on.
stage() {
  local name=$1 before=$SECONDS rc
  shift
  if [ "$name" != setup ] && ! wanted "$name"; then return 0; fi
  printf '\n=== %s\n' "$name"
  ("$@") 2>&1
  rc=$?
  if [ $rc -eq 0 ]; then
    echo "$name ok $((SECONDS - before))" >>"$results/stages"
  else
    echo "$name failed $((SECONDS - before))" >>"$results/stages"
    printf '=== %s FAILED (exit %s)\n' "$name" "$rc"
  fi
  return 0
}

skip() {
  wanted "$1" || return 0
  printf '\n=== %s skipped: %s\n' "$1" "$2"
  echo "$1 skipped 0 $2" >>"$results/stages"
}

# Up to three tries, for what goes over a network.
retry() {
  local try
  for try in 1 2 3; do
    "$@" && return 0
    echo "try $try of 3 failed: $*"
    sleep $((try * 5))
  done
  return 1
}

apt_install() {
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing Debian packages and not root on Debian: install $*"
    return 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  retry apt-get -qq -o DPkg::Lock::Timeout=120 update &&
    retry apt-get -qq -y -o DPkg::Lock::Timeout=120 install --no-install-recommends \
      "$@" >"$results/apt.log" 2>&1 || {
    tail -20 "$results/apt.log"
    return 1
  }
}

# make_venv PYTHON FOLDER LOCK: exactly the locked packages, then this checkout.
make_venv() {
  if ! "$1" -m venv "$2" 2>/dev/null; then
    rm -rf "$2"
    apt_install python3-venv && "$1" -m venv "$2" || return 1
  fi
  retry "$2/bin/pip" install -qq -r "$3" &&
    "$2/bin/pip" install -qq --no-deps --no-build-isolation -e "$root"
}

setup_main() {
  "$1" --version
  make_venv "$1" "$work/venv" requirements/ci-py311.txt &&
    "$work/venv/bin/python" .ci/versions.py
}

setup_newer() { make_venv "$1" "$work/venv-newer" requirements/ci-py312.txt; }

lint() {
  local rc=0 script
  ruff check . || rc=1
  ruff format --check . || rc=1
  for script in .ci/run .ci/lib.sh scripts/*.sh scripts/launch/*.sh scripts/install-desktop; do
    bash -n "$script" || rc=1
  done
  return $rc
}

types() { retry_pyright; }

# pyright's wrapper fetches its package on first use; only that may be retried.
retry_pyright() {
  retry pyright --version >/dev/null && pyright
}

# run_tests NAME VENV ARGS...: pytest with a report that .ci/summary.py adds up.
run_tests() {
  local name=$1 venv=$2
  shift 2
  # A hang must end as a failed stage, with tracebacks, not as a killed job.
  timeout --kill-after=30 "${STEPJAX_CI_STAGE_LIMIT:-2400}" \
    "$venv/bin/python" -m pytest -q -n 2 --durations=8 -p no:cacheprovider \
    --junitxml="$results/$name.xml" "$@"
}

fast_tests() { run_tests fast "$work/venv"; }

slow_tests() {
  # Those of the vision-language models are run once, with what they compare with.
  local which="(slow or browser) and not desktop"
  # The stored results of verl are compared in every run; verl itself only where it is.
  if [ -n "${STEPJAX_VERL_PYTHON:-}" ]; then which="$which or oracle"; fi
  run_tests slow "$work/venv" -m "$which" --ignore=tests/models/qwen_vl
}

install_chromium() {
  local name
  for name in chromium chromium-headless-shell; do
    command -v "$name" >/dev/null && { "$name" --version; return 0; }
  done
  apt_install chromium chromium-headless-shell && chromium-headless-shell --version
}

# The vision-language models against transformers, slow comparisons included, and a
# compilation for a TPU. Heavy packages that nothing else needs, so they come late.
parity() {
  retry pip install -qq --no-deps -r requirements/ci-parity.txt || return 1
  run_tests parity "$work/venv" -m "not accelerator and not desktop and not browser" \
    tests/models/qwen_vl tests/launch/test_compile_check.py
}

# Real applications in sandboxes; the quickest tasks only, the others are marked slow.
desktop_tests() {
  scripts/install-desktop >"$results/desktop-apt.log" 2>&1 || {
    tail -20 "$results/desktop-apt.log"
    return 1
  }
  tail -1 "$results/desktop-apt.log"
  python -m stepjax.envs.desktop doctor || return 1
  run_tests desktop "$work/venv" -m "desktop and not slow"
}

# The wheel must work without the checkout, with the core dependencies alone.
wheel() {
  local clean=$work/clean elsewhere=$work/elsewhere
  pip wheel -qq --no-deps --no-build-isolation -w "$work/dist" "$root" &&
    "$python" -m venv "$clean" &&
    retry "$clean/bin/pip" install -qq -c requirements/ci-py311.txt "$work"/dist/*.whl &&
    mkdir -p "$elsewhere" && cd "$elsewhere" &&
    "$clean/bin/python" "$root/.ci/check_wheel.py" || return 1
  "$clean/bin/pip" install -qq -c "$root/requirements/ci-py311.txt" \
    hypothesis pytest pytest-xdist || return 1
  mkdir tests && cp "$root"/tests/__init__.py "$root"/tests/conftest.py tests/ &&
    cp -r "$root"/tests/{kernels,reference,data} tests/ || return 1
  grep -v '^pythonpath' "$root/pyproject.toml" >pyproject.toml
  run_tests wheel "$clean" tests/kernels
}

newer_tests() {
  if [ -n "$1" ] && ! wait_for "$1"; then
    cat "$results/setup-newer.log"
    return 1
  fi
  "$work/venv-newer/bin/python" .ci/versions.py
  run_tests newer-jax "$work/venv-newer" tests/kernels tests/training tests/models \
    tests/test_lo*.py
}

# A stage runs in a subshell, which cannot `wait` for its parent's child.
wait_for() {
  while kill -0 "$1" 2>/dev/null; do sleep 1; done
  [ -x "$work/venv-newer/bin/pytest" ]
}

summary() {
  python3 "$root/.ci/summary.py" "$results" "$((SECONDS - started))"
  exit $?
}
