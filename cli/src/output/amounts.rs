//! Resources as rows show them.

use std::fmt;

use mezz_proto::{
    resources::{Amount, Resources},
    v1,
};
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::units;

/// The names that have columns of their own.
const COLUMNS: [&str; 3] = ["cpus", "mem", "disk"];

/// What something has, by name, whatever its reservations. JSON: an object with
/// a number for each scalar (mem and disk in MiB), a text like `[1-2,5-5]` for
/// ranges and a list for sets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Amounts(Resources);

impl Amounts {
    /// Of wire resources; what cannot be read is left out, for a list of the rest
    /// is still of use.
    pub fn of(wire: &[v1::Resource]) -> Self {
        Self(
            wire.iter()
                .filter_map(|r| Resources::from_proto(std::slice::from_ref(r)).ok())
                .fold(Resources::new(), |sum, r| sum + &r),
        )
    }

    fn scalar(&self, name: &str) -> f64 {
        self.0.scalar(name).to_f64()
    }

    /// `1.5`.
    pub fn cpus(&self) -> String {
        units::number(self.scalar("cpus"))
    }

    /// `64 MiB`.
    pub fn mem(&self) -> String {
        units::mebibytes(self.scalar("mem"))
    }

    /// `10 GiB`.
    pub fn disk(&self) -> String {
        units::mebibytes(self.scalar("disk"))
    }

    /// All that has no column of its own: `gpus:1; ports:[31000-31009]`.
    pub fn others(&self) -> String {
        self.0.filter(|r| !COLUMNS.contains(&r.identity.name())).to_string()
    }

    /// `1.5/4`: this of that.
    pub fn cpus_of(&self, total: &Amounts) -> String {
        format!("{}/{}", self.cpus(), total.cpus())
    }

    /// `1.5 GiB/7.8 GiB`.
    pub fn mem_of(&self, total: &Amounts) -> String {
        format!("{}/{}", self.mem(), total.mem())
    }

    /// `0 MiB/90 GiB`.
    pub fn disk_of(&self, total: &Amounts) -> String {
        format!("{}/{}", self.disk(), total.disk())
    }
}

impl fmt::Display for Amounts {
    /// Mesos' text form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Amounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, amount) in self.0.scalars() {
            map.serialize_entry(name, &amount.to_f64())?;
        }
        let mut last = "";
        for r in &self.0 {
            let name = r.identity.name();
            if name == last || matches!(r.amount, Amount::Scalar(_)) {
                continue;
            }
            last = name;
            map.serialize_entry(name, &whole(&self.0, name))?;
        }
        map.end()
    }
}

/// All ranges or names of one resource, over its reservations.
fn whole(resources: &Resources, name: &str) -> serde_json::Value {
    let mut sum: Option<Amount> = None;
    for r in resources.named(name) {
        sum = Some(match (sum, &r.amount) {
            (Some(Amount::Ranges(a)), Amount::Ranges(b)) => Amount::Ranges(a.union(b)),
            (Some(Amount::Set(a)), Amount::Set(b)) => Amount::Set(a.union(b)),
            (_, amount) => amount.clone(),
        });
    }
    match sum {
        Some(Amount::Set(set)) => set.iter().map(ToString::to_string).collect(),
        Some(amount) => amount.to_string().into(),
        None => serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use mezz_proto::resources::Dialect;

    use super::*;

    fn amounts(text: &str) -> Amounts {
        Amounts(Resources::parse(text).unwrap())
    }

    #[test]
    fn for_people() {
        let some = amounts("cpus:1.5;mem:1536;gpus:1;ports:[1-2]");
        assert_eq!((some.cpus().as_str(), some.mem().as_str()), ("1.5", "1.5 GiB"));
        assert_eq!(some.others(), "gpus:1; ports:[1-2]");
        assert_eq!(some.cpus_of(&amounts("cpus:4")), "1.5/4");
        assert_eq!(some.disk(), "0 MiB");
    }

    #[test]
    fn json_sums_over_reservations() {
        let json = serde_json::to_string(&amounts("cpus:1;cpus(ads):2;ports:[1-2];z:{b,a}"));
        assert_eq!(json.unwrap(), r#"{"cpus":3.0,"ports":"[1-2]","z":["a","b"]}"#);
    }

    #[test]
    fn from_the_wire() {
        let resources = Resources::parse("cpus:1;mem:64").unwrap();
        let wire = resources.to_proto(Dialect::Refined, None);
        assert_eq!(Amounts::of(&wire), Amounts(resources));
    }
}
