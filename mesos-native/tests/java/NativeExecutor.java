import org.apache.mesos.*;
import org.apache.mesos.Protos.*;

/** Runs tasks that do nothing until they are told to end, and answers messages. */
public class NativeExecutor implements Executor {
  public static void main(String[] args) {
    Status status = new MesosExecutorDriver(new NativeExecutor()).run();
    say("ended " + status);
    System.exit(status == Status.DRIVER_STOPPED ? 0 : 1);
  }

  static void say(String line) {
    System.out.println(line);
    System.out.flush();
  }

  static void report(ExecutorDriver driver, TaskID task, TaskState state) {
    Status status =
        driver.sendStatusUpdate(TaskStatus.newBuilder().setTaskId(task).setState(state).build());
    say("sent " + task.getValue() + " " + state + " " + status);
  }

  @Override
  public void registered(ExecutorDriver driver, ExecutorInfo executor, FrameworkInfo framework, SlaveInfo slave) {
    say("registered " + executor.getExecutorId().getValue() + " of " + framework.getName()
        + " data " + executor.getData().toStringUtf8() + " on " + slave.getHostname());
  }

  @Override
  public void reregistered(ExecutorDriver driver, SlaveInfo slave) {
    say("reregistered");
  }

  @Override
  public void disconnected(ExecutorDriver driver) {
    say("disconnected");
  }

  @Override
  public void launchTask(ExecutorDriver driver, TaskInfo task) {
    report(driver, task.getTaskId(), TaskState.TASK_RUNNING);
  }

  @Override
  public void killTask(ExecutorDriver driver, TaskID task) {
    report(driver, task, TaskState.TASK_KILLED);
  }

  @Override
  public void frameworkMessage(ExecutorDriver driver, byte[] data) {
    String text = new String(data);
    if (text.equals("die")) {
      Runtime.getRuntime().halt(3);
    } else if (text.startsWith("finish ")) {
      TaskID task = TaskID.newBuilder().setValue(text.substring(7)).build();
      report(driver, task, TaskState.TASK_FINISHED);
    } else if (text.equals("staging")) {
      report(driver, TaskID.newBuilder().setValue("x").build(), TaskState.TASK_STAGING);
    } else {
      driver.sendFrameworkMessage(("pong " + text).getBytes());
    }
  }

  @Override
  public void shutdown(ExecutorDriver driver) {
    say("shutdown");
    driver.stop();
  }

  @Override
  public void error(ExecutorDriver driver, String message) {
    say("error " + message);
  }
}
