package dev.mezz.spark;

import java.util.ArrayList;
import java.util.List;

import com.fasterxml.jackson.databind.node.ObjectNode;
import org.apache.spark.SparkConf;
import scala.Tuple2;

/**
 * Spark's external shuffle service, which serves what executors wrote after they are gone. The
 * sidecar starts one beside the first executor of each agent, as a task of the application's own: it
 * runs as the executors' user, knows their secret, and ends with the application.
 */
final class ShuffleService {
  private static final String MAIN = "org.apache.spark.deploy.ExternalShuffleService";

  private static final String ENABLED = "spark.shuffle.service.enabled";
  private static final String PORT = "spark.shuffle.service.port";
  private static final String OWN = "spark.mezz.shuffle.service.enabled";
  private static final String CORES = "spark.mezz.shuffle.service.cores";
  private static final String MEMORY = "spark.mezz.shuffle.service.memory";
  private static final String FETCH_CACHED = "spark.shuffle.service.fetch.rdd.enabled";
  private static final String URI = "spark.executor.uri";
  private static final String IMAGE = "spark.mezz.executor.docker.image";

  /** Executors ask for their service so often, once in five seconds: it starts beside them. */
  private static final String ATTEMPTS = "spark.shuffle.registration.maxAttempts";

  private static final String MANY_ATTEMPTS = "12";

  private static final String READ_OTHERS = "spark.shuffle.readHostLocalDisk";

  /** Less than this the JVM does not start in. */
  private static final long LEAST_MEMORY = 192;

  private final SparkConf conf;

  ShuffleService(SparkConf conf) {
    this.conf = conf;
  }

  /**
   * Whether the application brings its services. Otherwise there are none, or agents have some of
   * their own at {@code spark.shuffle.service.port}.
   */
  boolean own() {
    return conf.getBoolean(ENABLED, false) && conf.getBoolean(OWN, true);
  }

  /** Refuses what cannot work, before anything is started. */
  void check() {
    if (!own()) {
      return;
    }
    cores();
    memoryMiB();
    if (conf.getBoolean(FETCH_CACHED, false)) {
      throw new IllegalArgumentException(
          FETCH_CACHED + " needs one port for all agents: leave it out, or set " + OWN
              + "=false where agents have services of their own at " + PORT);
    }
    if (conf.contains(URI)) {
      throw new IllegalArgumentException(
          ENABLED + " does not go with " + URI + ": a service needs a Spark that agents have; leave "
              + "one of the two out");
    }
    if (conf.contains(IMAGE)) {
      throw new IllegalArgumentException(
          ENABLED + " does not go with " + IMAGE + ": a service cannot see the files of executors in "
              + "Docker containers; leave one of the two out (dynamic allocation also works by "
              + "spark.dynamicAllocation.shuffleTracking.enabled)");
    }
  }

  /**
   * Executors wait for a service that starts at the same time, and do not read the files of others on
   * their host: of two agents there, one's service does not know the other's executors.
   */
  void prepare() {
    if (own()) {
      conf.setIfMissing(ATTEMPTS, MANY_ATTEMPTS);
      conf.setIfMissing(READ_OTHERS, "false");
    }
  }

  /** Tells the sidecar how services are started, if there are to be any. */
  void addTo(ObjectNode register, ExecutorCommand command) {
    if (own()) {
      Protocol.putShuffle(
          register,
          cores(),
          memoryMiB(),
          command.shuffleArguments(),
          command.shuffleEnvironment());
    }
  }

  /** Cores of each service. */
  private double cores() {
    return Settings.cores(conf, CORES, "0.1");
  }

  /** Memory of each service. */
  private long memoryMiB() {
    long memory = conf.getSizeAsMb(MEMORY, "512m");
    if (memory < LEAST_MEMORY) {
      throw new IllegalArgumentException(
          MEMORY + " is " + memory + "m; a service needs at least " + LEAST_MEMORY + "m");
    }
    return memory;
  }

  /** A service's whole command; the sidecar fills the port in. */
  List<String> arguments(String java, String classPath, List<String> defaults) {
    List<String> argv = new ArrayList<>();
    argv.add(java);
    argv.add("-cp");
    argv.add(classPath);
    argv.add("-Xmx" + memoryMiB() / 2 + "m");
    argv.add("-XX:MaxDirectMemorySize=" + memoryMiB() / 4 + "m");
    // It copies files: what matters is that it starts soon and stays small.
    argv.add("-XX:+UseSerialGC");
    argv.add("-XX:TieredStopAtLevel=1");
    for (String option : defaults) {
      if (option.startsWith("--add-") || option.startsWith("-Djdk.")) {
        argv.add(option);
      }
    }
    for (Tuple2<String, String> entry : conf.getAll()) {
      String key = entry._1();
      boolean wanted = SparkConf.isExecutorStartupConf(key) || key.startsWith("spark.shuffle.");
      if (wanted && !key.endsWith(".port") && !Settings.isPassword(key)) {
        argv.add("-D" + key + "=" + entry._2());
      }
    }
    argv.add(port());
    // Where it writes down which executors it serves, for the case that it is started again.
    argv.add("-Dspark.local.dir=.");
    argv.add(MAIN);
    return argv;
  }

  /** Whether executors are told this by {@link #port} alone. */
  boolean replaces(String key) {
    return own() && key.equals(PORT);
  }

  /** The option that tells the port, to services and executors alike. */
  static String port() {
    return "-D" + PORT + "={{SHUFFLE_PORT}}";
  }
}
