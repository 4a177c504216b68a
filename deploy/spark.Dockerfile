# Executors and drivers of Spark on Mezz: a JRE, Python, Spark, mezz, its plugin, and the library
# by which Spark 3.5 speaks with Mezz as with Mesos (docs/mesos-native.md).
#
#   mkdir -p context/site
#   cp mezz mezz-spark-bridge.jar libmezzmesos.so context
#   docker build -f deploy/spark.Dockerfile -t spark:4.3.0 context
#
# It runs as whatever user is asked for, if the image knows that user by its id: Hadoop's
# libraries want a name for it. More Python packages: FROM this image, or another BASE;
# so too where a proxy has certificates of its own.

# Debian or Ubuntu, not older than the system that mezz was built on.
ARG BASE=debian:12-slim

FROM ${BASE} AS spark
ARG SPARK_VERSION=4.3.0
# An installed pyspark (with py4j beside it) goes before the one of PyPI.
COPY site/ /opt/python/
RUN if [ ! -d /opt/python/pyspark ]; then \
      apt-get update && \
      DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-pip && \
      pip install --no-cache-dir --target /opt/python "pyspark==${SPARK_VERSION}" ; \
    fi
# By it deploy/down.sh finds what deploy/up.sh has built. At the end of a stage: before its steps
# it would keep the engine from using them for both.
ARG COMPOSE=no
LABEL dev.mezz.compose=${COMPOSE}

FROM ${BASE}
RUN apt-get update && \
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      default-jre-headless python3 && \
    rm -rf /var/lib/apt/lists/*
COPY --from=spark /opt/python /opt/python
RUN ln -s /opt/python/pyspark /opt/spark
ENV SPARK_HOME=/opt/spark PYTHONPATH=/opt/python
# For Spark 3.5 with `--master mesos://…`; Spark 4 does not look at it.
ENV MESOS_NATIVE_JAVA_LIBRARY=/opt/mezz/libmezzmesos.so
# Last: it changes most often.
COPY mezz mezz-spark-bridge.jar libmezzmesos.so /opt/mezz/
# Executors start faster with Spark's classes at hand (--conf spark.mezz.classDataSharing=true);
# that takes 200 MB.
ARG ARCHIVE=yes
RUN if [ "$ARCHIVE" = yes ]; then /opt/mezz/mezz spark archive; fi
ARG COMPOSE=no
LABEL dev.mezz.compose=${COMPOSE}
