//! What is shown of a driver.

use serde::{Deserialize, Serialize};

use super::core::Submission;

/// A driver, without what may be secret. Times are seconds since the epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DriverView {
    /// The submission's id.
    pub id: String,
    /// The application's name.
    pub name: String,
    /// Spark's word for it: `SUBMITTED`, `RUNNING`, `RELAUNCHING`, `UNKNOWN`,
    /// `FINISHED`, `FAILED`, `KILLED` or `ERROR`.
    pub state: String,
    /// Whether nothing more comes.
    pub ended: bool,
    /// What there is to say about the state.
    pub message: Option<String>,
    /// Its place in the queue: higher ones go first.
    pub priority: i32,
    /// Whether it is started again when it fails.
    pub supervise: bool,
    /// How often it was launched.
    pub launches: u32,
    /// Its jar or script.
    pub resource: String,
    /// Its class with `main`, for a jar.
    pub main_class: Option<String>,
    /// Processors of the driver.
    pub cpus: f64,
    /// Memory of the driver in MiB.
    pub mem_mib: u64,
    /// The image, for a driver in a Docker container.
    pub docker_image: Option<String>,
    /// The framework of the dispatcher.
    pub framework_id: Option<String>,
    /// The task of the last launch.
    pub task_id: Option<String>,
    /// The agent of the last launch.
    pub agent_id: Option<String>,
    /// Its host.
    pub host: Option<String>,
    /// host:port of its API.
    pub agent_address: Option<String>,
    /// When it was submitted.
    pub submitted_time: f64,
    /// When its last launch was first heard to run.
    pub started_time: Option<f64>,
    /// When it ended.
    pub ended_time: Option<f64>,
}

impl DriverView {
    pub(super) fn of(submission: &Submission, framework: Option<&str>) -> Self {
        let attempt = submission.attempt.as_ref();
        let secs = |nanos: u64| nanos as f64 / 1e9;
        Self {
            id: submission.id.clone(),
            name: submission.job.name.clone(),
            state: submission.state.name().to_owned(),
            ended: submission.state.is_final(),
            message: message(submission),
            priority: submission.job.priority,
            supervise: submission.job.supervise,
            launches: submission.launches,
            resource: submission.job.resource.clone(),
            main_class: submission.job.main_class.clone(),
            cpus: submission.job.cpus,
            mem_mib: submission.job.mem_mib,
            docker_image: submission.job.docker.as_ref().map(|d| d.image.clone()),
            framework_id: framework.map(str::to_owned),
            task_id: attempt.map(|a| a.task.clone()),
            agent_id: attempt.map(|a| a.agent.clone()),
            host: attempt.map(|a| a.host.clone()),
            agent_address: attempt.and_then(|a| a.agent_address.clone()),
            submitted_time: secs(submission.submitted),
            started_time: attempt.and_then(|a| a.running).map(secs),
            ended_time: submission.ended.map(secs),
        }
    }
}

/// What is known of its state, and what it waits for.
fn message(submission: &Submission) -> Option<String> {
    let lacking = submission.lacking.as_ref().filter(|_| submission.waits());
    let waits = lacking.map(|lacking| {
        format!(
            "no agent that is offered has room for it (cpus:{}; mem:{}): {lacking}",
            submission.job.cpus, submission.job.mem_mib
        )
    });
    match (&submission.message, waits) {
        (Some(message), Some(waits)) => Some(format!("{message}; {waits}")),
        (message, waits) => waits.or_else(|| message.clone()),
    }
}
