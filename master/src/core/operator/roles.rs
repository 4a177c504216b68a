//! The list of roles.

use std::{collections::BTreeMap, sync::Arc};

use mezz_proto::{
    mezz::v1 as mezz,
    resources::{Dialect, Resources},
};

use crate::core::Core;

impl Core {
    pub(super) fn list_roles(&self) -> mezz::ListRolesResponse {
        let mut offered: BTreeMap<&Arc<str>, Resources> = BTreeMap::new();
        for offer in self.offers.values() {
            *offered.entry(&offer.role).or_default() += &offer.resources;
        }
        let nothing = Resources::new();
        let roles = self.allocator.roles().into_iter().map(|share| {
            let offered = offered.get(&share.role).unwrap_or(&nothing);
            let mut allocated = share.held.clone();
            allocated.saturating_sub(offered);
            mezz::RoleState {
                frameworks: share
                    .frameworks
                    .iter()
                    .filter_map(|key| Some(self.frameworks.get(*key)?.id.to_string()))
                    .collect(),
                allocated: allocated.to_proto(Dialect::Refined, None),
                offered: offered.to_proto(Dialect::Refined, None),
                name: share.role.to_string(),
                weight: share.weight,
                dominant_share: share.dominant_share,
            }
        });
        mezz::ListRolesResponse { roles: roles.collect() }
    }
}
