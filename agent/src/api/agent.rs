//! The gRPC service for operators, the command line and frameworks.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt as _, stream};
use mezz_proto::{
    ids::{ContainerId, FrameworkId, TaskId},
    mezz::v1::{self as wire, agent_server},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Served,
    attach::attach,
    exec::exec,
    files::{FileError, Reader, list},
    index::{DiskUse, Entry, Files},
};
use crate::{containerizer::Statistics, core::TaskKey};

/// How often a followed file is looked at for more.
const FOLLOW: Duration = Duration::from_millis(50);

/// What containers use is known by then, or left out.
const STATISTICS: Duration = Duration::from_secs(5);

/// Containers that are asked for it at one time.
const QUESTIONS: usize = 64;

/// Parts of a file that may wait for a slow reader.
const PARTS: usize = 4;

pub(super) struct Service(Arc<Served>);

impl Service {
    pub(super) fn new(served: Arc<Served>) -> Self {
        Self(served)
    }

    fn files(&self, framework: &str, task: &str) -> Result<(TaskKey, Files), Status> {
        files(&self.0, framework, task).ok_or_else(|| Status::not_found(no_files(framework, task)))
    }
}

pub(super) fn files(served: &Served, framework: &str, task: &str) -> Option<(TaskKey, Files)> {
    let key = TaskKey { framework: FrameworkId::new(framework), task: TaskId::new(task) };
    let files = served.index.files(&key)?;
    Some((key, files))
}

pub(super) fn no_files(framework: &str, task: &str) -> String {
    format!(
        "this agent has no files of task {task} of framework {framework}: it never ran here, \
         its sandbox was collected, or its executor has run many tasks since (those that it began \
         with show its files)"
    )
}

#[tonic::async_trait]
impl agent_server::Agent for Service {
    type ReadSandboxStream = ReceiverStream<Result<wire::FileChunk, Status>>;
    type ExecStream = ReceiverStream<Result<wire::ExecOutput, Status>>;
    type AttachStream = ReceiverStream<Result<wire::AttachOutput, Status>>;

    async fn get_agent(
        &self,
        _: Request<wire::GetAgentRequest>,
    ) -> Result<Response<wire::GetAgentResponse>, Status> {
        Ok(Response::new(wire::GetAgentResponse {
            agent_id: self.0.index.agent_id().map(|id| id.to_string()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            master: self.0.index.master(),
            containment: self.0.containerizer.name().to_owned(),
            work_dir: self.0.work_dir.display().to_string(),
        }))
    }

    async fn list_containers(
        &self,
        _: Request<wire::ListContainersRequest>,
    ) -> Result<Response<wire::ListContainersResponse>, Status> {
        let deadline = Instant::now() + STATISTICS;
        let mut asked = self.0.index.running();
        // Processes wait for no engine.
        asked.sort_by_cached_key(|Entry { record, .. }| {
            self.0.containerizer.is_of_engine(&ContainerId::new(&record.container_id))
        });
        let mut containers: Vec<_> = stream::iter(asked)
            .map(|Entry { record, pid, disk, .. }| async move {
                let id = ContainerId::new(&record.container_id);
                // One that has just ended has none any more, nor one whose engine hangs.
                let asked = self.0.containerizer.statistics(&id);
                let statistics = tokio::time::timeout_at(deadline, asked).await.ok();
                wire::Container {
                    container_id: record.container_id,
                    framework_id: record.framework_id,
                    executor_id: record.executor_id,
                    pid,
                    sandbox: record.path,
                    statistics: statistics.and_then(Result::ok).map(|s| to_wire(s, disk)),
                }
            })
            // Nor does one of an engine that answers for one that hangs.
            .buffer_unordered(QUESTIONS)
            .collect()
            .await;
        containers.sort_by(|a, b| a.container_id.cmp(&b.container_id));
        Ok(Response::new(wire::ListContainersResponse { containers }))
    }

    async fn read_sandbox(
        &self,
        request: Request<wire::ReadSandboxRequest>,
    ) -> Result<Response<Self::ReadSandboxStream>, Status> {
        let request = request.into_inner();
        let (key, files) = self.files(&request.framework_id, &request.task_id)?;
        let (path, offset, follow) = (request.path.clone(), request.offset(), request.follow());
        let open = move || {
            let reader = Reader::open(&files.sandbox, &path, offset)?;
            // Only these are put aside by the agent.
            let rotated = follow && matches!(&*path, "stdout" | "stderr");
            Ok(if rotated { reader.over_rotations(&files.sandbox) } else { reader })
        };
        let reader = blocking(open).await?;
        let limit = request.limit.unwrap_or(u64::MAX);
        let (sender, parts) = mpsc::channel(PARTS);
        let follow = follow.then(|| Follow { served: Arc::clone(&self.0), key });
        let stop = self.0.stop.clone();
        tokio::spawn(
            async move { stop.run_until_cancelled(send(reader, limit, follow, sender)).await },
        );
        Ok(Response::new(ReceiverStream::new(parts)))
    }

    async fn list_sandbox(
        &self,
        request: Request<wire::ListSandboxRequest>,
    ) -> Result<Response<wire::ListSandboxResponse>, Status> {
        let request = request.into_inner();
        let (_, files) = self.files(&request.framework_id, &request.task_id)?;
        let path = request.path().to_owned();
        let entries = blocking(move || list(&files.sandbox, &path)).await?;
        Ok(Response::new(wire::ListSandboxResponse { entries }))
    }

    async fn exec(
        &self,
        request: Request<Streaming<wire::ExecInput>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let outputs = exec(&self.0, request.into_inner()).await?;
        Ok(Response::new(ReceiverStream::new(outputs)))
    }

    async fn attach(
        &self,
        request: Request<wire::AttachRequest>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let outputs = attach(&self.0, request.into_inner()).await?;
        Ok(Response::new(ReceiverStream::new(outputs)))
    }
}

pub(super) struct Follow {
    pub(super) served: Arc<Served>,
    pub(super) key: TaskKey,
}

/// Passes a file's parts on, until its end or, when it is followed, that of its task.
pub(super) async fn send(
    mut reader: Reader,
    mut limit: u64,
    follow: Option<Follow>,
    sender: mpsc::Sender<Result<wire::FileChunk, Status>>,
) {
    while limit > 0 {
        // Asked before the read: what is written before a task's end is read.
        let live = follow.as_ref().is_some_and(|follow| {
            follow.served.index.files(&follow.key).is_some_and(|files| files.live)
        });
        let read = blocking(move || {
            let part = reader.next(limit);
            part.map(|part| (part, reader))
        });
        let part = match read.await {
            Ok((part, back)) => {
                reader = back;
                part
            }
            Err(status) => {
                let _ = sender.send(Err(status)).await;
                return;
            }
        };
        if part.is_empty() {
            if !live {
                return;
            }
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(FOLLOW) => {}
            }
            continue;
        }
        limit = limit.saturating_sub(part.len() as u64);
        // Counted back, for a log that was put aside starts again.
        let offset = reader.offset - part.len() as u64;
        if sender.send(Ok(wire::FileChunk { offset, data: part })).await.is_err() {
            return;
        }
    }
}

/// Files are read where waiting for a disk holds nobody up.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| to_status(&error)),
        Err(_) => Err(Status::internal("reading was cut short")),
    }
}

fn to_status(error: &FileError) -> Status {
    let text = error.to_string();
    match error {
        FileError::Outside(_) | FileError::NotAFile(_) | FileError::NotAFolder(_) => {
            Status::invalid_argument(text)
        }
        FileError::Missing(_) => Status::not_found(text),
        FileError::Io { .. } => Status::internal(text),
    }
}

fn to_wire(statistics: Statistics, disk: Option<DiskUse>) -> wire::ContainerStatistics {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    wire::ContainerStatistics {
        timestamp: now.as_secs_f64(),
        cpus_user_time_secs: statistics.cpus_user_secs,
        cpus_system_time_secs: statistics.cpus_system_secs,
        cpus_nr_throttled: statistics.cpus_nr_throttled,
        mem_rss_bytes: statistics.mem_rss_bytes,
        mem_peak_bytes: statistics.mem_peak_bytes,
        mem_limit_bytes: statistics.mem_limit_bytes,
        oom_kills: statistics.oom_kills,
        pids: statistics.pids,
        cpus_nr_periods: statistics.cpus_nr_periods,
        cpus_throttled_time_secs: statistics.cpus_throttled_secs,
        mem_swap_bytes: statistics.mem_swap_bytes,
        disk_used_bytes: disk.map(|disk| disk.used),
        disk_limit_bytes: disk.and_then(|disk| disk.limit),
    }
}
