//! UPDATE_FRAMEWORK (rule 19), and what agents hear of it.

use std::collections::BTreeSet;

use mezz_proto::{
    mezz::v1::{self as mezz, master_message::Message},
    time::Time,
    v1::scheduler::call::UpdateFramework,
};

use crate::{
    allocator::{AgentKey, FrameworkKey},
    core::{CallError, Core, Effects, validate::framework::Subscription},
    registry::RegistryOp,
};

impl Core {
    /// Offers of roles that are left are rescinded, those of suppressed roles
    /// stay; tasks run on.
    pub(super) fn update_framework(
        &mut self,
        now: Time,
        key: FrameworkKey,
        update: UpdateFramework,
        out: &mut Effects,
    ) -> Result<(), CallError> {
        let subscription = Subscription::parse(
            update.framework_info,
            &update.suppressed_roles,
            update.offer_constraints,
        )
        .map_err(CallError::Invalid)?;
        self.unchanged(key, &subscription).map_err(CallError::Invalid)?;
        self.describe_framework(key, subscription);
        let framework = &self.frameworks[key];
        self.allocator.update_framework(key, framework.spec());
        let left: Vec<_> = framework
            .offers
            .iter()
            .copied()
            .filter(|offer| {
                self.offers.get(offer).is_some_and(|o| framework.role(&o.role).is_none())
            })
            .collect();
        for offer in left {
            self.rescind_offer(now, offer, out);
        }
        out.persist.push(RegistryOp::PutFramework(self.frameworks[key].record()));
        self.publish_framework(key, out);
        self.tell_agents_of_framework(key, out);
        self.wake_allocator(now);
        Ok(())
    }

    /// Rule 14: these fields never change.
    fn unchanged(&self, key: FrameworkKey, new: &Subscription) -> Result<(), String> {
        let (id, old, new) = (&self.frameworks[key].id, &self.frameworks[key].info, &new.info);
        let changed = |field: &str| {
            Err(format!(
                "update_framework.framework_info.{field}: cannot be changed; send what SUBSCRIBE had"
            ))
        };
        if new.id.as_ref().is_some_and(|n| !n.value.is_empty() && n.value != id.as_str()) {
            return changed("id");
        }
        if new.principal != old.principal {
            return changed("principal");
        }
        if new.user != old.user {
            return changed("user");
        }
        if new.checkpoint() != old.checkpoint() {
            return changed("checkpoint");
        }
        Ok(())
    }

    /// Agents that run something of the framework get its new description. To
    /// them it also means that the framework is there: they send again at once
    /// what is not acknowledged.
    pub(super) fn tell_agents_of_framework(&self, key: FrameworkKey, out: &mut Effects) {
        let framework = &self.frameworks[key];
        let mut agents: BTreeSet<AgentKey> =
            framework.tasks.values().map(|task| self.tasks[*task].agent).collect();
        agents.extend(framework.executors.iter().map(|(agent, _)| *agent));
        for connection in agents.into_iter().filter_map(|agent| self.agents[agent].connection()) {
            let message = mezz::UpdateFramework { framework: framework.info.clone() };
            out.agent(connection, Message::UpdateFramework(message));
        }
    }
}
