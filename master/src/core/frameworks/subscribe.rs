//! SUBSCRIBE: a new framework, one that comes back, or one that takes over.

use mezz_proto::{
    ids::FrameworkId,
    pages::MESOS_VERSION,
    time::Time,
    v1::{
        self,
        scheduler::{Call, event::Subscribed},
    },
};

use super::{events, part, update::same_principal};
use crate::{
    allocator::FrameworkKey,
    core::{
        CallError, ConnectionId, Core, Effect, Effects,
        state::FrameworkLink,
        validate::{framework::Subscription, ids},
    },
    registry::RegistryOp,
};

impl Core {
    pub(super) fn subscribe(
        &mut self,
        now: Time,
        connection: ConnectionId,
        call: Call,
        out: &mut Effects,
    ) -> Result<(), CallError> {
        if self.framework_links.contains_key(&connection) {
            return Err(CallError::NotAllowed(
                "type: SUBSCRIBE was sent on this connection already; use UPDATE_FRAMEWORK to change roles"
                    .to_owned(),
            ));
        }
        let subscribe = part(call.subscribe, "subscribe")?;
        // Rule 6: the info has the same; an empty one counts as none.
        let id = call.framework_id.filter(|id| !id.value.is_empty()).map(FrameworkId::from);
        // Rule 7: what is refused from here on is answered with an ERROR event.
        let admitted = Subscription::parse(
            subscribe.framework_info,
            &subscribe.suppressed_roles,
            subscribe.offer_constraints,
        )
        .and_then(|subscription| {
            id.as_ref().map_or(Ok(()), |id| ids::id("framework_id", id.as_str()))?;
            self.may_return(id.as_ref(), &subscription).map(|()| subscription)
        });
        let subscription = match admitted {
            Ok(subscription) => subscription,
            Err(text) => {
                if id.is_some_and(|id| self.removal_may_wait(id.as_str())) {
                    out.after_all_on(connection);
                }
                out.event(connection, events::error(text));
                out.close_scheduler(connection, None);
                return Ok(());
            }
        };
        match id.as_ref().and_then(|id| self.framework_ids.get(id).copied()) {
            Some(key) => self.resubscribe(now, key, connection, subscription, out),
            None => {
                if self.frameworks.len() >= self.options.max_frameworks {
                    return Err(CallError::LimitReached(format!(
                        "this master has {} frameworks and takes no more (option max_frameworks); tear one down first",
                        self.frameworks.len()
                    )));
                }
                // Rule 13: an id of a former master is accepted.
                let id = id.unwrap_or_else(|| self.new_framework_id());
                let link = self.new_subscription(now, connection);
                let key = self.insert_framework(id, subscription, link, Some(now));
                self.admit_framework(now, key, connection, true, out);
            }
        }
        Ok(())
    }

    /// What an id that is known says about the newcomer.
    fn may_return(
        &self,
        id: Option<&FrameworkId>,
        subscription: &Subscription,
    ) -> Result<(), String> {
        let Some(id) = id else { return Ok(()) };
        if self.completed.contains_key(id) {
            return Err("Framework has been removed".to_owned());
        }
        let Some(&key) = self.framework_ids.get(id) else { return Ok(()) };
        // Rule 14.
        same_principal(&self.frameworks[key].info, &subscription.info)?;
        Ok(())
    }

    /// Rule 14: the newcomer always takes over.
    fn resubscribe(
        &mut self,
        now: Time,
        key: FrameworkKey,
        connection: ConnectionId,
        mut subscription: Subscription,
        out: &mut Effects,
    ) {
        if let Some(old) = self.frameworks[key].connection() {
            // Rule 15: also its filters go, as if it had left before.
            self.allocator.set_framework_active(key, false);
            out.event(old, events::error("Framework failed over"));
            out.close_scheduler(old, None);
        }
        self.drop_framework_offers(now, key, out);
        let before = self.frameworks[key].record();
        let known = &self.frameworks[key].info;
        subscription.info.user = known.user.clone();
        subscription.info.checkpoint = known.checkpoint;
        self.describe_framework(key, subscription);
        let link = self.new_subscription(now, connection);
        self.set_framework_link(key, link);
        let framework = &mut self.frameworks[key];
        framework.registered.get_or_insert(now);
        framework.reregistered = Some(now);
        let changed = framework.record() != before;
        self.allocator.update_framework(key, self.frameworks[key].spec());
        self.allocator.set_framework_active(key, true);
        self.admit_framework(now, key, connection, changed, out);
        // Also tells its agents to send again what is not acknowledged.
        self.tell_agents_of_framework(key, out);
    }

    fn admit_framework(
        &mut self,
        now: Time,
        key: FrameworkKey,
        connection: ConnectionId,
        write: bool,
        out: &mut Effects,
    ) {
        let framework = &self.frameworks[key];
        let put = write.then(|| RegistryOp::PutFramework(framework.record()));
        let subscribed = Subscribed {
            framework_id: (&framework.id).into(),
            heartbeat_interval_seconds: Some(self.options.heartbeat_interval.as_secs_f64()),
            master_info: Some(self.master_info()),
        };
        // Rule 11: a heartbeat at once.
        let greeting = [events::subscribed(subscribed), events::heartbeat()]
            .map(|event| Effect::SendScheduler { connection, event: Box::new(event) });
        out.admit(connection, put, greeting.into());
        self.publish_framework(key, out);
        self.wake_allocator(now);
    }

    fn new_subscription(&self, now: Time, connection: ConnectionId) -> FrameworkLink {
        FrameworkLink::Connected { connection, heartbeat: now + self.options.heartbeat_interval }
    }

    /// Replaces what the framework said of itself.
    pub(super) fn describe_framework(&mut self, key: FrameworkKey, subscription: Subscription) {
        let framework = &mut self.frameworks[key];
        framework.info = subscription.info;
        framework.info.id = Some((&framework.id).into());
        framework.roles = subscription.roles;
        framework.suppressed = subscription.suppressed;
        framework.min_allocatable = subscription.min_allocatable;
        framework.constraints = subscription.constraints;
        framework.abilities = subscription.abilities;
        framework.failover_timeout = subscription.failover_timeout;
    }

    fn new_framework_id(&mut self) -> FrameworkId {
        loop {
            // Rule 12.
            let text = format!("{}-{:04}", self.options.master_id, self.next_framework);
            self.next_framework += 1;
            let id = FrameworkId::from(text);
            if !self.framework_ids.contains_key(&id) && !self.completed.contains_key(&id) {
                return id;
            }
        }
    }

    fn master_info(&self) -> v1::MasterInfo {
        master_info(&self.options.master_id, &self.options.address)
    }
}

/// A master as frameworks and operators are told of it: by its id and its `host:port`.
pub fn master_info(id: &str, address: &str) -> v1::MasterInfo {
    use v1::master_info::{Capability, capability::Type};
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let port: u16 = port.parse().unwrap_or(5050);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ip: Option<::core::net::IpAddr> = host.parse().ok();
    let capability = |of: Type| Capability { r#type: Some(of as i32) };
    v1::MasterInfo {
        id: id.to_owned(),
        // In network byte order, as Mesos has it; 0 when it is a name or IPv6.
        ip: match ip {
            Some(::core::net::IpAddr::V4(ip)) => u32::from_le_bytes(ip.octets()),
            _ => 0,
        },
        port: port.into(),
        pid: Some(format!("master@{address}")),
        hostname: Some(host.to_owned()),
        version: Some(MESOS_VERSION.to_owned()),
        address: Some(v1::Address {
            hostname: Some(host.to_owned()),
            ip: ip.map(|ip| ip.to_string()),
            port: port.into(),
        }),
        // Not QUOTA_V2: there are no quotas yet.
        capabilities: vec![capability(Type::AgentUpdate), capability(Type::AgentDraining)],
        ..Default::default()
    }
}
