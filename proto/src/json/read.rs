//! Messages from JSON, to their protobuf encoding.

use base64::{Engine, engine::general_purpose::STANDARD};
use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::Value;

use super::{
    JsonError,
    plan::{Field, Index, Kind, Plan, Plans, Shape},
};

type Result<T> = std::result::Result<T, JsonError>;

/// A value that is ready to be written: its wire type says how.
enum Encoded {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(Vec<u8>),
}

/// Where a value stands, for the errors alone: the text is made when there is one.
#[derive(Clone, Copy)]
enum Path<'a> {
    /// The whole, by its message's name.
    Top(&'a str),
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

/// The encoding of one message. Depth is bounded by the JSON parser's own limit (128).
pub(super) fn message(of: Index, value: &Value) -> Result<Vec<u8>> {
    let plan = Plans::get().at(of);
    object(plan, value, Path::Top(&plan.name))
}

fn object(plan: &Plan, value: &Value, path: Path<'_>) -> Result<Vec<u8>> {
    let Value::Object(given) = value else { return Err(wrong(path, "an object", value)) };
    let mut out = Vec::new();
    let mut set = vec![false; plan.fields.len()];
    for (name, value) in given {
        if value.is_null() {
            continue;
        }
        let Some(place) = plan.named(name) else { continue };
        if let (Some(field), Some(set)) = (plan.fields.get(place), set.get_mut(place)) {
            *set = self::field(field, value, Path::Field(&path, name), &mut out)?;
        }
    }
    for (field, set) in plan.fields.iter().zip(set) {
        if field.required && !set {
            let path = Path::Field(&path, &field.name).to_string();
            return Err(JsonError::Field { path, problem: "is required and missing".to_owned() });
        }
    }
    Ok(out)
}

/// Whether there was a value that could be written.
fn field(field: &Field, value: &Value, path: Path<'_>, out: &mut Vec<u8>) -> Result<bool> {
    match field.shape {
        Shape::Map => map(field, value, path, out)?,
        Shape::List => {
            let Value::Array(items) = value else { return Err(wrong(path, "a list", value)) };
            for (i, item) in items.iter().enumerate() {
                let path = Path::Item(&path, i);
                match single(&field.kind, item, path)? {
                    Some(value) => value.write(field.number, out),
                    None => return Err(wrong(path, "a known name", item)),
                }
            }
        }
        Shape::Single => match single(&field.kind, value, path)? {
            Some(value) => value.write(field.number, out),
            None if field.required => return Err(wrong(path, "a known name", value)),
            None => return Ok(false),
        },
    }
    Ok(true)
}

fn map(field: &Field, value: &Value, path: Path<'_>, out: &mut Vec<u8>) -> Result<()> {
    let Kind::Message(entry) = &field.kind else { return Err(wrong(path, "a map", value)) };
    let Value::Object(given) = value else { return Err(wrong(path, "an object", value)) };
    let [key, item] = Plans::get().at(*entry).fields.as_slice() else { return Ok(()) };
    for (name, value) in given {
        let path = Path::Field(&path, name);
        if let Some(value) = single(&item.kind, value, path)? {
            let mut bytes = Vec::new();
            // All maps of the Mesos API have text keys.
            Encoded::Bytes(name.clone().into_bytes()).write(key.number, &mut bytes);
            value.write(item.number, &mut bytes);
            Encoded::Bytes(bytes).write(field.number, out);
        }
    }
    Ok(())
}

/// `None` only for an enum's unknown name.
fn single(kind: &Kind, value: &Value, path: Path<'_>) -> Result<Option<Encoded>> {
    Ok(Some(match kind {
        Kind::Bool => match value {
            Value::Bool(b) => Encoded::Varint(u64::from(*b)),
            Value::String(s) if s == "true" => Encoded::Varint(1),
            Value::String(s) if s == "false" => Encoded::Varint(0),
            _ => return Err(wrong(path, "true or false", value)),
        },
        Kind::String => match value {
            Value::String(s) => Encoded::Bytes(s.clone().into_bytes()),
            _ => return Err(wrong(path, "a string", value)),
        },
        Kind::Bytes => match value {
            Value::String(s) => match STANDARD.decode(s) {
                Ok(bytes) => Encoded::Bytes(bytes),
                Err(_) => return Err(wrong(path, "base64", value)),
            },
            _ => return Err(wrong(path, "base64", value)),
        },
        Kind::Double => Encoded::Fixed64(float(value, path)?.to_bits()),
        Kind::Float => Encoded::Fixed32((float(value, path)? as f32).to_bits()),
        // Signs are extended to 64 bits on the wire.
        Kind::Int32 => Encoded::Varint(i64::from(integer::<i32>(value, path)?) as u64),
        Kind::Int64 => Encoded::Varint(integer::<i64>(value, path)? as u64),
        Kind::Uint32 => Encoded::Varint(u64::from(integer::<u32>(value, path)?)),
        Kind::Uint64 => Encoded::Varint(integer(value, path)?),
        Kind::Sint32 => Encoded::Varint(zigzag(i64::from(integer::<i32>(value, path)?))),
        Kind::Sint64 => Encoded::Varint(zigzag(integer(value, path)?)),
        Kind::Fixed32 => Encoded::Fixed32(integer(value, path)?),
        Kind::Sfixed32 => Encoded::Fixed32(integer::<i32>(value, path)? as u32),
        Kind::Fixed64 => Encoded::Fixed64(integer(value, path)?),
        Kind::Sfixed64 => Encoded::Fixed64(integer::<i64>(value, path)? as u64),
        Kind::Enum(values) => match value {
            Value::String(s) => match values.iter().find(|(_, name)| name == s) {
                Some((number, _)) => Encoded::Varint(i64::from(*number) as u64),
                None => return Ok(None),
            },
            _ => return Err(wrong(path, "a name", value)),
        },
        Kind::Message(of) => Encoded::Bytes(object(Plans::get().at(*of), value, path)?),
    }))
}

fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

impl Encoded {
    fn write(self, number: u32, out: &mut Vec<u8>) {
        match self {
            Self::Varint(n) => {
                encode_key(number, WireType::Varint, out);
                encode_varint(n, out);
            }
            Self::Fixed64(n) => {
                encode_key(number, WireType::SixtyFourBit, out);
                out.extend_from_slice(&n.to_le_bytes());
            }
            Self::Fixed32(n) => {
                encode_key(number, WireType::ThirtyTwoBit, out);
                out.extend_from_slice(&n.to_le_bytes());
            }
            Self::Bytes(bytes) => {
                encode_key(number, WireType::LengthDelimited, out);
                encode_varint(bytes.len() as u64, out);
                out.extend_from_slice(&bytes);
            }
        }
    }
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Top(message) => f.write_str(message),
            Self::Field(Self::Top(_), name) => f.write_str(name),
            Self::Field(of, name) => write!(f, "{of}.{name}"),
            Self::Item(of, i) => write!(f, "{of}[{i}]"),
        }
    }
}

fn integer<T: TryFrom<i128> + std::str::FromStr>(value: &Value, path: Path<'_>) -> Result<T> {
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

fn float(value: &Value, path: Path<'_>) -> Result<f64> {
    let read = match value {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => s.parse().ok(),
        _ => None,
    };
    read.ok_or_else(|| wrong(path, "a number", value))
}

fn wrong(path: Path<'_>, wants: &str, got: &Value) -> JsonError {
    // A peer's value may be huge; its beginning tells enough.
    let mut got = got.to_string();
    if let Some((cut, _)) = got.char_indices().nth(60) {
        got.truncate(cut);
        got.push('…');
    }
    JsonError::Field { path: path.to_string(), problem: format!("expected {wants}, got {got}") }
}
