//! Why a framework, a role or a task has no (more) offers.

use mezz_proto::{
    ids::TaskId,
    mezz::v1::{self as mezz, explain_request::Subject},
    time::Time,
    v1::TaskState,
};

use super::{MAX_EXAMPLES, no_framework, no_task};
use crate::{
    allocator::{FrameworkKey, Reason, ReasonCode},
    core::{
        Core, OperatorError,
        state::{
            AgentLink, CompletedTask, Duty, Framework, FrameworkLink, Task, TaskKey, state_name,
        },
        validate::check_role,
    },
};

impl Core {
    pub(super) fn explain(
        &self,
        now: Time,
        request: mezz::ExplainRequest,
    ) -> Result<mezz::ExplainResponse, OperatorError> {
        match request.subject {
            Some(Subject::FrameworkId(id)) => self.explain_framework(now, &id),
            Some(Subject::Role(role)) => self.explain_role(now, &role),
            Some(Subject::Task(task)) => {
                self.explain_task(now, &task.task_id, task.framework_id.as_deref())
            }
            None => Err(OperatorError::Invalid(
                "subject: must be a framework_id, a task or a role".to_owned(),
            )),
        }
    }

    fn explain_framework(
        &self,
        now: Time,
        id: &str,
    ) -> Result<mezz::ExplainResponse, OperatorError> {
        if let Some(ended) = self.completed.get(id) {
            return Ok(mezz::ExplainResponse {
                summary: format!(
                    "framework `{id}` ({}) ended {} ago; its id cannot be used again",
                    ended.info.name,
                    ago(now, ended.at)
                ),
                reasons: vec![reason("completed", 1, "the framework has ended", Vec::new())],
                hints: vec!["start the framework anew, without an id".to_owned()],
            });
        }
        let key = *self.framework_ids.get(id).ok_or_else(|| no_framework(id))?;
        let framework = &self.frameworks[key];
        let away = match framework.link {
            FrameworkLink::Connected { .. } => None,
            FrameworkLink::Disconnected { until } => Some(("is disconnected", until)),
            FrameworkLink::Recovered { until, .. } => {
                Some(("has not come back since the master started", until))
            }
        };
        let mut reasons: Vec<Reason> = self.allocator.explain_framework(key, now);
        let (state, mut hints) = match away {
            Some((what, until)) => {
                reasons.retain(|r| r.code != ReasonCode::Disconnected);
                let text = format!("the framework {what}; it is removed in {}", ago(until, now));
                let reason =
                    Reason { code: ReasonCode::Disconnected, count: 1, text, examples: Vec::new() };
                reasons.insert(0, reason);
                (what, vec!["start the framework again with its id".to_owned()])
            }
            None => ("is connected", Vec::new()),
        };
        hints.extend(self.hints(&reasons, Some(framework)));
        let (tasks, offers) = (framework.tasks.len(), framework.offers.len());
        Ok(mezz::ExplainResponse {
            summary: format!(
                "framework `{id}` ({}) {state}; it has {tasks} tasks, {offers} outstanding offers and a share of {:.1} %",
                framework.info.name,
                self.allocator.framework_share(key) * 100.0
            ),
            reasons: reasons.into_iter().map(from_allocator).collect(),
            hints,
        })
    }

    fn explain_role(&self, now: Time, role: &str) -> Result<mezz::ExplainResponse, OperatorError> {
        check_role(role).map_err(|text| OperatorError::Invalid(format!("role: {text}")))?;
        let share = self.allocator.roles().into_iter().find(|r| *r.role == *role);
        let Some(share) = share else {
            return Err(OperatorError::NotFound(format!(
                "no framework is subscribed to role `{role}`, and nothing is held for it; `mezz roles` lists them"
            )));
        };
        let reasons = self.allocator.explain_role(role, now);
        let mut hints = self.hints(&reasons, None);
        if share.frameworks.is_empty() {
            hints.insert(0, format!("subscribe a framework to role `{role}`"));
        }
        Ok(mezz::ExplainResponse {
            summary: format!(
                "role `{role}` has {} frameworks, weight {} and a share of {:.1} %",
                share.frameworks.len(),
                share.weight,
                share.dominant_share * 100.0
            ),
            reasons: reasons.into_iter().map(from_allocator).collect(),
            hints,
        })
    }

    fn explain_task(
        &self,
        now: Time,
        id: &str,
        framework: Option<&str>,
    ) -> Result<mezz::ExplainResponse, OperatorError> {
        let id = TaskId::new(id);
        let of = |f: &str| framework.is_none_or(|wanted| wanted == f);
        let live: Vec<(FrameworkKey, TaskKey)> = self
            .frameworks
            .iter()
            .filter(|(_, f)| of(f.id.as_str()))
            .filter_map(|(key, f)| f.tasks.get(&id).map(|task| (key, *task)))
            .collect();
        match live.as_slice() {
            [(_, task)] => return Ok(self.explain_live_task(now, &self.tasks[*task])),
            [] => {}
            several => {
                let ids = several.iter().map(|(f, _)| &self.frameworks[*f].id);
                return Err(self.ambiguous(id.as_str(), ids));
            }
        }
        let ended = self
            .frameworks
            .iter()
            .map(|(_, f)| (&f.id, &f.completed))
            .chain(self.completed.iter().map(|(id, f)| (id, &f.tasks)))
            .find_map(|(f, tasks)| tasks.get(&id).filter(|_| of(f.as_str())).map(|t| (f, t)));
        match ended {
            Some((framework, task)) => Ok(explain_ended_task(&id, framework.as_str(), task)),
            None => {
                if let Some(framework) = framework
                    && !self.framework_ids.contains_key(framework)
                    && !self.completed.contains_key(framework)
                {
                    return Err(no_framework(framework));
                }
                Err(no_task(id.as_str()))
            }
        }
    }

    fn explain_live_task(&self, now: Time, task: &Task) -> mezz::ExplainResponse {
        let (framework, agent) = (&self.frameworks[task.framework], &self.agents[task.agent]);
        let (id, state) = (&task.id, state_name(task.state));
        let mut reasons = Vec::new();
        let mut hints = Vec::new();
        let place = vec![agent.id.to_string()];
        match &agent.link {
            AgentLink::Connected { .. } => {}
            AgentLink::Disconnected { until } | AgentLink::Recovering { until } => {
                let text = format!(
                    "the link to its agent is down; in {} the task is reported unreachable",
                    ago(*until, now)
                );
                reasons.push(reason("agent_disconnected", 1, &text, place.clone()));
                hints.push(format!("look after agent `{}` on {}", agent.id, agent.info.hostname));
            }
            AgentLink::Unreachable { since } => {
                let text = format!(
                    "its agent is unreachable since {}; the task may still run there",
                    ago(now, *since)
                );
                reasons.push(reason("agent_unreachable", 1, &text, place.clone()));
                hints.push(format!("look after agent `{}` on {}", agent.id, agent.info.hostname));
            }
        }
        if let Duty::Draining(_) = &agent.duty {
            let text = "an operator drains its agent, which ends it";
            reasons.push(reason("agent_draining", 1, text, place.clone()));
        }
        match task.state {
            TaskState::TaskStaging => {
                let text = "the agent has been told to start it and has not reported it running: it fetches, starts the container, or waits for the executor";
                reasons.push(reason("staging", 1, text, place));
                hints.push(format!("see what it does: `mezz logs {id}`"));
            }
            TaskState::TaskStarting => {
                reasons.push(reason("starting", 1, "its executor is starting it", place));
            }
            TaskState::TaskKilling => {
                let text = "it was asked to end and has its grace period to do so";
                reasons.push(reason("killing", 1, text, place));
            }
            _ => {}
        }
        if task.kill_asked.is_some() && agent.connection().is_none() {
            let text = "a kill waits for its agent to come back";
            reasons.push(reason("kill_pending", 1, text, Vec::new()));
        }
        if let Some((pending, _)) = task.pending {
            let text =
                format!("its update {} is not acknowledged by the framework", state_name(pending));
            reasons.push(reason("unacknowledged", 1, &text, vec![framework.id.to_string()]));
            if framework.connection().is_none() {
                hints.push(format!("bring framework `{}` back, to take the update", framework.id));
            }
        }
        if let Some(message) = task.statuses.last().and_then(|s| s.message.as_deref()) {
            let text = format!("its last status says: {message}");
            reasons.push(reason("status", 1, &text, Vec::new()));
        }
        mezz::ExplainResponse {
            summary: format!(
                "task `{id}` of framework `{}` is {state} on agent `{}` ({}) with {}",
                framework.id, agent.id, agent.info.hostname, task.resources
            ),
            reasons,
            hints,
        }
    }

    /// What would change it.
    fn hints(&self, reasons: &[Reason], framework: Option<&Framework>) -> Vec<String> {
        let mut hints: Vec<String> = Vec::new();
        for reason in reasons {
            let hint = match reason.code {
                ReasonCode::NoAgents => {
                    "start an agent: `mezz agent --master <host:port>`".to_owned()
                }
                ReasonCode::InactiveAgent => {
                    "bring the agents back, or reactivate them; `mezz agents` shows which are away, \
                     drained or deactivated"
                        .to_owned()
                }
                ReasonCode::Suppressed => {
                    "let the framework send REVIVE for the suppressed roles".to_owned()
                }
                ReasonCode::Filtered => {
                    "the framework refused what it was offered, and its own log may say why: \
                     perhaps the offers are too small for its tasks; it is asked again when the \
                     filters end, when more becomes free, or when it sends REVIVE"
                        .to_owned()
                }
                ReasonCode::BelowMinimum => {
                    "free resources, or let the framework set offer_filters with a smaller minimum"
                        .to_owned()
                }
                ReasonCode::Held => {
                    "free or add resources; `mezz roles` and `mezz tasks` show who holds what"
                        .to_owned()
                }
                ReasonCode::Reserved => {
                    "subscribe to the role that the resources are reserved for".to_owned()
                }
                ReasonCode::Capability => {
                    "let the framework subscribe with the capability that is named".to_owned()
                }
                ReasonCode::Constraint => {
                    "relax the framework's offer_constraints, or add agents that match".to_owned()
                }
                ReasonCode::RoleLimit => "raise the role's limit".to_owned(),
                ReasonCode::NoRoles => {
                    "let the framework subscribe to a role with UPDATE_FRAMEWORK".to_owned()
                }
                ReasonCode::Disconnected | ReasonCode::Eligible => continue,
            };
            if !hints.contains(&hint) {
                hints.push(hint);
            }
        }
        if framework.is_some_and(|f| !f.offers.is_empty()) {
            hints.push(
                "let the framework answer its outstanding offers; `mezz offers` lists them"
                    .to_owned(),
            );
        }
        hints
    }
}

fn explain_ended_task(id: &TaskId, framework: &str, task: &CompletedTask) -> mezz::ExplainResponse {
    let reasons = match &task.message {
        Some(message) => {
            let text = format!("its last status says: {message}");
            vec![reason("status", 1, &text, Vec::new())]
        }
        None => Vec::new(),
    };
    mezz::ExplainResponse {
        summary: format!(
            "task `{id}` of framework `{framework}` has ended as {} on agent `{}`",
            state_name(task.state),
            task.agent
        ),
        reasons,
        hints: vec![format!("read what it wrote: `mezz logs {id}`")],
    }
}

fn from_allocator(given: Reason) -> mezz::Reason {
    let examples = given.examples.into_iter().take(MAX_EXAMPLES).collect();
    reason(given.code.as_str(), given.count, &given.text, examples)
}

fn reason(code: &str, count: u64, text: &str, examples: Vec<String>) -> mezz::Reason {
    mezz::Reason { code: code.to_owned(), count, text: text.to_owned(), examples }
}

/// From `earlier` to `later`, in whole seconds.
fn ago(later: Time, earlier: Time) -> String {
    format!("{} s", later.since(earlier).as_secs())
}
