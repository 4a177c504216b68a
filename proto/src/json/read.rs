//! Messages from JSON.

use base64::{Engine, engine::general_purpose::STANDARD};
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value as Proto,
};
use serde_json::Value;

use super::JsonError;

type Result<T> = std::result::Result<T, JsonError>;

/// Reads one message. Depth is bounded by the JSON parser's own limit (128).
pub(super) fn message(descriptor: &MessageDescriptor, value: &Value) -> Result<DynamicMessage> {
    object(descriptor, value, "")
}

fn object(descriptor: &MessageDescriptor, value: &Value, path: &str) -> Result<DynamicMessage> {
    let at = || if path.is_empty() { descriptor.name().to_owned() } else { path.to_owned() };
    let Value::Object(given) = value else {
        return Err(wrong(&at(), "an object", value));
    };
    let mut out = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        let path = join(path, field.name());
        let set = match given.get(field.name()) {
            None | Some(Value::Null) => false,
            Some(v) => match field_value(&field, v, &path)? {
                Some(v) => {
                    out.set_field(&field, v);
                    true
                }
                None => false,
            },
        };
        if !set && field.is_required() {
            return Err(JsonError::Field { path, problem: "is required and missing".to_owned() });
        }
    }
    Ok(out)
}

fn field_value(field: &FieldDescriptor, value: &Value, path: &str) -> Result<Option<Proto>> {
    if field.is_map() {
        return map(field, value, path).map(Some);
    }
    if field.is_list() {
        let Value::Array(items) = value else { return Err(wrong(path, "a list", value)) };
        let mut out = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            let path = format!("{path}[{i}]");
            match single(&field.kind(), item, &path)? {
                Some(v) => out.push(v),
                None => return Err(wrong(&path, "a known name", item)),
            }
        }
        return Ok(Some(Proto::List(out)));
    }
    match single(&field.kind(), value, path)? {
        None if field.is_required() => Err(wrong(path, "a known name", value)),
        read => Ok(read),
    }
}

fn map(field: &FieldDescriptor, value: &Value, path: &str) -> Result<Proto> {
    let Kind::Message(entry) = field.kind() else { return Err(wrong(path, "a map", value)) };
    let Value::Object(given) = value else { return Err(wrong(path, "an object", value)) };
    let kind = entry.map_entry_value_field().kind();
    let mut out = std::collections::HashMap::with_capacity(given.len());
    for (k, v) in given {
        let path = format!("{path}.{k}");
        if let Some(v) = single(&kind, v, &path)? {
            // All maps of the Mesos API have text keys.
            out.insert(MapKey::String(k.clone()), v);
        }
    }
    Ok(Proto::Map(out))
}

/// `None` only for an enum's unknown name.
fn single(kind: &Kind, value: &Value, path: &str) -> Result<Option<Proto>> {
    Ok(Some(match kind {
        Kind::Bool => match value {
            Value::Bool(b) => Proto::Bool(*b),
            Value::String(s) if s == "true" => Proto::Bool(true),
            Value::String(s) if s == "false" => Proto::Bool(false),
            _ => return Err(wrong(path, "true or false", value)),
        },
        Kind::String => match value {
            Value::String(s) => Proto::String(s.clone()),
            _ => return Err(wrong(path, "a string", value)),
        },
        Kind::Bytes => match value {
            Value::String(s) => match STANDARD.decode(s) {
                Ok(bytes) => Proto::Bytes(bytes.into()),
                Err(_) => return Err(wrong(path, "base64", value)),
            },
            _ => return Err(wrong(path, "base64", value)),
        },
        Kind::Double => Proto::F64(float(value, path)?),
        Kind::Float => Proto::F32(float(value, path)? as f32),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Proto::I32(integer(value, path)?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Proto::I64(integer(value, path)?),
        Kind::Uint32 | Kind::Fixed32 => Proto::U32(integer(value, path)?),
        Kind::Uint64 | Kind::Fixed64 => Proto::U64(integer(value, path)?),
        Kind::Enum(e) => match value {
            Value::String(s) => match e.get_value_by_name(s) {
                Some(v) => Proto::EnumNumber(v.number()),
                None => return Ok(None),
            },
            _ => return Err(wrong(path, "a name", value)),
        },
        Kind::Message(m) => Proto::Message(object(m, value, path)?),
    }))
}

fn integer<T: TryFrom<i128> + std::str::FromStr>(value: &Value, path: &str) -> Result<T> {
    let read = match value {
        Value::Number(n) => n
            .as_i64()
            .map(i128::from)
            .or_else(|| n.as_u64().map(i128::from))
            // 1.0 and 1e3 are whole, too.
            .or_else(|| {
                n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 1e18).map(|f| f as i128)
            })
            .and_then(|n| T::try_from(n).ok()),
        Value::String(s) => s.parse().ok(),
        _ => None,
    };
    read.ok_or_else(|| wrong(path, "a whole number within the field's range", value))
}

fn float(value: &Value, path: &str) -> Result<f64> {
    let read = match value {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => s.parse().ok(),
        _ => None,
    };
    read.ok_or_else(|| wrong(path, "a number", value))
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn wrong(path: &str, wants: &str, got: &Value) -> JsonError {
    // A peer's value may be huge; its beginning tells enough.
    let mut got = got.to_string();
    if let Some((cut, _)) = got.char_indices().nth(60) {
        got.truncate(cut);
        got.push('…');
    }
    JsonError::Field { path: path.to_owned(), problem: format!("expected {wants}, got {got}") }
}
