//! Weights of roles.

use std::collections::BTreeSet;

use mezz_proto::{mezz::v1 as mezz, time::Time};

use crate::{
    core::{Change, Core, Effects, OperatorError, is_weight, validate::check_role},
    registry::RegistryOp,
};

/// Weights that may be set: each is kept for good, in memory and in the registry.
pub(super) const MAX_WEIGHTS: usize = 1000;

impl Core {
    /// All of them or none. Outstanding offers stay: Mesos rescinds every one
    /// (rule 73), here the next allocations follow the new weights.
    pub(super) fn update_weights(
        &mut self,
        now: Time,
        request: mezz::UpdateWeightsRequest,
        out: &mut Effects,
    ) -> Result<(), OperatorError> {
        let mut all: BTreeSet<&str> = self.weights.keys().map(String::as_str).collect();
        let known = all.len();
        all.extend(request.weights.iter().map(|entry| &*entry.role));
        // Those that were more already may be changed.
        if request.weights.len() > MAX_WEIGHTS || all.len() > MAX_WEIGHTS.max(known) {
            return Err(OperatorError::Invalid(format!(
                "weights: {} beside the {known} that are set are too many; at most \
                 {MAX_WEIGHTS} roles may have one",
                request.weights.len(),
            )));
        }
        for (i, entry) in request.weights.iter().enumerate() {
            check_role(&entry.role)
                .map_err(|text| OperatorError::Invalid(format!("weights[{i}].role: {text}")))?;
            if !is_weight(entry.weight) {
                return Err(OperatorError::Invalid(format!(
                    "weights[{i}].weight: {} is not a number greater than 0",
                    entry.weight
                )));
            }
        }
        for entry in request.weights {
            self.allocator.set_weight(&entry.role.as_str().into(), entry.weight);
            self.weights.insert(entry.role.clone(), entry.weight);
            out.change(Change::Weight(entry.role.clone(), entry.weight));
            out.persist.push(RegistryOp::PutWeight(entry.role, entry.weight));
        }
        self.wake_allocator(now);
        Ok(())
    }
}
