//! What the application asks for, where it takes more than a call.

use mezz_proto::{
    MAX_SCHEDULER_CALL_BYTES,
    v1::{
        self,
        framework_info::capability::Type as Capability,
        task_status::{Reason, Source},
    },
};
use prost::Message as _;

use super::{Actions, Driver, deliver};
use crate::scheduler::{
    Event, calls,
    options::{framework_roles, has_capability},
};

impl Driver {
    pub(super) fn accept(
        &mut self,
        offers: Vec<v1::OfferId>,
        operations: Vec<v1::offer::Operation>,
        filters: Option<v1::Filters>,
        out: &mut Actions,
    ) {
        let named = offers.len();
        let live = self.take_live(offers);
        let usable = self.is_subscribed() && named > 0 && live.len() == named;
        let call = self.stamped(calls::accept(live.clone(), operations, filters));
        let bytes = call.encoded_len();
        let operations = call.accept.iter().flat_map(|accept| &accept.operations);
        let tasks = operations.flat_map(launched_tasks);
        if usable && bytes <= MAX_SCHEDULER_CALL_BYTES {
            for task in tasks {
                self.tasks.launched((&task.task_id).into(), (&task.agent_id).into());
            }
            return self.send(call, out);
        }
        let (reason, message) = if usable {
            let text = format!(
                "the call that launched it is {bytes} bytes, and {MAX_SCHEDULER_CALL_BYTES} are \
                 allowed; launch fewer tasks in one call, or smaller ones"
            );
            (Reason::TaskInvalid, text)
        } else if self.is_subscribed() {
            (Reason::InvalidOffers, "an offer that it was launched on is gone".to_owned())
        } else {
            (Reason::MasterDisconnected, "the master was away when it was launched".to_owned())
        };
        let aware = has_capability(&self.info, Capability::PartitionAware);
        let state = if aware { v1::TaskState::TaskDropped } else { v1::TaskState::TaskLost };
        for task in tasks {
            let status = v1::TaskStatus {
                task_id: task.task_id.clone(),
                agent_id: Some(task.agent_id.clone()),
                state: state as i32,
                source: Some(Source::Master as i32),
                reason: Some(reason as i32),
                message: Some(message.clone()),
                ..Default::default()
            };
            deliver(out, Event::Update(status));
        }
        if !live.is_empty() {
            self.send(calls::decline(live, Some(v1::Filters { refuse_seconds: Some(0.0) })), out);
        }
    }

    /// The id stays, and nothing is wanted for roles that are given up: it would be
    /// an error (behaviour rule 18).
    pub(super) fn update_framework(&mut self, info: v1::FrameworkInfo, suppressed: Vec<String>) {
        let id = self.info.id.take();
        self.info = v1::FrameworkInfo { id, ..info };
        self.suppressed = suppressed.into_iter().collect();
        let roles = framework_roles(&self.info);
        self.suppressed.retain(|r| roles.contains(r));
        if let Some(constraints) = &mut self.constraints {
            constraints.role_constraints.retain(|role, _| roles.contains(role));
        }
        self.changed = true;
    }

    /// The framework and its suppressed roles as they are wanted now.
    pub(super) fn send_framework(&self, out: &mut Actions) {
        let (info, constraints) = (self.info.clone(), self.constraints.clone());
        self.send(calls::update_framework(info, self.suppressed(), constraints), out);
    }

    /// Those of the roles that are the framework's; all of its when none is
    /// named. One foreign role would make the master ignore the whole call
    /// (behaviour rule 20).
    pub(super) fn own_roles(&self, roles: Vec<String>) -> Vec<String> {
        let own = framework_roles(&self.info);
        if roles.is_empty() {
            return own;
        }
        roles.into_iter().filter(|r| own.contains(r)).collect()
    }

    /// Takes these offers out of the live ones; returns those that were live.
    pub(super) fn take_live(&mut self, mut offers: Vec<v1::OfferId>) -> Vec<v1::OfferId> {
        offers.retain(|o| self.offers.remove(o.value.as_str()));
        offers
    }
}

fn launched_tasks(operation: &v1::offer::Operation) -> impl Iterator<Item = &v1::TaskInfo> {
    let single = operation.launch.iter().flat_map(|l| &l.task_infos);
    let group = operation.launch_group.iter().flat_map(|g| &g.task_group.tasks);
    single.chain(group)
}
