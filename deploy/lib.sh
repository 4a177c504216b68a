# Shared by up.sh, down.sh and tour.sh. Sourced after scripts/lib.sh and scripts/docker.sh, with the
# repository as the current folder.

PROJECT=mezz
CLIENT=mezz-client
# Of the agent with the engine; docker-compose.yml has the same default.
export MEZZ_COMPOSE_DIR=${MEZZ_COMPOSE_DIR:-/var/lib/mezz-compose}
# What up.sh has to remember for down.sh.
DEPLOY_HOME=$MEZZ_HOME/deploy
ENGINE_PID=$DEPLOY_HOME/dockerd.pid
MASTERS=(master-1 master-2 master-3)
AGENTS=(agent-1 agent-2 agent-3)
SERVICES=(etcd-1 etcd-2 etcd-3 "${MASTERS[@]}" "${AGENTS[@]}" dispatcher)

COMPOSE=()

# Finds the plugin of Docker, or the program of before, or installs that.
ensure_compose() {
  if docker compose version >/dev/null 2>&1; then
    COMPOSE=(docker compose)
  else
    command -v docker-compose >/dev/null || apt_install docker-compose
    COMPOSE=(docker-compose)
  fi
}

compose() { "${COMPOSE[@]}" -p $PROJECT -f deploy/docker-compose.yml "$@"; }

in_client() { docker exec "$CLIENT" "$@"; }

# Whether all of these services are healthy.
healthy() { # service...
  local states name
  states=$(docker ps -a --filter "label=com.docker.compose.project=$PROJECT" \
    --format '{{.Label "com.docker.compose.service"}} {{.Status}}')
  for name; do grep -q "^$name .*(healthy)" <<<"$states" || return 1; done
}

# The service that leads; nothing when none does.
leader() {
  local name
  for name in "${MASTERS[@]}"; do
    if [ "$(in_client healthy "$name:5050" 2>/dev/null)" = ok ]; then echo "$name"; return; fi
  done
}

# Tries a command until it succeeds; with the logs of the services, when it does not.
within() { # seconds, what is waited for, command...
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    if [ $SECONDS -ge $end ]; then
      compose ps >&2 || true
      compose logs --tail=30 >&2 || true
      die "$what: not in time"
    fi
    sleep 0.5
  done
}

# How many of a list have this status.
count_of() { # list, status
  in_client mezz "$1" --output json 2>/dev/null | grep -c "\"status\": *\"$2\"" || true
}

# Containers that the agent with the engine has there. They are nobody's but that agent's, so
# compose does not know them.
siblings() {
  docker ps -aq --filter label=dev.mezz.agent --format '{{.ID}} {{.Label "dev.mezz.sandbox"}}' |
    awk -v folder="$MEZZ_COMPOSE_DIR/" 'index($2, folder) == 1 { print $1 }'
}
