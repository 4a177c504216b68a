//! The JSON dialect against what a real Mesos wrote, and against itself.

#![allow(clippy::unwrap_used, reason = "tests")]

mod dice;

use dice::Dice;
use mezz_proto::{
    json::{descriptors, from_value, to_string, to_value},
    strict, v1,
};
use proptest::prelude::*;
use prost::{Message, Name};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use serde_json::{Map, Value as Json};

/// `scheduler_events`, and the answers of the operator APIs of a `master` and an
/// `agent`.
fn captured(what: &str) -> Vec<Json> {
    let all: Json = serde_json::from_str(include_str!("data/captures.json")).unwrap();
    all[what].as_array().unwrap().clone()
}

/// What is read and written again is what Mesos wrote: not a field more or less, and in
/// the same order.
fn reads_and_writes<M: Message + Name + Default>(what: &str) {
    let captured = captured(what);
    assert!(!captured.is_empty());
    for wanted in captured {
        let message: M = from_value(&wanted).unwrap_or_else(|e| panic!("{e}: {wanted}"));
        let written = to_value(&message);
        if let Some(difference) = difference("", &written, &wanted) {
            panic!("{what}: {difference}");
        }
        // The text says the same as the value, in the same order.
        assert_eq!(to_string(&message), written.to_string());
    }
}

/// The first place where they differ.
fn difference(path: &str, ours: &Json, theirs: &Json) -> Option<String> {
    match (ours, theirs) {
        (Json::Object(a), Json::Object(b)) => {
            // What both have comes in the same order.
            let common = |of: &Map<String, Json>, other: &Map<String, Json>| {
                of.keys().filter(|key| other.contains_key(*key)).cloned().collect::<Vec<_>>()
            };
            let (ours, theirs) = (common(a, b), common(b, a));
            if ours != theirs {
                return Some(format!("{path}: the order {ours:?} instead of {theirs:?}"));
            }
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            keys.into_iter().find_map(|key| {
                let path = format!("{path}.{key}");
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => difference(&path, a, b),
                    // Of lists of tasks and the like, which Mesos writes by hand.
                    (None, Some(Json::Array(empty))) if empty.is_empty() => None,
                    // A field of the old API that slips through.
                    (None, Some(_)) if path.ends_with(".agent_info.checkpoint") => None,
                    (ours, theirs) => Some(format!("{path}: {ours:?} instead of {theirs:?}")),
                }
            })
        }
        (Json::Array(a), Json::Array(b)) if a.len() == b.len() => {
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.find_map(|(i, (a, b))| difference(&format!("{path}[{i}]"), a, b))
        }
        _ if ours == theirs => None,
        _ => Some(format!("{path}: {ours} instead of {theirs}")),
    }
}

#[test]
fn scheduler_events_are_written_as_mesos_writes_them() {
    reads_and_writes::<v1::scheduler::Event>("scheduler_events");
}

#[test]
fn answers_of_a_master_are_written_as_mesos_writes_them() {
    reads_and_writes::<v1::master::Response>("master");
}

#[test]
fn answers_of_an_agent_are_written_as_mesos_writes_them() {
    reads_and_writes::<v1::agent::Response>("agent");
}

/// proptest gives the seed and shrinks it, this fills the message.
impl Dice {
    fn text(&mut self) -> String {
        let parts = ["", "a", "ä\"\\", "\n\0", "null", "1", "true", "💡", "{}"];
        (0..self.roll(3)).map(|_| parts[self.roll(9) as usize]).collect()
    }

    /// Some of its fields, all that are required, and few below the fourth level.
    fn message(&mut self, descriptor: &MessageDescriptor, depth: u32) -> DynamicMessage {
        let mut out = DynamicMessage::new(descriptor.clone());
        for field in descriptor.fields() {
            let wanted = if depth < 4 { self.roll(3) == 0 } else { false };
            if !wanted && !field.is_required() {
                continue;
            }
            let value = if field.is_map() {
                let Kind::Message(entry) = field.kind() else { unreachable!() };
                let of = entry.map_entry_value_field();
                let entries = (0..self.roll(3))
                    .map(|_| (MapKey::String(self.text()), self.single(&of, depth)))
                    .collect();
                Value::Map(entries)
            } else if field.is_list() {
                Value::List((0..self.roll(3)).map(|_| self.single(&field, depth)).collect())
            } else {
                self.single(&field, depth)
            };
            out.set_field(&field, value);
        }
        out
    }

    fn single(&mut self, field: &FieldDescriptor, depth: u32) -> Value {
        let n =
            [0, 1, u64::MAX, i64::MAX as u64, i64::MIN as u64, self.next()][self.roll(6) as usize];
        match field.kind() {
            Kind::Bool => Value::Bool(n & 1 == 1),
            Kind::String => Value::String(self.text()),
            Kind::Bytes => Value::Bytes(n.to_le_bytes()[..self.roll(9) as usize].to_vec().into()),
            Kind::Double => Value::F64(
                [0.0, 1.0, -2.5, 1e300, 5e-324, f64::INFINITY, f64::NEG_INFINITY, 0.1]
                    [self.roll(8) as usize],
            ),
            Kind::Float => Value::F32([0.0, 0.1, -1e30, 3.5][self.roll(4) as usize]),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(n as i32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(n as i64),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(n as u32),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(n),
            Kind::Enum(e) => {
                let all: Vec<i32> = e.values().map(|v| v.number()).collect();
                Value::EnumNumber(all[self.roll(all.len() as u64) as usize])
            }
            Kind::Message(inner) => Value::Message(self.message(&inner, depth + 1)),
        }
    }
}

/// Whatever is set comes back, through JSON and through strict protobuf; declared
/// defaults that JSON adds mean the same.
fn survives<M: Message + Name + Default + PartialEq>(seed: u64) -> Result<(), TestCaseError> {
    let descriptor = descriptors().get_message_by_name(&M::full_name()).unwrap();
    let dynamic = Dice(seed).message(&descriptor, 0);
    let bytes = dynamic.encode_to_vec();
    let message: M = strict::decode(&bytes).map_err(|e| TestCaseError::fail(e.to_string()))?;
    let json = to_value(&message);
    let text = json.to_string();
    let parsed: Json = serde_json::from_str(&text).unwrap();
    let back: M = from_value(&parsed).map_err(|e| TestCaseError::fail(format!("{e}: {text}")))?;
    prop_assert_eq!(to_value(&back), json);
    Ok(())
}

/// JSON with a value of it replaced is read or refused, and never worse.
fn endures<M: Message + Name + Default>(seed: u64) {
    let descriptor = descriptors().get_message_by_name(&M::full_name()).unwrap();
    let mut dice = Dice(seed);
    let message = M::decode(dice.message(&descriptor, 0).encode_to_vec().as_slice()).unwrap();
    let mut json = to_value(&message);
    let mut at = &mut json;
    loop {
        let len = match &*at {
            Json::Object(o) if !o.is_empty() => o.len(),
            Json::Array(a) if !a.is_empty() => a.len(),
            _ => break,
        };
        if dice.roll(4) == 0 {
            break;
        }
        let n = dice.roll(len as u64) as usize;
        at = match at {
            Json::Object(o) => o.values_mut().nth(n).unwrap(),
            Json::Array(a) => &mut a[n],
            _ => unreachable!(),
        };
    }
    let odd = [
        Json::Null,
        Json::from(-1),
        Json::from(1e300),
        Json::from("x"),
        Json::from("9"),
        serde_json::json!([null]),
        serde_json::json!({"value": {}}),
        Json::from(true),
    ];
    *at = odd[dice.roll(8) as usize].clone();
    if let Err(error) = from_value::<M>(&json) {
        assert!(error.to_string().contains(": "), "no path: {error}");
    }
}

proptest! {
    #[test]
    fn messages_survive(seed: u64) {
        survives::<v1::scheduler::Event>(seed)?;
        survives::<v1::scheduler::Call>(seed)?;
        survives::<v1::executor::Event>(seed)?;
        survives::<v1::executor::Call>(seed)?;
        survives::<v1::TaskInfo>(seed)?;
        survives::<v1::master::Response>(seed)?;
    }

    #[test]
    fn odd_values_are_read_or_refused(seed: u64) {
        endures::<v1::scheduler::Call>(seed);
        endures::<v1::executor::Call>(seed);
        endures::<v1::TaskInfo>(seed);
    }
}
