package dev.mezz.spark;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.OptionalInt;
import java.util.regex.Pattern;

import org.apache.spark.SparkConf;
import org.apache.spark.scheduler.cluster.SchedulerBackendUtils;
import scala.Tuple2;

/** The settings that this plugin reads: {@code spark.mezz.*} and Spark's own on executors. */
final class Settings {
  /** The archive of Spark's classes that {@code mezz spark archive} makes in Spark's folder. */
  static final String ARCHIVE = "mezz-classes.jsa";

  private static final String DOCKER = "spark.mezz.executor.docker.";

  /** Where images have what fine-grained executors need, unless the settings say otherwise. */
  private static final String IN_IMAGE = "/opt/mezz/";

  private static final String REDACTION = "spark.redaction.regex";

  /** Spark 4's default of it; Spark 3.5 knows no access keys. */
  private static final String DEFAULT_REDACTION =
      "(?i)secret|password|token|access[.]?key";

  /** The longest grace: a day. */
  private static final long MAX_GRACE_SECONDS = 86_400;

  private final SparkConf conf;

  private final Pattern redaction;

  Settings(SparkConf conf) {
    this.conf = conf;
    this.redaction = Pattern.compile(conf.get(REDACTION, DEFAULT_REDACTION));
    // What is wrong is to be said before anything is started.
    shuffleService().check();
    coresMax();
    maxPerAgent();
    maxFailures();
    failuresIntervalSeconds();
    placement();
    failoverTimeoutSeconds();
    fetcherCache();
    decommissionGraceSeconds();
    classDataSharing();
    if (!coarse()) {
      checkFine();
    }
  }

  /** Whether nobody who looks at the cluster is to see it: what Spark's own pages hide, and more. */
  boolean isSecret(String key, String value) {
    return isPassword(key) || redaction.matcher(key).find() || redaction.matcher(value).find();
  }

  /** What everybody on the machine could read in the process list. */
  static boolean isPassword(String key) {
    String lower = key.toLowerCase(Locale.ROOT);
    return lower.contains("password") || lower.endsWith(".secret");
  }

  /** What serves shuffle files beside executors. */
  ShuffleService shuffleService() {
    return new ShuffleService(conf);
  }

  /** Whether executors hold their cores for as long as they live, or tasks while they run. */
  boolean coarse() {
    return conf.getBoolean("spark.mezz.coarse", true);
  }

  /** Refuses what makes no sense in fine-grained mode, or is not there. */
  private void checkFine() {
    fineExecutorCores();
    executorsAhead();
    if (conf.getBoolean("spark.dynamicAllocation.enabled", false)) {
      throw new IllegalArgumentException(
          "spark.dynamicAllocation.enabled makes no sense with spark.mezz.coarse=false: cores are "
              + "held only while tasks run; leave one of the two out");
    }
    if (conf.getBoolean("spark.decommission.enabled", false)) {
      throw new IllegalArgumentException(
          "spark.decommission.enabled needs spark.mezz.coarse=true: leave one of the two out");
    }
    for (Tuple2<String, String> entry : conf.getAll()) {
      if (entry._1().startsWith("spark.task.resource.")
          || entry._1().startsWith("spark.executor.resource.")) {
        throw new IllegalArgumentException(
            entry._1() + " needs spark.mezz.coarse=true: fine-grained tasks get cores only");
      }
    }
  }

  /** Cores that an executor holds in fine-grained mode even while it runs nothing. */
  double fineExecutorCores() {
    return cores(conf, "spark.mezz.executor.cores", "0");
  }

  /** Executors that are started in fine-grained mode before there are tasks. */
  int executorsAhead() {
    String key = "spark.executor.instances";
    int otherwise = SchedulerBackendUtils.DEFAULT_NUMBER_EXECUTORS();
    String text = conf.get(key, Integer.toString(otherwise));
    try {
      int executors = Integer.parseInt(text.trim());
      if (executors >= 0) {
        return executors;
      }
    } catch (NumberFormatException e) {
      // Said below.
    }
    throw new IllegalArgumentException(key + " is '" + text + "'; it must be a whole number from 0");
  }

  /** A setting that is a number of cores, fractions allowed. */
  static double cores(SparkConf conf, String key, String otherwise) {
    String text = conf.get(key, otherwise);
    try {
      double cores = Double.parseDouble(text.trim());
      if (cores >= 0 && cores <= 1024) {
        return cores;
      }
    } catch (NumberFormatException e) {
      // Said below.
    }
    throw new IllegalArgumentException(
        key + " is '" + text + "'; it must be a number of cores, 0 to 1024");
  }

  /** The {@code mezz} program on the agents; null for the same path as here. */
  String executorProgram() {
    return conf.get("spark.mezz.executor.bin", inDocker() ? IN_IMAGE + "mezz" : null);
  }

  /** This plugin on the agents; null for the same path as here. */
  String executorBridge() {
    return conf.get(
        "spark.mezz.executor.bridge", inDocker() ? IN_IMAGE + "mezz-spark-bridge.jar" : null);
  }

  /** Whether executors run in containers of an image. */
  boolean inDocker() {
    return !conf.get(DOCKER + "image", "").trim().isEmpty();
  }

  /** Whether those have addresses of their own. */
  boolean hasOwnNetwork() {
    String network = conf.get(DOCKER + "network", "").trim();
    return inDocker() && !network.isEmpty() && !network.equals("host");
  }

  /** What is said of the containers, by the names' ends; empty for none. The sidecar reads it. */
  Map<String, String> docker() {
    Map<String, String> all = new LinkedHashMap<>();
    if (inDocker()) {
      for (Tuple2<String, String> entry : conf.getAllWithPrefix(DOCKER)) {
        all.put(entry._1(), entry._2());
      }
    }
    return all;
  }

  /**
   * An archive with Spark, which agents fetch for executors; null for an installed Spark. The variable
   * is that of Spark on Mesos.
   */
  String executorUri() {
    String uri = conf.get("spark.executor.uri", "").trim();
    if (uri.isEmpty()) {
      uri = Objects.requireNonNullElse(System.getenv("SPARK_EXECUTOR_URI"), "").trim();
    }
    return uri.isEmpty() ? null : uri;
  }

  /** What else they fetch, between commas; null for nothing. The sidecar reads the text. */
  String uris() {
    return conf.get("spark.mezz.uris", null);
  }

  /** Whether agents keep what they fetch for other executors. */
  boolean fetcherCache() {
    return conf.getBoolean("spark.mezz.fetcherCache.enable", true);
  }

  /** Whether only an executor itself can find out where its Spark is. */
  boolean findsSpark() {
    return inDocker() || executorUri() != null;
  }

  /** Where the application says that Spark is on the agents or in the image; null if it does not. */
  String executorHome() {
    return conf.get("spark.mezz.executor.home", null);
  }

  /** The {@code mezz} program: a path, or a name to look up in PATH. */
  String program() {
    return program(conf);
  }

  /** The same, where no application is. */
  static String program(SparkConf conf) {
    String fromEnvironment = System.getenv("MEZZ_BIN");
    boolean set = fromEnvironment != null && !fromEnvironment.isEmpty();
    return conf.get("spark.mezz.bin", set ? fromEnvironment : "mezz");
  }

  /** Where Spark is installed on the agents; null when nobody says. */
  String sparkHome() {
    String said = executorHome();
    return said == null ? conf.get("spark.home", System.getenv("SPARK_HOME")) : said;
  }

  /**
   * Whether executors map the archive of Spark's classes. Where nobody says: if this machine's
   * Spark has one, for agents are installed alike; what is in an image cannot be seen from here.
   */
  boolean classDataSharing() {
    String home = sparkHome();
    boolean here =
        !findsSpark() && home != null && Files.isRegularFile(Path.of(home, ARCHIVE));
    return conf.getBoolean("spark.mezz.classDataSharing", here);
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

  /** Whom to be for masters that ask who frameworks are; null where the sidecar knows it, or nobody. */
  String principal() {
    return conf.get("spark.mezz.principal", null);
  }

  /** The file whose first line is that principal's secret; null as above. The sidecar reads it. */
  String secretFile() {
    return conf.get("spark.mezz.secret.file", null);
  }

  /** Labels of the application's tasks; null for none. The sidecar reads the text. */
  String labels() {
    return conf.get("spark.mezz.executor.labels", null);
  }

  /** How many executors may fail; empty for no bound. Spark has these two for YARN and Kubernetes. */
  OptionalInt maxFailures() {
    return positive("spark.executor.maxNumFailures");
  }

  /** Seconds after which a failed executor counts no more for that; null for never. */
  Double failuresIntervalSeconds() {
    String key = "spark.executor.failuresValidityInterval";
    if (!conf.contains(key)) {
      return null;
    }
    long millis = conf.getTimeAsMs(key);
    if (millis <= 0) {
      throw new IllegalArgumentException(
          key + " is '" + conf.get(key) + "'; it must be a time above 0, such as 1h");
    }
    return millis / 1000.0;
  }

  /** Where people find the driver's web pages, if not where Spark says; null for that. */
  String webPages() {
    return conf.get("spark.mezz.driver.webui.url", null);
  }

  /** Names, and nothing else, of settings that may not be what the user thinks. */
  List<String> namesToCheck() {
    List<String> names = new ArrayList<>();
    for (Tuple2<String, String> entry : conf.getAll()) {
      if (entry._1().startsWith("spark.mezz.") || entry._1().startsWith("spark.mesos.")) {
        names.add(entry._1());
      }
    }
    return names;
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

  /** Whether executors move their blocks away and end by themselves when they are asked to end. */
  boolean decommission() {
    return conf.getBoolean("spark.decommission.enabled", false);
  }

  /**
   * Spark's settings that decommissioning needs here, unless the user says otherwise: agents ask by
   * SIGTERM, and without blocks to move there would be nothing to wait for.
   */
  static Map<String, String> decommissionDefaults() {
    return Map.of(
        "spark.executor.decommission.signal", "TERM",
        "spark.storage.decommission.enabled", "true",
        "spark.storage.decommission.rddBlocks.enabled", "true",
        "spark.storage.decommission.shuffleBlocks.enabled", "true");
  }

  /** Seconds that an executor has for that, and for the tasks that it runs. */
  int decommissionGraceSeconds() {
    String key = "spark.mezz.executor.decommissionGrace";
    String spark = conf.get("spark.executor.decommission.forceKillTimeout", "120s");
    long seconds = conf.getTimeAsSeconds(key, spark);
    if (seconds < 1 || seconds > MAX_GRACE_SECONDS) {
      throw new IllegalArgumentException(
          key + " is " + seconds + " s; it must be from 1 s to " + MAX_GRACE_SECONDS + " s");
    }
    return (int) seconds;
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
