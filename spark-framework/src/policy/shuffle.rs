//! Shuffle services: one on each agent that runs executors, which serves what they
//! wrote after they are gone. It is a task of the application's own, started with the
//! agent's first executor and on one of the ports that the agent offers.
//!
//! Executors tell their service when they start where their files are, and never
//! again. So a service that is gone takes its executors with it: what they would still
//! write could not be read.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use mezz_proto::{
    ids::AgentId,
    resources::{Amount, Range, Ranges, Resource, Resources, Scalar},
    time::Time,
};

use super::{Action, ExecutorNo, Exit, ExitKind, Policy, doubt::Doubts, place::carve};

/// What agents call their ports.
const PORTS: &str = "ports";

/// What a service holds beside its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceSize {
    /// Cores.
    pub cpus: Scalar,
    /// Memory in MiB.
    pub mem_mib: u64,
}

/// A service's number: unique for the life of the application, counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ServiceNo(pub u32);

impl fmt::Display for ServiceNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How an executor's files are served.
#[derive(Clone, Debug, PartialEq)]
pub struct Served {
    /// The port of its agent's service.
    pub port: u16,
    /// The service, where it is to be started with this executor.
    pub start: Option<ServiceSpec>,
}

/// A service to start.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSpec {
    /// Its number.
    pub no: ServiceNo,
    /// Its part of the offer, the port included.
    pub resources: Resources,
}

/// A service that was started.
#[derive(Clone, Debug)]
pub(super) struct Service {
    no: ServiceNo,
    /// Its agent's host.
    pub(super) hostname: String,
    port: u16,
    /// Since when it runs, if it does.
    pub(super) since: Option<Time>,
}

/// All services of the application.
#[derive(Clone, Debug, Default)]
pub(super) struct Services {
    /// Absent when there are to be none.
    size: Option<ServiceSize>,
    last: ServiceNo,
    on: BTreeMap<AgentId, Service>,
    /// Those that the master does not know.
    doubts: Doubts<ServiceNo>,
    /// Executors that are ended because their service is gone, and how it went.
    orphans: BTreeMap<ExecutorNo, String>,
}

impl Services {
    pub(super) fn new(size: Option<ServiceSize>) -> Self {
        Self { size, ..Self::default() }
    }

    /// What an executor on this agent may take of `free`: all but what a service needs
    /// that is not there yet. `None` when there is no room for it.
    pub(super) fn leaves<'a>(
        &self,
        agent: &AgentId,
        free: &'a Resources,
    ) -> Option<Cow<'a, Resources>> {
        match self.size {
            Some(size) if !self.on.contains_key(agent) => {
                let mut left = free.clone();
                take(&mut left, size, self.last)?;
                Some(Cow::Owned(left))
            }
            _ => Some(Cow::Borrowed(free)),
        }
    }

    /// Sees to it that this agent has a service, and takes what a new one needs out of
    /// `free`; what an executor there has to know of it. The outer `None`, with nothing
    /// changed, is for no room; the inner one for no services at all.
    pub(super) fn serve(
        &mut self,
        agent: &AgentId,
        hostname: &str,
        free: &mut Resources,
    ) -> Option<Option<Served>> {
        let Some(size) = self.size else { return Some(None) };
        if let Some(service) = self.on.get(agent) {
            return Some(Some(Served { port: service.port, start: None }));
        }
        let (port, resources) = take(free, size, self.last)?;
        self.last = ServiceNo(self.last.0 + 1);
        let no = self.last;
        let service = Service { no, hostname: hostname.to_owned(), port, since: None };
        self.on.insert(agent.clone(), service);
        Some(Some(Served { port, start: Some(ServiceSpec { no, resources }) }))
    }

    /// It runs. Whether it is the service of this agent.
    pub(super) fn runs(&mut self, now: Time, no: ServiceNo, agent: &AgentId) -> bool {
        let Some(service) = self.on.get_mut(agent).filter(|s| s.no == no) else { return false };
        service.since.get_or_insert(now);
        self.doubts.settle(&no);
        true
    }

    /// The master does not know it.
    pub(super) fn doubt(&mut self, now: Time, no: ServiceNo) {
        if self.on.values().any(|s| s.no == no) {
            self.doubts.raise(now, no);
        }
    }

    /// One that did not turn up again in time.
    /// See [`Doubts::clear`].
    pub(super) fn clear_doubts(&mut self) {
        self.doubts.clear();
    }

    pub(super) fn take_doubted(&mut self, now: Time) -> Option<ServiceNo> {
        self.doubts.take_due(now)
    }

    /// When there will be one.
    pub(super) fn next_doubt(&self) -> Option<Time> {
        self.doubts.next()
    }

    /// Forgets one that was never started.
    pub(super) fn cancel(&mut self, served: Option<&Served>) {
        if let Some(start) = served.and_then(|s| s.start.as_ref()) {
            self.remove(start.no);
        }
    }

    /// Forgets one that is gone; where it was.
    pub(super) fn remove(&mut self, no: ServiceNo) -> Option<(AgentId, Service)> {
        let agent = self.on.iter().find(|(_, s)| s.no == no).map(|(agent, _)| agent.clone())?;
        let service = self.on.remove(&agent)?;
        self.doubts.settle(&no);
        Some((agent, service))
    }

    /// Why this executor ended, if that was for its service's sake.
    pub(super) fn orphan(&mut self, no: ExecutorNo) -> Option<String> {
        self.orphans.remove(&no)
    }
}

/// Why an executor ends whose service has ended so.
pub(super) fn without_service(exit: &Exit) -> String {
    format!("the shuffle service of its agent is gone: {}", exit.reason)
}

/// Takes what a service needs out of `free`, reserved things first.
fn take(free: &mut Resources, size: ServiceSize, last: ServiceNo) -> Option<(u16, Resources)> {
    let mut left = free.clone();
    let mut taken = carve(&mut left, "cpus", size.cpus)?;
    taken += &carve(&mut left, "mem", Scalar::from_units(size.mem_mib))?;
    let mut sources: Vec<&Resource> = left.named(PORTS).collect();
    sources.sort_by_key(|r| r.identity.reservations().is_empty());
    let (source, port) = sources.into_iter().find_map(|source| {
        let Amount::Ranges(ports) = &source.amount else { return None };
        // Another one each time: a port may be taken by what the cluster knows nothing of.
        let count = ports.count();
        let nth = usize::try_from(u64::from(last.0).checked_rem(count)?).ok()?;
        let port = u16::try_from(ports.numbers().nth(nth)?).ok().filter(|port| *port > 0)?;
        Some((source, port))
    })?;
    let number = u64::from(port);
    let amount = Amount::Ranges(Ranges::new([Range { begin: number, end: number }]));
    taken.insert(Resource { identity: source.identity.clone(), amount });
    free.saturating_sub(&taken);
    Some((port, taken))
}

impl Policy {
    /// A service runs: one that is not known any more is ended.
    pub(super) fn service_runs(
        &mut self,
        now: Time,
        no: ServiceNo,
        agent: AgentId,
        out: &mut Vec<Action>,
    ) {
        if !self.services.runs(now, no, &agent) {
            out.push(Action::EndService { service: no, agent });
        }
    }

    /// A service is gone, with all that it served, and its executors with it. Its failures
    /// are counted apart from theirs: an executor comes up without it, and has been heard of
    /// by then.
    pub(super) fn service_ended(
        &mut self,
        now: Time,
        no: ServiceNo,
        exit: &Exit,
        out: &mut Vec<Action>,
    ) {
        let Some((agent, service)) = self.services.remove(no) else { return };
        if service.since.is_some() {
            let (agent, hostname) = (agent.clone(), service.hostname.clone());
            out.push(Action::ServiceLost { agent, hostname, reason: exit.reason.clone() });
        }
        let served: Vec<ExecutorNo> = self
            .executors
            .iter()
            // Those that move their blocks away write to others already.
            .filter(|(_, e)| e.agent == agent && e.stays())
            .map(|(executor, _)| *executor)
            .collect();
        if served.is_empty() {
            return;
        }
        if !matches!(exit.kind, ExitKind::Killed | ExitKind::Lost) {
            self.failures.service_ended(now, (&agent, &service.hostname), service.since);
        }
        for executor in served {
            self.services.orphans.insert(executor, without_service(exit));
            self.kill(executor, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mezz_proto::ids::OfferId;

    use super::*;
    use crate::policy::{Event, LaunchSpec, PolicyOffer, PolicyOptions, ProfileId, ProfileTarget};

    const NOW: Time = Time::from_secs(1000);
    const SIZE: ServiceSize = ServiceSize { cpus: Scalar::from_millis(100), mem_mib: 256 };

    /// Wants executors of 2 cores and 1024 MiB.
    fn wanting(count: u32) -> Policy {
        let options = PolicyOptions { shuffle: Some(SIZE), ..PolicyOptions::default() };
        let mut policy = Policy::new(options);
        send(&mut policy, Event::Connected);
        let target = ProfileTarget {
            id: ProfileId(0),
            count,
            cores: 2,
            mem_mib: 1024,
            custom: BTreeMap::new(),
            locality: BTreeMap::new(),
        };
        send(&mut policy, Event::Targets(vec![target]));
        policy
    }

    fn send(policy: &mut Policy, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        policy.handle(NOW, event, &mut out);
        policy.check_invariants().unwrap();
        out
    }

    fn offer(policy: &mut Policy, agent: &str, resources: &str) -> Vec<LaunchSpec> {
        let offer = PolicyOffer {
            id: OfferId::new(format!("o-{agent}")),
            agent: AgentId::new(agent),
            hostname: format!("{agent}.host"),
            role: None,
            resources: Resources::parse(resources).unwrap(),
            attributes: Vec::new(),
        };
        let launched = send(policy, Event::Offers(vec![offer]));
        let specs = launched.into_iter().filter_map(|action| match action {
            Action::Launch { executors, .. } => Some(executors),
            _ => None,
        });
        specs.flatten().collect()
    }

    fn served(specs: &[LaunchSpec]) -> Vec<(u32, u16, Option<String>)> {
        specs
            .iter()
            .map(|spec| {
                let served = spec.served.as_ref().unwrap();
                let start = served.start.as_ref().map(|s| format!("{} {}", s.no, s.resources));
                (spec.executor.0, served.port, start)
            })
            .collect()
    }

    fn ended(kind: ExitKind) -> Exit {
        Exit { kind, code: 1, by_app: true, reason: "exited with status 1".into() }
    }

    #[test]
    fn the_first_executor_of_an_agent_brings_its_service() {
        let mut policy = wanting(4);
        let specs = offer(&mut policy, "a", "cpus:8;mem:8192;ports:[31000-31009]");
        let service = "1 cpus:0.1; mem:256; ports:[31000-31000]".to_owned();
        assert_eq!(served(&specs), [(1, 31000, Some(service)), (2, 31000, None), (3, 31000, None)]);
        // The fourth has no room beside the service; another agent gets its own.
        let specs = offer(&mut policy, "b", "cpus:8;mem:8192;ports:[31000-31009]");
        let service = "2 cpus:0.1; mem:256; ports:[31001-31001]".to_owned();
        assert_eq!(served(&specs), [(4, 31001, Some(service))]);
    }

    #[test]
    fn an_agent_without_room_for_a_service_gets_no_executor() {
        let mut policy = wanting(1);
        for resources in [
            "cpus:8;mem:8192",
            "cpus:2;mem:8192;ports:[31000-31009]",
            "cpus:8;mem:1100;ports:[31000-31009]",
            "cpus:8;mem:8192;ports:[70000-70009]",
        ] {
            assert_eq!(offer(&mut policy, "a", resources), [], "{resources}");
        }
        let specs = offer(&mut policy, "a", "cpus:2.1;mem:1280;ports:[5-5]");
        assert_eq!(served(&specs)[0].1, 5);
        // Where it is, no more room is needed.
        send(&mut policy, Event::Exited { executor: ExecutorNo(1), exit: Exit::lost("") });
        let specs = offer(&mut policy, "a", "cpus:2;mem:1024");
        assert_eq!(served(&specs), [(2, 5, None)]);
    }

    #[test]
    fn without_the_setting_there_are_none() {
        let mut policy = wanting(1);
        policy.services = Services::new(None);
        let specs = offer(&mut policy, "a", "cpus:2;mem:1024");
        assert_eq!(specs[0].served, None);
    }

    #[test]
    fn a_service_that_is_gone_takes_its_executors_along() {
        let mut policy = wanting(2);
        offer(&mut policy, "a", "cpus:8;mem:1300;ports:[31000-31009]");
        offer(&mut policy, "b", "cpus:8;mem:1300;ports:[31000-31009]");
        send(&mut policy, Event::Registered(ExecutorNo(1)));
        send(&mut policy, Event::Registered(ExecutorNo(2)));
        let gone = Event::ServiceEnded { service: ServiceNo(1), exit: ended(ExitKind::Failed) };
        let runs = Event::ServiceRunning { service: ServiceNo(1), agent: AgentId::new("a") };
        send(&mut policy, runs);
        let out = send(&mut policy, gone.clone());
        let (agent, hostname) = (AgentId::new("a"), "a.host".to_owned());
        let reason = "exited with status 1".to_owned();
        assert_eq!(out[0], Action::ServiceLost { agent, hostname, reason });
        let kill = Action::Kill { executor: ExecutorNo(1), agent: AgentId::new("a") };
        assert!(out.contains(&kill), "{out:?}");
        let out = send(
            &mut policy,
            Event::Exited { executor: ExecutorNo(1), exit: Exit::lost("killed") },
        );
        let told = out.iter().find_map(|action| match action {
            Action::Ended { exit, .. } => Some(exit),
            _ => None,
        });
        let told = told.unwrap();
        assert_eq!(told.reason, "the shuffle service of its agent is gone: exited with status 1");
        assert_eq!((told.kind, told.by_app), (ExitKind::Killed, false));
        // The other agent's goes on, and what is said twice does no harm.
        assert_eq!(send(&mut policy, gone), []);
        // A new one on another port.
        let specs = offer(&mut policy, "a", "cpus:8;mem:1300;ports:[31000-31009]");
        assert_eq!(served(&specs)[0].1, 31002);
    }

    #[test]
    fn an_executor_that_moves_its_blocks_away_outlives_its_service() {
        let mut policy = wanting(1);
        offer(&mut policy, "a", "cpus:8;mem:1300;ports:[31000-31009]");
        send(&mut policy, Event::Registered(ExecutorNo(1)));
        send(&mut policy, Event::Leaving(ExecutorNo(1)));
        let exit = ended(ExitKind::Killed);
        let out = send(&mut policy, Event::ServiceEnded { service: ServiceNo(1), exit });
        assert_eq!(out, []);
    }

    #[test]
    fn services_that_never_come_up_end_the_application() {
        let mut policy = wanting(1);
        let mut now = NOW;
        let mut out = Vec::new();
        for n in 1..=5 {
            now = now + std::time::Duration::from_secs(2000);
            let offer = PolicyOffer {
                id: OfferId::new(format!("o{n}")),
                agent: AgentId::new(format!("a{n}")),
                hostname: "host".into(),
                role: None,
                resources: Resources::parse("cpus:8;mem:8192;ports:[31000-31009]").unwrap(),
                attributes: Vec::new(),
            };
            policy.handle(now, Event::Offers(vec![offer]), &mut out);
            // It comes up before it looks for its service.
            policy.handle(now, Event::Registered(ExecutorNo(n)), &mut out);
            let exit = ended(ExitKind::Failed);
            policy.handle(now, Event::ServiceEnded { service: ServiceNo(n), exit }, &mut out);
            let exit = Exit::lost("killed");
            policy.handle(now, Event::Exited { executor: ExecutorNo(n), exit }, &mut out);
        }
        let message = out.iter().find_map(|action| match action {
            Action::GiveUp { message } => Some(message),
            _ => None,
        });
        let message = message.unwrap();
        assert!(message.contains("the shuffle service of its agent is gone"), "{message}");
    }

    /// The driver forgets all that is on the host, so it is told only if there is something.
    #[test]
    fn one_that_never_ran_served_nothing() {
        let mut policy = wanting(1);
        offer(&mut policy, "a", "cpus:8;mem:1300;ports:[31000-31009]");
        let exit = ended(ExitKind::Failed);
        let out = send(&mut policy, Event::ServiceEnded { service: ServiceNo(1), exit });
        assert!(!out.iter().any(|a| matches!(a, Action::ServiceLost { .. })), "{out:?}");
    }

    /// A master without a registry, started again.
    #[test]
    fn one_that_the_master_does_not_know_may_come_back() {
        let mut policy = wanting(1);
        offer(&mut policy, "a", "cpus:8;mem:1300;ports:[31000-31009]");
        send(&mut policy, Event::Registered(ExecutorNo(1)));
        let runs = || Event::ServiceRunning { service: ServiceNo(1), agent: AgentId::new("a") };
        send(&mut policy, runs());
        assert_eq!(send(&mut policy, Event::ServiceUnknown(ServiceNo(1))), []);
        assert_eq!(send(&mut policy, Event::ServiceUnknown(ServiceNo(7))), []);
        assert_eq!(policy.next_deadline(), Some(NOW + crate::policy::DOUBT));
        assert_eq!(send(&mut policy, runs()), []);
        assert_eq!(policy.next_deadline(), None);

        send(&mut policy, Event::ServiceUnknown(ServiceNo(1)));
        let mut out = Vec::new();
        policy.handle(NOW + crate::policy::DOUBT, Event::Tick, &mut out);
        assert!(matches!(&out[0], Action::ServiceLost { .. }), "{out:?}");
        let kill = Action::Kill { executor: ExecutorNo(1), agent: AgentId::new("a") };
        assert!(out.contains(&kill), "{out:?}");
        // Back too late.
        let end = Action::EndService { service: ServiceNo(1), agent: AgentId::new("a") };
        assert_eq!(send(&mut policy, runs()), [end]);
    }

    #[test]
    fn one_that_nobody_knows_is_ended() {
        let mut policy = wanting(1);
        offer(&mut policy, "a", "cpus:8;mem:8192;ports:[31000-31009]");
        let runs = |n, agent: &str| Event::ServiceRunning {
            service: ServiceNo(n),
            agent: AgentId::new(agent),
        };
        assert_eq!(send(&mut policy, runs(1, "a")), []);
        let end = Action::EndService { service: ServiceNo(7), agent: AgentId::new("a") };
        assert_eq!(send(&mut policy, runs(7, "a")), [end]);
    }
}
