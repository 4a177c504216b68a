//! One application in coarse-grained mode: translates between the driver's
//! messages, the master's events and the policy.

use std::collections::BTreeMap;

use mezz_proto::{
    ids::{AgentId, TaskId},
    time::Time,
    v1,
};
use tracing::{debug, info, warn};

use super::{
    Capability, Input, Output, RegisterError, exit, fail, failure_limit, framework, launch, number,
    place::Place, policy_offer, resources,
};
use crate::{
    policy::{
        Action, Constraints, Event, ExecutorNo, ExitKind, LaunchSpec, Placement, Policy,
        PolicyOptions, ProfileId, ProfileTarget,
    },
    protocol::{FromDriver, PlacementName, Profile, Register, ToDriver},
    session::shuffle,
};

/// An executor as the session remembers it.
#[derive(Clone, Copy, Debug)]
struct Launched {
    mem_mib: u64,
}

/// One application's state.
pub struct CoarseSession {
    policy: Policy,
    register: Register,
    place: Place,
    app_id: Option<String>,
    profiles: BTreeMap<ProfileId, Profile>,
    executors: BTreeMap<ExecutorNo, Launched>,
}

impl CoarseSession {
    /// Of this application.
    ///
    /// # Errors
    /// [`RegisterError`] says which setting is wrong.
    pub fn new(register: Register) -> Result<Self, RegisterError> {
        let place = Place::read(&register)?;
        let options = PolicyOptions {
            shuffle: shuffle::size(&register)?,
            cores_max: register.cores_max,
            max_per_agent: register.max_per_agent,
            constraints: Constraints::parse(register.constraints.as_deref().unwrap_or(""))?,
            placement: match register.placement {
                PlacementName::Spread => Placement::Spread,
                PlacementName::Consolidate => Placement::Consolidate,
            },
            failures: failure_limit(&register)?,
            launch_timeout: place.launch_timeout(),
        };
        Ok(Self {
            policy: Policy::new(options),
            register,
            place,
            app_id: None,
            profiles: BTreeMap::new(),
            executors: BTreeMap::new(),
        })
    }

    /// What to subscribe as.
    pub(super) fn framework(&self) -> v1::FrameworkInfo {
        // By TASK_KILLING it hears that an agent is drained while executors move away.
        framework(&self.register, &[Capability::TaskKillingState])
    }

    pub(super) fn register(&self) -> &Register {
        &self.register
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.policy.next_deadline()
    }

    /// Takes in what happened; appends what is to be done, in order.
    pub(super) fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Driver(message) => self.driver(now, message, out),
            Input::Subscribed(id) => {
                if self.app_id.is_none() {
                    out.push(Output::Driver(ToDriver::registered(&id.value)));
                }
                self.app_id = Some(id.value);
                self.decide(now, Event::Connected, &BTreeMap::new(), out);
            }
            Input::Disconnected => self.decide(now, Event::Disconnected, &BTreeMap::new(), out),
            Input::Offers(offers) => self.offers(now, &offers, out),
            Input::Update(status) => self.update(now, &status, out),
            // Command tasks report their own end.
            Input::Failure { .. } => {}
            Input::Error(message) => {
                fail(format!("the master ended the application: {message}"), out)
            }
            Input::Tick => self.decide(now, Event::Tick, &BTreeMap::new(), out),
        }
    }

    /// An agent cannot run such executors; `why` says what it lacks.
    pub(super) fn unable(&mut self, now: Time, agent: AgentId, why: &str, out: &mut Vec<Output>) {
        let event = Event::Unable { agent, why: why.to_owned() };
        self.decide(now, event, &BTreeMap::new(), out);
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
                let event = Event::Targets(profiles.iter().map(target).collect());
                debug!(?event, "executors wanted");
                self.profiles.extend(profiles.into_iter().map(|p| (ProfileId(p.rp), p)));
                event
            }
            FromDriver::KillExecutors { ids } => {
                Event::Kill(ids.iter().filter_map(|id| number(id)).collect())
            }
            FromDriver::ExecutorRegistered { id } => match number(&id) {
                Some(no) => Event::Registered(no),
                None => return,
            },
            FromDriver::Answer { .. } | FromDriver::Revive { .. } | FromDriver::KillTask { .. } => {
                fail("the Spark plugin sent a message of fine-grained mode".to_owned(), out);
                return;
            }
        };
        self.decide(now, event, &BTreeMap::new(), out);
    }

    fn offers(&mut self, now: Time, offers: &[v1::Offer], out: &mut Vec<Output>) {
        let mut known = Vec::new();
        let mut agents = BTreeMap::new();
        for offer in offers {
            match policy_offer(offer) {
                Ok(offered) => {
                    agents.insert(offered.agent.clone(), launch::log_base(offer));
                    known.push(offered);
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
        if let Some(service) = shuffle::number(&status.task_id.value) {
            let mem = self.register.shuffle.as_ref().map_or(0, |s| s.mem);
            let event = match shuffle::meaning(service, status, mem) {
                shuffle::Meaning::Running(agent) => Event::ServiceRunning { service, agent },
                shuffle::Meaning::Gone(exit) => Event::ServiceEnded { service, exit },
                shuffle::Meaning::Unknown => Event::ServiceUnknown(service),
                shuffle::Meaning::Nothing => return,
            };
            self.decide(now, event, &BTreeMap::new(), out);
            return;
        }
        let Some(executor) = number(&status.task_id.value) else {
            warn!(task = status.task_id.value, "a status of a task that is not ours");
            return;
        };
        if exit::leaves(status) {
            info!(executor = executor.0, "its agent is being drained");
            self.decide(now, Event::Leaving(executor), &BTreeMap::new(), out);
            return;
        }
        let mem = self.executors.get(&executor).map(|e| e.mem_mib);
        let event = match exit::meaning(status, mem) {
            exit::Meaning::Gone(exit) => Event::Exited { executor, exit },
            exit::Meaning::Alive => {
                let Some(agent) = &status.agent_id else { return };
                Event::Running { executor, agent: agent.into() }
            }
            exit::Meaning::Unknown => Event::Unknown(executor),
            exit::Meaning::Nothing => Event::Known(executor),
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
                    // Services first: executors look for theirs when they start.
                    let mut tasks = self.services(&executors, &agent, role.as_deref());
                    tasks.extend(
                        executors
                            .iter()
                            .filter_map(|spec| self.task(spec, &agent, role.as_deref(), log)),
                    );
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
                Action::EndService { service, agent } => {
                    out.push(Output::Kill { task: shuffle::task_id(service), agent });
                }
                Action::ServiceLost { agent, hostname, reason } => {
                    out.push(shuffle::lost(&agent, hostname, reason));
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
                Action::Avoid(avoidance) => {
                    let message = avoidance.to_string();
                    out.push(Output::Driver(ToDriver::Warning { message }));
                }
                Action::Waiting { message } => {
                    let executors = self.policy.live();
                    out.push(Output::Driver(ToDriver::Waiting { executors, message }));
                }
                Action::GiveUp { message } => fail(message, out),
            }
        }
    }

    fn services(
        &self,
        executors: &[LaunchSpec],
        agent: &AgentId,
        role: Option<&str>,
    ) -> Vec<v1::TaskInfo> {
        let Some(app_id) = self.app_id.as_deref() else { return Vec::new() };
        let app = launch::App { register: &self.register, id: app_id, place: &self.place };
        let served = executors.iter().filter_map(|spec| spec.served.as_ref());
        served.filter_map(|served| shuffle::task(&app, served, agent, role)).collect()
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
        let app = launch::App { register: &self.register, id: app_id, place: &self.place };
        Some(launch::task(&app, profile, spec, agent, role, log))
    }
}

/// A profile as the policy wants it.
fn target(profile: &Profile) -> ProfileTarget {
    ProfileTarget {
        id: ProfileId(profile.rp),
        count: profile.n,
        cores: profile.cores.max(1),
        mem_mib: profile.mem,
        locality: profile.locality.clone(),
        custom: resources::needs(&profile.resources),
    }
}
