#!/bin/sh
# Builds the Spark plugin: build.sh <spark_home> <out.jar>
# Needs a JDK 17 or newer and nothing else. The jar serves Spark 3.5 and 4.x,
# whichever of them it was compiled against; the same sources give the same bytes.
set -eu

if [ $# -ne 2 ]; then
  echo "usage: $0 <spark_home> <out.jar>" >&2
  exit 64
fi
here=$(cd "$(dirname "$0")" && pwd)
spark_home=$1
out=$2

if ! ls "$spark_home"/jars/spark-core_*.jar >/dev/null 2>&1; then
  echo "$0: $spark_home has no jars/spark-core_*.jar; give the folder that Spark is installed in" >&2
  exit 1
fi
# JAVA_HOME may be a runtime without a compiler.
for dir in "${JAVA_HOME:+$JAVA_HOME/bin/}" ""; do
  javac=${dir}javac
  jar=${dir}jar
  command -v "$javac" >/dev/null 2>&1 && break
done
if ! command -v "$javac" >/dev/null 2>&1; then
  echo "$0: no javac; install a JDK 17 or newer (Debian: openjdk-17-jdk-headless) or set JAVA_HOME" >&2
  exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/classes" "$(dirname "$out")"

# Spark's own classes carry annotations whose classes are not shipped: no lint for class files.
"$javac" --release 17 -encoding UTF-8 -Xlint:all,-classfile,-processing,-path,-serial -Werror -g \
  -cp "$spark_home/jars/*" -d "$work/classes" "$here"/src/dev/mezz/spark/*.java
cp -R "$here/resources/." "$work/classes"

# One date on all entries, in one order.
(cd "$work/classes" && find . -type f | LC_ALL=C sort | sed 's|^\./||' >"$work/files")
(cd "$work/classes" && "$jar" --create --no-manifest --date=2000-01-01T00:00:00Z \
  --file "$work/out.jar" "@$work/files")
mv "$work/out.jar" "$out"
