//! Shuffle services, as in coarse-grained mode: one beside each executor.

use mezz_proto::{ids::AgentId, time::Time};

use super::{FineAction, FinePolicy, Progress, Seen};
use crate::policy::{Exit, ExitKind, ServiceNo, doubt::NOT_BACK, shuffle::without_service};

impl FinePolicy {
    /// A service runs: one that is not known any more is ended.
    pub(super) fn service_runs(
        &mut self,
        now: Time,
        service: ServiceNo,
        agent: AgentId,
        out: &mut Vec<FineAction>,
    ) {
        if !self.services.runs(now, service, &agent) {
            out.push(FineAction::EndService { service, agent });
        }
    }

    /// A service is gone, with all that it served: what its agent's executor would still
    /// write could not be read. Its failures are counted apart from the executor's.
    pub(super) fn service_ended(
        &mut self,
        now: Time,
        no: ServiceNo,
        exit: Exit,
        out: &mut Vec<FineAction>,
    ) {
        let Some((agent, service)) = self.services.remove(no) else { return };
        if service.since.is_some() {
            let (agent, hostname) = (agent.clone(), service.hostname.clone());
            out.push(FineAction::ServiceLost { agent, hostname, reason: exit.reason.clone() });
        }
        let executor = self.executors.get(&agent).filter(|e| e.progress != Progress::Proposed);
        let Some(executor) = executor.map(|e| e.no) else { return };
        if !matches!(exit.kind, ExitKind::Killed | ExitKind::Lost) {
            self.failures.service_ended(now, (&agent, &service.hostname), service.since);
        }
        let (kind, reason) = (ExitKind::Lost, without_service(&exit));
        let exit = Exit { kind, by_app: false, reason, ..exit };
        // It runs on, or it is not known: nobody has seen its end.
        self.executor_ended(now, executor, exit, Seen::No, out);
    }

    /// Services that nobody has brought back in time.
    pub(super) fn give_up_services(&mut self, now: Time, out: &mut Vec<FineAction>) {
        while let Some(service) = self.services.take_doubted(now) {
            self.service_ended(now, service, Exit::lost(NOT_BACK), out);
        }
    }
}
