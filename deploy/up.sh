#!/usr/bin/env bash
# Makes the images of docker-compose.yml, starts the cluster, and waits until it works.
#
#   deploy/up.sh               all of it; compiles on this machine (Rust is needed)
#   deploy/up.sh --in-docker   compiles in a container of Docker Hub's image `rust`
#   deploy/up.sh --images      makes the images and starts nothing
#
# What it can be told by the environment:
#   MEZZ_BASE_IMAGE        Debian or Ubuntu, not older than what compiles [this machine's release]
#   MEZZ_DEPLOY_MEZZ, MEZZ_DEPLOY_SPARK_IMAGE
#                          a `mezz` that is there already, and an image that deploy/spark.Dockerfile
#                          has made with it; nothing is compiled then
#   MEZZ_AGENT_RESOURCES   what each agent offers
#   MEZZ_PORT_1, _2, _3, MEZZ_DISPATCHER_PORT
#                          ports on 127.0.0.1 [15051, 15052, 15053, 17077]
#   MEZZ_COMPOSE_DIR       folder of the agent with the engine [/var/lib/mezz-compose]
#   MEZZ_COMPOSE_PROJECT   begins the names of containers, volumes and images [mezz]; a second
#                          cluster beside this one needs another, and other ports and folder;
#                          down.sh and tour.sh have to be told this and the folder too
#   MEZZ_COMPOSE_LEASE     how long after a leader's sudden death the next one leads [10s]
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

# It is used or refused: no other is made under its name.
given_image() {
  local said
  if docker image inspect "$BASE" >/dev/null 2>&1; then return; fi
  note "pulling $BASE"
  said=$(timeout 600 docker pull -q "$BASE" 2>&1) ||
    die "MEZZ_BASE_IMAGE: $BASE is not here and cannot be pulled (${said:-no answer in 10 minutes}); check its name, \`docker login\` to its registry, or \`docker load\` it"
}

# An image of the machine's own release, since what is compiled here runs there.
base_image() {
  local id
  if [ -n "${MEZZ_BASE_IMAGE:-}" ]; then
    BASE=$MEZZ_BASE_IMAGE
    given_image
    return
  fi
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

# mezz with libmezzmesos.so beside it, the plugin, and Spark (none: the image's build fetches it).
compile() {
  if $in_docker; then
    local id image=$MEZZ_COMPOSE_PROJECT-build:compose
    step "compiling in a container (some minutes)"
    quietly "$MEZZ_HOME/log/compile.log" docker build -f deploy/build.Dockerfile \
      --build-arg "SPARK_VERSION=$SPARK_4" -t "$image" .
    mkdir -p "$DEPLOY_HOME/built"
    id=$(docker create "$image" /nothing)
    docker cp "$id:/mezz" "$DEPLOY_HOME/built/mezz"
    docker cp "$id:/libmezzmesos.so" "$DEPLOY_HOME/built/libmezzmesos.so"
    docker cp "$id:/mezz-spark-bridge.jar" "$DEPLOY_HOME/built/mezz-spark-bridge.jar"
    docker rm "$id" >/dev/null
    MEZZ=$DEPLOY_HOME/built/mezz JAR=$DEPLOY_HOME/built/mezz-spark-bridge.jar SPARK_HOME_HERE=
  else
    command -v cargo >/dev/null ||
      die "Rust is missing: install it from https://rustup.rs, or run this with --in-docker, which compiles in a container"
    ensure_rust
    ensure_java
    ensure_python
    ensure_spark $SPARK_4
    step "building Mezz (some minutes, the first time)"
    quietly "$MEZZ_HOME/log/build.log" cargo build --release --locked -p mezz -p mezz-mesos-native
    MEZZ=${CARGO_TARGET_DIR:-$PWD/target}/release/mezz JAR=${CARGO_TARGET_DIR:-$PWD/target}/release/mezz-spark-bridge.jar
    ensure_bridge "$JAR"
    SPARK_HOME_HERE=$(spark_home $SPARK_4)
  fi
}

# Sets MEZZ and SPARK_IMAGE.
spark_image() {
  if [ -n "${MEZZ_DEPLOY_MEZZ:-}" ]; then
    MEZZ=$MEZZ_DEPLOY_MEZZ
    SPARK_IMAGE=${MEZZ_DEPLOY_SPARK_IMAGE:?goes with MEZZ_DEPLOY_MEZZ}
    return
  fi
  compile
  SPARK_IMAGE=$MEZZ_COMPOSE_PROJECT-spark:compose
  step "making the images, from $BASE"
  MEZZ_TEST_SPARK_IMAGE=$SPARK_IMAGE MEZZ_DEBIAN_IMAGE=$BASE \
    ensure_spark_image "$MEZZ" "$JAR" "$SPARK_HOME_HERE" yes
}

images() {
  local context=$DEPLOY_HOME/context target
  rm -rf "$context"
  mkdir -p "$context/examples"
  cp deploy/healthy deploy/agent-entrypoint "$context"
  cp spark-framework/examples/*.py deploy/tour.py "$context/examples"
  strip --strip-debug -o "$context/mezz" "$MEZZ"
  chmod 755 "$context"/{mezz,healthy,agent-entrypoint}
  for target in etcd master node; do
    note "making the image $MEZZ_COMPOSE_PROJECT-$target:compose"
    quietly "$MEZZ_HOME/log/image-$target.log" docker build -f deploy/Dockerfile --target "$target" \
      --build-arg "BASE=$BASE" --build-arg "SPARK=$SPARK_IMAGE" \
      -t "$MEZZ_COMPOSE_PROJECT-$target:compose" "$context"
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
command -v strip >/dev/null || apt_install binutils
base_image
spark_image
step "making the images of the cluster"
images
if ! $start; then
  step "done"
  exit
fi

step "starting the cluster"
as_root mkdir -p "$MEZZ_COMPOSE_DIR/agent-3"
quietly "$DEPLOY_HOME/up.log" compose up -d --remove-orphans

leads() { [ -n "$(leader)" ]; }
agents_are_there() { [ "$(count_of agents active)" = "${#AGENTS[@]}" ]; }
dispatcher_is_there() { [ "$(count_of frameworks active)" -ge 1 ]; }

step "waiting until it works"
within 120 "all services are healthy" healthy "${SERVICES[@]}"
within 60 "a master leads" leads
within 60 "${#AGENTS[@]} agents are active" agents_are_there
within 60 "the dispatcher is subscribed" dispatcher_is_there

port() { docker port "$(container_of "$1")" "$2" | head -n 1; }
step "the cluster works; $(leader) leads"
in_client mezz agents
cat <<EOF

  master-1     http://$(port master-1 5050)     /health says who leads, /metrics is for Prometheus
  master-2     http://$(port master-2 5050)
  master-3     http://$(port master-3 5050)
  dispatcher   http://$(port dispatcher-1 7077)     Spark's cluster mode: spark://$(port dispatcher-1 7077)

These ports ask for no password: whoever is on this machine can run tasks as root through them.

To try, in $CLIENT, where executors reach the driver:

  docker exec -it $CLIENT mezz agents
  docker exec -it $CLIENT mezz run --instances 3 -- sh -c 'echo hello from \$(hostname)'

Spark in coarse and in fine-grained mode, in Docker containers, and with its driver on the cluster:

  docker exec -it $CLIENT mezz spark submit --conf spark.cores.max=3 --conf spark.executor.memory=512m examples/pi.py
  docker exec -it $CLIENT mezz spark submit --mode fine --conf spark.executor.memory=512m examples/pi.py
  docker exec -it $CLIENT mezz spark submit --conf spark.cores.max=2 --conf spark.executor.memory=512m \\
    --conf spark.mezz.executor.docker.image=$NODE_IMAGE --conf spark.mezz.executor.docker.network=$MEZZ_COMPOSE_PROJECT \\
    --conf spark.mezz.constraints=engine:docker examples/pi.py
  docker exec -it $CLIENT mezz spark submit --deploy-mode cluster --wait --conf spark.executor.memory=512m examples/pi.py

deploy/tour.sh does all of that while masters are killed; deploy/down.sh removes the cluster.
EOF
