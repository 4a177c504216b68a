//! Shuffle services, as in coarse-grained mode: one beside each executor.

use mezz_proto::{ids::AgentId, time::Time};

use super::{FineAction, FinePolicy, Seen};
use crate::policy::{Exit, ServiceNo};

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

    /// A service is gone: what its agent's executor would still write could not be read.
    pub(super) fn service_ended(
        &mut self,
        now: Time,
        service: ServiceNo,
        exit: Exit,
        out: &mut Vec<FineAction>,
    ) {
        let Some((agent, _)) = self.services.remove(service) else { return };
        let Some(executor) = self.executors.get(&agent).map(|e| e.no) else { return };
        let reason = format!("the shuffle service of its agent is gone: {}", exit.reason);
        let exit = Exit { by_app: false, reason, ..exit };
        // It runs on, or it is not known: nobody has seen its end.
        self.executor_ended(now, executor, exit, Seen::No, out);
    }
}
