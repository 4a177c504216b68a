package dev.mezz.spark;

import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import org.apache.spark.SparkContext;
import org.apache.spark.resource.ExecutorResourceRequest;
import org.apache.spark.resource.ResourceProfile;
import org.apache.spark.rpc.RpcAddress;
import org.apache.spark.scheduler.ExecutorLossReason;
import org.apache.spark.scheduler.ExecutorProcessLost;
import org.apache.spark.scheduler.SparkListener;
import org.apache.spark.scheduler.SparkListenerExecutorAdded;
import org.apache.spark.scheduler.TaskSchedulerImpl;
import org.apache.spark.scheduler.cluster.CoarseGrainedSchedulerBackend;
import org.apache.spark.scheduler.cluster.SchedulerBackendUtils;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import scala.Option;
import scala.Tuple2;
import scala.concurrent.Future;
import scala.concurrent.Future$;

/**
 * Coarse-grained mode: executors hold their cores for as long as they live, and the driver talks to
 * them directly. This class tells the {@link Sidecar} how many are wanted and Spark how each one
 * ended; where and when they are started is decided in the sidecar.
 */
final class CoarseBackend extends CoarseGrainedSchedulerBackend implements Sidecar.Listener {
  private static final Logger LOG = LoggerFactory.getLogger(CoarseBackend.class);

  /** How long a disconnected executor waits for the reason of its end. */
  private static final long EXIT_REASON_SECONDS = 10;

  /** How many ended executors are remembered: more than can end in that time. */
  private static final int MAX_EXPLAINED = 10_000;

  private final SparkContext sc;
  private final Settings settings;
  private final Application application;
  private final ScheduledExecutorService timer =
      new ScheduledThreadPoolExecutor(
          1,
          work -> {
            Thread thread = new Thread(work, "mezz-executor-loss");
            thread.setDaemon(true);
            return thread;
          },
          // After the application's end nobody waits for reasons.
          new ThreadPoolExecutor.DiscardPolicy());

  /** Executors that are disconnected and whose end is not yet explained. */
  private final Map<String, ScheduledFuture<?>> unexplained = new ConcurrentHashMap<>();

  /**
   * Executors whose end is explained, though Spark may still see them disconnect: the latest ones,
   * for that comes soon or never.
   */
  private final Set<String> explained =
      Collections.synchronizedSet(
          Collections.newSetFromMap(
              new LinkedHashMap<String, Boolean>() {
                @Override
                protected boolean removeEldestEntry(Map.Entry<String, Boolean> eldest) {
                  return size() > MAX_EXPLAINED;
                }
              }));

  private volatile int expectedCores;

  CoarseBackend(
      TaskSchedulerImpl scheduler, SparkContext sc, List<String> masters, Settings settings) {
    super(scheduler, sc.env().rpcEnv());
    this.sc = sc;
    this.settings = settings;
    this.application = new Application(scheduler, sc, masters, settings);
  }

  // === Life of the application ===

  @Override
  public void start() {
    super.start();
    if (settings.decommission()) {
      // Before the first executor asks for its settings.
      Settings.decommissionDefaults().forEach((key, value) -> sc.conf().setIfMissing(key, value));
    }
    application.open(this);
    application.send(registration());
    sc.addSparkListener(new Registrations());
    // Before the answer is there: executors can start while the driver still does.
    sendTargets(initialTargets());
    application.awaitRegistration(() -> stop(1));
  }

  @Override
  public void stop() {
    stop(0);
  }

  @Override
  public void stop(int exitCode) {
    if (!application.stop()) {
      return;
    }
    timer.shutdownNow();
    try {
      super.stop();
    } finally {
      application.close(exitCode);
    }
  }

  /** The framework's id; only asked for after {@link #start}. */
  @Override
  public String applicationId() {
    return application.id(super.applicationId());
  }

  private ObjectNode registration() {
    settings.shuffleService().prepare();
    ExecutorCommand command = new ExecutorCommand(sc, settings);
    ObjectNode message =
        application.registration("coarse", command.arguments(), command.environment());
    settings.shuffleService().addTo(message, command);
    Protocol.putIfPresent(message, "max_per_agent", settings.maxPerAgent());
    message.put("placement", settings.placement());
    if (settings.decommission()) {
      message.put("kill_grace_s", settings.decommissionGraceSeconds());
    }
    return message;
  }

  // === What Spark asks for ===

  @Override
  public Future<Object> doRequestTotalExecutors(
      scala.collection.immutable.Map<ResourceProfile, Object> wanted) {
    Map<ResourceProfile, Integer> targets = new LinkedHashMap<>();
    scala.collection.Iterator<Tuple2<ResourceProfile, Object>> entries = wanted.iterator();
    while (entries.hasNext()) {
      Tuple2<ResourceProfile, Object> entry = entries.next();
      targets.put(entry._1(), ((Number) entry._2()).intValue());
    }
    sendTargets(targets);
    return done();
  }

  /** Overrides the method of Spark 3.5, whose sequences are Scala 2.12's. */
  public Future<Object> doKillExecutors(scala.collection.Seq<String> ids) {
    return kill(ids.iterator());
  }

  /** Overrides the method of Spark 4, whose sequences are immutable ones. */
  public Future<Object> doKillExecutors(scala.collection.immutable.Seq<String> ids) {
    return kill(ids.iterator());
  }

  @Override
  public boolean sufficientResourcesRegistered() {
    return totalCoreCount().get() >= expectedCores * minRegisteredRatio();
  }

  @Override
  public CoarseGrainedSchedulerBackend.DriverEndpoint createDriverEndpoint() {
    return new Endpoint();
  }

  private Future<Object> kill(scala.collection.Iterator<String> ids) {
    List<String> all = new ArrayList<>();
    while (ids.hasNext()) {
      all.add(ids.next());
    }
    if (!all.isEmpty()) {
      application.send(Protocol.killExecutors(all));
    }
    return done();
  }

  private Map<ResourceProfile, Integer> initialTargets() {
    ResourceProfile profile = sc.resourceProfileManager().defaultResourceProfile();
    int cores = cores(Compat.executorResources(profile, sc.conf()));
    int coresMax = settings.coresMax().orElse(Integer.MAX_VALUE);
    int unlessSaid =
        settings.coresMax().isPresent()
            ? Math.max(1, coresMax / cores)
            : SchedulerBackendUtils.DEFAULT_NUMBER_EXECUTORS();
    int executors = SchedulerBackendUtils.getInitialTargetExecutorNumber(sc.conf(), unlessSaid);
    // Whole executors only: what is left over of spark.cores.max is not to be waited for.
    expectedCores = Math.min(executors, coresMax / cores) * cores;
    if (cores > coresMax) {
      LOG.warn("No executor fits: spark.executor.cores is {}, spark.cores.max {}", cores, coresMax);
    }
    return Map.of(profile, executors);
  }

  private void sendTargets(Map<ResourceProfile, Integer> targets) {
    ObjectNode message = Protocol.target();
    targets.forEach(
        (profile, executors) -> {
          ResourceProfile.ExecutorResourcesOrDefaults each =
              Compat.executorResources(profile, sc.conf());
          ObjectNode node =
              Protocol.putProfile(
                  message,
                  profile.id(),
                  executors,
                  cores(each),
                  each.totalMemMiB(),
                  each.executorMemoryMiB(),
                  locality(profile.id()));
          putResources(node, each);
        });
    application.send(message);
  }

  /** GPUs and whatever else an executor of the profile needs. */
  private void putResources(ObjectNode node, ResourceProfile.ExecutorResourcesOrDefaults each) {
    boolean plugin = sc.conf().contains("spark.resources.discoveryPlugin");
    scala.collection.Iterator<Tuple2<String, ExecutorResourceRequest>> all =
        each.customResources().iterator();
    while (all.hasNext()) {
      ExecutorResourceRequest request = all.next()._2();
      boolean discovered = plugin || !request.discoveryScript().isEmpty();
      Protocol.putResource(node, request.resourceName(), request.amount(), discovered);
    }
  }

  private int cores(ResourceProfile.ExecutorResourcesOrDefaults each) {
    return each.cores().isDefined()
        ? ((Number) each.cores().get()).intValue()
        : settings.executorCores();
  }

  /** How many pending tasks of a profile would rather run on each host. */
  private Map<String, Integer> locality(int profile) {
    Map<String, Integer> hosts = new LinkedHashMap<>();
    Option<scala.collection.immutable.Map<String, Object>> counts =
        rpHostToLocalTaskCount().get(profile);
    if (counts.isDefined()) {
      scala.collection.Iterator<Tuple2<String, Object>> entries = counts.get().iterator();
      while (entries.hasNext()) {
        Tuple2<String, Object> entry = entries.next();
        hosts.put(entry._1(), ((Number) entry._2()).intValue());
      }
    }
    return hosts;
  }

  private static Future<Object> done() {
    return Future$.MODULE$.successful((Object) Boolean.TRUE);
  }

  // === What the sidecar says ===

  @Override
  public void onMessage(JsonNode message) {
    if (application.onMessage(message)) {
      return;
    }
    switch (message.path("t").asText()) {
      case "executor_launched":
        LOG.info(
            "Executor {} is being started on {} (agent {})",
            message.path("id").asText(),
            message.path("host").asText(),
            message.path("agent").asText());
        break;
      case "executor_exited":
        onExited(message);
        break;
      default:
        LOG.warn("The sidecar sent '{}', which is not understood", message.path("t").asText());
    }
  }

  @Override
  public void onLost(String reason) {
    application.fail(reason);
  }

  private void onExited(JsonNode message) {
    String id = message.path("id").asText();
    LOG.info("Executor {} ended: {}", id, message.path("reason").asText());
    explain(id, Application.lossOf(message));
  }

  // === Executors that end ===

  private void explain(String id, ExecutorLossReason loss) {
    explained.add(id);
    ScheduledFuture<?> waiting = unexplained.remove(id);
    if (waiting != null) {
      waiting.cancel(false);
    }
    if (!application.stopping()) {
      removeExecutor(id, loss);
    }
  }

  private void awaitExplanation(String id) {
    if (application.stopping() || explained.contains(id)) {
      return;
    }
    Runnable giveUp =
        () -> {
          boolean open = unexplained.remove(id) != null && explained.add(id);
          if (open && !application.stopping()) {
            LOG.warn("Executor {} is gone, and nobody says why", id);
            removeExecutor(
                id,
                new ExecutorProcessLost(
                    "The connection to the executor broke, and no reason came within "
                        + EXIT_REASON_SECONDS + " s",
                    Option.empty(),
                    true));
            // Should it live on, it is of no use.
            application.send(Protocol.killExecutors(List.of(id)));
          }
        };
    unexplained.computeIfAbsent(
        id, x -> timer.schedule(giveUp, EXIT_REASON_SECONDS, TimeUnit.SECONDS));
  }

  /**
   * Does not fail an executor's tasks as soon as its connection breaks, but gives it nothing more
   * to do and waits for the reason of its end, which decides whose fault it was.
   */
  private final class Endpoint extends CoarseGrainedSchedulerBackend.DriverEndpoint {
    Endpoint() {
      CoarseBackend.this.super();
    }

    @Override
    public void onDisconnected(RpcAddress address) {
      Option<String> id = addressToExecutorId().get(address);
      if (id.isDefined() && disableExecutor(id.get())) {
        awaitExplanation(id.get());
      }
    }
  }

  /** Tells the sidecar which executors came up, for only the driver knows. */
  private final class Registrations extends SparkListener {
    @Override
    public void onExecutorAdded(SparkListenerExecutorAdded added) {
      application.send(Protocol.executorRegistered(added.executorId()));
    }
  }
}
