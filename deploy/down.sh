#!/usr/bin/env bash
# Removes what deploy/up.sh has started: the containers, those of agents too, and their network.
#
#   deploy/down.sh             keeps the data: etcd's, the agents', the dispatcher's
#   deploy/down.sh --volumes   the data too
#   deploy/down.sh --all       the images too, and what `up.sh --in-docker` has compiled
#
# What was pulled from a registry stays, as do Debian's image that debootstrap made, what is compiled
# on this machine, and the cache of the engine's builder (`docker builder prune`).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/docker.sh
. deploy/lib.sh

volumes=false images=false
for argument; do
  case "$argument" in
    --volumes) volumes=true ;;
    --all) volumes=true images=true ;;
    *) die "unknown argument \`$argument\`; there are --volumes and --all" ;;
  esac
done
command -v docker >/dev/null && docker_answers || die "no Docker engine answers, so nothing can be removed"
ensure_compose

step "stopping the cluster"
# The agents first, or they would take their containers' removal for a failure and start others;
# then their containers, which hold the network.
quietly "$DEPLOY_HOME/down.log" compose stop -t 10 "${AGENTS[@]}"
left=$(siblings)
if [ -n "$left" ]; then
  # One may go by itself meanwhile.
  docker rm -f -v $left >/dev/null 2>&1 || true
  [ -z "$(siblings)" ] || die "these containers of agent-3 cannot be removed: $(siblings | tr '\n' ' ')"
fi
step "removing it"
arguments=(--remove-orphans -t 10)
if $volumes; then arguments+=(--volumes); fi
quietly "$DEPLOY_HOME/down.log" compose down "${arguments[@]}"
if $volumes; then
  as_root rm -rf --one-file-system "$MEZZ_COMPOSE_DIR/agent-3"
  as_root rmdir --ignore-fail-on-non-empty "$MEZZ_COMPOSE_DIR" 2>/dev/null || true
fi
if $images; then
  for image in etcd master node spark build; do
    docker rmi "$MEZZ_COMPOSE_PROJECT-$image:compose" >/dev/null 2>&1 || true
  done
  # Stages of their builds, and what newer ones have replaced.
  docker image prune -f --filter label=dev.mezz.compose=yes >/dev/null
  rm -rf "$DEPLOY_HOME/built"
fi
if [ -e "$ENGINE_PID" ]; then
  note "stopping the Docker engine that up.sh started"
  pid=$(cat "$ENGINE_PID")
  # The number may be another's after a reboot.
  if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ]; then
    as_root kill "$pid"
    for _ in $(seq 300); do [ -e "/proc/$pid" ] || break; sleep 0.1; done
  fi
  rm -f "$ENGINE_PID"
fi
if $volumes; then
  step "done: the cluster and its data are gone"
else
  step "done: the data are kept, for the next deploy/up.sh; deploy/down.sh --volumes removes them"
fi
