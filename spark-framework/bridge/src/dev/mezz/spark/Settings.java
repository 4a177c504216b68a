package dev.mezz.spark;

import java.util.OptionalInt;

import org.apache.spark.SparkConf;

/** The settings that this plugin reads: {@code spark.mezz.*} and Spark's own on executors. */
final class Settings {
  private final SparkConf conf;

  Settings(SparkConf conf) {
    this.conf = conf;
    // What is wrong is to be said before anything is started.
    coresMax();
    maxPerAgent();
    placement();
    failoverTimeoutSeconds();
  }

  /** The {@code mezz} program: a path, or a name to look up in PATH. */
  String program() {
    String fromEnvironment = System.getenv("MEZZ_BIN");
    boolean set = fromEnvironment != null && !fromEnvironment.isEmpty();
    return conf.get("spark.mezz.bin", set ? fromEnvironment : "mezz");
  }

  /** Where Spark is installed on the agents; null when nobody says. */
  String sparkHome() {
    return conf.get("spark.mezz.executor.home", conf.get("spark.home", System.getenv("SPARK_HOME")));
  }

  /** Bound on the cores of all executors together. */
  OptionalInt coresMax() {
    return positive("spark.cores.max");
  }

  /** Bound on the executors of one agent. */
  OptionalInt maxPerAgent() {
    return positive("spark.mezz.executor.maxPerAgent");
  }

  /** Attributes that agents must have; null for none. The sidecar reads the text. */
  String constraints() {
    return conf.get("spark.mezz.constraints", null);
  }

  /** The role whose offers are taken; null for the default. */
  String role() {
    return conf.get("spark.mezz.role", null);
  }

  /** {@code spread} or {@code consolidate}. */
  String placement() {
    String placement = conf.get("spark.mezz.placement", "spread");
    if (!placement.equals("spread") && !placement.equals("consolidate")) {
      throw new IllegalArgumentException(
          "spark.mezz.placement is '" + placement + "'; it is spread or consolidate");
    }
    return placement;
  }

  /** Seconds after which the master ends an application that it has lost. */
  long failoverTimeoutSeconds() {
    return conf.getTimeAsSeconds("spark.mezz.failoverTimeout", "60s");
  }

  /** Cores of an executor whose resource profile does not say. */
  int executorCores() {
    return positive("spark.executor.cores").orElse(1);
  }

  private OptionalInt positive(String key) {
    if (!conf.contains(key)) {
      return OptionalInt.empty();
    }
    String text = conf.get(key);
    try {
      int value = Integer.parseInt(text.trim());
      if (value > 0) {
        return OptionalInt.of(value);
      }
    } catch (NumberFormatException e) {
      // Said below.
    }
    throw new IllegalArgumentException(key + " is '" + text + "'; it must be a whole number above 0");
  }
}
