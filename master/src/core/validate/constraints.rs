//! Offer constraints (rules 18 and 32).

use std::{collections::BTreeMap, sync::Arc};

use mezz_proto::v1::scheduler::{OfferConstraints, offer_constraints::RoleConstraints};

use super::framework::own;
use crate::allocator::validate_constraints;

/// Constraints of one framework.
const MAX_CONSTRAINTS: usize = 1000;

/// Checks the constraints, and that their roles are subscribed to, which are sorted.
pub(super) fn constraints(
    given: OfferConstraints,
    roles: &[Arc<str>],
) -> Result<BTreeMap<Arc<str>, RoleConstraints>, String> {
    let groups = given.role_constraints.values().flat_map(|c| &c.groups);
    let count: usize = groups.map(|g| g.attribute_constraints.len()).sum();
    if count > MAX_CONSTRAINTS {
        return Err(format!(
            "offer_constraints: has {count} constraints; {MAX_CONSTRAINTS} are allowed"
        ));
    }
    validate_constraints(&given).map_err(|error| error.to_string())?;
    let mut out = BTreeMap::new();
    for (role, constraints) in given.role_constraints {
        let Some(own) = own(roles, &role) else {
            return Err(format!(
                "offer_constraints.role_constraints: the framework is not subscribed to role `{role}`; leave it out or add it to framework_info.roles"
            ));
        };
        out.insert(Arc::clone(own), constraints);
    }
    Ok(out)
}
