//! DECLINE, and the filters that it and ACCEPT leave (rule 30).

use std::{sync::Arc, time::Duration};

use mezz_proto::{resources::Resources, time::Time, v1, v1::scheduler::call::Decline};

use crate::{
    allocator::{AgentKey, FrameworkKey, MAX_REFUSE},
    core::{Core, Effects},
};

/// For filters that do not say, or say nonsense.
const DEFAULT_REFUSE: Duration = Duration::from_secs(5);

impl Core {
    /// Unknown offers are ignored (rule 24), and so are those of others, whose
    /// owner Mesos does not check.
    pub(in crate::core) fn decline(
        &mut self,
        now: Time,
        framework: FrameworkKey,
        decline: Decline,
        out: &mut Effects,
    ) {
        for id in &decline.offer_ids {
            let Some(key) = self.offer_key(&id.value) else { continue };
            if self.offers.get(&key).is_none_or(|o| o.framework != framework) {
                continue;
            }
            if let Some(offer) = self.take_offer(key, out) {
                self.counters.offers_declined += 1;
                let filters = decline.filters.as_ref();
                let (agent, role) = (offer.agent, &offer.role);
                self.give_back(now, framework, agent, role, offer.resources, filters);
            }
        }
    }

    /// Gives back what a framework does not want, with its filter.
    pub(super) fn give_back(
        &mut self,
        now: Time,
        framework: FrameworkKey,
        agent: AgentKey,
        role: &Arc<str>,
        resources: Arc<Resources>,
        filters: Option<&v1::Filters>,
    ) {
        if resources.is_empty() {
            return;
        }
        self.allocator.recover(agent, framework, role, &resources);
        if let Some(time) = refuse_time(filters, self.options.min_filter) {
            self.allocator.refuse(agent, framework, role, resources, now + time);
        }
        self.wake_allocator(now);
    }
}

/// How long the filter lasts; `None` for none at all.
fn refuse_time(filters: Option<&v1::Filters>, least: Duration) -> Option<Duration> {
    let seconds = filters.and_then(|f| f.refuse_seconds);
    let time = match seconds {
        Some(s) if s.is_nan() || s < 0.0 => DEFAULT_REFUSE,
        // Too large for a duration is also more than the longest filter.
        Some(s) => Duration::try_from_secs_f64(s).unwrap_or(MAX_REFUSE).min(MAX_REFUSE),
        None => DEFAULT_REFUSE,
    };
    (!time.is_zero()).then(|| time.max(least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_30() {
        let time =
            |s: f64| refuse_time(Some(&v1::Filters { refuse_seconds: Some(s) }), Duration::ZERO);
        let secs = |s| Some(Duration::from_secs(s));
        assert_eq!(refuse_time(None, Duration::ZERO), secs(5));
        assert_eq!(refuse_time(Some(&v1::Filters::default()), Duration::ZERO), secs(5));
        assert_eq!(time(-1.0), secs(5));
        assert_eq!(time(f64::NAN), secs(5));
        assert_eq!(time(0.0), None);
        assert_eq!(time(7.0), secs(7));
        assert_eq!(time(1e12), Some(MAX_REFUSE));
        assert_eq!(time(f64::INFINITY), Some(MAX_REFUSE));
        let short = v1::Filters { refuse_seconds: Some(0.1) };
        assert_eq!(refuse_time(Some(&short), Duration::from_secs(1)), secs(1));
    }
}
