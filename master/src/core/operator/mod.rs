//! What operators ask of the core itself.

mod explain;
mod roles;
mod weights;

use mezz_proto::{
    ids::{FrameworkId, TaskId},
    mezz::v1 as mezz,
    time::Time,
};

use super::{Core, Effects, OperatorCommand, OperatorError, OperatorReply, state::TaskKey};
use crate::allocator::FrameworkKey;

/// Ids that an answer names as examples.
const MAX_EXAMPLES: usize = 5;

impl Core {
    pub(super) fn operator(
        &mut self,
        now: Time,
        command: OperatorCommand,
        out: &mut Effects,
    ) -> Result<OperatorReply, OperatorError> {
        match command {
            OperatorCommand::Explain(request) => {
                self.explain(now, request).map(OperatorReply::Explain)
            }
            OperatorCommand::KillTask(request) => self.operator_kill(request, out),
            OperatorCommand::Teardown(request) => {
                let key = self.live_framework(&request.framework_id)?;
                self.operator_teardown(now, key, out);
                Ok(OperatorReply::Done)
            }
            OperatorCommand::UpdateWeights(request) => {
                self.update_weights(now, request, out).map(|()| OperatorReply::Done)
            }
            OperatorCommand::ListRoles => Ok(OperatorReply::Roles(self.list_roles())),
            OperatorCommand::DrainAgent(request) => {
                self.drain_agent(now, request, out).map(|()| OperatorReply::Done)
            }
            OperatorCommand::DeactivateAgent(request) => {
                self.deactivate_agent(now, &request, out).map(|()| OperatorReply::Done)
            }
            OperatorCommand::ReactivateAgent(request) => {
                self.reactivate_agent(now, &request, out).map(|()| OperatorReply::Done)
            }
            OperatorCommand::MarkAgentGone(id) => {
                self.mark_agent_gone(now, &id, out).map(|()| OperatorReply::Done)
            }
        }
    }

    fn operator_kill(
        &mut self,
        request: mezz::OperatorKillTaskRequest,
        out: &mut Effects,
    ) -> Result<OperatorReply, OperatorError> {
        let (_, task) = self.live_task(&request.task_id, request.framework_id.as_deref())?;
        self.kill_task(task, None, out);
        Ok(OperatorReply::Done)
    }

    /// A framework that has not ended.
    fn live_framework(&self, id: &str) -> Result<FrameworkKey, OperatorError> {
        if let Some(key) = self.framework_ids.get(id) {
            return Ok(*key);
        }
        if self.completed.contains_key(id) {
            return Err(OperatorError::NotAllowed(format!(
                "framework `{id}` has ended already; `mezz frameworks` lists those that have not"
            )));
        }
        Err(no_framework(id))
    }

    /// A task that has not ended.
    fn live_task(
        &self,
        id: &str,
        framework: Option<&str>,
    ) -> Result<(FrameworkKey, TaskKey), OperatorError> {
        let found: Vec<(FrameworkKey, TaskKey)> = match framework {
            Some(framework) => {
                let key = self.live_framework(framework)?;
                self.frameworks[key].tasks.get(id).map(|task| (key, *task)).into_iter().collect()
            }
            None => self
                .frameworks
                .iter()
                .filter_map(|(key, f)| f.tasks.get(id).map(|task| (key, *task)))
                .collect(),
        };
        match found.as_slice() {
            [one] => Ok(*one),
            [] if self.has_ended(id, framework) => Err(OperatorError::NotAllowed(format!(
                "task `{id}` has ended already; `mezz tasks` lists those that have not"
            ))),
            [] => Err(no_task(id)),
            several => {
                Err(self.ambiguous(id, several.iter().map(|(f, _)| &self.frameworks[*f].id)))
            }
        }
    }

    fn has_ended(&self, id: &str, framework: Option<&str>) -> bool {
        let id = TaskId::new(id);
        self.frameworks
            .iter()
            .filter(|(_, f)| framework.is_none_or(|wanted| wanted == f.id.as_str()))
            .any(|(_, f)| f.completed.contains_key(&id))
    }

    fn ambiguous<'a>(
        &self,
        id: &str,
        frameworks: impl Iterator<Item = &'a FrameworkId>,
    ) -> OperatorError {
        let names: Vec<_> = frameworks.take(MAX_EXAMPLES).map(|f| format!("`{f}`")).collect();
        OperatorError::Invalid(format!(
            "task_id: `{id}` is a task of several frameworks ({}); name one with framework_id",
            names.join(", ")
        ))
    }
}

fn no_framework(id: &str) -> OperatorError {
    OperatorError::NotFound(format!("there is no framework `{id}`; `mezz frameworks` lists them"))
}

fn no_task(id: &str) -> OperatorError {
    OperatorError::NotFound(format!("there is no task `{id}`; `mezz tasks` lists them"))
}
