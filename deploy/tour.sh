#!/usr/bin/env bash
# A tour of the cluster that deploy/up.sh has started: twice some Spark jobs run at once, the
# leading master is killed, and the jobs go on under the next one. They are coarse-grained and
# fine-grained, each in cgroups and in Docker containers, and one has its driver on the cluster.
#
# Fails unless every answer is right and nothing is left.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/docker.sh
. deploy/lib.sh

docker_answers || die "no Docker engine answers; deploy/up.sh starts the cluster and what it needs"
in_client true 2>/dev/null || die "the cluster is not up; run deploy/up.sh first"
ensure_compose
mkdir -p "$DEPLOY_HOME"

# For JVMs that run little code, compiling it well costs more than it gives.
quick=-XX:TieredStopAtLevel=1
small=(--conf spark.executor.memory=512m --conf spark.executor.cores=1 --conf spark.ui.enabled=false
  --conf spark.executor.defaultJavaOptions=$quick)
# Long, for machines that have other things to do.
patience=300
cgroup=(--conf spark.mezz.constraints=engine:none)
docker=(--conf spark.mezz.constraints=engine:docker
  --conf "spark.mezz.executor.docker.image=$NODE_IMAGE"
  --conf "spark.mezz.executor.docker.network=$MEZZ_COMPOSE_PROJECT")

# By name: the process here of each job with its driver in the client.
declare -A jobs=()
# The driver on the cluster.
driver=

abandon() {
  local name
  # Their processes are the container's: those here are only where their output goes.
  for name in "${!jobs[@]}"; do in_client touch "/tmp/tour/$name/go" 2>/dev/null || true; done
  if [ -n "$driver" ]; then in_client mezz spark kill "$driver" >/dev/null 2>&1 || true; fi
}
trap abandon EXIT

log_of() { echo "$DEPLOY_HOME/tour-$1.log"; }

failed() { # job, what happened
  tail -n 40 "$(log_of "$1")" >&2
  die "$1: $2; above is the end of its log, $(log_of "$1")"
}

submit() { # name, arguments of mezz spark submit...
  local name=$1 folder=/tmp/tour/$1
  shift
  note "$name: mezz spark submit $* …"
  in_client sh -c "rm -rf $folder && mkdir -p $folder"
  timeout 900 docker exec -e SPARK_SUBMIT_OPTS=$quick "$CLIENT" mezz spark submit "${small[@]}" "$@" --py-files examples/pi.py \
    examples/tour.py "$name" "$folder" >"$(log_of "$name")" 2>&1 </dev/null &
  jobs[$name]=$!
}

submit_driver() { # arguments of mezz spark submit...
  note "cluster: mezz spark submit --deploy-mode cluster $* …"
  driver=$(in_client mezz spark submit --deploy-mode cluster "${small[@]}" "$@" --py-files examples/pi.py \
    examples/tour.py cluster .)
}

# A file that the job makes. The driver on the cluster makes it in its sandbox.
under_way() { # name
  if [ "$1" = cluster ]; then
    case "$(driver_state)" in
      FINISHED | FAILED | KILLED | ERROR) driver_failed "has ended at once" ;;
    esac
    in_client mezz exec "$driver" -- test -e running 2>/dev/null
  else
    kill -0 "${jobs[$1]}" 2>/dev/null || failed "$1" "it has ended at once"
    in_client test -e "/tmp/tour/$1/running"
  fi
}

driver_state() {
  in_client mezz spark status "$driver" --output json | sed -nE 's/^ *"state": "([A-Z]+)",?$/\1/p'
}

driver_failed() { # what happened
  in_client mezz spark status "$driver" >&2 || true
  in_client mezz spark logs --stderr "$driver" 2>&1 | tail -n 40 >&2 || true
  die "the driver $driver $1"
}

subscribed() { in_client mezz frameworks 2>/dev/null | grep -Eq " tour-$1 +active "; }
another_leads() { local now; now=$(leader); [ -n "$now" ] && [ "$now" != "$1" ]; }
driver_ended() { case "$(driver_state)" in FINISHED | FAILED | KILLED | ERROR) ;; *) false ;; esac }

# While these jobs run the leader is killed.
round() { # names...
  local name killed killed_at next
  for name; do within $patience "$name has computed pi once" under_way "$name"; done
  in_client mezz tasks
  killed=$(leader)
  [ -n "$killed" ] || die "no master leads"
  step "all of them run; $killed leads, and is killed"
  killed_at=$(date +%s)
  docker kill "$(container_of "$killed")" >/dev/null
  within 60 "another master leads after $killed" another_leads "$killed"
  next=$(leader)
  step "$next leads, $(($(date +%s) - killed_at)) s later"
  for name; do within 60 "$name is subscribed at $next" subscribed "$name"; done
  in_client mezz frameworks
  for name; do
    if [ "$name" = cluster ]; then
      in_client mezz exec "$driver" -- touch go
    else
      in_client touch "/tmp/tour/$name/go"
    fi
  done
  for name; do answer "$name"; done
  docker start "$(container_of "$killed")" >/dev/null
  within 60 "$killed is back as a standby" healthy "$killed"
}

answer() { # name
  local said
  if [ "$1" = cluster ]; then
    within $patience "the driver $driver ends" driver_ended
    [ "$(driver_state)" = FINISHED ] || driver_failed "has failed"
    said=$(in_client mezz spark logs "$driver" | grep '^pi is roughly 3\.1[34]') ||
      driver_failed "gave no answer"
    driver=
  else
    wait "${jobs[$1]}" || failed "$1" "it has failed"
    said=$(grep '^pi is roughly 3\.1[34]' "$(log_of "$1")") || failed "$1" "it gave no answer"
    unset "jobs[$1]"
  fi
  note "$1: $said"
}

step "coarse-grained in cgroups, and fine-grained in Docker containers"
submit coarse --conf spark.cores.max=2 "${cgroup[@]}"
submit fine-docker --mode fine "${docker[@]}"
round coarse fine-docker

step "fine-grained in cgroups, coarse-grained in Docker containers, and a driver on the cluster"
submit_driver --conf spark.cores.max=1 --conf spark.driver.memory=512m \
  --conf "spark.driver.defaultJavaOptions=$quick" "${cgroup[@]}"
submit fine --mode fine "${cgroup[@]}"
submit coarse-docker --conf spark.cores.max=2 "${docker[@]}"
round fine coarse-docker cluster

nothing_is_left() {
  local tasks
  # A list, or what is no answer.
  tasks=$(in_client mezz tasks --output json) && [ "$(tr -d '[:space:]' <<<"$tasks")" = '[]' ] && [ -z "$(siblings)" ]
}
within 60 "no task and no container is left" nothing_is_left
step "the tour is over: every answer was right, and nothing of the jobs is left"
