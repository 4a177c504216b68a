//! UPDATE_FRAMEWORK (rule 19), and what agents hear of it.

use std::collections::BTreeSet;

use mezz_proto::{
    mezz::v1::{self as mezz, master_message::Message},
    time::Time,
    v1::{FrameworkInfo, scheduler::call::UpdateFramework},
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
        .map_err(|text| invalid("Supplied FrameworkInfo is not valid", &text))?;
        self.unchanged(key, &subscription)
            .map_err(|text| invalid("FrameworkInfo update is not valid", &text))?;
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
        if new.id.as_ref().is_some_and(|n| !n.value.is_empty() && n.value != id.as_str()) {
            return Err(format!("'FrameworkInfo.id' is not `{id}`; an id cannot be changed"));
        }
        same_principal(old, new)?;
        let changed = |field: &str, old: &str, new: &str| {
            Err(format!(
                "Updating 'FrameworkInfo.{field}' is unsupported; attempted to update from '{old}' to '{new}'"
            ))
        };
        if new.user != old.user {
            return changed("user", &old.user, &new.user);
        }
        if new.checkpoint() != old.checkpoint() {
            let [old, new] = [old, new].map(|info| info.checkpoint().to_string());
            return changed("checkpoint", &old, &new);
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

fn invalid(what: &str, text: &str) -> CallError {
    CallError::Invalid(format!("{what}: {text}"))
}

/// Rule 14. Whoever does not know the principal is not told it.
pub(super) fn same_principal(old: &FrameworkInfo, new: &FrameworkInfo) -> Result<(), String> {
    if old.principal == new.principal {
        return Ok(());
    }
    Err("Changing framework's principal is not allowed.".to_owned())
}
