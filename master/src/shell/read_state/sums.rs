//! What agents, frameworks and roles hold and are offered: the changes leave it out.

use std::{borrow::Borrow, collections::HashMap, hash::Hash, sync::Arc};

use mezz_proto::{resources::Resources, v1};

use super::{
    State,
    entries::{Entry, Sums},
};

/// Whether a task in this state has its resources (rule 34 says which states are
/// terminal; an unreachable agent's resources are not counted as held).
fn holds(state: v1::TaskState) -> bool {
    !state.is_terminal() && state != v1::TaskState::TaskUnreachable
}

impl State {
    /// Moves the sums from what a task held in state `was` to what it holds now.
    /// A task's resources never change, so only the states matter.
    pub(super) fn charge_task(
        &mut self,
        framework: &str,
        agent: &str,
        role: &str,
        resources: &Resources,
        was: v1::TaskState,
        now: v1::TaskState,
    ) {
        let live = i64::from(!now.is_terminal()) - i64::from(!was.is_terminal());
        let held = i64::from(holds(now)) - i64::from(holds(was));
        if live == 0 && held == 0 {
            return;
        }
        self.change_sums(agent, framework, role, |sums| {
            sums.tasks = sums.tasks.saturating_add_signed(i32::try_from(live).unwrap_or(0));
            match held {
                0 => {}
                1 => sums.allocated += resources,
                _ => sums.allocated.saturating_sub(resources),
            }
        });
    }

    pub(super) fn change_sums(
        &mut self,
        agent: &str,
        framework: &str,
        role: &str,
        change: impl Fn(&mut Sums),
    ) {
        match self.roles.get_mut(role) {
            Some(sums) => {
                change(Arc::make_mut(sums));
                if **sums == Sums::default() {
                    self.roles.remove(role);
                }
            }
            None => {
                let mut sums = Sums::default();
                change(&mut sums);
                if sums != Sums::default() {
                    self.roles.insert(role.into(), Arc::new(sums));
                }
            }
        }
        change_in(&mut self.agents, agent, &change);
        change_in(&mut self.frameworks, framework, &change);
    }
}

/// Of an entry that may not be there yet. Dropped when it is kept only for its sums, and these
/// are nothing now.
fn change_in<K, R>(entries: &mut HashMap<K, Entry<R>>, id: &str, change: &impl Fn(&mut Sums))
where
    K: Borrow<str> + Eq + Hash + for<'a> From<&'a str>,
{
    let entry = match entries.get_mut(id) {
        Some(entry) => entry,
        None => entries.entry(id.into()).or_default(),
    };
    change(Arc::make_mut(&mut entry.sums));
    if entry.is_empty() {
        entries.remove(id);
    }
}

/// The role that resources are allocated to.
pub(super) fn role_of(resources: &[v1::Resource]) -> &str {
    resources.iter().find_map(|r| r.allocation_info.as_ref()?.role.as_deref()).unwrap_or("*")
}
