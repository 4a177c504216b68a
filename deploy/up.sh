#!/usr/bin/env bash
# Makes the images of docker-compose.yml, starts the cluster, and waits until it works.
#
#   deploy/up.sh               all of it; compiles on this machine (Rust is needed)
#   deploy/up.sh --in-docker   compiles in a container of Docker Hub's image `rust`
#   deploy/up.sh --images      makes the images and starts nothing
#
# What it can be told by the environment:
#   MEZZ_BASE_IMAGE        Debian or Ubuntu, not older than what compiles [this machine's release]
#   MEZZ_DEPLOY_MEZZ, MEZZ_DEPLOY_BRIDGE, MEZZ_DEPLOY_SPARK_HOME
#                          mezz, mezz-spark-bridge.jar and a pip-installed pyspark that are there
#                          already (all three); nothing is compiled then
#   MEZZ_AGENT_RESOURCES   what each agent offers
#   MEZZ_PORT_1, _2, _3, MEZZ_DISPATCHER_PORT
#                          ports on 127.0.0.1 [15051, 15052, 15053, 17077]
#   MEZZ_COMPOSE_DIR       folder of the agent with the engine [/var/lib/mezz-compose]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/docker.sh
. deploy/lib.sh

in_docker=false start=true
for argument; do
  case "$argument" in
    --in-docker) in_docker=true ;;
    --images) start=false ;;
    *) die "unknown argument \`$argument\`; there are --in-docker and --images" ;;
  esac
done

# An image of the machine's own release, since what is compiled here runs there.
base_image() {
  local id
  if [ -n "${MEZZ_BASE_IMAGE:-}" ]; then BASE=$MEZZ_BASE_IMAGE; return; fi
  id=$(. /etc/os-release && echo "${ID:-}")
  if $in_docker; then id=debian BASE=debian:12-slim; else
    case "$id" in
      debian) BASE=debian:$(. /etc/os-release && echo "$VERSION_CODENAME")-slim ;;
      ubuntu) BASE=ubuntu:$(. /etc/os-release && echo "$VERSION_ID") ;;
      *) die "this is neither Debian nor Ubuntu: use --in-docker, or name an image in MEZZ_BASE_IMAGE" ;;
    esac
  fi
  if docker image inspect "$BASE" >/dev/null 2>&1; then return; fi
  # What the tests have made serves as well.
  if ! $in_docker && docker image inspect "$MEZZ_DEBIAN_IMAGE" >/dev/null 2>&1; then
    BASE=$MEZZ_DEBIAN_IMAGE
    return
  fi
  note "pulling $BASE"
  if timeout 120 docker pull -q "$BASE" >/dev/null 2>&1; then return; fi
  if $in_docker || [ "$id" != debian ]; then
    die "$BASE cannot be pulled; name an image that can be had in MEZZ_BASE_IMAGE"
  fi
  note "$BASE cannot be pulled"
  [ "$(id -u)" = 0 ] || die "making an image by debootstrap needs root; or name an image in MEZZ_BASE_IMAGE"
  ensure_debian_image
  BASE=$MEZZ_DEBIAN_IMAGE
}

# mezz, the plugin, and Spark (none: the image's build fetches it).
compile() {
  if [ -n "${MEZZ_DEPLOY_MEZZ:-}" ]; then
    MEZZ=$MEZZ_DEPLOY_MEZZ
    JAR=${MEZZ_DEPLOY_BRIDGE:?goes with MEZZ_DEPLOY_MEZZ}
    SPARK_HOME_HERE=${MEZZ_DEPLOY_SPARK_HOME:?goes with MEZZ_DEPLOY_MEZZ}
  elif $in_docker; then
    step "compiling in a container (some minutes)"
    quietly "$MEZZ_HOME/log/compile.log" docker build -f deploy/build.Dockerfile \
      --build-arg "SPARK_VERSION=$SPARK_4" -t mezz-build:compose .
    local id
    mkdir -p "$DEPLOY_HOME/built"
    id=$(docker create mezz-build:compose /nothing)
    docker cp "$id:/mezz" "$DEPLOY_HOME/built/mezz"
    docker cp "$id:/mezz-spark-bridge.jar" "$DEPLOY_HOME/built/mezz-spark-bridge.jar"
    docker rm "$id" >/dev/null
    MEZZ=$DEPLOY_HOME/built/mezz JAR=$DEPLOY_HOME/built/mezz-spark-bridge.jar SPARK_HOME_HERE=
  else
    ensure_rust
    ensure_java
    ensure_python
    ensure_spark $SPARK_4
    step "building Mezz (some minutes, the first time)"
    quietly "$MEZZ_HOME/log/build.log" cargo build --release --locked -p mezz
    MEZZ=${CARGO_TARGET_DIR:-$PWD/target}/release/mezz JAR=${CARGO_TARGET_DIR:-$PWD/target}/release/mezz-spark-bridge.jar
    ensure_bridge "$JAR"
    SPARK_HOME_HERE=$(spark_home $SPARK_4)
  fi
  command -v strip >/dev/null || apt_install binutils
}

images() {
  local context=$DEPLOY_HOME/context target
  MEZZ_TEST_SPARK_IMAGE=mezz-spark:compose MEZZ_DEBIAN_IMAGE=$BASE \
    ensure_spark_image "$MEZZ" "$JAR" "$SPARK_HOME_HERE"
  rm -rf "$context"
  mkdir -p "$context/examples"
  cp deploy/healthy deploy/agent-entrypoint "$context"
  cp spark-framework/examples/*.py deploy/tour.py "$context/examples"
  strip --strip-debug -o "$context/mezz" "$MEZZ"
  chmod 755 "$context"/{mezz,healthy,agent-entrypoint}
  for target in etcd master node; do
    note "making the image mezz-$target:compose"
    quietly "$MEZZ_HOME/log/image-$target.log" docker build -f deploy/Dockerfile --target "$target" \
      --build-arg "BASE=$BASE" --build-arg SPARK=mezz-spark:compose -t "mezz-$target:compose" "$context"
  done
  rm -rf "$context"
}

step "what this needs"
ensure_docker
if [ -n "$MEZZ_DOCKER_PID" ]; then
  mkdir -p "$DEPLOY_HOME"
  echo "$MEZZ_DOCKER_PID" >"$ENGINE_PID"
fi
ensure_compose
base_image
compile
step "making the images, from $BASE"
images
if ! $start; then
  step "done"
  exit
fi

step "starting the cluster"
as_root mkdir -p "$MEZZ_COMPOSE_DIR/agent-3"
compose up -d --remove-orphans

leads() { [ -n "$(leader)" ]; }
agents_are_there() { [ "$(count_of agents active)" = "${#AGENTS[@]}" ]; }
dispatcher_is_there() { [ "$(count_of frameworks active)" -ge 1 ]; }

step "waiting until it works"
within 120 "all services are healthy" healthy "${SERVICES[@]}"
within 60 "a master leads" leads
within 60 "${#AGENTS[@]} agents are active" agents_are_there
within 60 "the dispatcher is subscribed" dispatcher_is_there
in_client mezz agents

port() { compose port "$1" "$2"; }
step "the cluster works; $(leader) leads"
cat <<EOF

  masters      http://$(port master-1 5050)/health, http://$(port master-2 5050)/health, http://$(port master-3 5050)/health
               and /metrics; as the containers know them: $(in_client printenv MEZZ_MASTER)
  dispatcher   spark://$(port dispatcher 7077)

To try (in $CLIENT, where executors reach the driver):

  docker exec -it $CLIENT mezz agents
  docker exec -it $CLIENT mezz run --instances 3 -- sh -c 'echo hello from \$(hostname)'
  docker exec -it $CLIENT mezz spark submit --conf spark.cores.max=3 --conf spark.executor.memory=512m examples/pi.py
  docker exec -it $CLIENT mezz spark submit --mode fine --conf spark.executor.memory=512m examples/pi.py
  docker exec -it $CLIENT mezz spark submit --conf spark.cores.max=2 --conf spark.executor.memory=512m \\
    --conf spark.mezz.executor.docker.image=mezz-node:compose --conf spark.mezz.executor.docker.network=mezz \\
    --conf spark.mezz.constraints=engine:docker examples/pi.py
  docker exec -it $CLIENT mezz spark submit --deploy-mode cluster --wait examples/pi.py

deploy/tour.sh does all that while masters are killed; deploy/down.sh removes the cluster.
EOF
