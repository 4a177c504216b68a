//! The shell's own counts as numbers, for pages in other forms than that of Prometheus.
//! The recorder gives them as text only.

use std::collections::HashMap;

use super::metrics::{ALLOCATION_SECONDS, EVENTS, QUEUE_DEPTH, REGISTRY_WRITE_SECONDS};

/// Counts at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    events: HashMap<String, f64>,
    /// Inputs that waited for the core when it last looked.
    pub queue_depth: f64,
    /// Runs of the allocator.
    pub allocation: Timing,
    /// Writes of the registry.
    pub registry_write: Timing,
}

/// How long something took: counts below bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timing {
    /// Seconds, and how many took no longer; rising.
    buckets: Vec<(f64, f64)>,
}

impl Timing {
    /// How many there were.
    pub fn count(&self) -> f64 {
        self.buckets.last().map_or(0.0, |(_, count)| *count)
    }

    /// The time in seconds that this part (0 to 1) of them did not exceed, as well as the
    /// bounds tell; 0 if there were none.
    pub fn quantile(&self, part: f64) -> f64 {
        // Of one, every quantile is that one.
        let wanted = (part * self.count()).max(1.0);
        let (mut low, mut before) = (0.0, 0.0);
        for (bound, count) in &self.buckets {
            if *count >= wanted && *count > before {
                if bound.is_infinite() {
                    return low;
                }
                return low + (bound - low) * (wanted - before) / (count - before);
            }
            (low, before) = (if bound.is_finite() { *bound } else { low }, *count);
        }
        0.0
    }
}

impl Samples {
    /// From the text that Prometheus reads.
    pub fn read(text: &str) -> Self {
        let mut out = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let labelled = |metric: &str, label: &str| {
                let rest = name.strip_prefix(metric)?.strip_prefix('{')?;
                let rest = rest.strip_prefix(label)?.strip_prefix("=\"")?;
                rest.strip_suffix("\"}").map(str::to_owned)
            };
            if let Some(kind) = labelled(EVENTS, "kind") {
                out.events.insert(kind, value);
            } else if name == QUEUE_DEPTH {
                out.queue_depth = value;
            }
            for (metric, timing) in [
                (ALLOCATION_SECONDS, &mut out.allocation),
                (REGISTRY_WRITE_SECONDS, &mut out.registry_write),
            ] {
                if let Some(bound) = labelled(&format!("{metric}_bucket"), "le") {
                    let bound = bound.parse().unwrap_or(f64::INFINITY);
                    timing.buckets.push((bound, value));
                }
            }
        }
        out
    }

    /// Events of this [kind](super::kinds::EVENT_KINDS) that the core handled.
    pub fn event(&self, kind: &str) -> f64 {
        self.events.get(kind).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::shell::metrics::Metrics;

    #[test]
    fn what_was_counted_is_read_back() {
        let metrics = Metrics::new().unwrap();
        metrics.hot.event(1, Duration::from_micros(3));
        metrics.hot.queue_depth.set(4.0);
        for _ in 0..99 {
            metrics.hot.allocation_seconds.record(1.5e-3);
        }
        metrics.hot.allocation_seconds.record(0.3);
        let samples = metrics.samples();
        assert_eq!((samples.event("call_subscribe"), samples.event("call_kill")), (1.0, 0.0));
        assert_eq!(samples.queue_depth, 4.0);
        let timing = &samples.allocation;
        assert_eq!(timing.count(), 100.0);
        let median = timing.quantile(0.5);
        assert!((1e-3..=2e-3).contains(&median), "{median}");
        assert_eq!(timing.quantile(1.0), 0.5);
        assert_eq!(samples.registry_write.quantile(0.5), 0.0);
    }
}
