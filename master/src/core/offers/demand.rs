//! REVIVE and SUPPRESS (rule 20).

use std::{collections::BTreeSet, sync::Arc};

use mezz_proto::time::Time;

use crate::{
    allocator::FrameworkKey,
    core::{Core, Effects},
};

impl Core {
    pub(in crate::core) fn revive(
        &mut self,
        now: Time,
        key: FrameworkKey,
        roles: Vec<String>,
        out: &mut Effects,
    ) {
        let Some(roles) = self.subscribed_roles(key, &roles) else { return };
        self.allocator.revive(key, &roles);
        let suppressed = &mut self.frameworks[key].suppressed;
        let before = suppressed.len();
        if roles.is_empty() {
            suppressed.clear();
        } else {
            for role in &roles {
                suppressed.remove(role);
            }
        }
        if suppressed.len() != before {
            self.publish_framework(key, out);
        }
        self.wake_allocator(now);
    }

    pub(in crate::core) fn suppress(
        &mut self,
        key: FrameworkKey,
        roles: Vec<String>,
        out: &mut Effects,
    ) {
        let Some(roles) = self.subscribed_roles(key, &roles) else { return };
        self.allocator.suppress(key, &roles);
        let framework = &mut self.frameworks[key];
        let before = framework.suppressed.len();
        let all = if roles.is_empty() { framework.roles.clone() } else { roles };
        framework.suppressed.extend(all);
        if framework.suppressed.len() != before {
            self.publish_framework(key, out);
        }
    }

    /// Each once, however often it is named. `None` when one of them is not subscribed to:
    /// then the whole call is ignored, as in Mesos.
    fn subscribed_roles(&self, key: FrameworkKey, roles: &[String]) -> Option<Vec<Arc<str>>> {
        let framework = &self.frameworks[key];
        let own: Option<BTreeSet<_>> = roles.iter().map(|role| framework.role(role)).collect();
        Some(own?.into_iter().cloned().collect())
    }
}
