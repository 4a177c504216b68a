//! One application: translates between the driver's messages, the master's
//! events and the policy. Pure, as the policy is.

mod coarse;
mod engines;
mod exit;
mod fine;
mod launch;
mod place;
pub(crate) mod resources;
mod shuffle;

#[cfg(test)]
mod tests;

use std::time::Duration;

use mezz_proto::{
    ids::{AgentId, TaskId},
    resources::{ResourceError, Resources},
    time::Time,
    v1::{self, framework_info::capability::Type as Capability},
};
use thiserror::Error;

use self::place::Place;
pub use self::{coarse::CoarseSession, fine::FineSession};
pub(crate) use self::{
    launch::{kill_policy, log_base},
    place::is_fetchable,
};
use crate::{
    docker::DockerError,
    executor::MAX_SECRET_SETTINGS,
    labels::{self, LabelError},
    policy::{AttributeValue, ConstraintError, ExecutorNo, FailureLimit, PolicyOffer},
    protocol::{FromDriver, Mode, Register, ToDriver},
};

/// The master ends an application so long after losing it, unless
/// `spark.mezz.failoverTimeout` says otherwise.
const DEFAULT_FAILOVER_TIMEOUT: Duration = Duration::from_secs(60);

/// What happened outside.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message of the driver, but for its first, `register`.
    Driver(FromDriver),
    /// The master has taken us in, for the first time or again.
    Subscribed(v1::FrameworkId),
    /// The master is gone for now.
    Disconnected,
    /// Offers.
    Offers(Vec<v1::Offer>),
    /// A task's state.
    Update(Box<v1::TaskStatus>),
    /// An executor, or without one a whole agent, is gone.
    Failure {
        /// The agent.
        agent: Option<AgentId>,
        /// The executor's id.
        executor: Option<String>,
        /// Its wait status; -1 when not known.
        status: Option<i32>,
    },
    /// The master will have no more of us.
    Error(String),
    /// Time has passed.
    Tick,
}

/// What is to be done outside.
#[derive(Clone, PartialEq)]
pub enum Output {
    /// Tell the driver.
    Driver(ToDriver),
    /// Accept these offers for these tasks.
    Launch {
        /// Of one agent and role.
        offers: Vec<v1::OfferId>,
        /// Command tasks, or those of one custom executor.
        tasks: Vec<v1::TaskInfo>,
        /// How long the rest stays refused.
        refuse: Duration,
    },
    /// Decline.
    Decline {
        /// Which.
        offers: Vec<v1::OfferId>,
        /// For how long.
        refuse: Duration,
    },
    /// No more offers, please.
    Suppress,
    /// Offers again.
    Revive,
    /// Kill a task, within five seconds, whatever the task says itself.
    Kill {
        /// Which.
        task: TaskId,
        /// Where.
        agent: AgentId,
    },
    /// End a custom executor, should it live.
    ShutDown {
        /// Which.
        executor: String,
        /// Where.
        agent: AgentId,
    },
    /// Send to a custom executor, at most once.
    Message {
        /// Where.
        agent: AgentId,
        /// Which.
        executor: String,
        /// What.
        data: Vec<u8>,
    },
    /// Tear the framework down and end. The flag tells whether all was well.
    End(bool),
}

/// A `register` that cannot be followed.
#[derive(Debug, Error)]
pub enum RegisterError {
    /// No master.
    #[error("the master URL names no master; write spark-mezz://host:port[,host:port…]")]
    NoMaster,
    /// No command.
    #[error("the Spark plugin sent no executor command")]
    NoCommand,
    /// Wrong constraints.
    #[error("spark.mezz.constraints")]
    Constraints(#[from] ConstraintError),
    /// Wrong labels.
    #[error("spark.mezz.executor.labels")]
    Labels(#[from] LabelError),
    /// A wrong setting of the executors' container.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// Nothing that could be fetched.
    #[error("{setting}: `{uri}` is neither a URI nor an absolute path of the agents' machines")]
    Uri {
        /// The setting's name.
        setting: &'static str,
        /// What was given.
        uri: String,
    },
    /// Fine-grained mode without its settings.
    #[error("the Spark plugin sent no settings of fine-grained mode")]
    NoFineSettings,
    /// More secret settings than a variable holds.
    #[error(
        "the secret settings (passwords, and what spark.redaction.regex says) have {0} bytes as \
         text, and at most {MAX_SECRET_SETTINGS} are taken in fine-grained mode; put long values \
         into a file of the agents"
    )]
    SecretSettings(usize),
    /// No number of cores.
    #[error("{0}: {1} is no number of cores; it is 0 or more, with at most three decimals")]
    Cores(&'static str, f64),
    /// No length of time.
    #[error("spark.executor.failuresValidityInterval: {0} is no number of seconds")]
    FailuresInterval(f64),
    /// No length of time.
    #[error("spark.mezz.failoverTimeout: {0} is no number of seconds")]
    FailoverTimeout(f64),
}

/// One application. See the [module](self).
pub struct Session {
    mode: Modes,
    /// Of all tasks, beside each one's own.
    labels: Vec<v1::Label>,
}

enum Modes {
    /// Executors hold their cores for as long as they live.
    Coarse(Box<CoarseSession>),
    /// Tasks hold them.
    Fine(Box<FineSession>),
}

impl Session {
    /// Of this application; `program` is the path of this program.
    ///
    /// # Errors
    /// [`RegisterError`] says which setting is wrong.
    pub fn new(register: Register, program: &str) -> Result<Self, RegisterError> {
        if register.masters.is_empty() {
            return Err(RegisterError::NoMaster);
        }
        if register.command.is_empty() {
            return Err(RegisterError::NoCommand);
        }
        if let Some(t) = register.failover_timeout_s
            && !(t.is_finite() && t >= 0.0)
        {
            return Err(RegisterError::FailoverTimeout(t));
        }
        let labels = labels::parse(register.labels.as_deref().unwrap_or_default())?;
        let mode = match register.mode {
            Mode::Coarse => Modes::Coarse(Box::new(CoarseSession::new(register)?)),
            Mode::Fine => Modes::Fine(Box::new(FineSession::new(register, program)?)),
        };
        Ok(Self { mode, labels: labels::to_proto(&labels) })
    }

    fn register(&self) -> &Register {
        match &self.mode {
            Modes::Coarse(session) => session.register(),
            Modes::Fine(session) => session.register(),
        }
    }

    fn place(&self) -> &Place {
        match &self.mode {
            Modes::Coarse(session) => session.place(),
            Modes::Fine(session) => session.place(),
        }
    }

    /// What to subscribe as.
    pub fn framework(&self) -> v1::FrameworkInfo {
        match &self.mode {
            Modes::Coarse(session) => session.framework(),
            Modes::Fine(_) => framework(self.register(), &[]),
        }
    }

    /// Whether it wants offers from the start.
    pub fn wants_offers(&self) -> bool {
        match &self.mode {
            Modes::Coarse(_) => true,
            Modes::Fine(session) => session.wants_offers(),
        }
    }

    /// host:port of each master.
    pub fn masters(&self) -> &[String] {
        &self.register().masters
    }

    /// When to send [`Input::Tick`].
    pub fn next_deadline(&self) -> Option<Time> {
        match &self.mode {
            Modes::Coarse(session) => session.next_deadline(),
            Modes::Fine(session) => session.next_deadline(),
        }
    }

    /// Takes in what happened; appends what is to be done, in order.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        if let Input::Update(status) = &input
            && self.place().needs_engine()
            && let Some((agent, why)) = engines::refusal(status)
        {
            match &mut self.mode {
                Modes::Coarse(session) => session.unable(now, agent, why, out),
                Modes::Fine(session) => session.unable(now, agent, why, out),
            }
        }
        let before = out.len();
        match &mut self.mode {
            Modes::Coarse(session) => session.handle(now, input, out),
            Modes::Fine(session) => session.handle(now, input, out),
        }
        for output in &mut out[before..] {
            if let Output::Launch { tasks, .. } = output {
                tasks.iter_mut().for_each(|task| labels::add(task, &self.labels));
            }
        }
    }
}

/// The application as a framework, with these capabilities beside those that all
/// have.
fn framework(r: &Register, more: &[Capability]) -> v1::FrameworkInfo {
    let all = [
        Capability::MultiRole,
        Capability::PartitionAware,
        Capability::ReservationRefinement,
        // Agents with GPUs are used last by those who need none, and not left idle.
        Capability::GpuResources,
    ];
    let capability = |t: &Capability| v1::framework_info::Capability { r#type: Some(*t as i32) };
    v1::FrameworkInfo {
        user: r.user.clone(),
        name: r.app_name.clone(),
        failover_timeout: Some(
            r.failover_timeout_s.unwrap_or(DEFAULT_FAILOVER_TIMEOUT.as_secs_f64()),
        ),
        // Executors outlive a break between their agent and the master (rule 46).
        checkpoint: Some(true),
        hostname: r.host.clone(),
        webui_url: r.ui.clone(),
        capabilities: all.iter().chain(more).map(capability).collect(),
        roles: vec![r.role.clone().unwrap_or_else(|| "*".to_owned())],
        ..Default::default()
    }
}

/// What the application says of failed executors.
fn failure_limit(r: &Register) -> Result<FailureLimit, RegisterError> {
    let within = r.failures_interval_s.map(|seconds| {
        Duration::try_from_secs_f64(seconds).map_err(|_| RegisterError::FailuresInterval(seconds))
    });
    Ok(FailureLimit { max: r.max_failures, within: within.transpose()? })
}

fn fail(message: String, out: &mut Vec<Output>) {
    out.push(Output::Driver(ToDriver::Error { message }));
    out.push(Output::End(false));
}

/// The executor that a task id, or an executor id of Spark's, stands for.
fn number(id: &str) -> Option<ExecutorNo> {
    id.parse().ok().map(ExecutorNo)
}

/// An offer, as far as the policies look at it.
fn policy_offer(offer: &v1::Offer) -> Result<PolicyOffer, ResourceError> {
    Ok(PolicyOffer {
        id: (&offer.id).into(),
        agent: AgentId::from(&offer.agent_id),
        hostname: offer.hostname.clone(),
        role: role_of(offer),
        resources: Resources::from_proto(&offer.resources)?,
        attributes: offer
            .attributes
            .iter()
            .filter_map(|a| Some((a.name.clone(), AttributeValue::from_proto(a)?)))
            .collect(),
    })
}

fn role_of(offer: &v1::Offer) -> Option<String> {
    let whole = offer.allocation_info.as_ref().and_then(|a| a.role.clone());
    whole.or_else(|| Resources::allocation_role(&offer.resources).ok().flatten())
}
