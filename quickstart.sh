#!/usr/bin/env bash
# From nothing to a real Spark job on a Mezz cluster: installs what is missing, builds, starts one
# master and two agents on loopback, counts the words of this machine's own documentation, shows the
# answer and where to look, and stops everything again.
#
#   ./quickstart.sh            all of it
#   ./quickstart.sh --keep     leaves the cluster running until Ctrl-C
set -euo pipefail
cd "$(dirname "$0")"
. scripts/lib.sh

keep=false
case "${1:-}" in
  '') ;;
  --keep) keep=true ;;
  *) die "unknown argument \`$1\`; there is only --keep" ;;
esac

demo="$MEZZ_HOME/quickstart"
mezz="$PWD/target/release/mezz"
jar="$PWD/target/release/mezz-spark-bridge.jar"
text="$demo/text.txt"

step "what this needs"
ensure_rust
ensure_java
ensure_python
ensure_spark $SPARK_4
SPARK_HOME=$(spark_home $SPARK_4)
export SPARK_HOME PYSPARK_PYTHON="$MEZZ_HOME/spark-$SPARK_4/bin/python"

step "building Mezz (some minutes, the first time)"
quietly "$MEZZ_HOME/log/build.log" cargo build --release --locked -p mezz
ensure_bridge "$jar"

step "starting a master and two agents"
rm -rf "$demo/master" "$demo/agent1" "$demo/agent2"
mkdir -p "$demo"
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=5050
if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
  port=$(free_port)
  note "port 5050 is in use, so the master takes $port"
fi
export MEZZ_MASTER="127.0.0.1:$port"

pids=()
stop() {
  trap - EXIT INT TERM
  step "stopping"
  # The agents first, so that they can say goodbye.
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do kill "${pids[i]}" 2>/dev/null || true; done
  for pid in ${pids[@]+"${pids[@]}"}; do wait "$pid" 2>/dev/null || true; done
}
trap stop EXIT
trap 'end_quiet; exit 130' INT TERM

"$mezz" master --listen "$MEZZ_MASTER" --work-dir "$demo/master" >"$demo/master.log" 2>&1 &
pids+=($!)
containment=()
if [ "$(id -u)" != 0 ]; then
  note "not root: the agents cannot make cgroups, so tasks run without limits"
  containment=(--containment none)
fi
for n in 1 2; do
  "$mezz" agent --master "$MEZZ_MASTER" --listen 127.0.0.1:"$(free_port)" --hostname 127.0.0.1 \
    --resources "cpus:1;mem:2048;disk:10240;ports:[31000-31999]" --cgroup-root "mezz-quickstart-$n" \
    --work-dir "$demo/agent$n" ${containment[@]+"${containment[@]}"} >"$demo/agent$n.log" 2>&1 &
  pids+=($!)
done
for _ in $(seq 100); do
  active=$("$mezz" agents --output json 2>/dev/null | grep -c '"status": *"active"' || true)
  if [ "$active" = 2 ]; then break; fi
  sleep 0.1
done
[ "$active" = 2 ] || { tail -n 20 "$demo"/*.log >&2; die "the agents did not register; their logs are in $demo"; }
"$mezz" agents

step "a text: the licences and documents of this machine"
if [ ! -s "$text" ] || [ "$(stat -c %s "$text")" -lt 10485760 ]; then
  {
    find /usr/share/common-licenses /usr/share/doc -type f \
      \( -name copyright -o -name '*.txt' -o -iname 'README*' -o -path '*common-licenses*' \) \
      -size -4M -exec cat {} + 2>/dev/null || true
    find "${CARGO_HOME:-$HOME/.cargo}/registry/src" "$SPARK_HOME" -type f \
      \( -iname '*.md' -o -iname 'LICENSE*' \) -size -4M -exec cat {} + 2>/dev/null || true
  } | iconv -f utf-8 -t utf-8 -c >"$text"
fi
note "$(du -h "$text" | cut -f1) in $text"

step "counting its words with Spark $SPARK_4, through \`mezz spark submit\`"
before=$(date +%s.%N)
"$mezz" spark submit --conf spark.cores.max=2 --conf spark.executor.cores=1 --conf spark.executor.memory=1g \
  --conf spark.ui.enabled=false --conf spark.driver.host=127.0.0.1 \
  spark-framework/examples/wordcount.py "$text" 2>"$demo/driver.log" \
  || { tail -n 40 "$demo/driver.log" >&2; die "the job failed; the driver's log is $demo/driver.log"; }
after=$(date +%s.%N)

step "what happened"
python3 scripts/quickstart_summary.py "$mezz" "$before" "$after"
cat <<EOF

To look around, keep the cluster running with \`./quickstart.sh --keep\`, and in another shell:

  export MEZZ_MASTER=$MEZZ_MASTER
  $mezz agents
  $mezz frameworks --completed
  $mezz tasks --completed
  $mezz run --name hello --resources "cpus:0.5;mem:64" -- sh -c 'echo hi from \$MESOS_TASK_ID'
  $mezz spark pyspark
  $mezz spark archive      # once: drivers and executors start faster from then on
  curl http://$MEZZ_MASTER/metrics

Logs of this run: $demo/{master,agent1,agent2,driver}.log
EOF
if $keep; then
  step "the cluster runs; Ctrl-C stops it"
  wait "${pids[0]}"
fi
