package dev.mezz.spark;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import org.apache.spark.ExecutorLostFailure;
import org.apache.spark.SparkContext;
import org.apache.spark.TaskState;
import org.apache.spark.resource.ResourceProfile;
import org.apache.spark.scheduler.ExecutorLossReason;
import org.apache.spark.scheduler.SchedulerBackend;
import org.apache.spark.scheduler.SparkListenerExecutorAdded;
import org.apache.spark.scheduler.SparkListenerExecutorRemoved;
import org.apache.spark.scheduler.TaskDescription;
import org.apache.spark.scheduler.TaskSchedulerImpl;
import org.apache.spark.scheduler.TaskSetManager;
import org.apache.spark.scheduler.WorkerOffer;
import org.apache.spark.scheduler.cluster.ExecutorInfo;
import org.apache.spark.status.api.v1.ThreadStackTrace;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import scala.Enumeration;
import scala.Option;
import scala.reflect.ClassTag;
import scala.reflect.ClassTag$;

/**
 * Fine-grained mode: every Spark task is a task of the cluster, which holds its cores only while it
 * runs. The sidecar shows this class what it is offered, Spark says which tasks run there, and the
 * sidecar launches them; their results come back the same way.
 */
final class FineBackend implements SchedulerBackend, Sidecar.Listener {
  private static final Logger LOG = LoggerFactory.getLogger(FineBackend.class);

  /** Largest encoded task in bytes: a master takes calls of 4 MiB. */
  private static final int MAX_TASK = 2 << 20;

  /** Bytes of task data that go into one answer; the sidecar takes lines of 64 MiB. */
  private static final int MAX_ANSWER = 32 << 20;

  /** Largest result in bytes that goes through the cluster; others go between block managers. */
  private static final long MAX_DIRECT_RESULT = 64 << 10;

  /** Spark's default for a cluster whose size is not known. */
  private static final int PARALLELISM = 8;

  private static final String DIRECT_RESULT = "spark.task.maxDirectResultSize";

  private final TaskSchedulerImpl scheduler;
  private final SparkContext sc;
  private final Settings settings;
  private final Application application;
  private final Heartbeats heartbeats;

  /** How often Spark asked for offers. */
  private final AtomicLong revivals = new AtomicLong();

  /** Executors that tasks were sent to, and what listeners are to know of them. */
  private final Map<String, ExecutorInfo> launched = new ConcurrentHashMap<>();

  /** Those of them that listeners know of. */
  private final Set<String> added = ConcurrentHashMap.newKeySet();

  private volatile String generatedId;

  FineBackend(
      TaskSchedulerImpl scheduler, SparkContext sc, List<String> masters, Settings settings) {
    SchedulerBackend.$init$(this);
    this.scheduler = scheduler;
    this.sc = sc;
    this.settings = settings;
    this.application = new Application(scheduler, sc, masters, settings);
    this.heartbeats = new Heartbeats(sc.conf(), this::giveUp);
  }

  // === Life of the application ===

  @Override
  public void start() {
    settings.shuffleService().prepare();
    application.open(this);
    application.send(registration());
    // A queue of its own: other listeners may be slow.
    sc.listenerBus().addToQueue(heartbeats, "mezz");
    heartbeats.start();
    application.awaitRegistration(() -> stop(1));
  }

  @Override
  public void stop() {
    stop(0);
  }

  @Override
  public void stop(int exitCode) {
    if (application.stop()) {
      heartbeats.stop();
      application.close(exitCode);
    }
  }

  /** The framework's id; only asked for after {@link #start}. */
  @Override
  public String applicationId() {
    return application.id(generatedId);
  }

  /** The trait's private field, which is ours to keep in Java. */
  @Override
  public String org$apache$spark$scheduler$SchedulerBackend$$appId() {
    return generatedId;
  }

  @Override
  public void org$apache$spark$scheduler$SchedulerBackend$_setter_$org$apache$spark$scheduler$SchedulerBackend$$appId_$eq(
      String id) {
    generatedId = id;
  }

  private ObjectNode registration() {
    ExecutorCommand command = new ExecutorCommand(sc, settings);
    ObjectNode message =
        application.registration(
            "fine", command.fineArguments(), command.fineEnvironment());
    Map<String, String> secrets = new LinkedHashMap<>();
    Map<String, String> properties = new LinkedHashMap<>();
    collect(properties, secrets);
    ResourceProfile.ExecutorResourcesOrDefaults each =
        Compat.executorResources(
            sc.resourceProfileManager().defaultResourceProfile(), sc.conf());
    ObjectNode fine =
        Protocol.putFine(
            message,
            Compat.cpusPerTask(scheduler),
            settings.fineExecutorCores(),
            each.totalMemMiB(),
            each.executorMemoryMiB(),
            settings.executorsAhead(),
            properties,
            secrets);
    fine.put("program", settings.executorProgram());
    settings.shuffleService().addTo(message, command);
    return message;
  }

  /** The application's settings, as its executors get them, and apart those that are secret. */
  private void collect(Map<String, String> properties, Map<String, String> secrets) {
    for (scala.Tuple2<String, String> entry : sc.conf().getAll()) {
      // That one comes by the environment, as in coarse-grained mode.
      if (!entry._1().equals("spark.authenticate.secret")) {
        boolean secret = settings.isSecret(entry._1(), entry._2());
        (secret ? secrets : properties).put(entry._1(), entry._2());
      }
    }
    long direct = Math.min(sc.conf().getSizeAsBytes(DIRECT_RESULT, "1m"), MAX_DIRECT_RESULT);
    properties.put(DIRECT_RESULT, direct + "b");
  }

  // === What Spark asks for ===

  @Override
  public void reviveOffers() {
    // First, for it may have to wait for offers that are just looked at.
    Set<String> hosts = Compat.preferredHosts(scheduler);
    application.send(Protocol.revive(revivals.incrementAndGet(), hosts));
  }

  @Override
  public int defaultParallelism() {
    return sc.conf().getInt("spark.default.parallelism", settings.coresMax().orElse(PARALLELISM));
  }

  @Override
  public void killTask(long id, String executor, boolean interrupt, String reason) {
    application.send(Protocol.killTask(id, interrupt, reason));
  }

  /** Asked for barrier stages alone. */
  @Override
  public int maxNumConcurrentTasks(ResourceProfile profile) {
    throw new UnsupportedOperationException(
        "A barrier stage needs all of its tasks at once, which spark.mezz.coarse=false cannot "
            + "promise: run this application with spark.mezz.coarse=true");
  }

  /** Of Spark 4 alone. */
  public Option<ThreadStackTrace> getTaskThreadDump(long id, String executor) {
    return Option.empty();
  }

  // === What the sidecar says ===

  @Override
  public void onMessage(JsonNode message) {
    if (application.onMessage(message)) {
      return;
    }
    switch (message.path("t").asText()) {
      case "offers":
        onOffers(message);
        break;
      case "executor_ahead":
        remember(message.path("exec").asText(), message, message.path("task").asText());
        break;
      case "executor_up":
        onUp(message);
        break;
      case "status":
        onStatus(message);
        break;
      case "undone":
        onUndone(message);
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

  /** Every batch of offers gets its answer, whatever comes in between. */
  private void onOffers(JsonNode message) {
    // Before Spark is asked: tasks that come later have asked for offers later.
    long seen = revivals.get();
    ObjectNode answer = Protocol.answer(message.path("batch").asLong(), seen);
    boolean waiting = true;
    // Spark kills tasks under this lock: a kill must not be sent before its launch.
    synchronized (scheduler) {
      try {
        if (!application.stopping()) {
          use(message.path("offers"), answer);
        }
        waiting = Compat.tasksWait(scheduler);
      } catch (RuntimeException e) {
        LOG.error("Offers could not be used", e);
      } finally {
        application.send(answer.put("waiting", waiting));
      }
    }
  }

  private void use(JsonNode offers, ObjectNode answer) {
    List<WorkerOffer> workers = new ArrayList<>();
    Map<String, Integer> places = new HashMap<>();
    for (JsonNode offer : offers) {
      String executor = offer.path("exec").asText();
      places.put(executor, workers.size());
      workers.add(
          Compat.workerOffer(executor, offer.path("host").asText(), offer.path("cpus").asDouble()));
    }
    Map<String, ObjectNode> launches = new HashMap<>();
    int bytes = 0;
    for (TaskDescription task : Compat.resourceOffers(scheduler, workers)) {
      byte[] data = encode(task);
      if (data == null) {
        continue;
      }
      String executor = task.executorId();
      bytes += data.length;
      if (bytes > MAX_ANSWER) {
        giveBack(task.taskId(), executor, false, "too much was launched at once");
        continue;
      }
      int place = places.get(executor);
      remember(executor, offers.get(place), Long.toString(task.taskId()));
      Protocol.putTask(
          launches.computeIfAbsent(executor, id -> Protocol.putLaunches(answer, place)),
          task.taskId(),
          task.name(),
          Compat.cpus(task),
          data);
    }
  }

  /** Null when it cannot be sent; its stage fails then. */
  private byte[] encode(TaskDescription task) {
    String problem;
    try {
      ByteBuffer encoded = TaskDescription.encode(task);
      byte[] data = new byte[encoded.remaining()];
      encoded.get(data);
      if (data.length <= MAX_TASK) {
        return data;
      }
      problem =
          "has " + data.length + " bytes, and may have " + MAX_TASK + " in fine-grained mode; use "
              + "broadcast variables for large values";
    } catch (Exception e) {
      problem = "cannot be encoded: " + e;
    }
    TaskSetManager stage = scheduler.taskIdToTaskSetManager().get(task.taskId());
    if (stage != null) {
      stage.abort("Task " + task.name() + " " + problem, Option.empty());
    }
    return null;
  }

  private void remember(String executor, JsonNode offer, String task) {
    if (launched.containsKey(executor)) {
      return;
    }
    String host = offer.path("host").asText();
    Map<String, String> logs = new LinkedHashMap<>();
    if (offer.hasNonNull("logs")) {
      String base = offer.path("logs").asText() + "&task=" + task + "&path=";
      logs.put("stdout", base + "stdout");
      logs.put("stderr", base + "stderr");
    }
    int cores = (int) offer.path("cpus").asDouble();
    launched.put(executor, new ExecutorInfo(host, cores, Compat.scalaMap(logs)));
    LOG.info(
        "Executor {} is being started on {} (agent {})",
        executor,
        host,
        offer.path("agent").asText());
  }

  /** Heartbeats, the web pages and listeners know of an executor by this event alone. */
  private void onUp(JsonNode message) {
    String id = message.path("id").asText();
    ExecutorInfo info = launched.get(id);
    if (info != null && added.add(id)) {
      heartbeats.added(id);
      sc.listenerBus().post(new SparkListenerExecutorAdded(System.currentTimeMillis(), id, info));
    }
  }

  private void giveUp(String executor, String reason) {
    LOG.warn("Executor {} is ended: {}", executor, reason);
    application.send(Protocol.killExecutors(List.of(executor)));
  }

  private void onStatus(JsonNode message) {
    byte[] data;
    try {
      data = message.path("data").binaryValue();
    } catch (IOException e) {
      throw new IllegalStateException("A task's result is not in Base64", e);
    }
    Enumeration.Value state = TaskState.withName(message.path("state").asText());
    scheduler.statusUpdate(message.path("tid").asLong(), state, ByteBuffer.wrap(data));
  }

  private void onUndone(JsonNode message) {
    for (JsonNode id : message.path("tids")) {
      giveBack(
          id.asLong(),
          message.path("exec").asText(),
          message.path("by_app").asBoolean(),
          message.path("reason").asText());
    }
  }

  /**
   * Tells Spark that a task did not run; it is tried again, and that counts as a failure if it is
   * to blame. {@code LOST} is no state that Spark 4 would take.
   */
  private void giveBack(long task, String executor, boolean byApp, String reason) {
    ExecutorLostFailure failure =
        new ExecutorLostFailure(executor, byApp, Option.apply(reason));
    ClassTag<ExecutorLostFailure> tag = ClassTag$.MODULE$.apply(ExecutorLostFailure.class);
    ByteBuffer data = sc.env().closureSerializer().newInstance().serialize(failure, tag);
    scheduler.statusUpdate(task, TaskState.FAILED(), data);
  }

  private void onExited(JsonNode message) {
    String id = message.path("id").asText();
    String reason = message.path("reason").asText();
    LOG.info("Executor {} ended: {}", id, reason);
    boolean known = added.remove(id);
    heartbeats.removed(id);
    if (launched.remove(id) != null && !application.stopping()) {
      ExecutorLossReason loss = Application.lossOf(message);
      scheduler.executorLost(id, loss);
      if (known) {
        sc.listenerBus()
            .post(new SparkListenerExecutorRemoved(System.currentTimeMillis(), id, reason));
      }
    }
  }
}
