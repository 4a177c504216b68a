package dev.mezz.spark;

import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.apache.spark.SecurityManager;
import org.apache.spark.SparkConf;
import org.apache.spark.resource.ResourceProfile;
import org.apache.spark.resource.ResourceProfile$;
import org.apache.spark.resource.ResourceProfileManager;
import org.apache.spark.util.Utils$;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Everything in which Spark 3.5 on Scala 2.12 differs from Spark 4 on Scala 2.13, so that one jar
 * serves both. The only place where reflection is used.
 */
final class Compat {
  private static final Logger LOG = LoggerFactory.getLogger(Compat.class);

  /** Spark 4's default of spark.executor.minMemoryOverhead, and Spark 3.5's constant. */
  private static final String MIN_OVERHEAD = "384m";

  private Compat() {}

  /**
   * Lets the application use its own resource profiles. Spark allows them for the cluster managers
   * that it knows; ours behaves as the standalone one does.
   */
  static void allowResourceProfiles(ResourceProfileManager manager) {
    try {
      Field field = ResourceProfileManager.class.getDeclaredField("isStandaloneOrLocalCluster");
      field.setAccessible(true);
      field.setBoolean(manager, true);
    } catch (ReflectiveOperationException | RuntimeException e) {
      LOG.warn("Resource profiles other than the default one will be refused by this Spark", e);
    }
  }

  /** Cores and memory of a profile's executors, computed as Spark does for its own managers. */
  static ResourceProfile.ExecutorResourcesOrDefaults executorResources(
      ResourceProfile profile, SparkConf conf) {
    double factor = conf.getDouble("spark.executor.memoryOverheadFactor", 0.1);
    long minimum = conf.getSizeAsMb("spark.executor.minMemoryOverhead", MIN_OVERHEAD);
    Object noMappings = scala.collection.immutable.Map$.MODULE$.empty();
    // Python's own memory counts where it is set at all: only Python applications set it.
    boolean python = true;
    Method method = method(ResourceProfile$.class, "getResourcesForClusterManager");
    // Spark 4 added the smallest overhead as the third argument.
    Object[] arguments =
        method.getParameterCount() == 7
            ? new Object[] {
              profile.id(), profile.executorResources(), minimum, factor, conf, python, noMappings
            }
            : new Object[] {
              profile.id(), profile.executorResources(), factor, conf, python, noMappings
            };
    return (ResourceProfile.ExecutorResourcesOrDefaults) invoke(method, ResourceProfile$.MODULE$, arguments);
  }

  /** Splits options as a shell does, quotes included. The sequence's type differs. */
  static List<String> splitOptions(String options) {
    Method method = method(Utils$.class, "splitCommandString");
    List<String> all = new ArrayList<>();
    scala.collection.Iterator<?> words =
        ((scala.collection.Iterable<?>) invoke(method, Utils$.MODULE$, options)).iterator();
    while (words.hasNext()) {
      all.add((String) words.next());
    }
    return all;
  }

  /** Environment that carries the passwords of encrypted RPC; Spark 3.5 has no such thing. */
  static Map<String, String> sslPasswords(SecurityManager security) {
    for (Method method : SecurityManager.class.getMethods()) {
      if (method.getName().equals("getEnvironmentForSslRpcPasswords")) {
        return strings((scala.collection.Map<?, ?>) invoke(method, security));
      }
    }
    return Collections.emptyMap();
  }

  /** A Scala map of strings as a Java one. */
  static Map<String, String> strings(scala.collection.Map<?, ?> map) {
    Map<String, String> all = new LinkedHashMap<>();
    scala.collection.Iterator<?> entries = map.iterator();
    while (entries.hasNext()) {
      scala.Tuple2<?, ?> entry = (scala.Tuple2<?, ?>) entries.next();
      all.put((String) entry._1(), (String) entry._2());
    }
    return all;
  }

  private static Method method(Class<?> type, String name) {
    for (Method method : type.getMethods()) {
      if (method.getName().equals(name)) {
        return method;
      }
    }
    throw new IllegalStateException(
        "This version of Spark has no " + type.getName() + "." + name
            + "; the Mezz plugin knows Spark 3.5 and 4.x");
  }

  private static Object invoke(Method method, Object on, Object... arguments) {
    try {
      return method.invoke(on, arguments);
    } catch (InvocationTargetException e) {
      if (e.getCause() instanceof RuntimeException) {
        throw (RuntimeException) e.getCause();
      }
      throw new IllegalStateException(method.getName() + " failed", e.getCause());
    } catch (ReflectiveOperationException | IllegalArgumentException e) {
      throw new IllegalStateException(
          "This version of Spark has another " + method.getName()
              + "; the Mezz plugin knows Spark 3.5 and 4.x",
          e);
    }
  }
}
