# A Docker engine and an image for the tests. Sourced after scripts/lib.sh, not run.
#
#   ensure_docker       starts an engine if none answers; MEZZ_DOCKER_PID is set if it did
#   ensure_compose      installs docker-compose if there is none, and sets COMPOSE
#   ensure_test_image   makes MEZZ_TEST_DOCKER_IMAGE from Debian's static busybox, without a registry
#   ensure_registry     installs the registry that the tests of pulling start
#   ensure_debian_image makes MEZZ_DEBIAN_IMAGE, this machine's Debian, without a registry
#   ensure_spark_image  makes MEZZ_TEST_SPARK_IMAGE from deploy/spark.Dockerfile; mezz, with
#                       libmezzmesos.so beside it, and the bridge have to be built
#   stop_docker         ends the engine again, if ensure_docker started it

MEZZ_TEST_DOCKER_IMAGE=mezz-test:latest
MEZZ_DEBIAN_IMAGE=mezz-debian:$(. /etc/os-release && echo "${VERSION_CODENAME:-none}")
MEZZ_TEST_SPARK_IMAGE=mezz-spark:latest
MEZZ_DOCKER_PID=
COMPOSE=()

docker_answers() {
  timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

ensure_docker() {
  if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null; then
    apt_install docker.io
  fi
  if docker_answers; then return; fi
  local said
  # No pipe: by `pipefail` its status would be that of `docker version`, which has failed.
  said=$(timeout 10 docker version 2>&1 || true)
  if grep -qi 'permission denied' <<<"$said"; then
    die "you may not use the Docker engine: \`sudo usermod -aG docker $(id -un)\`, log in anew, and run this again"
  fi
  [ "$(id -u)" = 0 ] || die "no Docker engine answers, and only root can start one"
  mkdir -p "$MEZZ_HOME/log"
  note "starting a Docker engine"
  # A process group of its own, so that Ctrl-C ends the tests first.
  setsid dockerd >"$MEZZ_HOME/log/dockerd.log" 2>&1 </dev/null &
  MEZZ_DOCKER_PID=$!
  local end=$((SECONDS + 60))
  until docker_answers; do
    if ! kill -0 "$MEZZ_DOCKER_PID" 2>/dev/null || [ $SECONDS -ge $end ]; then
      tail -n 20 "$MEZZ_HOME/log/dockerd.log" >&2
      stop_docker
      die "the Docker engine does not start; its log is $MEZZ_HOME/log/dockerd.log"
    fi
    sleep 0.2
  done
}

stop_docker() {
  [ -n "$MEZZ_DOCKER_PID" ] || return 0
  kill "$MEZZ_DOCKER_PID" 2>/dev/null || true
  wait "$MEZZ_DOCKER_PID" 2>/dev/null || true
  MEZZ_DOCKER_PID=
}

# The plugin of Docker, or the program of before.
ensure_compose() {
  if docker compose version >/dev/null 2>&1; then
    COMPOSE=(docker compose)
  else
    command -v docker-compose >/dev/null || apt_install docker-compose
    COMPOSE=(docker-compose)
  fi
}

# The tests of pulling run a registry of their own.
ensure_registry() {
  if command -v docker-registry >/dev/null && command -v htpasswd >/dev/null; then return; fi
  # The package would start a service on port 5000, which nobody wants.
  local policy=/usr/sbin/policy-rc.d made=false
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    made=true
  fi
  apt_install docker-registry apache2-utils
  if $made; then rm -f $policy; fi
}

ensure_test_image() {
  local busybox=/bin/busybox root applet
  dpkg-query -W -f '${Status}' busybox-static 2>/dev/null | grep -q ' installed$' || apt_install busybox-static
  export MEZZ_TEST_DOCKER_IMAGE
  if docker image inspect "$MEZZ_TEST_DOCKER_IMAGE" >/dev/null 2>&1; then return; fi
  root=$(mktemp -d)
  mkdir -p "$root"/bin "$root"/etc "$root"/tmp "$root"/root "$root"/srv
  chmod 1777 "$root/tmp"
  cp $busybox "$root/bin/busybox"
  for applet in $("$busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
  done
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
  # The image says what it runs, as whom it does not, and where.
  tar -C "$root" --owner=0 --group=0 --numeric-owner -c . |
    docker import \
      --change 'ENV PATH=/image/bin:/bin' --change 'ENV FROM_IMAGE=yes' \
      --change 'WORKDIR /srv' --change 'ENTRYPOINT ["/bin/echo", "entrypoint"]' --change 'CMD ["of the image"]' \
      - "$MEZZ_TEST_DOCKER_IMAGE" >/dev/null
  rm -rf "$root"
}

# Of the same release as this machine: what is built here runs there, and Python is the same.
ensure_debian_image() {
  local root suite
  export MEZZ_DEBIAN_IMAGE
  if docker image inspect "$MEZZ_DEBIAN_IMAGE" >/dev/null 2>&1; then return; fi
  command -v debootstrap >/dev/null || apt_install debootstrap
  suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
  note "making an image of Debian $suite"
  mkdir -p "$MEZZ_HOME"
  root=$MEZZ_HOME/debian
  # What an earlier one left that was broken off.
  awk -v root="$root/" 'index($2, root) == 1 {print $2}' /proc/mounts | sort -r | xargs -r umount -l
  rm -rf --one-file-system "$root"
  quietly "$MEZZ_HOME/log/debootstrap.log" debootstrap --variant=minbase "$suite" "$root"
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
  tar -C "$root" --one-file-system --numeric-owner -c . |
    docker import \
      --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' --change 'CMD ["/bin/sh"]' \
      - "$MEZZ_DEBIAN_IMAGE" >/dev/null
  rm -rf "$root"
}

# With the Spark that the tests use anyway, which saves a download; without one the image's build
# fetches it. The engine keeps all steps but those that have changed.
ensure_spark_image() { # mezz, jar, spark's home or nothing, `yes` for the cluster in containers
  local context="$MEZZ_HOME/spark-image" package
  export MEZZ_TEST_SPARK_IMAGE
  ensure_debian_image
  note "making an image of Spark"
  rm -rf "$context"
  mkdir -p "$context/site"
  for package in ${3:+pyspark py4j}; do
    # Links, where the file system has them.
    cp -al "$(dirname "$3")/$package" "$context/site" 2>/dev/null || cp -a "$(dirname "$3")/$package" "$context/site"
  done
  find "$context/site" \( -name __pycache__ -o -name mezz-classes.jsa \) -prune -exec rm -rf {} +
  strip --strip-debug -o "$context/mezz" "$1"
  strip --strip-debug -o "$context/libmezzmesos.so" "$(dirname "$1")/libmezzmesos.so"
  cp "$2" "$context/mezz-spark-bridge.jar"
  quietly "$MEZZ_HOME/log/spark-image.log" docker build --build-arg "BASE=$MEZZ_DEBIAN_IMAGE" \
    --build-arg ARCHIVE=no --build-arg "COMPOSE=${4:-no}" \
    -f deploy/spark.Dockerfile -t "$MEZZ_TEST_SPARK_IMAGE" "$context"
  rm -rf "$context"
}
