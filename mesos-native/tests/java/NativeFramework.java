import java.io.File;
import java.util.*;
import java.util.concurrent.*;
import org.apache.mesos.*;
import org.apache.mesos.Protos.*;
import org.apache.mesos.protobuf.ByteString;

/**
 * Goes through the API of MesosSchedulerDriver, part by part, and says what comes back. It ends
 * with 1 when something does not come. Arguments: the part, the master, the executor's command.
 */
public class NativeFramework implements Scheduler {
  static final long PATIENCE_SECONDS = 60;

  final LinkedBlockingQueue<String> events = new LinkedBlockingQueue<>();
  final LinkedBlockingQueue<Offer> offers = new LinkedBlockingQueue<>();
  final BlockingQueue<TaskStatus> updates = new LinkedBlockingQueue<>();
  volatile FrameworkID id;
  /** Whether the next callback throws. */
  volatile boolean throwing;

  static void say(String line) {
    System.out.println(line);
    System.out.flush();
  }

  void event(String line) {
    say(line);
    events.add(line);
  }

  static void check(boolean holds, String what) {
    if (!holds) {
      say("FAILED " + what);
      Runtime.getRuntime().halt(1);
    }
  }

  /** Waits for an event that begins like this, and drops those before it. */
  String expect(String begin) throws InterruptedException {
    long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE_SECONDS);
    while (true) {
      String event = events.poll(end - System.nanoTime(), TimeUnit.NANOSECONDS);
      check(event != null, "waiting for: " + begin);
      if (event.startsWith(begin)) {
        return event;
      }
    }
  }

  /** The next update of the task with this state; those before are dropped. */
  TaskStatus update(String task, TaskState state) throws InterruptedException {
    long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE_SECONDS);
    while (true) {
      TaskStatus update = updates.poll(end - System.nanoTime(), TimeUnit.NANOSECONDS);
      check(update != null, "waiting for " + task + " " + state);
      if (update.getTaskId().getValue().equals(task) && update.getState() == state) {
        return update;
      }
    }
  }

  /** In the folder that this program was started in. */
  static void waitForFile(String name) throws InterruptedException {
    long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE_SECONDS);
    while (!new File(name).exists()) {
      check(System.nanoTime() < end, "waiting for the file " + name);
      Thread.sleep(20);
    }
  }

  Offer offer() throws InterruptedException {
    Offer offer = offers.poll(PATIENCE_SECONDS, TimeUnit.SECONDS);
    check(offer != null, "waiting for an offer");
    return offer;
  }

  @Override
  public void registered(SchedulerDriver driver, FrameworkID framework, MasterInfo master) {
    id = framework;
    event("registered " + master.getPort());
    if (throwing) {
      throw new IllegalStateException("thrown by a callback");
    }
  }

  @Override
  public void reregistered(SchedulerDriver driver, MasterInfo master) {
    event("reregistered " + master.getPort());
  }

  @Override
  public void disconnected(SchedulerDriver driver) {
    event("disconnected");
  }

  @Override
  public void resourceOffers(SchedulerDriver driver, List<Offer> some) {
    event("offers " + some.size());
    offers.addAll(some);
  }

  @Override
  public void offerRescinded(SchedulerDriver driver, OfferID offer) {
    offers.removeIf(o -> o.getId().equals(offer));
    event("rescinded");
  }

  @Override
  public void statusUpdate(SchedulerDriver driver, TaskStatus status) {
    event("update " + status.getTaskId().getValue() + " " + status.getState() + " "
        + (status.hasReason() ? status.getReason() : "-"));
    updates.add(status);
  }

  @Override
  public void frameworkMessage(SchedulerDriver driver, ExecutorID executor, SlaveID slave, byte[] data) {
    event("message " + executor.getValue() + " " + new String(data));
  }

  @Override
  public void slaveLost(SchedulerDriver driver, SlaveID slave) {
    event("slaveLost");
  }

  @Override
  public void executorLost(SchedulerDriver driver, ExecutorID executor, SlaveID slave, int status) {
    event("executorLost " + executor.getValue() + " " + status);
  }

  @Override
  public void error(SchedulerDriver driver, String message) {
    event("error " + message);
  }

  /** As old frameworks are: no role, no capabilities, the user left to the driver. */
  static FrameworkInfo.Builder framework(String name) {
    return FrameworkInfo.newBuilder().setUser("").setName(name);
  }

  static Resource scalar(String name, double value) {
    return Resource.newBuilder().setName(name).setType(Value.Type.SCALAR)
        .setScalar(Value.Scalar.newBuilder().setValue(value)).build();
  }

  static TaskInfo task(String id, Offer offer, String executor, String command) throws Exception {
    ExecutorInfo.Builder info = ExecutorInfo.newBuilder()
        .setExecutorId(ExecutorID.newBuilder().setValue(executor))
        .setCommand(CommandInfo.newBuilder().setValue(command))
        .setName("ours").setData(ByteString.copyFromUtf8("our data"))
        .addResources(scalar("cpus", 0.1)).addResources(scalar("mem", 64));
    return TaskInfo.newBuilder().setName(id).setTaskId(TaskID.newBuilder().setValue(id))
        .setSlaveId(offer.getSlaveId()).setExecutor(info)
        .addResources(scalar("cpus", 0.1)).addResources(scalar("mem", 32)).build();
  }

  static double cpus(Offer offer) {
    return offer.getResourcesList().stream().filter(resource -> resource.getName().equals("cpus"))
        .mapToDouble(resource -> resource.getScalar().getValue()).sum();
  }

  static TaskStatus question(TaskStatus of) {
    return TaskStatus.newBuilder().setTaskId(of.getTaskId()).setSlaveId(of.getSlaveId())
        .setState(TaskState.TASK_RUNNING).build();
  }

  public static void main(String[] args) throws Exception {
    NativeFramework framework = new NativeFramework();
    switch (args[0]) {
      case "api": framework.api(args[1], args[2]); break;
      case "losses": framework.losses(args[1], args[2]); break;
      case "aborts": framework.aborts(args[1]); break;
      case "refused": framework.refused(args[1]); break;
      default: throw new IllegalArgumentException(args[0]);
    }
    say("DONE");
    System.exit(0);
  }

  /** Every call, with acknowledgements by the framework. */
  void api(String master, String executor) throws Exception {
    FrameworkInfo info = framework("native-api").setFailoverTimeout(600).build();
    MesosSchedulerDriver driver = new MesosSchedulerDriver(this, info, master, false);
    check(driver.stop(true) == Status.DRIVER_NOT_STARTED, "stop before start");
    check(driver.reviveOffers() == Status.DRIVER_NOT_STARTED, "a call before start");
    check(driver.start() == Status.DRIVER_RUNNING, "start");
    check(driver.start() == Status.DRIVER_RUNNING, "start again");
    expect("registered");
    check(driver.requestResources(List.of()) == Status.DRIVER_RUNNING, "requestResources");

    Offer offer = offer();
    check(!offer.hasAllocationInfo(), "an old framework sees no allocation_info");
    for (Resource resource : offer.getResourcesList()) {
      check(resource.getRole().equals("*") && !resource.hasAllocationInfo(), "an old resource");
    }
    Filters none = Filters.newBuilder().setRefuseSeconds(0).build();
    Offer.Operation launch = Offer.Operation.newBuilder().setType(Offer.Operation.Type.LAUNCH)
        .setLaunch(Offer.Operation.Launch.newBuilder().addTaskInfos(task("a", offer, "e", executor)))
        .build();
    driver.acceptOffers(List.of(offer.getId()), List.of(launch), none);
    TaskStatus running = update("a", TaskState.TASK_RUNNING);
    check(running.hasUuid(), "an update to be acknowledged");
    TaskStatus again = update("a", TaskState.TASK_RUNNING);
    check(again.getUuid().equals(running.getUuid()), "it comes again until it is acknowledged");
    check(driver.acknowledgeStatusUpdate(running) == Status.DRIVER_RUNNING, "acknowledge");

    ExecutorID id = ExecutorID.newBuilder().setValue("e").build();
    driver.sendFrameworkMessage(id, offer.getSlaveId(), "hello".getBytes());
    expect("message e pong hello");

    events.clear();
    driver.reconcileTasks(List.of(question(running)));
    expect("update a TASK_RUNNING REASON_RECONCILIATION");
    driver.reconcileTasks(List.of());
    expect("update a TASK_RUNNING REASON_RECONCILIATION");

    driver.killTask(running.getTaskId());
    driver.acknowledgeStatusUpdate(update("a", TaskState.TASK_KILLED));

    offer = offer();
    TaskInfo second = task("b", offer, "e", executor);
    driver.launchTasks(offer.getId(), List.of(second), none);
    driver.acknowledgeStatusUpdate(update("b", TaskState.TASK_RUNNING));
    driver.sendFrameworkMessage(id, offer.getSlaveId(), "finish b".getBytes());
    driver.acknowledgeStatusUpdate(update("b", TaskState.TASK_FINISHED));

    offer = offer();
    driver.declineOffer(offer.getId(), none);
    driver.launchTasks(List.of(offer.getId()), List.of(task("late", offer, "e", executor)));
    TaskStatus lost = update("late", TaskState.TASK_LOST);
    check(!lost.hasUuid() && lost.getReason() == TaskStatus.Reason.REASON_INVALID_OFFERS, "late");

    check(driver.suppressOffers() == Status.DRIVER_RUNNING, "suppress");
    for (Offer held; (held = offers.poll(1, TimeUnit.SECONDS)) != null;) {
      driver.declineOffer(held.getId());
    }
    events.clear();
    driver.reviveOffers();
    expect("offers");
    offer = offer();
    driver.launchTasks(List.of(offer.getId()), List.of(task("c", offer, "e", executor)), none);
    driver.acknowledgeStatusUpdate(update("c", TaskState.TASK_RUNNING));

    check(driver.stop(true) == Status.DRIVER_STOPPED, "stop");
    check(driver.join() == Status.DRIVER_STOPPED, "join");
    check(driver.killTask(running.getTaskId()) == Status.DRIVER_STOPPED, "a call after stop");

    say("STOPPED");
    NativeFramework heir = new NativeFramework();
    info = info.toBuilder().setId(this.id).build();
    driver = new MesosSchedulerDriver(heir, info, "mesos://" + master, true);
    driver.start();
    heir.expect("registered");
    check(heir.id.equals(this.id), "the framework's id stays");
    driver.reconcileTasks(List.of());
    heir.expect("update c TASK_RUNNING");
    try {
      driver.acknowledgeStatusUpdate(running);
      check(false, "acknowledgements of both kinds");
    } catch (RuntimeException e) {
      check(e.getMessage().contains("Implicit acknowledgements are enabled"), e.getMessage());
    }
    try {
      driver.killTask(null);
      check(false, "null");
    } catch (RuntimeException e) {
      check(e.getMessage().contains("taskId"), e.getMessage());
    }
    driver.sendFrameworkMessage(id, offer.getSlaveId(), "staging".getBytes());
    heir.update("c", TaskState.TASK_FAILED);
    heir.expect("executorLost e 256");
    offer = heir.offer();
    driver.launchTasks(offer.getId(), List.of(), none);
    // What the task and its executor had may be offered apart from the rest.
    do {
      offer = heir.offer();
    } while (cpus(offer) < 0.5);
    TaskInfo huge = task("huge", offer, "told to end", executor).toBuilder()
        .setData(ByteString.copyFrom(new byte[5 << 20])).build();
    driver.launchTasks(offer.getId(), List.of(huge, task("d", offer, "told to end", executor)));
    lost = heir.update("huge", TaskState.TASK_LOST);
    check(lost.getMessage().contains("4194304 are allowed"), lost.getMessage());
    heir.update("d", TaskState.TASK_RUNNING);
    check(driver.stop() == Status.DRIVER_STOPPED, "the end");
  }

  /** What happens to others: the test restarts the master, kills an executor and an agent. */
  void losses(String master, String executor) throws Exception {
    FrameworkInfo info = framework("native-losses").setFailoverTimeout(600).setCheckpoint(true).build();
    MesosSchedulerDriver driver = new MesosSchedulerDriver(this, info, master);
    driver.start();
    expect("registered");
    Offer offer = offer();
    driver.launchTasks(offer.getId(), List.of(task("a", offer, "e", executor)),
        Filters.newBuilder().setRefuseSeconds(0).build());
    update("a", TaskState.TASK_RUNNING);
    say("KILL MASTER");
    expect("disconnected");
    expect("reregistered");
    update("a", TaskState.TASK_RUNNING);
    ExecutorID id = ExecutorID.newBuilder().setValue("e").build();
    driver.sendFrameworkMessage(id, offer.getSlaveId(), "still there".getBytes());
    expect("message e pong still there");
    say("RESTART AGENT");
    waitForFile("agent-back");
    // Messages are dropped while the executor is away.
    for (boolean heard = false; !heard; ) {
      driver.sendFrameworkMessage(id, offer.getSlaveId(), "back".getBytes());
      String event = events.poll(200, TimeUnit.MILLISECONDS);
      heard = event != null && event.equals("message e pong back");
    }
    say("KILL EXECUTOR");
    driver.sendFrameworkMessage(id, offer.getSlaveId(), "die".getBytes());
    expect("executorLost e 768");
    offers.clear();
    driver.reviveOffers();
    say("KILL AGENT");
    expect("slaveLost");
    check(driver.stop(false) == Status.DRIVER_STOPPED, "stop");
  }

  /** A callback that throws aborts the driver; stop then ends the framework. */
  void aborts(String master) throws Exception {
    throwing = true;
    FrameworkInfo info = framework("native-aborts").setFailoverTimeout(600).build();
    MesosSchedulerDriver driver = new MesosSchedulerDriver(this, info, master);
    check(driver.run() == Status.DRIVER_ABORTED, "run");
    check(driver.reviveOffers() == Status.DRIVER_ABORTED, "a call after abort");
    say("ABORTED");
    waitForFile("go");
    check(driver.stop() == Status.DRIVER_ABORTED, "stop");
    check(driver.join() == Status.DRIVER_STOPPED, "join");

    NativeFramework other = new NativeFramework();
    driver = new MesosSchedulerDriver(other, framework("native-aborted").build(), master);
    driver.start();
    other.expect("registered");
    check(driver.abort() == Status.DRIVER_ABORTED, "abort");
    check(driver.join() == Status.DRIVER_ABORTED, "join after abort");
    check(driver.stop() == Status.DRIVER_ABORTED, "stop after abort");
    // Ended before the master has answered, or just after: nothing may be left either way.
    driver = new MesosSchedulerDriver(other, info.toBuilder().setName("native-brief").build(), master);
    driver.start();
    check(driver.stop() == Status.DRIVER_STOPPED, "stop at once");
  }

  /** What cannot even start. */
  void refused(String master) throws Exception {
    MesosSchedulerDriver driver =
        new MesosSchedulerDriver(this, framework("native-refused").build(), master);
    check(driver.run() == Status.DRIVER_ABORTED, "run");
    expect("error ");
  }
}
