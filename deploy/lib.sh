# Shared by up.sh, down.sh and tour.sh. Sourced after scripts/lib.sh and scripts/docker.sh, with the
# repository as the current folder.

# Names containers, network, volumes and images; docker-compose.yml has the same defaults.
export MEZZ_COMPOSE_PROJECT=${MEZZ_COMPOSE_PROJECT:-mezz}
# Of the agent with the engine.
export MEZZ_COMPOSE_DIR=${MEZZ_COMPOSE_DIR:-/var/lib/mezz-compose}
CLIENT=$MEZZ_COMPOSE_PROJECT-client
NODE_IMAGE=$MEZZ_COMPOSE_PROJECT-node:compose
# What up.sh has to remember for down.sh, and logs.
DEPLOY_HOME=$MEZZ_HOME/deploy
ENGINE_PID=$DEPLOY_HOME/dockerd.pid
MASTERS=(master-1 master-2 master-3)
AGENTS=(agent-1 agent-2 agent-3)
SERVICES=(etcd-1 etcd-2 etcd-3 "${MASTERS[@]}" "${AGENTS[@]}" dispatcher-1)

compose() { "${COMPOSE[@]}" -p "$MEZZ_COMPOSE_PROJECT" -f deploy/docker-compose.yml "$@"; }

in_client() { docker exec "$CLIENT" "$@"; }

# The container of a service, running or not.
container_of() { # service
  docker ps -aq --filter "label=com.docker.compose.project=$MEZZ_COMPOSE_PROJECT" \
    --filter "label=com.docker.compose.service=$1"
}

# `SERVICE STATUS` of each container, as `docker ps` says it.
statuses() {
  docker ps -a --filter "label=com.docker.compose.project=$MEZZ_COMPOSE_PROJECT" \
    --format '{{.Label "com.docker.compose.service"}} {{.Status}}'
}

# Whether all of these services are healthy.
healthy() { # service...
  local states name
  states=$(statuses)
  for name; do grep -q "^$name .*(healthy)" <<<"$states" || return 1; done
}

# The service that leads; nothing when none does.
leader() {
  in_client sh -c 'for name; do if [ "$(healthy "$name:5050" 2>/dev/null)" = ok ]; then echo "$name"; fi; done' \
    sh "${MASTERS[@]}" | head -n 1
}

# Tries a command until it succeeds; with what the services say, when it does not.
within() { # seconds, what is waited for, command...
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    if [ $SECONDS -ge $end ]; then
      compose logs --tail=20 >&2 || true
      statuses | sort >&2
      die "$what: not in time; above are the ends of the services' logs, and how they are"
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
  docker ps -a --filter label=dev.mezz.agent --format '{{.ID}} {{.Label "dev.mezz.sandbox"}}' |
    awk -v folder="$MEZZ_COMPOSE_DIR/" 'index($2, folder) == 1 { print $1 }'
}
