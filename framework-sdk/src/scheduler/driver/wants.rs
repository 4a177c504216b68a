//! What the application asks for, where it takes more than a call.

use std::collections::BTreeSet;

use mezz_proto::{
    MAX_SCHEDULER_CALL_BYTES,
    v1::{
        self,
        framework_info::capability::Type as Capability,
        task_status::{Reason, Source},
    },
};
use prost::Message as _;
use tracing::warn;

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
        let mut call = self.stamped(calls::accept(live.clone(), operations, filters));
        let bytes = call.encoded_len();
        let over = bytes.saturating_sub(MAX_SCHEDULER_CALL_BYTES);
        let mut left_out = Vec::new();
        let mut sent = false;
        if usable && let Some(accept) = &mut call.accept {
            // An ACCEPT cannot be sent in parts: the first uses its offers up.
            left_out = leave_out(&mut accept.operations, over);
            sent = over == 0 || !accept.operations.is_empty();
            sent &= call.encoded_len() <= MAX_SCHEDULER_CALL_BYTES;
        }
        let operations = call.accept.iter().flat_map(|accept| &accept.operations);
        let tasks = operations.flat_map(launched_tasks);
        if sent {
            for task in tasks {
                self.tasks.launched((&task.task_id).into(), (&task.agent_id).into());
            }
            self.send(call, out);
            if left_out.is_empty() {
                return;
            }
        } else {
            left_out.extend(tasks.cloned());
        }
        let (reason, message) = if usable {
            let text = format!(
                "the call that launches it has {bytes} bytes, and {MAX_SCHEDULER_CALL_BYTES} are \
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
        for task in left_out {
            let status = v1::TaskStatus {
                task_id: task.task_id,
                agent_id: Some(task.agent_id),
                state: state as i32,
                source: Some(Source::Master as i32),
                reason: Some(reason as i32),
                message: Some(message.clone()),
                ..Default::default()
            };
            deliver(out, Event::Update(status));
        }
        if !sent {
            self.give_back(live, out);
        }
    }

    /// The id stays, and nothing is wanted for roles that are given up: it would be
    /// an error (behaviour rule 18). One that no master could take changes nothing: with it the
    /// driver could never subscribe again.
    pub(super) fn update_framework(
        &mut self,
        info: v1::FrameworkInfo,
        suppressed: Vec<String>,
        constraints: Option<v1::scheduler::OfferConstraints>,
        out: &mut Actions,
    ) {
        // Neither may change; the driver may know both from elsewhere.
        let principal = info.principal.or_else(|| self.info.principal.clone());
        let info = v1::FrameworkInfo { id: self.info.id.clone(), principal, ..info };
        let roles = framework_roles(&info);
        let mut suppressed: BTreeSet<_> = suppressed.into_iter().collect();
        suppressed.retain(|role| roles.contains(role));
        let constraints = constraints.map(|mut constraints| {
            constraints.role_constraints.retain(|role, _| roles.contains(role));
            constraints
        });
        let named = suppressed.iter().cloned().collect();
        let call = self.stamped(calls::update_framework(info.clone(), named, constraints.clone()));
        let bytes = call.encoded_len();
        if bytes > MAX_SCHEDULER_CALL_BYTES {
            warn!(bytes, limit = MAX_SCHEDULER_CALL_BYTES, "the framework stays: it is too large");
            return;
        }
        (self.info, self.suppressed, self.constraints) = (info, suppressed, constraints);
        self.changed = true;
        self.send(call, out);
    }

    /// Gives all offers back, and those that still come.
    pub(super) fn withdraw(&mut self, out: &mut Actions) {
        self.withdrawn = true;
        self.suppress(Vec::new(), out);
        let held = std::mem::take(&mut self.offers).iter().map(Into::into).collect();
        self.give_back(held, out);
    }

    pub(super) fn give_back(&self, offers: Vec<v1::OfferId>, out: &mut Actions) {
        if !offers.is_empty() {
            self.send(calls::decline(offers, Some(v1::Filters { refuse_seconds: Some(0.0) })), out);
        }
    }

    pub(super) fn suppress(&mut self, roles: Vec<String>, out: &mut Actions) {
        let roles = self.own_roles(roles);
        self.suppressed.extend(roles.iter().cloned());
        self.changed = true;
        if !roles.is_empty() {
            self.send(calls::suppress(roles), out);
        }
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

/// Takes out as few tasks as make the operations shorter by so many bytes, and the launches
/// of nothing that are left. Groups stay whole.
fn leave_out(operations: &mut Vec<v1::offer::Operation>, mut over: usize) -> Vec<v1::TaskInfo> {
    if over == 0 {
        return Vec::new();
    }
    let launches = operations.iter().enumerate().filter_map(|(i, o)| Some((i, o.launch.as_ref()?)));
    let mut sizes: Vec<_> = launches
        .flat_map(|(i, launch)| {
            launch.task_infos.iter().enumerate().map(move |(j, task)| (task.encoded_len(), i, j))
        })
        .collect();
    sizes.sort_unstable();
    let mut chosen = BTreeSet::new();
    while over > 0
        && let Some((bytes, i, j)) = sizes.pop()
    {
        over = over.saturating_sub(bytes);
        chosen.insert((i, j));
    }
    let mut left_out = Vec::new();
    for (i, operation) in operations.iter_mut().enumerate() {
        let Some(launch) = &mut operation.launch else { continue };
        for (j, task) in std::mem::take(&mut launch.task_infos).into_iter().enumerate() {
            let tasks =
                if chosen.contains(&(i, j)) { &mut left_out } else { &mut launch.task_infos };
            tasks.push(task);
        }
    }
    operations.retain(|o| o.launch.as_ref().is_none_or(|launch| !launch.task_infos.is_empty()));
    left_out
}
