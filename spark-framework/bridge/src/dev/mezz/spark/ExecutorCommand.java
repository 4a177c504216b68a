package dev.mezz.spark;

import java.net.URISyntaxException;
import java.nio.file.Path;
import java.security.CodeSource;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.apache.spark.SecurityManager;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkContext;
import scala.Option;
import scala.Tuple2;

/**
 * How an executor is started on an agent: argv and environment. {@code {{NAMES}}} in double braces
 * are filled in by the sidecar, which alone knows them.
 *
 * <p>Java is started directly, not through {@code bin/spark-class}, which would start a second JVM
 * only to build the command.
 */
final class ExecutorCommand {
  private static final String MAIN = "org.apache.spark.executor.CoarseGrainedExecutorBackend";

  /** Of the driver's environment, what an executor needs where nothing else is said. */
  private static final String[] INHERITED = {"PATH", "LANG", "LC_ALL", "JAVA_HOME"};

  /** Stand for Spark's folder and Java's program where only the executor can find them. */
  private static final String FOUND_HOME = "{{SPARK_HOME}}";

  private static final String FOUND_JAVA = "{{JAVA}}";

  /** What an archive of classes that does not fit would have a JVM say, on standard output. */
  private static final String QUIET = "-Xlog:cds*=off";

  private final SparkContext sc;
  private final SparkConf conf;
  private final Settings settings;
  private final ShuffleService shuffle;
  private final String home;
  private final Map<String, String> executorEnvs;

  ExecutorCommand(SparkContext sc, Settings settings) {
    this.sc = sc;
    this.conf = sc.conf();
    this.settings = settings;
    this.shuffle = settings.shuffleService();
    this.home = settings.findsSpark() ? FOUND_HOME : settings.sparkHome();
    if (home == null) {
      throw new IllegalArgumentException(
          "Where Spark is installed on the agents is not known: set spark.mezz.executor.home, or "
              + "SPARK_HOME where it is the same as here");
    }
    this.executorEnvs = Compat.strings(sc.executorEnvs());
  }

  /** The whole command in coarse-grained mode, program first. */
  List<String> arguments() {
    List<String> argv = java(MAIN, sharesClasses() ? sharedClassPath() : classPath());
    add(argv, "--driver-url", driverUrl());
    add(argv, "--executor-id", "{{EXECUTOR_ID}}");
    if (!settings.hasOwnNetwork()) {
      add(argv, "--hostname", "{{HOSTNAME}}");
    }
    add(argv, "--cores", "{{CORES}}");
    add(argv, "--app-id", "{{APP_ID}}");
    add(argv, "--resourceProfileId", "{{PROFILE_ID}}");
    return argv;
  }

  /** The whole command in fine-grained mode, program first. The rest is told by its parent. */
  List<String> fineArguments() {
    return java(
        FineExecutorBackend.class.getName(),
        sharesClasses() ? sharedClassPath() : bridge() + ":" + classPath());
  }

  private String bridge() {
    return settings.executorBridge() == null ? ownJar() : settings.executorBridge();
  }

  /** Whether classes come from an archive: none fits where others are before Spark's. */
  private boolean sharesClasses() {
    return settings.classDataSharing() && conf.get("spark.executor.extraClassPath", "").isEmpty();
  }

  /** What the archive was made with, and after it what it knows nothing of. */
  private String sharedClassPath() {
    return bridge() + ":" + home + "/jars/*:" + home + "/conf/" + distribution();
  }

  private List<String> java(String main, String classPath) {
    List<String> argv = new ArrayList<>();
    argv.add(javaProgram());
    argv.add("-cp");
    argv.add(classPath);
    argv.add("-Xmx{{HEAP_MIB}}m");
    if (sharesClasses()) {
      // Before the user's options, which win.
      argv.add("-XX:SharedArchiveFile=" + home + "/" + Settings.ARCHIVE);
      argv.add(QUIET);
    }
    // Spark adds its --add-opens options to these by itself.
    argv.addAll(options("spark.executor.defaultJavaOptions"));
    argv.addAll(options("spark.executor.extraJavaOptions"));
    for (Tuple2<String, String> entry : conf.getAll()) {
      if (SparkConf.isExecutorStartupConf(entry._1())
          && !Settings.isPassword(entry._1())
          && !shuffle.replaces(entry._1())) {
        argv.add("-D" + entry._1() + "=" + entry._2());
      }
    }
    if (shuffle.own()) {
      argv.add(ShuffleService.port());
    }
    argv.add(main);
    return argv;
  }

  /** The command of a shuffle service, program first. */
  List<String> shuffleArguments() {
    return shuffle.arguments(
        javaProgram(), classPath(), options("spark.executor.defaultJavaOptions"));
  }

  /**
   * The environment of a shuffle service. Spark 4.3 serves only what is below its local folders, which
   * protects users from each other's services; this one can read nothing but what executors can.
   */
  Map<String, String> shuffleEnvironment() {
    Map<String, String> env = environment();
    env.put("SPARK_EXECUTOR_DIRS", "/");
    return env;
  }

  private String javaProgram() {
    if (settings.findsSpark()) {
      return FOUND_JAVA;
    }
    String javaHome = environment().get("JAVA_HOME");
    return javaHome == null ? "java" : javaHome + "/bin/java";
  }

  /** In fine-grained mode executors get by it what others ask the driver for. */
  Map<String, String> fineEnvironment() {
    Map<String, String> env = environment();
    Option<byte[]> ioKey = sc.env().securityManager().getIOEncryptionKey();
    if (ioKey.isDefined()) {
      env.put(FineExecutorBackend.IO_KEY, Base64.getEncoder().encodeToString(ioKey.get()));
    }
    return env;
  }

  /** Where this plugin is. */
  private static String ownJar() {
    CodeSource source = ExecutorCommand.class.getProtectionDomain().getCodeSource();
    try {
      return Path.of(source.getLocation().toURI()).toString();
    } catch (URISyntaxException | RuntimeException e) {
      throw new IllegalStateException(
          "Where mezz-spark-bridge.jar is cannot be found out: set spark.mezz.executor.bridge", e);
    }
  }

  /** The whole environment; agents add nothing of their own that Spark would need. */
  Map<String, String> environment() {
    Map<String, String> env = new LinkedHashMap<>();
    // An image has its own.
    for (String name : settings.inDocker() ? new String[0] : INHERITED) {
      String value = System.getenv(name);
      if (value != null) {
        env.put(name, value);
      }
    }
    String libraries = conf.get("spark.executor.extraLibraryPath", "");
    if (!libraries.isEmpty()) {
      env.put("LD_LIBRARY_PATH", libraries);
    }
    if (!conf.contains("spark.local.dir") && !executorEnvs.containsKey("SPARK_LOCAL_DIRS")) {
      // The sandbox: agents remove it in time, even after an executor that was killed.
      env.put("SPARK_EXECUTOR_DIRS", ".");
    }
    env.putAll(executorEnvs);
    // Another version's home leaking in would break the Python workers.
    String known = settings.findsSpark() ? settings.executorHome() : home;
    if (known != null) {
      env.put("SPARK_HOME", known);
    }
    SecurityManager security = sc.env().securityManager();
    if (security.isAuthenticationEnabled()) {
      env.put(SecurityManager.ENV_AUTH_SECRET(), security.getSecretKey());
    }
    env.putAll(Compat.sslPasswords(security));
    return env;
  }

  private String classPath() {
    List<String> parts = new ArrayList<>();
    String extra = conf.get("spark.executor.extraClassPath", "");
    if (!extra.isEmpty()) {
      parts.add(extra);
    }
    parts.add(home + "/conf/");
    parts.add(home + "/jars/*");
    return String.join(":", parts) + distribution();
  }

  /** What Spark's scripts put at a class path's end, with its colon. */
  private String distribution() {
    String dist = System.getenv("SPARK_DIST_CLASSPATH");
    return dist == null || dist.isEmpty() || settings.inDocker() ? "" : ":" + dist;
  }

  private List<String> options(String key) {
    return Compat.splitOptions(conf.get(key, ""));
  }

  private String driverUrl() {
    return "spark://CoarseGrainedScheduler@" + conf.get("spark.driver.host") + ":"
        + conf.get("spark.driver.port");
  }

  private static void add(List<String> argv, String option, String value) {
    argv.add(option);
    argv.add(value);
  }
}
