//! Tasks as readers are told of them.

use std::sync::Arc;

use mezz_proto::{
    ids::{AgentId, FrameworkId},
    pages::hide_in_task,
    resources::{Dialect, Resources},
    v1,
};
use prost::{Message, encoding};

use super::Task;
use crate::core::ShownTask;

/// `Task.resources`.
const RESOURCES: u32 = 7;

/// Makes the records. After a failover there is one for each task, and the next one's
/// resources are mostly those of the one before: they are encoded once.
#[derive(Debug, Default)]
pub(in crate::core) struct Records {
    resources: Arc<Resources>,
    role: Arc<str>,
    /// Those, as a part of a record.
    encoded: Vec<u8>,
    /// The record that is made.
    record: Vec<u8>,
}

impl Records {
    /// What is secret is not kept for readers, and so nobody can be told of it.
    pub fn shown(&mut self, task: &Task, framework: &FrameworkId, agent: &AgentId) -> ShownTask {
        let mut rest = task.record(framework, agent);
        hide_in_task(&mut rest);
        self.record.clear();
        rest.encode_raw(&mut self.record);
        self.encode_resources(task);
        self.record.extend_from_slice(&self.encoded);
        ShownTask {
            framework: framework.clone(),
            id: task.id.clone(),
            agent: agent.clone(),
            state: task.state,
            waits: task.pending.is_some(),
            resources: Arc::clone(&task.resources),
            role: Arc::clone(&task.role),
            record: Arc::from(&*self.record),
        }
    }

    fn encode_resources(&mut self, task: &Task) {
        if Arc::ptr_eq(&self.resources, &task.resources) && self.role == task.role {
            return;
        }
        let resources = task.resources.to_proto(Dialect::Refined, Some(&task.role));
        let mut shown = v1::Task { resources, ..Default::default() };
        hide_in_task(&mut shown);
        self.encoded.clear();
        encoding::message::encode_repeated(RESOURCES, &shown.resources, &mut self.encoded);
        self.resources = Arc::clone(&task.resources);
        self.role = Arc::clone(&task.role);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        allocator::{AgentKey, FrameworkKey},
        core::state::Charge,
    };

    fn task(id: &str, resources: &Arc<Resources>, role: &str) -> Task {
        Task {
            id: id.into(),
            framework: FrameworkKey(0),
            agent: AgentKey(0),
            name: "name".into(),
            role: role.into(),
            resources: resources.clone(),
            executor: None,
            state: v1::TaskState::TaskRunning,
            charge: Charge::Free,
            recovered: false,
            pending: None,
            kill_asked: None,
            statuses: Vec::new(),
            extra: None,
        }
    }

    /// However like the task before they are.
    #[test]
    fn each_record_has_its_own_resources() {
        let [one, other] = [1.0, 2.0].map(|cpus| Arc::new(Resources::cpus_mem(cpus, 64.0)));
        let mut records = Records::default();
        for (resources, role) in
            [(&one, "a"), (&one, "a"), (&other, "a"), (&other, "b"), (&one, "a")]
        {
            let task = task("t", resources, role);
            let shown = records.shown(&task, &"f".into(), &"s".into());
            let want = v1::Task {
                resources: resources.to_proto(Dialect::Refined, Some(role)),
                ..task.record(&"f".into(), &"s".into())
            };
            assert_eq!(shown.decode(), want);
        }
    }
}
