package dev.mezz.spark;

import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.List;

import com.fasterxml.jackson.databind.JsonNode;
import org.apache.spark.SparkConf;
import org.apache.spark.deploy.SparkSubmitOperation;

/**
 * {@code spark-submit --kill ID} and {@code --status ID} for {@code spark-mezz://}. The id is that of
 * a framework, which is what an application in client mode is to the master, or that of a driver
 * which a dispatcher runs. Spark finds it through {@code META-INF/services}.
 *
 * <p>The work is done by {@code mezz}, which knows how to ask a master and a dispatcher.
 */
public final class SubmitOperation implements SparkSubmitOperation {
  /** How the dispatcher's ids begin. */
  private static final String DRIVER = "driver-";

  @Override
  public boolean supports(String master) {
    return MasterUrl.matches(master);
  }

  @Override
  public void kill(String id, SparkConf conf) {
    if (id.startsWith(DRIVER)) {
      run(dispatcher(conf, "kill", id));
    } else {
      run(master(conf, "framework", "teardown", id));
    }
  }

  @Override
  public void printSubmissionStatus(String id, SparkConf conf) {
    if (id.startsWith(DRIVER)) {
      run(dispatcher(conf, "status", id));
      return;
    }
    JsonNode all = read(master(conf, "frameworks", "--completed", "--output", "json"));
    for (JsonNode framework : all) {
      if (framework.path("id").asText().equals(id)) {
        System.out.println(describe(framework));
        return;
      }
    }
    throw new IllegalArgumentException(
        "The master knows no framework " + id + "; `mezz frameworks --completed` lists them");
  }

  private static String describe(JsonNode framework) {
    StringBuilder text = new StringBuilder();
    text.append("application ").append(framework.path("name").asText());
    text.append(" (").append(framework.path("id").asText()).append(") of ");
    text.append(framework.path("user").asText()).append(" is ");
    text.append(framework.path("status").asText());
    int executors = framework.path("tasks").asInt();
    text.append(", ").append(executors).append(executors == 1 ? " task" : " tasks");
    if (framework.hasNonNull("webui_url")) {
      text.append(", ").append(framework.path("webui_url").asText());
    }
    return text.toString();
  }

  private static List<String> dispatcher(SparkConf conf, String verb, String id) {
    List<String> command = command(conf, "spark", verb, id);
    // Without it mezz looks at MEZZ_DISPATCHER, and then on this machine.
    String address = conf.get("spark.mezz.dispatcher", "");
    if (!address.isEmpty()) {
      command.add("--dispatcher");
      command.add(address);
    }
    return command;
  }

  private static List<String> master(SparkConf conf, String... words) {
    List<String> command = command(conf, words);
    command.add("--master");
    command.add(String.join(",", MasterUrl.parse(conf.get("spark.master"))));
    return command;
  }

  private static List<String> command(SparkConf conf, String... words) {
    List<String> command = new ArrayList<>();
    command.add(Settings.program(conf));
    command.addAll(List.of(words));
    return command;
  }

  private static void run(List<String> command) {
    await(command, start(new ProcessBuilder(command).inheritIO()));
  }

  private static JsonNode read(List<String> command) {
    Process process =
        start(
            new ProcessBuilder(command)
                .redirectInput(ProcessBuilder.Redirect.INHERIT)
                .redirectError(ProcessBuilder.Redirect.INHERIT));
    String printed;
    try (InputStream out = process.getInputStream()) {
      printed = new String(out.readAllBytes(), java.nio.charset.StandardCharsets.UTF_8);
    } catch (IOException e) {
      throw failed(command, "cannot be read: " + e.getMessage(), e);
    }
    await(command, process);
    try {
      return Protocol.parse(printed);
    } catch (IOException e) {
      throw failed(command, "printed no JSON; use mezz of the same release", e);
    }
  }

  private static Process start(ProcessBuilder builder) {
    try {
      return builder.start();
    } catch (IOException e) {
      throw failed(
          builder.command(), "cannot be started; set spark.mezz.bin or MEZZ_BIN to the mezz program", e);
    }
  }

  private static void await(List<String> command, Process process) {
    try {
      int status = process.waitFor();
      if (status != 0) {
        throw failed(command, "ended with status " + status + "; it says why above", null);
      }
    } catch (InterruptedException e) {
      process.destroy();
      Thread.currentThread().interrupt();
      throw failed(command, "was interrupted", e);
    }
  }

  private static IllegalStateException failed(List<String> command, String how, Exception cause) {
    return new IllegalStateException("`" + String.join(" ", command) + "` " + how, cause);
  }
}
