#!/usr/bin/env bash
# Sets up everything that the tests need, and runs all of them. `.ci/run` is this and nothing else.
#
#   ./test.sh            everything
#   ./test.sh --fast     without the tests that start real processes, Spark or containers; the
#                        simulation of whole clusters is among them
set -euo pipefail
cd "$(dirname "$0")"
. scripts/lib.sh
. scripts/docker.sh

fast=false
case "${1:-}" in
  '') ;;
  --fast) fast=true ;;
  *) die "unknown argument \`$1\`; there is only --fast" ;;
esac

# What is fetched and installed, and does not come with the repository.
fetch_all() {
  # A subshell begins without the traps of its shell.
  trap 'end_quiet; exit 143' TERM
  ensure_java
  ensure_python
  ensure_spark $SPARK_4
  ensure_spark $SPARK_3
  ensure_numpy $SPARK_4
  ensure_postgres
  ensure_etcd
  ensure_network
  ensure_vm
}

# The process that fetches while Rust is compiled.
fetching=
cleanup() {
  if [ -n "$fetching" ]; then kill "$fetching" 2>/dev/null || true; fi
  stop_docker
}
trap cleanup EXIT

step "what the tests need"
ensure_rust
if ! $fast; then
  [ "$(id -u)" = 0 ] || die "the container tests need root: they make cgroups; --fast does without"
  # Mostly the network's time, so the compiler has the machine meanwhile.
  fetch_all &
  fetching=$!
fi
if ! cargo nextest --version >/dev/null 2>&1; then
  note "building cargo-nextest (once)"
  # It only starts tests: half of the compiling time, and no test is slower.
  quietly "$MEZZ_HOME/log/nextest.log" env CARGO_PROFILE_RELEASE_OPT_LEVEL=1 cargo install --locked cargo-nextest
fi

step "formatting"
cargo fmt --all --check

step "clippy, with warnings denied"
cargo clippy --workspace --all-targets --locked --quiet -- -D warnings

if ! $fast; then
  step "the rest of what the tests need"
  wait "$fetching" || die "something that the tests need could not be had; see above"
  fetching=
  ensure_docker
  ensure_registry
  ensure_compose
  ensure_test_image
  ensure_bridge "$PWD/target/debug/mezz-spark-bridge.jar"
  MEZZ_TEST_SPARK_HOME=$(spark_home $SPARK_4)
  MEZZ_TEST_SPARK_3_HOME=$(spark_home $SPARK_3)
  export MEZZ_TEST_SPARK_HOME MEZZ_TEST_SPARK_3_HOME
  MEZZ_TEST_POSTGRES=$(postgres_programs)
  export MEZZ_TEST_POSTGRES MEZZ_TEST_JDBC_JAR=$JDBC_JAR
  export MEZZ_TEST_PYTHON="$MEZZ_HOME/spark-$SPARK_4/bin/python"
  export MEZZ_SPARK_BRIDGE="$PWD/target/debug/mezz-spark-bridge.jar"
fi

step "documentation, with warnings denied"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

step "building"
cargo build --workspace --all-targets --locked --quiet

step "tests in the documentation"
cargo test --workspace --doc --locked --quiet

if $fast; then
  step "tests"
  cargo nextest run --workspace --locked --lib --test simulation
else
  # Of the version that all but a few tests use.
  step "the archive of Spark's classes"
  ensure_archive "$PWD/target/debug/mezz" "$MEZZ_SPARK_BRIDGE" $SPARK_4
  step "the image of Spark"
  ensure_spark_image "$PWD/target/debug/mezz" "$MEZZ_SPARK_BRIDGE" "$MEZZ_TEST_SPARK_HOME"
  step "tests"
  cargo nextest run --workspace --locked
  step "the agent's tests again, on cgroup v2 in a virtual machine"
  tests_in_vm
fi

step "done"
