# Compiles mezz, its plugin for Spark and libmezzmesos.so where there is no Rust: `deploy/up.sh --in-docker`. Of
# the image only three files are used. By their label deploy/down.sh finds what builds have left.

# Of Debian 12, like what the programs will run on.
FROM rust:1.95-bookworm AS rust
RUN apt-get update && \
    apt-get install -y --no-install-recommends protobuf-compiler libprotobuf-dev
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p mezz -p mezz-mesos-native
LABEL dev.mezz.compose=yes

FROM debian:12-slim AS java
ARG SPARK_VERSION=4.3.0
RUN apt-get update && \
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      openjdk-17-jdk-headless python3-pip && \
    pip install --no-cache-dir --target /opt/python "pyspark==${SPARK_VERSION}"
COPY spark-framework/bridge /bridge
RUN /bridge/build.sh /opt/python/pyspark /mezz-spark-bridge.jar
LABEL dev.mezz.compose=yes

FROM scratch
LABEL dev.mezz.compose=yes
COPY --from=rust /src/target/release/mezz /mezz
COPY --from=rust /src/target/release/libmezzmesos.so /libmezzmesos.so
COPY --from=java /mezz-spark-bridge.jar /mezz-spark-bridge.jar
