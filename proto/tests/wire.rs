//! Our `.proto` files against the table of Mesos' own: every message, field
//! number, label, type, default, and enum value.

#![allow(clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use mezz_proto::json::descriptors;
use prost_reflect::{Cardinality, FieldDescriptor, Kind};
use serde_json::Value;

fn table() -> Value {
    serde_json::from_str(include_str!("data/wire.json")).expect("data/wire.json is JSON")
}

fn kind_name(kind: &Kind) -> String {
    match kind {
        Kind::Message(_) => "message".to_owned(),
        Kind::Enum(_) => "enum".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// One field in the table's own words.
fn describe(field: &FieldDescriptor) -> BTreeMap<&'static str, String> {
    let declared = field.field_descriptor_proto();
    let label = match field.cardinality() {
        Cardinality::Optional => "optional",
        Cardinality::Required => "required",
        Cardinality::Repeated => "repeated",
    };
    let mut out = BTreeMap::from([
        ("num", field.number().to_string()),
        ("name", field.name().to_owned()),
        ("label", label.to_owned()),
        ("type", kind_name(&field.kind())),
    ]);
    match field.kind() {
        Kind::Message(m) => out.insert("type_name", m.full_name().to_owned()),
        Kind::Enum(e) => out.insert("type_name", e.full_name().to_owned()),
        _ => None,
    };
    if let Some(default) = &declared.default_value {
        out.insert("default", default.clone());
    }
    if declared.options.as_ref().is_some_and(|o| o.deprecated()) {
        out.insert("deprecated", "true".to_owned());
    }
    if let Some(oneof) = field.containing_oneof() {
        out.insert("oneof", oneof.name().to_owned());
    }
    if let Some(packed) = declared.options.as_ref().and_then(|o| o.packed) {
        out.insert("packed", packed.to_string());
    }
    out
}

fn expected(field: &Value) -> BTreeMap<String, String> {
    let object = field.as_object().expect("a field is an object");
    object
        .iter()
        .map(|(k, v)| (k.clone(), v.as_str().map_or_else(|| v.to_string(), str::to_owned)))
        .collect()
}

/// Defaults are compared as values: `5` and `5.0` are the same.
fn same(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> bool {
    let number =
        |m: &BTreeMap<String, String>| m.get("default").and_then(|d| d.parse::<f64>().ok());
    if let (Some(x), Some(y)) = (number(a), number(b)) {
        let rest = |m: &BTreeMap<String, String>| {
            m.iter()
                .filter(|(k, _)| *k != "default")
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect::<Vec<_>>()
        };
        return x == y && rest(a) == rest(b);
    }
    a == b
}

#[test]
fn messages_are_those_of_mesos() {
    let table = table();
    let messages = table["messages"].as_object().expect("messages");
    let mut wrong = Vec::new();
    let mut fields = 0;
    for (name, entry) in messages {
        let Some(message) = descriptors().get_message_by_name(name) else {
            wrong.push(format!("{name} is missing"));
            continue;
        };
        let ours: BTreeMap<u32, _> = message.fields().map(|f| (f.number(), f)).collect();
        let theirs = entry["fields"].as_array().expect("fields");
        for field in theirs {
            fields += 1;
            let want = expected(field);
            let number = field["num"].as_u64().expect("num") as u32;
            let Some(have) = ours.get(&number) else {
                wrong.push(format!("{name}: field {number} is missing"));
                continue;
            };
            let have: BTreeMap<String, String> =
                describe(have).into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
            if !same(&have, &want) {
                wrong.push(format!("{name}: field {number}: have {have:?}, want {want:?}"));
            }
        }
        if ours.len() != theirs.len() {
            wrong.push(format!("{name} has {} fields, want {}", ours.len(), theirs.len()));
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    // The table's own count, so that an empty table cannot pass.
    assert_eq!(messages.len() as u64, table["counts"]["messages"].as_u64().expect("count"));
    assert_eq!(fields, table["counts"]["fields"].as_u64().expect("count"));
}

#[test]
fn enums_are_those_of_mesos() {
    let table = table();
    let enums = table["enums"].as_object().expect("enums");
    for (name, entry) in enums {
        let ours = descriptors().get_enum_by_name(name).unwrap_or_else(|| panic!("no enum {name}"));
        let have: BTreeSet<(String, i64)> =
            ours.values().map(|v| (v.name().to_owned(), i64::from(v.number()))).collect();
        let want: BTreeSet<(String, i64)> = entry["values"]
            .as_object()
            .expect("values")
            .iter()
            .map(|(k, v)| (k.clone(), v.as_i64().expect("number")))
            .collect();
        assert_eq!(have, want, "{name}");
    }
    assert_eq!(enums.len() as u64, table["counts"]["enums"].as_u64().expect("count"));
}

#[test]
fn nothing_is_in_mesos_packages_that_mesos_has_not() {
    let table = table();
    let known = table["messages"].as_object().expect("messages");
    let extra: Vec<String> = descriptors()
        .all_messages()
        .map(|m| m.full_name().to_owned())
        .filter(|n| n.starts_with("mesos.") && !known.contains_key(n))
        .collect();
    assert!(extra.is_empty(), "{extra:?}");
}

/// `data/order.json` has the messages whose fields Mesos declares in another order than
/// that of their numbers, which all others have. JSON is written in that order.
#[test]
fn fields_are_declared_in_the_order_of_mesos() {
    let others: BTreeMap<String, Vec<String>> =
        serde_json::from_str(include_str!("data/order.json")).expect("data/order.json");
    let table = table();
    for name in table["messages"].as_object().expect("messages").keys() {
        let Some(message) = descriptors().get_message_by_name(name) else { continue };
        let declared = &message.descriptor_proto().field;
        let ours: Vec<&str> = declared.iter().map(|field| field.name()).collect();
        match others.get(name) {
            Some(wanted) => assert_eq!(&ours, wanted, "{name}"),
            None => assert!(declared.is_sorted_by_key(|field| field.number()), "{name}: {ours:?}"),
        }
    }
    assert_eq!(others.len(), 36);
}
