# Shared by quickstart.sh and test.sh: what a fresh Debian machine needs.
# Sourced, not run; expects `set -euo pipefail` and the repository as the current folder.

MEZZ_HOME=${MEZZ_HOME:-$PWD/.mezz}
SPARK_4=4.3.0
SPARK_3=3.5.9

if [ -t 2 ]; then BOLD=$'\e[1m' DIM=$'\e[2m' PLAIN=$'\e[0m'; else BOLD='' DIM='' PLAIN=''; fi
started=$(date +%s)

# A line that says what happens now and how long it has been going on.
step() { printf '%s[%3ds] %s%s\n' "$BOLD" $(($(date +%s) - started)) "$*" "$PLAIN" >&2; }
note() { printf '%s       %s%s\n' "$DIM" "$*" "$PLAIN" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# The process group of the command that runs `quietly`, if one does.
quiet_group=

# Ctrl-C does not reach what runs in the background: it is ended with all that it has started,
# as by Ctrl-C first, for which debootstrap unmounts what it has mounted.
end_quiet() {
  local signal
  [ -n "$quiet_group" ] || return 0
  for signal in INT TERM KILL; do
    kill -$signal -- "-$quiet_group" 2>/dev/null || break
    for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 -- "-$quiet_group" 2>/dev/null && sleep 0.3; done
  done
  wait "$quiet_group" 2>/dev/null || true
  quiet_group=
}
trap 'end_quiet; exit 130' INT
trap 'end_quiet; exit 143' TERM

# Runs a long command with its output in a log; prints a dot every five seconds, and the log's
# end when it fails.
quietly() { # log, command...
  local log=$1 pid
  shift
  mkdir -p "$(dirname "$log")"
  # A process group of its own, to be ended as a whole.
  set -m
  "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  set +m
  quiet_group=$pid
  while kill -0 "$pid" 2>/dev/null; do
    for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$pid" 2>/dev/null && sleep 0.5; done
    if kill -0 "$pid" 2>/dev/null; then printf '.' >&2; fi
  done
  quiet_group=
  if ! wait "$pid"; then
    printf '\n' >&2
    tail -n 30 "$log" >&2
    die "\`$*\` failed; its whole output is in $log"
  fi
  printf '\r' >&2
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Whether apt's lists were fetched in this run.
apt_is_up_to_date=false

apt_install() { # packages...
  command -v apt-get >/dev/null || die "please install these by hand: $*"
  # It can be asked for a password only here.
  [ "$(id -u)" = 0 ] || sudo -v
  note "installing $*"
  if ! $apt_is_up_to_date; then
    quietly "$MEZZ_HOME/log/apt.log" as_root apt-get update
    apt_is_up_to_date=true
  fi
  quietly "$MEZZ_HOME/log/apt.log" as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

ensure_rust() {
  command -v cargo >/dev/null || die "Rust is missing: install it from https://rustup.rs, then run this again"
  command -v cc >/dev/null || apt_install gcc libc6-dev
  # For the build of the crate etcd-client, which brings etcd's own .proto files; they import
  # google/protobuf/*.proto.
  [ -e /usr/include/google/protobuf/descriptor.proto ] && command -v protoc >/dev/null \
    || apt_install protobuf-compiler libprotobuf-dev
}

# The bridge is compiled here, so a JDK rather than a JRE.
ensure_java() {
  local major=0
  if command -v javac >/dev/null; then major=$(javac -version 2>&1 | sed -E 's/javac ([0-9]+).*/\1/'); fi
  [ "$major" -ge 17 ] || apt_install openjdk-17-jdk-headless
}

ensure_python() {
  python3 -c 'import venv, ensurepip' 2>/dev/null || apt_install python3 python3-venv
}

# Spark with PySpark from PyPI, in a folder of its own; prints nothing, sets nothing: see spark_home.
ensure_spark() { # version
  local dir="$MEZZ_HOME/spark-$1"
  [ -e "$dir/.complete" ] && return
  note "fetching PySpark $1 from PyPI (about 450 MB, once)"
  rm -rf "$dir"
  python3 -m venv "$dir"
  quietly "$MEZZ_HOME/log/spark-$1.log" "$dir/bin/pip" install --disable-pip-version-check "pyspark==$1"
  touch "$dir/.complete"
  # `mezz spark` looks for `.mezz/spark` above itself.
  if [ "$1" = "$SPARK_4" ]; then ln -sfn "spark-$1" "$MEZZ_HOME/spark"; fi
}

spark_home() { # version
  "$MEZZ_HOME/spark-$1/bin/python" -c 'import os, pyspark; print(os.path.dirname(pyspark.__file__))'
}

# What MLlib's Python side needs.
ensure_numpy() { # version of Spark
  local python="$MEZZ_HOME/spark-$1/bin/python"
  "$python" -c 'import numpy' 2>/dev/null && return
  quietly "$MEZZ_HOME/log/spark-$1.log" "$python" -m pip install --disable-pip-version-check numpy==2.2.6
}

JDBC_JAR=/usr/share/java/postgresql.jar

# A database for Spark to read, and its driver: the tests start one of their own.
ensure_postgres() {
  [ -n "$(postgres_programs)" ] && [ -e $JDBC_JAR ] && return
  # The package would make a database and start it, which nobody wants; what the machine does
  # with the next one is its owner's affair.
  local folder=/etc/postgresql-common/createcluster.d
  as_root mkdir -p $folder
  echo 'create_main_cluster = false' | as_root tee $folder/mezz.conf >/dev/null
  (
    # A subshell begins without the traps of its shell.
    trap 'end_quiet; exit 130' INT
    trap 'end_quiet; exit 143' TERM
    trap 'as_root rm -f '$folder'/mezz.conf' EXIT
    apt_install postgresql libpostgresql-jdbc-java
  )
}

# etcd, and openssl for its certificates; the tests start what they need.
ensure_etcd() {
  command -v openssl >/dev/null || apt_install openssl
  command -v etcd >/dev/null && return
  # The package would start a service, which nobody wants: masked, it stays down.
  if command -v systemctl >/dev/null; then as_root systemctl mask etcd.service 2>/dev/null || true; fi
  RUNLEVEL=1 apt_install etcd-server
}

# What the tests that cut networks need: namespaces, links and a bridge, and nothing of the
# kernel's packet filters.
ensure_network() {
  command -v nsenter >/dev/null && command -v unshare >/dev/null || apt_install util-linux
  command -v ip >/dev/null || apt_install iproute2
}

# The newest PostgreSQL's folder of programs.
postgres_programs() {
  find /usr/lib/postgresql -path '*/bin/postgres' 2>/dev/null | sort -V | tail -n 1 | xargs -r dirname
}

# The JVM part of the Spark framework; rebuilt when one of its sources is newer.
ensure_bridge() { # jar
  if [ -e "$1" ] && [ -z "$(find spark-framework/bridge -newer "$1" -type f -print -quit)" ]; then return; fi
  note "compiling the Spark bridge"
  mkdir -p "$(dirname "$1")"
  quietly "$MEZZ_HOME/log/bridge.log" spark-framework/bridge/build.sh "$(spark_home $SPARK_4)" "$1"
}

# Spark's classes as its JVMs map them; made again when what it depends on is newer.
ensure_archive() { # mezz, jar, version of Spark
  local home archive
  home=$(spark_home "$3")
  archive="$home/mezz-classes.jsa"
  if [ "$archive" -nt "$2" ] && [ "$archive" -nt "$home/jars" ] && [ "$archive" -nt "$(readlink -f "$(command -v java)")" ] \
    && [ "$(cat "$MEZZ_HOME/archive-$3" 2>/dev/null)" = "$2" ]; then return; fi
  note "archiving the classes of Spark $3"
  quietly "$MEZZ_HOME/log/archive-$3.log" env SPARK_HOME="$home" PYSPARK_PYTHON="$MEZZ_HOME/spark-$3/bin/python" \
    "$1" spark archive --bridge-jar "$2"
  printf '%s\n' "$2" >"$MEZZ_HOME/archive-$3"
}

# What scripts/vm.sh needs: the emulator, and apt's lists for the kernel.
ensure_vm() {
  command -v qemu-system-x86_64 >/dev/null && command -v cpio >/dev/null && command -v strip >/dev/null \
    && [ -n "$(apt-cache search --names-only '^linux-image-cloud-amd64$')" ] && return
  apt_install qemu-system-x86 cpio binutils iproute2 procps
}

# The test programs of the agent that deal with the kernel, run where cgroup v2 is. Docker, Python
# and archivers are not there; `users` reads its process's log, which here is that of all its tests.
tests_in_vm() {
  local program programs
  # The whole workspace, as it was built before: one package alone has other features, and is
  # compiled again.
  programs=$(cargo nextest list --workspace --locked --list-type binaries-only --message-format json |
    python3 -c 'import json, sys
for id, it in json.load(sys.stdin)["rust-binaries"].items():
    if it["kind"] == "test" and it["package-id"].split("#")[0].endswith("/agent") and it["binary-name"] not in ("docker", "executor_http", "fetcher", "hung_engine", "users"): print(it["binary-path"])')
  for program in $programs; do
    note "$(basename "$program")"
    MEZZ_VM_FILES="$PWD/target/debug/mezz-launcher $PWD/target/debug/mezz-launcher-v1" quietly "$MEZZ_HOME/log/vm-$(basename "$program").log" \
      scripts/vm.sh "$MEZZ_HOME/vm" "$program" --test-threads 4
  done
}
