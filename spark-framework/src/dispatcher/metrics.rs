//! What Prometheus is told.

use std::collections::BTreeMap;

use metrics::{Unit, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;

use super::{DriverView, core::DriverState};

/// Whether this dispatcher leads: 0 or 1.
const LEADING: &str = "mezz_dispatcher_leading";
/// Whether the leader is subscribed to a master: 0 or 1.
const SUBSCRIBED: &str = "mezz_dispatcher_subscribed";
/// Drivers by `state`, ended ones too while they are remembered.
const DRIVERS: &str = "mezz_dispatcher_drivers";

/// Of a standby, or of a leader: whether it is subscribed, and its drivers.
pub(super) fn page(leads: Option<(bool, &[DriverView])>) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let number = |yes: bool| f64::from(u8::from(yes));
    with_local_recorder(&recorder, || {
        describe_gauge!(LEADING, Unit::Count, "Whether this dispatcher leads: 0 or 1");
        gauge!(LEADING).set(number(leads.is_some()));
        let Some((subscribed, drivers)) = leads else { return };
        describe_gauge!(SUBSCRIBED, Unit::Count, "Whether it is subscribed to a master: 0 or 1");
        gauge!(SUBSCRIBED).set(number(subscribed));
        describe_gauge!(DRIVERS, Unit::Count, "Drivers that are remembered, by state");
        let mut counts: BTreeMap<&str, u32> =
            DriverState::ALL.iter().map(|state| (state.name(), 0)).collect();
        for driver in drivers {
            *counts.entry(&driver.state).or_default() += 1;
        }
        for (state, count) in counts {
            gauge!(DRIVERS, "state" => state.to_owned()).set(count);
        }
    });
    recorder.handle().render()
}
