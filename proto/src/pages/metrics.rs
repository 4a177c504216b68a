//! `/metrics/snapshot` (rule 90), and what master and agent both count there: the
//! machine.

use std::collections::BTreeMap;

/// The page: one object, sorted by name, every value a number. What is not finite is left
/// out, as JSON cannot say it.
pub fn snapshot(metrics: &BTreeMap<String, f64>) -> String {
    let finite = metrics.iter().filter(|(_, value)| value.is_finite());
    let page: serde_json::Map<_, _> =
        finite.map(|(name, value)| (name.clone(), serde_json::Value::from(*value))).collect();
    serde_json::Value::Object(page).to_string()
}

/// The load of the last one, five and fifteen minutes from the text of `/proc/loadavg`.
pub fn load_averages(text: &str) -> Option<[f64; 3]> {
    let mut numbers = text.split_whitespace().map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some([next()?, next()?, next()?])
}

/// `system/…` from the texts of `/proc/loadavg` and `/proc/meminfo`, and the number of
/// processors. All names are always there: some exporters stop at a missing one.
pub fn system_metrics(loadavg: &str, meminfo: &str, cpus: usize) -> [(&'static str, f64); 6] {
    let [one, five, fifteen] = load_averages(loadavg).unwrap_or_default();
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next());
        kib.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() * 1024.0
    };
    [
        ("system/cpus_total", cpus as f64),
        ("system/load_15min", fifteen),
        ("system/load_1min", one),
        ("system/load_5min", five),
        ("system/mem_free_bytes", bytes("MemFree")),
        ("system/mem_total_bytes", bytes("MemTotal")),
    ]
}
