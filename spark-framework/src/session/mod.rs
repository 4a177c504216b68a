//! One application: translates between the driver's messages, the master's
//! events and the policy. Pure, as the policy is.

mod exit;
mod launch;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use mezz_proto::{
    ids::{AgentId, TaskId},
    resources::Resources,
    time::Time,
    v1,
};
use thiserror::Error;
use tracing::{debug, info, warn};

use crate::{
    policy::{
        Action, AttributeValue, ConstraintError, Constraints, Event, ExecutorNo, ExitKind,
        LaunchSpec, Placement, Policy, PolicyOffer, PolicyOptions, ProfileId, ProfileTarget,
    },
    protocol::{FromDriver, PlacementName, Profile, Register, ToDriver, VERSION},
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
        /// Command tasks.
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
    /// Kill a task.
    Kill {
        /// Which.
        task: TaskId,
        /// Where.
        agent: AgentId,
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
    /// No length of time.
    #[error("spark.mezz.failoverTimeout: {0} is no number of seconds")]
    FailoverTimeout(f64),
}

/// An executor as the session remembers it.
#[derive(Clone, Copy, Debug)]
struct Launched {
    mem_mib: u64,
}

/// One application's state. See the [module](self).
pub struct Session {
    policy: Policy,
    register: Register,
    app_id: Option<String>,
    profiles: BTreeMap<ProfileId, Profile>,
    executors: BTreeMap<ExecutorNo, Launched>,
}

impl Session {
    /// Of this application.
    ///
    /// # Errors
    /// [`RegisterError`] says which setting is wrong.
    pub fn new(register: Register) -> Result<Self, RegisterError> {
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
        let options = PolicyOptions {
            cores_max: register.cores_max,
            max_per_agent: register.max_per_agent,
            constraints: Constraints::parse(register.constraints.as_deref().unwrap_or(""))?,
            placement: match register.placement {
                PlacementName::Spread => Placement::Spread,
                PlacementName::Consolidate => Placement::Consolidate,
            },
        };
        Ok(Self {
            policy: Policy::new(options),
            register,
            app_id: None,
            profiles: BTreeMap::new(),
            executors: BTreeMap::new(),
        })
    }

    /// What to subscribe as.
    pub fn framework(&self) -> v1::FrameworkInfo {
        use v1::framework_info::capability::Type;
        let r = &self.register;
        let capability = |t: Type| v1::framework_info::Capability { r#type: Some(t as i32) };
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
            capabilities: [Type::MultiRole, Type::PartitionAware, Type::ReservationRefinement]
                .map(capability)
                .to_vec(),
            roles: vec![r.role.clone().unwrap_or_else(|| "*".to_owned())],
            ..Default::default()
        }
    }

    /// host:port of each master.
    pub fn masters(&self) -> &[String] {
        &self.register.masters
    }

    /// When to send [`Input::Tick`].
    pub fn next_deadline(&self) -> Option<Time> {
        self.policy.next_deadline()
    }

    /// Takes in what happened; appends what is to be done, in order.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Driver(message) => self.driver(now, message, out),
            Input::Subscribed(id) => {
                if self.app_id.is_none() {
                    let registered = ToDriver::Registered { v: VERSION, app_id: id.value.clone() };
                    out.push(Output::Driver(registered));
                }
                self.app_id = Some(id.value);
                self.decide(now, Event::Connected, &BTreeMap::new(), out);
            }
            Input::Disconnected => self.decide(now, Event::Disconnected, &BTreeMap::new(), out),
            Input::Offers(offers) => self.offers(now, &offers, out),
            Input::Update(status) => self.update(now, &status, out),
            Input::Error(message) => {
                fail(format!("the master ended the application: {message}"), out)
            }
            Input::Tick => self.decide(now, Event::Tick, &BTreeMap::new(), out),
        }
    }

    fn driver(&mut self, now: Time, message: FromDriver, out: &mut Vec<Output>) {
        let event = match message {
            FromDriver::Register(_) => {
                fail("the Spark plugin registered twice".to_owned(), out);
                return;
            }
            FromDriver::Unregister { exit_code } => {
                info!(exit_code, "the application is over");
                out.push(Output::End(true));
                return;
            }
            FromDriver::Target { profiles } => {
                let targets = profiles
                    .iter()
                    .map(|p| ProfileTarget {
                        id: ProfileId(p.rp),
                        count: p.n,
                        cores: p.cores.max(1),
                        mem_mib: p.mem,
                        locality: p.locality.clone(),
                    })
                    .collect();
                debug!(?targets, "executors wanted");
                self.profiles.extend(profiles.into_iter().map(|p| (ProfileId(p.rp), p)));
                Event::Targets(targets)
            }
            FromDriver::KillExecutors { ids } => {
                Event::Kill(ids.iter().filter_map(|id| number(id)).collect())
            }
            FromDriver::ExecutorRegistered { id } => match number(&id) {
                Some(no) => Event::Registered(no),
                None => return,
            },
        };
        self.decide(now, event, &BTreeMap::new(), out);
    }

    fn offers(&mut self, now: Time, offers: &[v1::Offer], out: &mut Vec<Output>) {
        let mut known = Vec::new();
        let mut agents = BTreeMap::new();
        for offer in offers {
            match Resources::from_proto(&offer.resources) {
                Ok(resources) => {
                    let agent = AgentId::from(&offer.agent_id);
                    agents.insert(agent.clone(), launch::log_base(offer));
                    known.push(PolicyOffer {
                        id: (&offer.id).into(),
                        agent,
                        hostname: offer.hostname.clone(),
                        role: role_of(offer),
                        resources,
                        attributes: offer
                            .attributes
                            .iter()
                            .filter_map(|a| Some((a.name.clone(), AttributeValue::from_proto(a)?)))
                            .collect(),
                    });
                }
                Err(error) => {
                    warn!(offer = offer.id.value, %error, "an offer makes no sense");
                    out.push(Output::Decline {
                        offers: vec![offer.id.clone()],
                        refuse: crate::policy::LONG_REFUSAL,
                    });
                }
            }
        }
        self.decide(now, Event::Offers(known), &agents, out);
    }

    fn update(&mut self, now: Time, status: &v1::TaskStatus, out: &mut Vec<Output>) {
        let Some(executor) = number(&status.task_id.value) else {
            warn!(task = status.task_id.value, "a status of a task that is not ours");
            return;
        };
        let mem = self.executors.get(&executor).map(|e| e.mem_mib);
        let event = match exit::meaning(status, mem) {
            exit::Meaning::Gone(exit) => Event::Exited { executor, exit },
            exit::Meaning::Alive => {
                let Some(agent) = &status.agent_id else { return };
                Event::Running { executor, agent: agent.into() }
            }
            exit::Meaning::Nothing => return,
        };
        self.decide(now, event, &BTreeMap::new(), out);
    }

    /// Asks the policy; `logs` has the address of each offered agent's files.
    fn decide(
        &mut self,
        now: Time,
        event: Event,
        logs: &BTreeMap<AgentId, Option<String>>,
        out: &mut Vec<Output>,
    ) {
        let mut actions = Vec::new();
        self.policy.handle(now, event, &mut actions);
        for action in actions {
            match action {
                Action::Launch { offers, agent, role, executors, refuse } => {
                    let log = logs.get(&agent).and_then(|l| l.as_deref());
                    let tasks = executors
                        .iter()
                        .filter_map(|spec| self.task(spec, &agent, role.as_deref(), log))
                        .collect();
                    let offers = offers.iter().map(Into::into).collect();
                    out.push(Output::Launch { offers, tasks, refuse });
                    for spec in executors {
                        info!(executor = spec.executor.0, %agent, host = spec.hostname, "launching");
                        out.push(Output::Driver(ToDriver::ExecutorLaunched {
                            id: spec.executor.to_string(),
                            rp: spec.profile.0,
                            agent: agent.to_string(),
                            host: spec.hostname,
                        }));
                    }
                }
                Action::Decline { offers, refuse } => {
                    let offers = offers.iter().map(Into::into).collect();
                    out.push(Output::Decline { offers, refuse });
                }
                Action::Suppress => out.push(Output::Suppress),
                Action::Revive => out.push(Output::Revive),
                Action::Kill { executor, agent } => {
                    out.push(Output::Kill { task: TaskId::new(executor.to_string()), agent });
                }
                Action::Ended { executor, exit } => {
                    self.executors.remove(&executor);
                    info!(executor = executor.0, reason = exit.reason, "executor ended");
                    out.push(Output::Driver(ToDriver::ExecutorExited {
                        id: executor.to_string(),
                        code: exit.code,
                        by_app: exit.by_app,
                        killed: exit.kind == ExitKind::Killed,
                        reason: exit.reason,
                    }));
                }
                Action::GiveUp { message } => fail(message, out),
            }
        }
    }

    fn task(
        &mut self,
        spec: &LaunchSpec,
        agent: &AgentId,
        role: Option<&str>,
        log: Option<&str>,
    ) -> Option<v1::TaskInfo> {
        let profile = self.profiles.get(&spec.profile)?;
        let app_id = self.app_id.as_deref()?;
        self.executors.insert(spec.executor, Launched { mem_mib: profile.mem });
        let app = launch::App { register: &self.register, id: app_id };
        Some(launch::task(&app, profile, spec, agent, role, log))
    }
}

fn fail(message: String, out: &mut Vec<Output>) {
    out.push(Output::Driver(ToDriver::Error { message }));
    out.push(Output::End(false));
}

/// The executor that a task id, or an executor id of Spark's, stands for.
fn number(id: &str) -> Option<ExecutorNo> {
    id.parse().ok().map(ExecutorNo)
}

fn role_of(offer: &v1::Offer) -> Option<String> {
    let whole = offer.allocation_info.as_ref().and_then(|a| a.role.clone());
    whole.or_else(|| Resources::allocation_role(&offer.resources).ok().flatten())
}
