//! The role tree against itself and the clients.

use super::{ROOT, Roles};
use crate::allocator::drf::{clients::Clients, quantities::Quantities};

impl Roles {
    /// The tree against itself and the clients.
    pub(in crate::allocator::drf) fn check(&self, clients: &Clients) -> Result<(), String> {
        let mut shown = 0;
        for (id, role) in self.iter() {
            let mine = || clients.iter().filter(|(_, c)| c.role == id);
            let below = || self.iter().filter(|(_, r)| r.parent == Some(id));
            let mut own = Quantities::default();
            mine().for_each(|(_, c)| own.add(&c.held));
            let mut held = own.clone();
            below().for_each(|(_, r)| held.add(&r.held));
            if own != role.own_held || held != role.held {
                return Err(format!("role {}: held is not the sum of its parts", role.path));
            }
            if mine().count() != role.users as usize || below().count() != role.children as usize {
                return Err(format!("role {}: users or children are miscounted", role.path));
            }
            let wanting = mine().filter(|(_, c)| c.wanting).count();
            let members = below().filter(|(_, r)| r.key.is_some()).count();
            let own = usize::from(wanting > 0);
            if role.clients.len() != wanting
                || role.own_key.is_some() != (wanting > 0)
                || role.members.len() != members + own
                || role.key.is_some() != (members + own > 0)
            {
                return Err(format!("role {}: its order lacks or has too many", role.path));
            }
            for (client, c) in mine() {
                let right = c.wanting.then(|| self.client_key(client, c));
                if c.key.is_some_and(|k| !role.clients.contains(&k))
                    || (!self.stale && c.key != right)
                {
                    return Err(format!(
                        "role {}: {} stands in the wrong place",
                        role.path, c.framework_id
                    ));
                }
            }
            if let Some(key) = role.key {
                let parent = role.parent.unwrap_or(ROOT);
                shown += usize::from(parent == ROOT);
                if !self.get(parent).members.contains(&key)
                    || (!self.stale && key != self.key_of(id))
                {
                    return Err(format!("role {} stands in the wrong place", role.path));
                }
            }
            if let Some(key) = role.own_key
                && (!role.members.contains(&key) || (!self.stale && key != self.own_key_of(id)))
            {
                return Err(format!("role {}: its own frameworks stand wrongly", role.path));
            }
        }
        if self.get(ROOT).members.len() != shown {
            return Err("the top of the role tree lacks or has too many".to_owned());
        }
        Ok(())
    }
}
