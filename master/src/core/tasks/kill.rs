//! KILL (rule 39).

use mezz_proto::{
    ids::TaskId,
    mezz::v1::{self as mezz, master_message::Message},
    time::Time,
    v1::{self, scheduler::call::Kill},
};

use crate::{
    allocator::FrameworkKey,
    core::{
        Core, Effects,
        state::{AgentLink, TaskKey},
    },
};

impl Core {
    pub(in crate::core) fn kill(
        &mut self,
        now: Time,
        framework: FrameworkKey,
        kill: Kill,
        out: &mut Effects,
    ) {
        let id = TaskId::from(kill.task_id);
        let agent_id = kill.agent_id;
        let Some(&task) = self.frameworks[framework].tasks.get(&id) else {
            // The same answers as reconciliation has.
            return self.reconcile_one(now, framework, id, agent_id, out);
        };
        let agent = &self.agents[self.tasks[task].agent];
        if agent_id.as_ref().is_some_and(|a| a.value != agent.id.as_str()) {
            return;
        }
        let unreachable = matches!(agent.link, AgentLink::Unreachable { .. });
        self.kill_task(task, kill.kill_policy, out);
        if unreachable {
            self.reconcile_one(now, framework, id, agent_id, out);
        }
    }

    /// Sends the kill, and keeps it for the agent's return. Unlike in Mesos its
    /// policy is kept, too.
    pub(in crate::core) fn kill_task(
        &mut self,
        task: TaskKey,
        policy: Option<v1::KillPolicy>,
        out: &mut Effects,
    ) {
        let asked = &mut self.tasks[task].kill_asked;
        *asked = Some(policy.or(asked.flatten()));
        self.send_kill(task, policy, out);
    }

    /// Nothing happens while the agent is away.
    pub(in crate::core) fn send_kill(
        &self,
        task: TaskKey,
        kill_policy: Option<v1::KillPolicy>,
        out: &mut Effects,
    ) {
        let task = &self.tasks[task];
        if let Some(connection) = self.agents[task.agent].connection() {
            let message = mezz::KillTask {
                framework_id: (&self.frameworks[task.framework].id).into(),
                task_id: (&task.id).into(),
                kill_policy,
            };
            out.agent(connection, Message::KillTask(message));
        }
    }
}
