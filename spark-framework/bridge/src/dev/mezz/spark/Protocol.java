package dev.mezz.spark;

import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.OptionalInt;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;

/** The line protocol with the sidecar: one JSON object a line, its type in {@code t}. */
final class Protocol {
  /** The version that this plugin speaks. */
  static final int VERSION = 1;

  private static final ObjectMapper JSON = new ObjectMapper();

  private Protocol() {}

  /** Who the application is. May hold secrets in its environment: never to be logged. */
  static ObjectNode register(
      String mode, List<String> masters, String appName, String user, String sparkVersion) {
    ObjectNode node = message("register");
    node.put("v", VERSION);
    node.put("mode", mode);
    node.set("masters", JSON.valueToTree(masters));
    node.put("app_name", appName);
    node.put("user", user);
    node.put("spark", sparkVersion);
    return node;
  }

  /** How executors are started. */
  static void putCommand(ObjectNode register, List<String> argv, Map<String, String> environment) {
    register.set("command", JSON.valueToTree(argv));
    register.set("env", JSON.valueToTree(environment));
  }

  /** Where executors run, and what is fetched for them; absent URIs are null. */
  static void putPlace(
      ObjectNode register, Map<String, String> docker, String uris, String spark, boolean cache) {
    register.set("docker", JSON.valueToTree(docker));
    register.put("uris", uris);
    register.put("spark_uri", spark);
    register.put("fetch_cache", cache);
  }

  /** Names of settings that the sidecar is to look at. */
  static void putNames(ObjectNode register, List<String> settings) {
    register.set("settings", JSON.valueToTree(settings));
  }

  /** A field that may be absent. */
  static void putIfPresent(ObjectNode node, String field, OptionalInt value) {
    value.ifPresent(v -> node.put(field, v));
  }

  /** How many executors are wanted; to be filled with {@link #putProfile}. */
  static ObjectNode target() {
    ObjectNode node = message("target");
    node.putArray("profiles");
    return node;
  }

  /** Adds a resource profile to a target message; memory in MiB. */
  static ObjectNode putProfile(
      ObjectNode target,
      int profile,
      int executors,
      int cores,
      long memory,
      long heap,
      Map<String, Integer> locality) {
    ObjectNode node = target.withArray("profiles").addObject();
    node.put("rp", profile);
    node.put("n", executors);
    node.put("cores", cores);
    node.put("mem", memory);
    node.put("heap", heap);
    node.set("locality", JSON.valueToTree(locality));
    return node;
  }

  /** Adds a resource to a profile; with a discovery script executors see for themselves. */
  static void putResource(ObjectNode profile, String name, long amount, boolean discovered) {
    profile
        .withArray("resources")
        .addObject()
        .put("name", name)
        .put("amount", amount)
        .put("discovered", discovered);
  }

  static ObjectNode killExecutors(Collection<String> ids) {
    ObjectNode node = message("kill_executors");
    node.set("ids", JSON.valueToTree(ids));
    return node;
  }

  /** Adds what fine-grained mode needs to know to a register message; memory in MiB. */
  static ObjectNode putFine(
      ObjectNode register,
      double taskCpus,
      double executorCpus,
      long memory,
      long heap,
      int ahead,
      Map<String, String> properties,
      Map<String, String> secrets) {
    ObjectNode node = register.putObject("fine");
    node.put("task_cpus", taskCpus);
    node.put("executor_cpus", executorCpus);
    node.put("mem", memory);
    node.put("heap", heap);
    node.put("ahead", ahead);
    node.set("props", JSON.valueToTree(properties));
    node.set("secret_props", JSON.valueToTree(secrets));
    return node;
  }

  /** Adds what shuffle services need to know to a register message; memory in MiB. */
  static void putShuffle(
      ObjectNode register,
      double cores,
      long memory,
      List<String> argv,
      Map<String, String> environment) {
    ObjectNode node = register.putObject("shuffle");
    node.put("cpus", cores);
    node.put("mem", memory);
    putCommand(node, argv, environment);
  }

  /** What is done with offers; to be filled with {@link #putTask}. */
  static ObjectNode answer(long batch, long seen) {
    ObjectNode node = message("answer").put("batch", batch).put("seen", seen);
    node.putArray("launches");
    return node;
  }

  /** An offer of an answer, to be filled with {@link #putTask}. */
  static ObjectNode putLaunches(ObjectNode answer, int offer) {
    ObjectNode node = answer.withArray("launches").addObject().put("offer", offer);
    node.putArray("tasks");
    return node;
  }

  /** Adds a task to an offer of an answer. */
  static void putTask(ObjectNode launches, long id, String name, double cpus, byte[] data) {
    launches
        .withArray("tasks")
        .addObject()
        .put("tid", id)
        .put("name", name)
        .put("cpus", cpus)
        .put("data", data);
  }

  /** There are tasks to run, some of which would rather run on these hosts. */
  static ObjectNode revive(long number, Collection<String> hosts) {
    ObjectNode node = message("revive").put("n", number);
    node.set("hosts", JSON.valueToTree(hosts));
    return node;
  }

  static ObjectNode killTask(long id, boolean interrupt, String reason) {
    return message("kill_task").put("tid", id).put("interrupt", interrupt).put("reason", reason);
  }

  /** First words of an executor's JVM. */
  static ObjectNode hello() {
    return message("hello").put("v", VERSION);
  }

  /** A task's state, from its executor's JVM. */
  static ObjectNode status(long id, String state, byte[] data) {
    return message("status").put("tid", id).put("state", state).put("data", data);
  }

  static ObjectNode executorRegistered(String id) {
    return message("executor_registered").put("id", id);
  }

  static ObjectNode unregister(int exitCode) {
    return message("unregister").put("exit_code", exitCode);
  }

  /** The message as a line, newline included. */
  static byte[] toLine(ObjectNode message) {
    try {
      byte[] json = JSON.writeValueAsBytes(message);
      byte[] line = java.util.Arrays.copyOf(json, json.length + 1);
      line[json.length] = '\n';
      return line;
    } catch (JsonProcessingException e) {
      throw new IllegalStateException("A tree of plain values could not be written as JSON", e);
    }
  }

  /**
   * Reads one line.
   *
   * @throws JsonProcessingException if it is not JSON
   */
  static JsonNode parse(String line) throws JsonProcessingException {
    return JSON.readTree(line);
  }

  private static ObjectNode message(String type) {
    return JSON.createObjectNode().put("t", type);
  }
}
