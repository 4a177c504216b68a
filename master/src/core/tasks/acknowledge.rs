//! ACKNOWLEDGE (rules 8, 35 and 36).

use mezz_proto::{
    ids::TaskId,
    mezz::v1::{self as mezz, master_message::Message},
    time::Time,
    v1::scheduler::call::Acknowledge,
};

use crate::{
    allocator::FrameworkKey,
    core::{CallError, Core, Effects, validate::ids},
};

impl Core {
    /// Goes to the agent, if that is there; else the agent will send its update
    /// again when it comes back. With its last update acknowledged a task leaves
    /// the list in any case, for its agent may never come back.
    pub(in crate::core) fn acknowledge(
        &mut self,
        now: Time,
        framework: FrameworkKey,
        acknowledge: Acknowledge,
        out: &mut Effects,
    ) -> Result<(), CallError> {
        let Acknowledge { agent_id, task_id, uuid } = acknowledge;
        let uuid = ids::uuid("acknowledge.uuid", &uuid).map_err(CallError::Invalid)?;
        self.counters.acknowledgements += 1;
        let Some(&agent) = self.agent_ids.get(&*agent_id.value) else { return Ok(()) };
        let message = mezz::StatusUpdateAcknowledgement {
            framework_id: (&self.frameworks[framework].id).into(),
            task_id: task_id.clone(),
            uuid: uuid.to_vec(),
        };
        if let Some(connection) = self.agents[agent].connection() {
            out.agent(connection, Message::Acknowledgement(message));
        }
        let known = self.frameworks[framework].tasks.get(&TaskId::from(task_id)).copied();
        let Some(task) = known.filter(|task| self.tasks[*task].agent == agent) else {
            return Ok(());
        };
        if self.waits_for_last(task, &uuid) {
            let (state, _) = self.tasks[task].pending.take().unwrap_or_default();
            self.set_task_state(now, task, state);
            self.retire_task(task, out);
        } else if self.tasks[task].pending.is_some_and(|(_, pending)| pending == uuid) {
            self.tasks[task].pending = None;
        }
        Ok(())
    }
}
