package dev.mezz.spark;

import java.util.List;

import org.apache.spark.SparkContext;
import org.apache.spark.scheduler.ExternalClusterManager;
import org.apache.spark.scheduler.SchedulerBackend;
import org.apache.spark.scheduler.TaskScheduler;
import org.apache.spark.scheduler.TaskSchedulerImpl;

/**
 * Makes Spark understand the master URL {@code spark-mezz://host:port[,host:port...]}. Spark finds
 * it through {@code META-INF/services}.
 *
 * <p>The scheme starts with {@code spark} because {@code spark-submit} takes no other that it does
 * not know; it is not {@code spark://}, which Spark keeps for its own cluster.
 */
public final class MezzClusterManager implements ExternalClusterManager {
  @Override
  public boolean canCreate(String masterUrl) {
    return MasterUrl.matches(masterUrl);
  }

  @Override
  public TaskScheduler createTaskScheduler(SparkContext sc, String masterUrl) {
    return new TaskSchedulerImpl(sc);
  }

  @Override
  public SchedulerBackend createSchedulerBackend(
      SparkContext sc, String masterUrl, TaskScheduler scheduler) {
    List<String> masters = MasterUrl.parse(masterUrl);
    Settings settings = new Settings(sc.conf());
    if (settings.inDocker()) {
      // Executors of one host do not see each other's files.
      sc.conf().setIfMissing("spark.shuffle.readHostLocalDisk", "false");
    }
    if (settings.shuffleService().own()) {
      // Who does not answer for one executor's files does so for none of its agent's. Spark's
      // scheduler, which is made next, looks only once.
      sc.conf().setIfMissing("spark.files.fetchFailure.unRegisterOutputOnHost", "true");
    }
    if (!settings.coarse()) {
      return new FineBackend((TaskSchedulerImpl) scheduler, sc, masters, settings);
    }
    Compat.allowResourceProfiles(sc.resourceProfileManager());
    return new CoarseBackend((TaskSchedulerImpl) scheduler, sc, masters, settings);
  }

  @Override
  public void initialize(TaskScheduler scheduler, SchedulerBackend backend) {
    ((TaskSchedulerImpl) scheduler).initialize(backend);
  }
}
