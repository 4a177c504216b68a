package dev.mezz.spark;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The child process {@code mezz spark-sidecar}, which is the framework: it subscribes to the master
 * and starts executors. Messages go over its standard input and output; what it says on standard
 * error goes to the driver's log. It ends when its input does, and so never outlives the driver.
 */
final class Sidecar implements AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(Sidecar.class);

  /** More messages than this are never on their way unless the sidecar hangs. */
  private static final int MAX_QUEUED = 65_536;

  /** How long the sidecar may take to end the framework before it is killed. */
  private static final long CLOSE_SECONDS = 10;

  private static final byte[] END = new byte[0];

  /** What the sidecar says. Called by one thread, in order. */
  interface Listener {
    /** A message came. */
    void onMessage(JsonNode message);

    /** The sidecar ended, or cannot be talked to any more. Called once, and not after close. */
    void onLost(String reason);
  }

  private final String program;
  private final Process process;
  private final Listener listener;
  private final BlockingQueue<byte[]> outgoing = new LinkedBlockingQueue<>(MAX_QUEUED);
  private final AtomicBoolean over = new AtomicBoolean();
  private volatile String lastWords = "";

  /**
   * Starts it.
   *
   * @throws IOException with what to do about it, if the program cannot be started
   */
  Sidecar(String program, Listener listener) throws IOException {
    this.program = program;
    this.listener = listener;
    try {
      this.process = new ProcessBuilder(program, "spark-sidecar").start();
    } catch (IOException e) {
      throw new IOException(
          "Cannot start '" + program + " spark-sidecar': set spark.mezz.bin or MEZZ_BIN to the mezz "
              + "program, or put it on the PATH",
          e);
    }
    daemon("mezz-sidecar-log", this::log);
    daemon("mezz-sidecar-writer", this::write);
    daemon("mezz-sidecar-reader", this::read);
  }

  /**
   * Sends a message; never blocks. A sidecar that does not read is killed, and its loss is then
   * noticed as any other is, by the reader: the caller may hold locks.
   */
  void send(ObjectNode message) {
    if (!over.get() && !outgoing.offer(Protocol.toLine(message))) {
      lastWords = "(none: it had stopped reading messages and was killed)";
      process.destroyForcibly();
    }
  }

  /** Sends a last message, and waits until the sidecar has ended. */
  void close(ObjectNode last) {
    if (over.compareAndSet(false, true)) {
      outgoing.offer(Protocol.toLine(last));
    }
    close();
  }

  /** Ends its input, and waits until it has ended. */
  @Override
  public void close() {
    over.set(true);
    // With a full queue it does not read, and will not see the end either.
    if (!outgoing.offer(END)) {
      process.destroyForcibly();
    }
    try {
      if (!process.waitFor(CLOSE_SECONDS, TimeUnit.SECONDS)) {
        LOG.warn(
            "{} did not end within {} s and is killed; the master ends the application after "
                + "spark.mezz.failoverTimeout",
            program,
            CLOSE_SECONDS);
        process.destroyForcibly();
      }
    } catch (InterruptedException e) {
      process.destroyForcibly();
      Thread.currentThread().interrupt();
    }
  }

  private void write() {
    try (OutputStream out = process.getOutputStream()) {
      for (byte[] line = outgoing.take(); line != END; line = outgoing.take()) {
        out.write(line);
        if (outgoing.isEmpty()) {
          out.flush();
        }
      }
    } catch (IOException e) {
      // It is dead: the reader sees that too, and knows the exit status.
      LOG.debug("Writing to the sidecar failed", e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private void read() {
    try (BufferedReader in = reader(process.getInputStream())) {
      for (String line = in.readLine(); line != null; line = in.readLine()) {
        if (line.isEmpty()) {
          continue;
        }
        JsonNode message = Protocol.parse(line);
        try {
          listener.onMessage(message);
        } catch (RuntimeException e) {
          LOG.error("Handling the sidecar's message '{}' failed", message.path("t").asText(), e);
        }
      }
      lost("it ended " + exitStatus());
    } catch (IOException e) {
      lost("what it says is not understood: " + e.getMessage());
      process.destroyForcibly();
    }
  }

  private void log() {
    try (BufferedReader in = reader(process.getErrorStream())) {
      for (String line = in.readLine(); line != null; line = in.readLine()) {
        lastWords = line;
        LOG.info("{}", line);
      }
    } catch (IOException e) {
      LOG.debug("The sidecar's standard error is closed", e);
    }
  }

  private void lost(String reason) {
    if (over.compareAndSet(false, true)) {
      String said = lastWords.isEmpty() ? "" : "; its last words were: " + lastWords;
      listener.onLost(
          "The Mezz framework process (" + program + " spark-sidecar, pid " + process.pid()
              + ") is lost: " + reason + said);
    }
  }

  private String exitStatus() {
    try {
      if (process.waitFor(2, TimeUnit.SECONDS)) {
        int status = process.exitValue();
        return status > 128 ? "by signal " + (status - 128) : "with status " + status;
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    return "with its output closed";
  }

  private static BufferedReader reader(InputStream in) {
    return new BufferedReader(new InputStreamReader(in, StandardCharsets.UTF_8));
  }

  private static void daemon(String name, Runnable work) {
    Thread thread = new Thread(work, name);
    thread.setDaemon(true);
    thread.start();
  }
}
