//! The end of a framework's connection, its failover timeout, and heartbeats.

use mezz_proto::time::Time;

use super::events;
use crate::{
    allocator::FrameworkKey,
    core::{
        ConnectionId, Core, Effects,
        state::{FrameworkLink, Timer},
    },
    registry::RegistryOp,
};

impl Core {
    /// Rule 15: the framework is inactive, its offers are withdrawn, its filters
    /// dropped, and it has its failover timeout to come back. A timeout of zero,
    /// the default, removes it at once.
    pub(in crate::core) fn scheduler_disconnected(
        &mut self,
        now: Time,
        connection: ConnectionId,
        out: &mut Effects,
    ) {
        let Some(&key) = self.framework_links.get(&connection) else { return };
        if self.frameworks[key].failover_timeout.is_zero() {
            return self.remove_framework(now, key, out);
        }
        self.drop_framework_offers(now, key, out);
        self.allocator.set_framework_active(key, false);
        let until = now + self.frameworks[key].failover_timeout;
        self.set_framework_link(key, FrameworkLink::Disconnected { until });
        out.persist.push(RegistryOp::PutFramework(self.frameworks[key].record()));
        self.publish_framework(key, out);
    }

    pub(in crate::core) fn failover_due(
        &mut self,
        now: Time,
        key: FrameworkKey,
        out: &mut Effects,
    ) {
        self.remove_framework(now, key, out);
    }

    /// Rule 11.
    pub(in crate::core) fn heartbeat_due(
        &mut self,
        now: Time,
        key: FrameworkKey,
        out: &mut Effects,
    ) {
        let next = now + self.options.heartbeat_interval;
        let FrameworkLink::Connected { connection, heartbeat } = &mut self.frameworks[key].link
        else {
            return;
        };
        *heartbeat = next;
        out.event(*connection, events::heartbeat());
        self.timers.set(next, Timer::Heartbeat(key));
    }
}
