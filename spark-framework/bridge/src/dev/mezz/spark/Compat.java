package dev.mezz.spark;

import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

import org.apache.spark.SecurityManager;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkEnv;
import org.apache.spark.SparkEnv$;
import org.apache.spark.executor.Executor;
import org.apache.spark.resource.ResourceProfile;
import org.apache.spark.resource.ResourceProfile$;
import org.apache.spark.resource.ResourceProfileManager;
import org.apache.spark.scheduler.TaskDescription;
import org.apache.spark.scheduler.TaskSchedulerImpl;
import org.apache.spark.scheduler.TaskSetManager;
import org.apache.spark.scheduler.WorkerOffer;
import org.apache.spark.util.SparkUncaughtExceptionHandler;
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

  /** Hosts that are of interest at once. */
  private static final int MAX_HOSTS = 1000;

  private Compat() {}

  /**
   * What fine-grained mode calls for every task: to look a method up takes longer than to call it.
   * Looked up when the application registers, so that a Spark without it is refused then.
   */
  private static final class OfTasks {
    static final Method CPUS_PER_TASK = method(TaskSchedulerImpl.class, "CPUS_PER_TASK");
    static final Method CPUS = method(TaskDescription.class, "cpus");
    static final Method RESOURCE_OFFERS = method(TaskSchedulerImpl.class, "resourceOffers");
    static final Constructor<?> OFFER = constructor(WorkerOffer.class, 6);
    static final Class<?> AMOUNT = OFFER.getParameterTypes()[2];
    static final Object NO_RESOURCES = noResources(OFFER.getParameterTypes()[4]);

    private OfTasks() {}

    private static Object noResources(Class<?> type) {
      return type == scala.collection.immutable.Map.class
          ? scala.collection.immutable.Map$.MODULE$.empty()
          : invoke(method(type, "empty"), null);
    }
  }

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

  /** A Java map of strings as a Scala one. */
  static scala.collection.immutable.Map<String, String> scalaMap(Map<String, String> map) {
    scala.collection.immutable.Map<String, String> all =
        scala.collection.immutable.Map$.MODULE$.<String, String>empty();
    for (Map.Entry<String, String> entry : map.entrySet()) {
      // 2.12 has + on the map itself, 2.13 on a parent: the descriptor differs.
      all =
          cast(
              invoke(
                  method(scala.collection.immutable.Map.class, "updated", 2),
                  all,
                  entry.getKey(),
                  entry.getValue()));
    }
    return all;
  }

  @SuppressWarnings("unchecked")
  private static <T> T cast(Object object) {
    return (T) object;
  }

  /** {@code spark.task.cpus}: a number in Spark 3.5, a decimal in Spark 4. */
  static double cpusPerTask(TaskSchedulerImpl scheduler) {
    return number(invoke(OfTasks.CPUS_PER_TASK, scheduler));
  }

  /** What a task holds. */
  static double cpus(TaskDescription task) {
    return number(invoke(OfTasks.CPUS, task));
  }

  private static double number(Object number) {
    return ((Number) number).doubleValue();
  }

  /** An offer of cores, for tasks of the default resource profile. */
  static WorkerOffer workerOffer(String executor, String host, double cores) {
    Object amount =
        OfTasks.AMOUNT == int.class
            ? (Object) (int) Math.floor(cores)
            : scala.math.BigDecimal$.MODULE$.apply(Double.toString(cores));
    Object address = scala.Option.empty();
    int profile = ResourceProfile.DEFAULT_RESOURCE_PROFILE_ID();
    return create(
        OfTasks.OFFER, executor, host, amount, address, OfTasks.NO_RESOURCES, profile);
  }

  /** The tasks that Spark wants to run on these offers. The sequences' types differ. */
  @SuppressWarnings("deprecation") // The successor is not in Scala 2.12.
  static List<TaskDescription> resourceOffers(
      TaskSchedulerImpl scheduler, List<WorkerOffer> offers) {
    Object workers = scala.collection.JavaConverters.asScalaBuffer(offers).toVector();
    // Offers are all that Spark has, so waiting for better places ends as if all was shown.
    Object all = invoke(OfTasks.RESOURCE_OFFERS, scheduler, workers, true);
    List<TaskDescription> tasks = new ArrayList<>();
    scala.collection.Iterator<?> outer = ((scala.collection.Iterable<?>) all).iterator();
    while (outer.hasNext()) {
      scala.collection.Iterator<?> inner = ((scala.collection.Iterable<?>) outer.next()).iterator();
      while (inner.hasNext()) {
        tasks.add((TaskDescription) inner.next());
      }
    }
    return tasks;
  }

  /** Whether there are tasks that could run, had they a place. */
  static boolean tasksWait(TaskSchedulerImpl scheduler) {
    synchronized (scheduler) {
      scala.collection.Iterator<TaskSetManager> stages =
          scheduler.rootPool().getSortedTaskSetQueue().iterator();
      while (stages.hasNext()) {
        TaskSetManager stage = stages.next();
        if (!stage.isZombie() && waits(stage)) {
          return true;
        }
      }
      return false;
    }
  }

  /** Hosts where tasks that wait would rather run: some, if there are very many. */
  static Set<String> preferredHosts(TaskSchedulerImpl scheduler) {
    Set<String> hosts = new LinkedHashSet<>();
    synchronized (scheduler) {
      scala.collection.Iterator<TaskSetManager> stages =
          scheduler.rootPool().getSortedTaskSetQueue().iterator();
      while (stages.hasNext()) {
        TaskSetManager stage = stages.next();
        scala.collection.Map<String, ?> waiting = stage.pendingTasks().forHost();
        scala.collection.Iterator<String> names = waiting.keysIterator();
        while (!stage.isZombie() && names.hasNext() && hosts.size() < MAX_HOSTS) {
          hosts.add(names.next());
        }
      }
    }
    return hosts;
  }

  private static boolean waits(TaskSetManager stage) {
    if (stage.numTasks() - stage.tasksSuccessful() > stage.runningTasks()) {
      return true;
    }
    // Second copies of slow tasks hide others that run nowhere.
    boolean[] done = stage.successful();
    int[] copies = stage.copiesRunning();
    for (int i = 0; i < done.length; i++) {
      if (!done[i] && copies[i] == 0) {
        return true;
      }
    }
    return !stage.speculatableTasks().isEmpty();
  }

  /** What an executor's tasks work in. */
  static SparkEnv executorEnv(
      SparkConf conf, String id, String host, int cores, scala.Option<byte[]> ioKey) {
    Method method = method(SparkEnv$.class, "createExecutorEnv", 7);
    return (SparkEnv) invoke(method, SparkEnv$.MODULE$, conf, id, host, host, cores, ioKey, false);
  }

  /** What runs tasks. The sequence's type differs. */
  static Executor executor(String id, String host, SparkEnv env) {
    return create(
        constructor(Executor.class, 7),
        id,
        host,
        env,
        scala.collection.immutable.Nil$.MODULE$,
        false,
        new SparkUncaughtExceptionHandler(true),
        scala.collection.immutable.Map$.MODULE$.empty());
  }

  private static <T> T create(Constructor<?> constructor, Object... arguments) {
    try {
      return cast(constructor.newInstance(arguments));
    } catch (InvocationTargetException e) {
      throw e.getCause() instanceof RuntimeException
          ? (RuntimeException) e.getCause()
          : new IllegalStateException(constructor.getName() + " failed", e.getCause());
    } catch (ReflectiveOperationException e) {
      throw unknown(constructor.getName() + " of these parts");
    }
  }

  private static IllegalStateException unknown(String what) {
    return new IllegalStateException(
        "This version of Spark has no " + what + "; the Mezz plugin knows Spark 3.5 and 4.x");
  }

  private static Constructor<?> constructor(Class<?> type, int parameters) {
    for (Constructor<?> constructor : type.getConstructors()) {
      if (constructor.getParameterCount() == parameters) {
        return constructor;
      }
    }
    throw unknown(type.getName() + " of " + parameters + " parts");
  }

  private static Method method(Class<?> type, String name, int parameters) {
    for (Method method : type.getMethods()) {
      if (method.getName().equals(name) && method.getParameterCount() == parameters) {
        return method;
      }
    }
    throw unknown(type.getName() + "." + name + " of " + parameters + " parameters");
  }

  private static Method method(Class<?> type, String name) {
    for (Method method : type.getMethods()) {
      if (method.getName().equals(name)) {
        return method;
      }
    }
    throw unknown(type.getName() + "." + name);
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
