package dev.mezz.spark;

import java.io.IOException;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicBoolean;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import org.apache.spark.SparkContext;
import org.apache.spark.scheduler.ExecutorExited;
import org.apache.spark.scheduler.ExecutorKilled$;
import org.apache.spark.scheduler.ExecutorLossReason;
import org.apache.spark.scheduler.TaskSchedulerImpl;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * What both modes share: the application's life from its registration with a master to its end, and
 * the {@link Sidecar} that stands for it.
 */
final class Application {
  private static final Logger LOG = LoggerFactory.getLogger(Application.class);

  /** How long the driver waits for a master to take the application in. */
  private static final long REGISTRATION_SECONDS = 60;

  private final TaskSchedulerImpl scheduler;
  private final SparkContext sc;
  private final List<String> masters;
  private final Settings settings;
  private final CompletableFuture<String> registered = new CompletableFuture<>();
  private final AtomicBoolean stopping = new AtomicBoolean();
  private final AtomicBoolean failed = new AtomicBoolean();
  private volatile Sidecar sidecar;

  Application(
      TaskSchedulerImpl scheduler, SparkContext sc, List<String> masters, Settings settings) {
    this.scheduler = scheduler;
    this.sc = sc;
    this.masters = masters;
    this.settings = settings;
  }

  /** Starts the sidecar. */
  void open(Sidecar.Listener listener) {
    try {
      sidecar = new Sidecar(settings.program(), listener);
    } catch (IOException e) {
      throw new IllegalStateException(e.getMessage(), e);
    }
  }

  void send(ObjectNode message) {
    sidecar.send(message);
  }

  /** The first message, but for what is of one mode alone. */
  ObjectNode registration(String mode, List<String> command, java.util.Map<String, String> env) {
    ObjectNode message =
        Protocol.register(mode, masters, sc.appName(), sc.sparkUser(), sc.version());
    Protocol.putCommand(message, command, env);
    String pages = sc.uiWebUrl().isDefined() ? sc.uiWebUrl().get() : null;
    message.put("ui", settings.webPages() == null ? pages : settings.webPages());
    message.put("host", sc.conf().get("spark.driver.host"));
    Protocol.putIfPresent(message, "cores_max", settings.coresMax());
    message.put("constraints", settings.constraints());
    message.put("role", settings.role());
    message.put("labels", settings.labels());
    message.put("principal", settings.principal());
    message.put("secret_file", settings.secretFile());
    Protocol.putIfPresent(message, "max_failures", settings.maxFailures());
    message.put("failures_interval_s", settings.failuresIntervalSeconds());
    Protocol.putNames(message, settings.namesToCheck());
    message.put("failover_timeout_s", settings.failoverTimeoutSeconds());
    Protocol.putPlace(
        message,
        settings.docker(),
        settings.uris(),
        settings.executorUri(),
        settings.fetcherCache());
    return message;
  }

  /** Waits until a master has taken the application in; ends it by {@code stop} when none does. */
  void awaitRegistration(Runnable stop) {
    String problem;
    Throwable cause = null;
    try {
      String id = registered.get(REGISTRATION_SECONDS, TimeUnit.SECONDS);
      LOG.info("Registered with Mezz as {}", id);
      return;
    } catch (ExecutionException e) {
      problem = e.getCause().getMessage();
    } catch (TimeoutException e) {
      problem =
          "No Mezz master answered at " + String.join(",", masters) + " within "
              + REGISTRATION_SECONDS + " s";
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      problem = "Interrupted while waiting for the Mezz master";
      cause = e;
    }
    stop.run();
    throw new IllegalStateException(problem, cause);
  }

  /** The framework's id, or this one before there is one. */
  String id(String otherwise) {
    return registered.getNow(otherwise);
  }

  /** Whether the application's end has begun. */
  boolean stopping() {
    return stopping.get();
  }

  /** Begins the application's end; false when that was done before. */
  boolean stop() {
    return stopping.compareAndSet(false, true);
  }

  /** Ends the sidecar, and with it the framework. */
  void close(int exitCode) {
    if (sidecar != null) {
      sidecar.close(Protocol.unregister(exitCode));
    }
  }

  /** Messages that are the same in both modes; false when this is none of them. */
  boolean onMessage(JsonNode message) {
    switch (message.path("t").asText()) {
      case "registered":
        onRegistered(message);
        return true;
      case "warning":
        LOG.warn("{}", message.path("message").asText());
        return true;
      case "service_lost":
        onServiceLost(message);
        return true;
      case "error":
        fail(message.path("message").asText());
        return true;
      case "waiting":
        onWaiting(message.path("executors").asInt(), message.path("message").asText());
        return true;
      default:
        return false;
    }
  }

  private static void onWaiting(int executors, String message) {
    if (executors == 0) {
      LOG.warn("Waiting for executors: {}", message);
    } else {
      LOG.info("Waiting for more executors than {}: {}", executors, message);
    }
  }

  private void onRegistered(JsonNode message) {
    int version = message.path("v").asInt();
    if (version == Protocol.VERSION) {
      registered.complete(message.path("app_id").asText());
    } else {
      fail(
          "The program " + settings.program() + " speaks version " + version
              + " of the protocol, this plugin version " + Protocol.VERSION
              + "; use mezz and mezz-spark-bridge.jar of the same release");
    }
  }

  /**
   * Spark forgets at once what was written on that host, instead of finding out by one failed fetch
   * after the other.
   */
  private void onServiceLost(JsonNode message) {
    String agent = message.path("agent").asText();
    String host = message.path("host").asText();
    String reason = message.path("reason").asText();
    LOG.warn("The shuffle service on {} (agent {}) is gone: {}", host, agent, reason);
    if (!stopping.get()) {
      scheduler.workerRemoved(agent, host, "its shuffle service is gone: " + reason);
    }
  }

  /** The application cannot go on: its jobs fail with this message, and the context stops. */
  void fail(String message) {
    // A sidecar that reports an error ends after it, which is no second failure.
    if (stopping.get() || !failed.compareAndSet(false, true)) {
      return;
    }
    if (registered.completeExceptionally(new IllegalStateException(message))) {
      return;
    }
    try {
      scheduler.error(message);
    } catch (Exception e) {
      // Spark throws where no job runs that could fail with the message.
      LOG.error("The application ends: {}", message);
    } finally {
      sc.stopInNewThread();
    }
  }

  /** How an executor ended, as the sidecar tells it. */
  static ExecutorLossReason lossOf(JsonNode exited) {
    return exited.path("killed").asBoolean()
        ? ExecutorKilled$.MODULE$
        : new ExecutorExited(
            exited.path("code").asInt(),
            exited.path("by_app").asBoolean(),
            exited.path("reason").asText());
  }
}
