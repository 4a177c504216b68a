//! One application in fine-grained mode: translates between the driver's messages,
//! the master's events and the policy.

mod launch;
mod updates;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use mezz_proto::{
    ids::{AgentId, TaskId},
    resources::Scalar,
    time::Time,
    v1,
};
use tracing::{info, warn};

use self::launch::Made;
use super::{
    Input, Output, RegisterError, exit, fail, failure_limit, launch::log_base, number,
    place::Place, policy_offer,
};
use crate::{
    executor::{KillOrder, MAX_SECRET_SETTINGS, SECRET_SETTINGS, write_secret_settings},
    policy::{
        Constraints, ExecutorNo, Exit, ExitKind, LONG_REFUSAL,
        fine::{Answer, FineAction, FineEvent, FineOptions, FinePolicy, TaskAsk, TaskNo},
    },
    protocol::{FineSettings, FromDriver, Launches, Register, ShownOffer, SparkTask, ToDriver},
    session::shuffle,
};

/// One application's state.
pub struct FineSession {
    policy: FinePolicy,
    register: Register,
    place: Place,
    settings: FineSettings,
    program: String,
    app_id: Option<String>,
    executors: BTreeMap<ExecutorNo, Made>,
}

impl FineSession {
    /// Of this application; `program` is this program's path.
    ///
    /// # Errors
    /// [`RegisterError`] says which setting is wrong.
    pub fn new(mut register: Register, program: &str) -> Result<Self, RegisterError> {
        let settings = register.fine.take().ok_or(RegisterError::NoFineSettings)?;
        // A variable marked as secret: what is in the data of tasks is no secret of the
        // cluster's.
        if !settings.secret_props.is_empty() {
            let text = write_secret_settings(&settings.secret_props);
            if text.len() > MAX_SECRET_SETTINGS {
                return Err(RegisterError::SecretSettings(text.len()));
            }
            register.env.insert(SECRET_SETTINGS.to_owned(), text);
        }
        let cpus =
            |name, value| Scalar::from_f64(value).map_err(|_| RegisterError::Cores(name, value));
        let options = FineOptions {
            cores_max: register.cores_max,
            shuffle: shuffle::size(&register)?,
            constraints: Constraints::parse(register.constraints.as_deref().unwrap_or(""))?,
            failures: failure_limit(&register)?,
            task_cpus: cpus("spark.task.cpus", settings.task_cpus)?,
            executor_cpus: cpus("spark.mezz.executor.cores", settings.executor_cpus)?,
            task_bytes: task_bytes(&register, &settings),
            executor_mem_mib: settings.mem,
            ahead: settings.ahead,
        };
        Ok(Self {
            policy: FinePolicy::new(options),
            place: Place::read(&register)?,
            program: settings.program.clone().unwrap_or_else(|| program.to_owned()),
            register,
            settings,
            app_id: None,
            executors: BTreeMap::new(),
        })
    }

    pub(super) fn register(&self) -> &Register {
        &self.register
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether it wants offers from the start.
    pub(super) fn wants_offers(&self) -> bool {
        self.policy.wants_offers()
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
            }
            // Offers die with the subscription; what is launched on one of them
            // comes back as dropped.
            Input::Disconnected => {
                self.decide(now, FineEvent::Disconnected, Shown::default(), out);
            }
            Input::Offers(offers) => self.offers(now, &offers, out),
            Input::Update(status) => match shuffle::number(&status.task_id.value) {
                Some(service) => {
                    let mem = self.register.shuffle.as_ref().map_or(0, |s| s.mem);
                    let event = match shuffle::meaning(service, &status, mem) {
                        shuffle::Meaning::Running(agent) => {
                            FineEvent::ServiceRunning { service, agent }
                        }
                        shuffle::Meaning::Gone(exit) => FineEvent::ServiceEnded { service, exit },
                        shuffle::Meaning::Unknown => FineEvent::ServiceUnknown(service),
                        shuffle::Meaning::Nothing => return,
                    };
                    self.decide(now, event, Shown::default(), out);
                }
                None => self.update(now, *status, out),
            },
            Input::Failure { agent, executor, status } => {
                let event = match executor {
                    Some(executor) => {
                        let Some(executor) = number(&executor) else { return };
                        let exit = exit::of_wait_status(status);
                        FineEvent::ExecutorEnded { executor, exit }
                    }
                    None => match agent {
                        Some(agent) => FineEvent::AgentLost(agent),
                        None => return,
                    },
                };
                self.decide(now, event, Shown::default(), out);
            }
            Input::Error(message) => {
                fail(format!("the master ended the application: {message}"), out);
            }
            Input::Tick => self.decide(now, FineEvent::Tick, Shown::default(), out),
        }
    }

    /// An agent cannot run such executors; `why` says what it lacks.
    pub(super) fn unable(&mut self, now: Time, agent: AgentId, why: &str, out: &mut Vec<Output>) {
        let event = FineEvent::Unable { agent, why: why.to_owned() };
        self.decide(now, event, Shown::default(), out);
    }

    fn driver(&mut self, now: Time, message: FromDriver, out: &mut Vec<Output>) {
        match message {
            FromDriver::Register(_) => fail("the Spark plugin registered twice".to_owned(), out),
            FromDriver::Unregister { exit_code } => {
                info!(exit_code, "the application is over");
                out.push(Output::End(true));
            }
            FromDriver::Answer { batch, seen, waiting, launches } => {
                self.answer(
                    now,
                    Answer { batch, seen, waiting, launches: Vec::new() },
                    launches,
                    out,
                );
            }
            FromDriver::Revive { n, hosts } => {
                self.decide(now, FineEvent::Prefer(hosts), Shown::default(), out);
                self.decide(now, FineEvent::Revive(n), Shown::default(), out);
            }
            FromDriver::KillTask { tid, interrupt, reason } => {
                let Some((executor, agent)) = self.policy.place_of(TaskNo(tid)) else { return };
                let agent = agent.clone();
                // The kill itself comes for certain, this only as a rule.
                let data = KillOrder { tid, interrupt, reason }.to_bytes();
                let executor = executor.to_string();
                out.push(Output::Message { agent: agent.clone(), executor, data });
                out.push(Output::Kill { task: TaskId::new(tid.to_string()), agent });
            }
            FromDriver::KillExecutors { ids } => {
                let executors = ids.iter().filter_map(|id| number(id)).collect();
                self.decide(now, FineEvent::Kill(executors), Shown::default(), out);
            }
            FromDriver::Target { .. } | FromDriver::ExecutorRegistered { .. } => {
                fail("the Spark plugin sent a message of coarse-grained mode".to_owned(), out);
            }
        }
    }

    fn answer(
        &mut self,
        now: Time,
        mut answer: Answer,
        launches: Vec<Launches>,
        out: &mut Vec<Output>,
    ) {
        let mut tasks = BTreeMap::new();
        for launch in launches {
            let mut asks = Vec::with_capacity(launch.tasks.len());
            for task in launch.tasks {
                let Ok(cpus) = Scalar::from_f64(task.cpus) else {
                    return fail(
                        format!("task {}: {} is no number of cores", task.tid, task.cpus),
                        out,
                    );
                };
                asks.push(TaskAsk { task: TaskNo(task.tid), cpus, bytes: task.data.len() });
                tasks.insert(TaskNo(task.tid), task);
            }
            answer.launches.push((launch.offer, asks));
        }
        let shown = Shown { tasks, ..Shown::default() };
        self.decide(now, FineEvent::Answer(answer), shown, out);
    }

    fn offers(&mut self, now: Time, offers: &[v1::Offer], out: &mut Vec<Output>) {
        let mut known = Vec::new();
        let mut shown = Shown::default();
        let mut present: BTreeMap<AgentId, BTreeSet<ExecutorNo>> = BTreeMap::new();
        for offer in offers {
            match policy_offer(offer) {
                Ok(offered) => {
                    if let Entry::Vacant(v) = shown.logs.entry(offered.agent.clone()) {
                        v.insert(log_base(offer));
                    }
                    let cpus = shown.cpus.entry(offered.agent.clone()).or_default();
                    *cpus = cpus.saturating_add(offered.resources.scalar("cpus"));
                    let executors = offer.executor_ids.iter().filter_map(|e| number(&e.value));
                    present.entry(offered.agent.clone()).or_default().extend(executors);
                    known.push(offered);
                }
                Err(error) => {
                    warn!(offer = offer.id.value, %error, "an offer makes no sense");
                    let offers = vec![offer.id.clone()];
                    out.push(Output::Decline { offers, refuse: LONG_REFUSAL });
                }
            }
        }
        for (agent, executors) in present {
            let executors = executors.into_iter().collect();
            self.decide(now, FineEvent::Present { agent, executors }, Shown::default(), out);
        }
        self.decide(now, FineEvent::Offers(known), shown, out);
    }

    /// Asks the policy; `shown` has what its actions refer to.
    fn decide(&mut self, now: Time, event: FineEvent, mut shown: Shown, out: &mut Vec<Output>) {
        let mut actions = Vec::new();
        self.policy.handle(now, event, &mut actions);
        for action in actions {
            match action {
                FineAction::Show { batch, offers } => {
                    let offers = offers
                        .into_iter()
                        .map(|offer| ShownOffer {
                            exec: offer.executor.to_string(),
                            logs: self.logs(&shown, &offer.agent),
                            agent: offer.agent.to_string(),
                            host: offer.hostname,
                            cpus: offer.cpus.to_f64(),
                        })
                        .collect();
                    out.push(Output::Driver(ToDriver::Offers { batch, offers }));
                }
                FineAction::Launch(launch) => {
                    let offers = launch.offers.iter().map(Into::into).collect();
                    let refuse = launch.refuse;
                    if let Some((start, _)) = launch.tasks.iter().find(|(no, _)| !no.is_sparks()) {
                        let cpus = shown.cpus.get(&launch.agent).copied().unwrap_or_default();
                        out.push(Output::Driver(ToDriver::ExecutorAhead {
                            task: start.to_string(),
                            offer: ShownOffer {
                                exec: launch.executor.to_string(),
                                logs: self.logs(&shown, &launch.agent),
                                agent: launch.agent.to_string(),
                                host: launch.hostname.clone(),
                                cpus: cpus.to_f64(),
                            },
                        }));
                    }
                    let tasks = self.tasks(launch, &mut shown.tasks);
                    out.push(Output::Launch { offers, tasks, refuse });
                }
                FineAction::Decline { offers, refuse } => {
                    let offers = offers.iter().map(Into::into).collect();
                    out.push(Output::Decline { offers, refuse });
                }
                FineAction::EndService { service, agent } => {
                    out.push(Output::Kill { task: shuffle::task_id(service), agent });
                }
                FineAction::ServiceLost { agent, hostname, reason } => {
                    out.push(shuffle::lost(&agent, hostname, reason));
                }
                FineAction::Suppress => out.push(Output::Suppress),
                FineAction::Revive => out.push(Output::Revive),
                FineAction::ShutDown { executor, agent } => {
                    out.push(Output::ShutDown { executor: executor.to_string(), agent });
                }
                FineAction::Up(executor) => {
                    let id = executor.to_string();
                    out.push(Output::Driver(ToDriver::ExecutorUp { id }));
                }
                FineAction::Undone { tasks, executor, by_app, reason } => {
                    let sparks = tasks.iter().filter(|t| t.is_sparks());
                    let tids: Vec<u64> = sparks.map(|t| t.0).collect();
                    if !tids.is_empty() {
                        let exec = executor.to_string();
                        out.push(Output::Driver(ToDriver::Undone { tids, exec, by_app, reason }));
                    }
                }
                FineAction::Ended { executor, exit, ran } => {
                    out.extend(ran.into_iter().filter_map(running));
                    self.ended(executor, exit, out);
                }
                FineAction::Avoid(avoidance) => {
                    let message = avoidance.to_string();
                    out.push(Output::Driver(ToDriver::Warning { message }));
                }
                FineAction::Waiting { message } => {
                    out.push(Output::Driver(ToDriver::Waiting { executors: 0, message }));
                }
                FineAction::GiveUp { message } => fail(message, out),
            }
        }
    }

    /// Where the agent serves the executor's files, when it says.
    fn logs(&self, shown: &Shown, agent: &AgentId) -> Option<String> {
        let app = self.app_id.as_deref().unwrap_or_default();
        let base = shown.logs.get(agent)?.as_deref()?;
        Some(format!("{base}/files/download?framework={app}"))
    }

    fn ended(&mut self, executor: ExecutorNo, exit: Exit, out: &mut Vec<Output>) {
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
}

/// About what [`FineOptions::task_bytes`] is: the executor's message, and what it
/// needs to begin.
fn task_bytes(register: &Register, settings: &FineSettings) -> (usize, usize) {
    // Keys, lengths, quotes and names of fields.
    const AROUND: usize = 16;
    const FIXED: usize = 1024;
    let map = |map: &BTreeMap<String, String>| {
        map.iter().map(|(k, v)| k.len() + v.len() + AROUND).sum::<usize>()
    };
    let command: usize = register.command.iter().map(|a| a.len() + AROUND).sum();
    (FIXED + map(&register.env), FIXED + command + map(&settings.props))
}

/// What an event brought along for the actions that it causes.
#[derive(Default)]
struct Shown {
    /// Where each offering agent serves files.
    logs: BTreeMap<AgentId, Option<String>>,
    /// What each has to offer.
    cpus: BTreeMap<AgentId, Scalar>,
    /// The tasks of an answer.
    tasks: BTreeMap<TaskNo, SparkTask>,
}

/// Spark counts a failure only against tasks that it has heard of so.
fn running(task: TaskNo) -> Option<Output> {
    let status = ToDriver::Status { tid: task.0, state: "RUNNING", data: Vec::new() };
    task.is_sparks().then_some(Output::Driver(status))
}
