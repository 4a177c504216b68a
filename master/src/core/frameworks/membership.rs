//! Where frameworks stand: the one place that changes it, so that indexes,
//! timers and gauges follow.

use mezz_proto::{ids::FrameworkId, time::Time};

use crate::{
    allocator::FrameworkKey,
    core::{
        Change, Core, Effects,
        state::{Framework, FrameworkLink, Timer},
        validate::framework::Subscription,
    },
};

impl Core {
    /// Takes a new framework in, here and in the allocator.
    pub(in crate::core) fn insert_framework(
        &mut self,
        id: FrameworkId,
        subscription: Subscription,
        link: FrameworkLink,
        registered: Option<Time>,
    ) -> FrameworkKey {
        let mut info = subscription.info;
        info.id = Some((&id).into());
        let framework = Framework {
            id: id.clone(),
            info,
            roles: subscription.roles,
            suppressed: subscription.suppressed,
            min_allocatable: subscription.min_allocatable,
            constraints: subscription.constraints,
            abilities: subscription.abilities,
            failover_timeout: subscription.failover_timeout,
            link,
            registered,
            reregistered: None,
            tasks: Default::default(),
            reconciling: None,
            executors: Default::default(),
            offers: Default::default(),
            completed: Default::default(),
            completed_order: Default::default(),
            offers_sent: 0,
            offers_accepted: 0,
        };
        let key = self.frameworks.insert_with(|_| framework);
        self.framework_ids.insert(id, key);
        let framework = &self.frameworks[key];
        self.allocator.add_framework(key, framework.spec());
        if framework.connection().is_none() {
            self.allocator.set_framework_active(key, false);
        }
        self.enter_framework_link(key);
        key
    }

    /// Takes a framework out that has no tasks, executors or offers left.
    pub(super) fn take_framework(&mut self, key: FrameworkKey) -> Option<Framework> {
        self.leave_framework_link(key);
        self.allocator.remove_framework(key);
        let framework = self.frameworks.remove(key)?;
        self.framework_ids.remove(&framework.id);
        Some(framework)
    }

    /// Moves a framework from where it stood to `link`.
    pub(super) fn set_framework_link(&mut self, key: FrameworkKey, link: FrameworkLink) {
        self.leave_framework_link(key);
        self.frameworks[key].link = link;
        self.enter_framework_link(key);
    }

    pub(in crate::core) fn publish_framework(&self, key: FrameworkKey, out: &mut Effects) {
        out.change(Change::Framework(Box::new(self.frameworks[key].state())));
    }

    fn enter_framework_link(&mut self, key: FrameworkKey) {
        match &self.frameworks[key].link {
            FrameworkLink::Connected { connection, heartbeat } => {
                self.framework_links.insert(*connection, key);
                self.timers.set(*heartbeat, Timer::Heartbeat(key));
                self.counters.frameworks_active += 1;
            }
            FrameworkLink::Disconnected { until } => {
                self.timers.set(*until, Timer::Failover(key));
                self.counters.frameworks_disconnected += 1;
            }
            FrameworkLink::Recovered { until, .. } => {
                self.timers.set(*until, Timer::Failover(key));
                self.counters.frameworks_recovered += 1;
            }
        }
    }

    fn leave_framework_link(&mut self, key: FrameworkKey) {
        self.end_reconciliation(key);
        match &self.frameworks[key].link {
            FrameworkLink::Connected { connection, heartbeat } => {
                self.framework_links.remove(connection);
                self.timers.clear(*heartbeat, Timer::Heartbeat(key));
                self.counters.frameworks_active -= 1;
            }
            FrameworkLink::Disconnected { until } => {
                self.timers.clear(*until, Timer::Failover(key));
                self.counters.frameworks_disconnected -= 1;
            }
            FrameworkLink::Recovered { until, .. } => {
                self.timers.clear(*until, Timer::Failover(key));
                self.counters.frameworks_recovered -= 1;
            }
        }
    }
}
