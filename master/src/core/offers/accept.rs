//! ACCEPT (rules 22 to 29).

use std::{collections::BTreeSet, sync::Arc};

use mezz_proto::{
    resources::Resources,
    time::Time,
    v1::{
        self, TaskState,
        offer::{Operation, operation::Type},
        scheduler::call::Accept,
        task_status::Reason,
    },
};

use super::launch::Launch;
use crate::{
    allocator::{AgentKey, FrameworkKey},
    core::{
        CallError, Core, Effects,
        frameworks::events,
        state::OfferKey,
        tasks::{MasterStatus, NoTask},
        validate::{brief, ids::MAX_ID},
    },
};

/// Why offers cannot be used together.
struct Unusable {
    reason: Reason,
    text: String,
}

impl Core {
    pub(in crate::core) fn accept(
        &mut self,
        now: Time,
        framework: FrameworkKey,
        accept: Accept,
        out: &mut Effects,
    ) -> Result<(), CallError> {
        check_operations(&accept.operations)?;
        match self.usable(framework, &accept.offer_ids) {
            Ok((agent, role, keys)) => {
                self.accept_usable(now, framework, agent, role, &keys, accept, out);
            }
            Err(unusable) => self.accept_unusable(now, framework, unusable, accept, out),
        }
        Ok(())
    }

    /// Rule 23: distinct, live, this framework's, of one role and one agent.
    fn usable(
        &self,
        framework: FrameworkKey,
        ids: &[v1::OfferId],
    ) -> Result<(AgentKey, Arc<str>, Vec<OfferKey>), Unusable> {
        let invalid = |text: String| Unusable { reason: Reason::InvalidOffers, text };
        let mut seen = BTreeSet::new();
        let mut common: Option<(AgentKey, Arc<str>)> = None;
        for id in ids {
            let id = &id.value;
            let found = self
                .offer_key(id)
                .and_then(|key| Some((key, self.offers.get(&key)?)))
                .filter(|(_, offer)| offer.framework == framework);
            let Some((key, offer)) = found else {
                return Err(invalid(format!(
                    "offer `{}` is no longer valid: it was used, declined or rescinded",
                    brief(id, MAX_ID)
                )));
            };
            if !seen.insert(key) {
                return Err(invalid(format!("offer `{}` is named twice", brief(id, MAX_ID))));
            }
            match &common {
                None => common = Some((offer.agent, Arc::clone(&offer.role))),
                Some((agent, _)) if *agent != offer.agent => {
                    return Err(invalid("the offers are of different agents".to_owned()));
                }
                Some((_, role)) if **role != *offer.role => {
                    return Err(invalid("the offers are for different roles".to_owned()));
                }
                Some(_) => {}
            }
        }
        let Some((agent, role)) = common else {
            return Err(invalid("no offer is named".to_owned()));
        };
        if self.agents[agent].connection().is_none() {
            // Its offers were rescinded with its link; this is for safety.
            return Err(Unusable {
                reason: Reason::AgentDisconnected,
                text: "the agent of the offers is not connected".to_owned(),
            });
        }
        Ok((agent, role, seen.into_iter().collect()))
    }

    #[allow(clippy::too_many_arguments)]
    fn accept_usable(
        &mut self,
        now: Time,
        framework: FrameworkKey,
        agent: AgentKey,
        role: Arc<str>,
        keys: &[OfferKey],
        accept: Accept,
        out: &mut Effects,
    ) {
        let mut pool = Resources::new();
        for key in keys {
            if let Some(offer) = self.take_offer(*key, out) {
                pool += &offer.resources;
            }
        }
        let count = keys.len() as u64;
        if accept.operations.is_empty() {
            self.counters.offers_declined += count;
        } else {
            self.counters.offers_accepted += count;
        }
        let mut launch = Launch::new(now, framework, agent, role, pool);
        for operation in accept.operations {
            let named = operation.id.is_some();
            match (operation.r#type(), operation.launch, operation.launch_group) {
                (Type::Launch, Some(tasks), _) if named => {
                    let (reason, tasks) = (Reason::TaskInvalid, tasks.task_infos);
                    self.refuse_tasks(&launch, &tasks, reason, NAMED_LAUNCH, out);
                }
                (Type::LaunchGroup, _, Some(group)) if named => {
                    let (reason, tasks) = (Reason::TaskGroupInvalid, group.task_group.tasks);
                    self.refuse_tasks(&launch, &tasks, reason, NAMED_GROUP, out);
                }
                (Type::Launch, Some(tasks), _) => self.launch(&mut launch, tasks.task_infos, out),
                (Type::LaunchGroup, _, Some(group)) => self.launch_group(&mut launch, *group, out),
                _ => self.refuse_operation(framework, operation.id, UNSUPPORTED, out),
            }
        }
        self.send_runs(&mut launch, out);
        if launch.launched > 0 {
            self.frameworks[framework].offers_accepted += count;
        }
        // Rule 29.
        let (left, filters) = (Arc::new(launch.pool), accept.filters.as_ref());
        self.give_back(now, framework, agent, &launch.role, left, filters);
    }

    /// Rule 23: the named offers are discarded without a filter and nothing is
    /// done. Unlike in Mesos, offers of other frameworks are left alone.
    fn accept_unusable(
        &mut self,
        now: Time,
        framework: FrameworkKey,
        unusable: Unusable,
        accept: Accept,
        out: &mut Effects,
    ) {
        self.counters.accepts_invalid += 1;
        for id in &accept.offer_ids {
            if let Some(key) = self.offer_key(&id.value)
                && self.offers.get(&key).is_some_and(|o| o.framework == framework)
            {
                self.drop_offer(now, key, out);
            }
        }
        let Unusable { reason, text } = unusable;
        let state = self.lost_state(framework, TaskState::TaskDropped);
        for operation in accept.operations {
            let tasks = match (operation.r#type(), operation.launch, operation.launch_group) {
                (Type::Launch, Some(launch), _) => launch.task_infos,
                (Type::LaunchGroup, _, Some(group)) => group.task_group.tasks,
                _ => {
                    self.refuse_operation(framework, operation.id, &text, out);
                    continue;
                }
            };
            for task in tasks {
                self.counters.tasks_refused += 1;
                let task = NoTask::of(&task);
                let status = MasterStatus::new(state, reason, &text);
                self.tell_about_no_task(now, framework, task, status, out);
            }
        }
    }

    /// Only an operation with an id has an answer.
    fn refuse_operation(
        &mut self,
        framework: FrameworkKey,
        id: Option<v1::OperationId>,
        text: &str,
        out: &mut Effects,
    ) {
        let (Some(id), Some(connection)) = (id, self.frameworks[framework].connection()) else {
            return;
        };
        let status = v1::OperationStatus {
            operation_id: Some(id),
            state: v1::OperationState::OperationError as i32,
            message: Some(text.to_owned()),
            ..Default::default()
        };
        out.event(connection, events::operation(status));
    }
}

const UNSUPPORTED: &str =
    "operation.type: only LAUNCH and LAUNCH_GROUP are supported; the resources are unchanged";

/// Rule 26: the answers to these are task updates.
const NAMED_LAUNCH: &str = "The `id` field cannot be set on LAUNCH operations";
const NAMED_GROUP: &str = "The `id` field cannot be set on LAUNCH_GROUP operations";

/// What breaks the protocol, whatever the offers.
fn check_operations(operations: &[Operation]) -> Result<(), CallError> {
    for (i, operation) in operations.iter().enumerate() {
        let field = |name: &str| format!("accept.operations[{i}].{name}");
        let kind = operation.r#type();
        let needed = match kind {
            Type::Launch => ("launch", operation.launch.is_some()),
            Type::LaunchGroup => ("launch_group", operation.launch_group.is_some()),
            _ => continue,
        };
        if !needed.1 {
            return Err(CallError::Invalid(format!(
                "{}: must be set for {}",
                field(needed.0),
                kind.as_str_name()
            )));
        }
    }
    Ok(())
}
