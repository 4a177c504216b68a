package dev.mezz.spark;

import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Iterator;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import org.apache.spark.SparkConf;
import org.apache.spark.SparkEnv;
import org.apache.spark.TaskState;
import org.apache.spark.executor.Executor;
import org.apache.spark.executor.ExecutorBackend;
import org.apache.spark.scheduler.TaskDescription;
import org.apache.spark.util.Utils$;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import scala.Enumeration;
import scala.Option;

/**
 * The main class of an executor in fine-grained mode. It runs what its parent, {@code mezz
 * spark-executor}, tells it to. Standard input is a socket that both read and write; standard
 * output and error are the tasks' own.
 */
final class FineExecutorBackend implements ExecutorBackend {
  /** Carries the key of {@code spark.io.encryption}, in Base64. */
  static final String IO_KEY = "_MEZZ_SPARK_IO_SECRET";

  private static final Logger LOG = LoggerFactory.getLogger(FineExecutorBackend.class);

  /** States that wait to be written; tasks wait when there are more. */
  private static final int MAX_QUEUED = 1024;

  private final BlockingQueue<byte[]> outgoing = new LinkedBlockingQueue<>(MAX_QUEUED);
  private Executor executor;

  private FineExecutorBackend() {}

  /** Called by the parent's command. */
  public static void main(String[] arguments) {
    try {
      new FineExecutorBackend().run();
    } catch (IOException | RuntimeException e) {
      LOG.error("The executor cannot go on", e);
      System.exit(1);
    }
  }

  private void run() throws IOException {
    Thread writer = new Thread(this::write, "mezz-executor-writer");
    writer.setDaemon(true);
    writer.start();
    try (BufferedReader in =
        new BufferedReader(
            new InputStreamReader(
                new FileInputStream(FileDescriptor.in), StandardCharsets.UTF_8),
            1 << 16)) {
      for (String line = in.readLine(); line != null; line = in.readLine()) {
        if (!follow(Protocol.parse(line))) {
          return;
        }
      }
    }
    LOG.error("The parent process is gone");
    System.exit(1);
  }

  /** Returns whether to go on. */
  private boolean follow(JsonNode message) throws IOException {
    switch (message.path("t").asText()) {
      case "init":
        begin(message);
        send(Protocol.hello());
        return true;
      case "task":
        byte[] data = Base64.getDecoder().decode(message.path("data").asText());
        executor.launchTask(this, TaskDescription.decode(ByteBuffer.wrap(data)));
        return true;
      case "kill":
        executor.killTask(
            message.path("tid").asLong(),
            message.path("interrupt").asBoolean(),
            message.path("reason").asText());
        return true;
      case "shutdown":
        executor.stop();
        System.exit(0);
        return false;
      default:
        LOG.warn("The parent sent '{}', which is not understood", message.path("t").asText());
        return true;
    }
  }

  private void begin(JsonNode message) {
    if (message.path("v").asInt() != Protocol.VERSION) {
      throw new IllegalStateException(
          "The parent speaks version " + message.path("v").asInt() + " of the protocol, this plugin "
              + Protocol.VERSION + "; use mezz and mezz-spark-bridge.jar of the same release");
    }
    String id = message.path("exec").asText();
    String host = message.path("host").asText();
    if (host.isEmpty()) {
      // In a network of its own.
      host = Utils$.MODULE$.localHostName();
    }
    SparkConf conf = new SparkConf();
    JsonNode settings = message.path("props");
    for (Iterator<String> keys = settings.fieldNames(); keys.hasNext(); ) {
      String key = keys.next();
      String value = settings.path(key).asText();
      if (SparkConf.isExecutorStartupConf(key)) {
        conf.setIfMissing(key, value);
      } else {
        conf.set(key, value);
      }
    }
    conf.set("spark.app.id", message.path("app").asText());
    conf.set("spark.executor.id", id);
    String encoded = System.getenv(IO_KEY);
    byte[] ioKey = encoded == null ? null : Base64.getDecoder().decode(encoded);
    SparkEnv env =
        Compat.executorEnv(
            conf, id, host, message.path("cores").asInt(1), Option.<byte[]>apply(ioKey));
    executor = Compat.executor(id, host, env);
  }

  /** Called by Spark's task threads. That a task runs, the parent knows since it sent it. */
  @Override
  public void statusUpdate(long task, Enumeration.Value state, ByteBuffer data) {
    if (!TaskState.isFinished(state)) {
      return;
    }
    byte[] bytes = new byte[data.remaining()];
    data.duplicate().get(bytes);
    send(Protocol.status(task, state.toString(), bytes));
  }

  private void send(ObjectNode message) {
    try {
      outgoing.put(Protocol.toLine(message));
    } catch (InterruptedException e) {
      // A task that is killed is told so by interrupting it; its state must arrive all the same.
      boolean sent = false;
      while (!sent) {
        sent = outgoing.offer(Protocol.toLine(message));
        Thread.onSpinWait();
      }
      Thread.currentThread().interrupt();
    }
  }

  private void write() {
    // The same socket as the one that is read.
    try (OutputStream out =
        new java.io.BufferedOutputStream(new FileOutputStream(FileDescriptor.in), 1 << 16)) {
      while (true) {
        out.write(outgoing.take());
        if (outgoing.isEmpty()) {
          out.flush();
        }
      }
    } catch (IOException e) {
      // The parent is gone: the reader sees that too.
      LOG.debug("Writing to the parent failed", e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}
