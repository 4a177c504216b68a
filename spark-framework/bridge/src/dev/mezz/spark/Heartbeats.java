package dev.mezz.spark;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.function.BiConsumer;

import org.apache.spark.SparkConf;
import org.apache.spark.scheduler.SparkListener;
import org.apache.spark.scheduler.SparkListenerExecutorMetricsUpdate;

/**
 * Finds executors whose heartbeats have stopped. Spark finds them too, but cannot end those of a
 * cluster that it does not know; the settings are Spark's own.
 */
final class Heartbeats extends SparkListener {
  private final long timeoutMillis;
  private final long intervalMillis;
  private final BiConsumer<String, String> onSilent;

  /** When each executor was heard last, by {@link System#nanoTime}. */
  private final Map<String, Long> heard = new ConcurrentHashMap<>();

  private final ScheduledThreadPoolExecutor timer =
      new ScheduledThreadPoolExecutor(
          1,
          work -> {
            Thread thread = new Thread(work, "mezz-heartbeats");
            thread.setDaemon(true);
            return thread;
          });

  /** {@code onSilent} is told, once, of each executor that is silent, and why that matters. */
  Heartbeats(SparkConf conf, BiConsumer<String, String> onSilent) {
    this.timeoutMillis =
        conf.getTimeAsMs(
            "spark.storage.blockManagerHeartbeatTimeoutMs",
            conf.getTimeAsSeconds("spark.network.timeout", "120s") + "s");
    this.intervalMillis =
        conf.getTimeAsMs(
            "spark.network.timeoutInterval",
            conf.get("spark.storage.blockManagerTimeoutIntervalMs", "60s"));
    this.onSilent = onSilent;
  }

  void start() {
    timer.scheduleWithFixedDelay(
        this::check, intervalMillis, intervalMillis, TimeUnit.MILLISECONDS);
  }

  void stop() {
    timer.shutdownNow();
  }

  /** An executor has begun. */
  void added(String executor) {
    heard.put(executor, System.nanoTime());
  }

  /** An executor has ended. */
  void removed(String executor) {
    heard.remove(executor);
  }

  /** Every heartbeat that Spark takes in is such an event. */
  @Override
  public void onExecutorMetricsUpdate(SparkListenerExecutorMetricsUpdate update) {
    heard.replace(update.execId(), System.nanoTime());
  }

  private void check() {
    long now = System.nanoTime();
    heard.forEach(
        (executor, last) -> {
          long silent = TimeUnit.NANOSECONDS.toMillis(now - last);
          if (silent > timeoutMillis && heard.remove(executor, last)) {
            onSilent.accept(executor, "no heartbeat came from it for " + silent + " ms");
          }
        });
  }
}
