#!/usr/bin/env bash
# Fuzzes what reads peers' bytes, with the compiler that builds the rest: no nightly and no
# cargo-fuzz are needed, as no sanitizer is used (`cargo fuzz run` works, too).
#
#   fuzz/run.sh [TARGET] [SECONDS]     one target, or all, each for so long (120)
#
# What it finds is in fuzz/artifacts/; give it to a test in proto/, then mend it. Inputs that
# reach something new are kept in target/corpus, and those under fuzz/corpus are read only.
# What inputs take in memory is not seen here: proto/tests/memory.rs counts it.
set -euo pipefail
cd "$(dirname "$0")"
targets=${1:-json protobuf recordio text head}
seconds=${2:-120}

# What cargo-fuzz passes, but for the sanitizer. With --target only what runs is instrumented,
# not what builds it.
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
RUSTFLAGS=$(tr -s '\n ' ' ' <<<"$RUSTFLAGS")
cargo build --release --locked --target "$host"

for target in $targets; do
  mkdir -p "target/corpus/$target" "artifacts/$target"
  "target/$host/release/$target" -max_total_time="$seconds" -max_len=65536 -rss_limit_mb=2048 \
    -timeout=10 -print_final_stats=1 -artifact_prefix="artifacts/$target/" \
    "target/corpus/$target" "corpus/$target"
done
