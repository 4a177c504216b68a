//! Messages to JSON.

use base64::{Engine, engine::general_purpose::STANDARD};
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value as Proto,
};
use serde_json::{Map, Number, Value};

/// The message as an object.
pub(super) fn message(message: &DynamicMessage) -> Value {
    let mut out = Map::new();
    for field in message.descriptor().fields() {
        let declared = field.field_descriptor_proto();
        let has_default = declared.default_value.is_some()
            && !declared.options.as_ref().is_some_and(|o| o.deprecated());
        // A typed message always has its required fields, but prost leaves a map's
        // value that is all zeros out.
        if !message.has_field(&field) && !has_default && !field.is_required() {
            continue;
        }
        out.insert(field.name().to_owned(), value(&message.get_field(&field), &field));
    }
    Value::Object(out)
}

fn value(value: &Proto, field: &FieldDescriptor) -> Value {
    match value {
        Proto::Bool(b) => Value::Bool(*b),
        Proto::I32(n) => Value::from(*n),
        Proto::I64(n) => Value::from(*n),
        Proto::U32(n) => Value::from(*n),
        Proto::U64(n) => Value::from(*n),
        Proto::F32(n) => float(f64::from(*n)),
        Proto::F64(n) => float(*n),
        Proto::String(s) => Value::String(s.clone()),
        Proto::Bytes(b) => Value::String(STANDARD.encode(b)),
        Proto::EnumNumber(n) => match field.kind() {
            Kind::Enum(e) => e
                .get_value(*n)
                .map_or_else(|| Value::from(*n), |v| Value::String(v.name().to_owned())),
            _ => Value::from(*n),
        },
        Proto::Message(m) => message(m),
        Proto::List(items) => items.iter().map(|i| self::value(i, field)).collect(),
        Proto::Map(entries) => {
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by(|a, b| a.0.cmp(b.0));
            let of = match field.kind() {
                Kind::Message(entry) => entry.map_entry_value_field(),
                _ => field.clone(),
            };
            let entry = |(k, v): (&MapKey, &Proto)| (key(k), self::value(v, &of));
            Value::Object(sorted.into_iter().map(entry).collect())
        }
    }
}

fn key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(b) => b.to_string(),
        MapKey::I32(n) => n.to_string(),
        MapKey::I64(n) => n.to_string(),
        MapKey::U32(n) => n.to_string(),
        MapKey::U64(n) => n.to_string(),
        MapKey::String(s) => s.clone(),
    }
}

/// JSON has no NaN and no infinities; as text they can be read again.
fn float(n: f64) -> Value {
    Number::from_f64(n).map_or_else(|| Value::String(n.to_string()), Value::Number)
}
