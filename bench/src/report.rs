//! What was measured: one line each, for people or as JSON.

use serde_json::{Map, Value};

/// Values of one quantity under the parameters of one workload.
#[derive(Debug)]
pub struct Measurement {
    name: String,
    unit: String,
    values: Vec<f64>,
    parameters: Map<String, Value>,
}

impl Measurement {
    /// `name` is `SUBCOMMAND.WHAT`; one value for each repetition.
    pub fn new(name: &str, unit: &str, mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self { name: name.to_owned(), unit: unit.to_owned(), values, parameters: Map::new() }
    }

    /// With a parameter of the workload.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.parameters.insert(name.to_owned(), value.into());
        self
    }

    /// The value that this part (0 to 1) of all values do not exceed.
    fn quantile(&self, part: f64) -> f64 {
        let last = self.values.len().saturating_sub(1);
        self.values.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
    }

    /// `allocator.cycle  agents=10000 …  min 3.1  median 3.3  max 4.0 ms (n=20)`.
    pub fn text(&self) -> String {
        let plain = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let parameters: Vec<String> =
            self.parameters.iter().map(|(k, v)| format!("{k}={}", plain(v))).collect();
        let figures = if self.values.len() == 1 {
            format!("{:.4}", self.quantile(0.5))
        } else {
            let [min, p50, p99, max] = [0.0, 0.5, 0.99, 1.0].map(|p| self.quantile(p));
            format!("min {min:.4}  median {p50:.4}  p99 {p99:.4}  max {max:.4}")
        };
        format!(
            "{:<24} {}  {figures} {} (n={})",
            self.name,
            parameters.join(" "),
            self.unit,
            self.values.len()
        )
    }

    /// The same as one JSON object.
    pub fn json(&self) -> Value {
        let mut out = Map::new();
        out.insert("name".into(), self.name.clone().into());
        out.insert("unit".into(), self.unit.clone().into());
        out.insert("parameters".into(), Value::Object(self.parameters.clone()));
        out.insert("n".into(), self.values.len().into());
        for (name, part) in [("min", 0.0), ("median", 0.5), ("p99", 0.99), ("max", 1.0)] {
            out.insert(name.into(), self.quantile(part).into());
        }
        Value::Object(out)
    }
}

/// Where measurements go as they are made: standard output, a line each.
#[derive(Debug)]
pub struct Report {
    json: bool,
}

impl Report {
    /// As JSON, or for people.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether lines are JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints one.
    pub fn add(&mut self, measurement: Measurement) {
        if self.json {
            println!("{}", measurement.json());
        } else {
            println!("{}", measurement.text());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_parameters_and_spread() {
        let m = Measurement::new("x.y", "ms", vec![3.0, 1.0, 2.0]).with("agents", 5).with("s", "t");
        assert_eq!(
            m.text(),
            "x.y                      agents=5 s=t  min 1.0000  median 2.0000  p99 3.0000  \
             max 3.0000 ms (n=3)"
        );
        let json = m.json();
        assert_eq!(json["median"], 2.0);
        assert_eq!(json["parameters"]["agents"], 5);
    }
}
