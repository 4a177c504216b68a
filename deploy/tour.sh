#!/usr/bin/env bash
# A tour of the cluster that deploy/up.sh has started: Spark in coarse and in fine-grained mode, in
# cgroup and in Docker containers, each while the leading master is killed; and a driver on the
# cluster. Fails unless every answer is right and nothing is left.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/docker.sh
. deploy/lib.sh

ensure_compose
mkdir -p "$DEPLOY_HOME"
in_client true 2>/dev/null || die "the cluster is not up; run deploy/up.sh first"

small=(--conf spark.executor.memory=512m --conf spark.executor.cores=1 --conf spark.ui.enabled=false)
docker=(--conf spark.mezz.executor.docker.image=mezz-node:compose
  --conf spark.mezz.executor.docker.network=mezz --conf spark.mezz.constraints=engine:docker)

job=0 log=
stop_job() { if [ "$job" != 0 ]; then kill "$job" 2>/dev/null || true; fi; }
trap stop_job EXIT

# A file that the job makes; not, when the job has ended before.
under_way() { # folder
  if ! kill -0 "$job" 2>/dev/null; then
    tail -n 40 "$log" >&2
    die "the job ended at once; its log is $log"
  fi
  in_client test -e "$1/running"
}

subscribed() { in_client mezz frameworks 2>/dev/null | grep -Eq " $1 +active "; }
another_leads() { local now; now=$(leader); [ -n "$now" ] && [ "$now" != "$1" ]; }

tour() { # name, arguments of mezz spark submit...
  local name=$1 folder=/tmp/tour/$1 killed killed_at
  shift
  step "$name: a job, and the leader is killed"
  log=$DEPLOY_HOME/tour-$name.log
  in_client rm -rf "$folder"
  in_client mkdir -p "$folder"
  timeout 300 docker exec "$CLIENT" mezz spark submit "${small[@]}" "$@" --py-files examples/pi.py \
    examples/tour.py "$folder" \
    >"$log" 2>&1 </dev/null &
  job=$!
  within 120 "$name is under way" under_way "$folder"
  killed=$(leader)
  [ -n "$killed" ] || die "nobody leads"
  killed_at=$(date +%s)
  compose kill -s KILL "$killed" >/dev/null 2>&1
  within 60 "another master leads after $killed" another_leads "$killed"
  within 60 "$name is subscribed to $(leader)" subscribed "tour-$name"
  note "$(leader) leads and knows the job, $(($(date +%s) - killed_at)) s after the end of $killed"
  in_client touch "$folder/go"
  if ! wait "$job"; then
    tail -n 40 "$log" >&2
    die "the job failed; its log is $log"
  fi
  job=0
  grep '^pi is roughly 3\.1[34]' "$log" >&2 || die "no answer; the job's log is $log"
  compose start "$killed" >/dev/null 2>&1
  within 60 "$killed is back" healthy "$killed"
}

tour coarse --conf spark.cores.max=3
tour fine --mode fine
tour coarse-docker --conf spark.cores.max=2 "${docker[@]}"
tour fine-docker --mode fine "${docker[@]}"

step "cluster: a driver on the cluster"
driver=$(timeout 180 docker exec "$CLIENT" mezz spark submit --deploy-mode cluster --wait \
  "${small[@]}" --conf spark.cores.max=1 --conf spark.driver.memory=512m examples/pi.py | head -n 1)
in_client mezz spark logs "$driver" | grep '^pi is roughly 3\.1[34]' >&2 ||
  die "driver $driver gave no answer: docker exec $CLIENT mezz spark logs $driver --stderr"

nothing_is_left() {
  local tasks
  # A list, or what is no answer.
  tasks=$(in_client mezz tasks --output json) && [ "$(tr -d '[:space:]' <<<"$tasks")" = '[]' ] && [ -z "$(siblings)" ]
}
within 60 "no task and no container is left" nothing_is_left
step "the tour is over: every answer was right"
