//! What is no object and no list in JSON, as a field's value.

use std::{borrow::Cow, fmt};

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::Number;

use super::plan::Kind;

/// A value as it stands in JSON.
#[derive(Clone, Copy, Debug)]
pub(super) enum Given<'a> {
    Bool(bool),
    Whole(i128),
    Float(f64),
    Text(&'a str),
}

/// A value that is ready to be written: its wire type says how.
pub(super) enum Encoded<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(Cow<'a, [u8]>),
}

/// The value of a field of this kind; none for an enum's unknown name.
///
/// # Errors
/// What would be one.
pub(super) fn encoded<'a>(
    kind: &Kind,
    given: Given<'a>,
) -> Result<Option<Encoded<'a>>, &'static str> {
    let value = match (kind, given) {
        (Kind::Enum(values), Given::Text(text)) => {
            let known = values.iter().find(|(_, name)| name == text);
            return Ok(known.map(|(number, _)| Encoded::Varint(i64::from(*number) as u64)));
        }
        (Kind::Bool, Given::Bool(b)) => Some(Encoded::Varint(u64::from(b))),
        (Kind::Bool, Given::Text(text)) => {
            serde_json::from_str::<bool>(text).ok().map(|b| Encoded::Varint(u64::from(b)))
        }
        (Kind::String, Given::Text(text)) => Some(Encoded::Bytes(text.as_bytes().into())),
        (Kind::Bytes, Given::Text(text)) => bytes(text).map(|b| Encoded::Bytes(b.into())),
        (Kind::Double, given) => float(given).map(|n| Encoded::Fixed64(n.to_bits())),
        (Kind::Float, given) => float(given).map(|n| Encoded::Fixed32((n as f32).to_bits())),
        // Signs are extended to 64 bits on the wire.
        (Kind::Int32, given) => whole::<i32>(given).map(|n| Encoded::Varint(i64::from(n) as u64)),
        (Kind::Int64, given) => whole::<i64>(given).map(|n| Encoded::Varint(n as u64)),
        (Kind::Uint32, given) => whole::<u32>(given).map(|n| Encoded::Varint(u64::from(n))),
        (Kind::Uint64, given) => whole(given).map(Encoded::Varint),
        (Kind::Sint32, given) => whole::<i32>(given).map(|n| Encoded::Varint(zigzag(n.into()))),
        (Kind::Sint64, given) => whole(given).map(|n| Encoded::Varint(zigzag(n))),
        (Kind::Fixed32, given) => whole(given).map(Encoded::Fixed32),
        (Kind::Sfixed32, given) => whole::<i32>(given).map(|n| Encoded::Fixed32(n as u32)),
        (Kind::Fixed64, given) => whole(given).map(Encoded::Fixed64),
        (Kind::Sfixed64, given) => whole::<i64>(given).map(|n| Encoded::Fixed64(n as u64)),
        _ => None,
    };
    value.map(Some).ok_or(kind.wants())
}

impl Kind {
    /// What a value in JSON has to be.
    pub(super) fn wants(&self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::String => "a string",
            Self::Bytes => "base64",
            Self::Float | Self::Double => "a number",
            Self::Enum(_) => "a name",
            Self::Message(_) => "an object",
            _ => "a whole number within the field's range",
        }
    }
}

impl Encoded<'_> {
    pub(super) fn write(&self, number: u32, out: &mut Vec<u8>) {
        match self {
            Self::Varint(n) => {
                encode_key(number, WireType::Varint, out);
                encode_varint(*n, out);
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
                out.extend_from_slice(bytes);
            }
        }
    }
}

/// As an error shows it.
impl fmt::Display for Given<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Bool(b) => write!(f, "{b}"),
            Self::Whole(n) => write!(f, "{n}"),
            Self::Float(n) => write!(f, "{n:?}"),
            Self::Text(text) => match cut(text) {
                Some(start) => write!(f, "{start:?}…"),
                None => write!(f, "{text:?}"),
            },
        }
    }
}

/// The beginning of a peer's text that is long: it may be huge, and this tells enough.
fn cut(text: &str) -> Option<&str> {
    let (end, _) = text.char_indices().nth(60)?;
    text.get(..end)
}

/// A peer's text as an error's path shows it.
pub(crate) fn brief(text: &str) -> Cow<'_, str> {
    cut(text).map_or(Cow::Borrowed(text), |start| format!("{start}…").into())
}

fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

/// A number in a text, which must be one of JSON.
fn number(text: &str) -> Option<Given<'static>> {
    let number: Number = serde_json::from_str(text).ok()?;
    let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    whole.map(Given::Whole).or_else(|| number.as_f64().map(Given::Float))
}

/// A fraction is cut off, as Mesos does; what is out of range is none, where Mesos takes
/// another number.
fn whole<T: TryFrom<i128>>(given: Given<'_>) -> Option<T> {
    match given {
        Given::Whole(n) => T::try_from(n).ok(),
        // Rounds towards zero, and stays at the ends of the range.
        Given::Float(n) => T::try_from(n as i128).ok(),
        Given::Text(text) => whole(number(text)?),
        Given::Bool(_) => None,
    }
}

fn float(given: Given<'_>) -> Option<f64> {
    match given {
        Given::Whole(n) => Some(n as f64),
        Given::Float(n) => Some(n),
        Given::Text("Infinity") => Some(f64::INFINITY),
        Given::Text("-Infinity") => Some(f64::NEG_INFINITY),
        // Not in Mesos: what is written here can be read.
        Given::Text("NaN") => Some(f64::NAN),
        Given::Text(text) => float(number(text)?),
        Given::Bool(_) => None,
    }
}

/// As Mesos reads base64: with white space anywhere, up to the first `=`, and what is left
/// of a group at the end as far as it makes bytes.
fn bytes(text: &str) -> Option<Vec<u8>> {
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let text = text.split('=').next().unwrap_or_default();
    let is_space = |b: u8| matches!(b, b' ' | b'\t'..=b'\r');
    let mut text = Cow::Borrowed(text.as_bytes());
    if text.iter().copied().any(is_space) {
        text.to_mut().retain(|b| !is_space(*b));
    }
    let (groups, last) = text.split_at(text.len() / 4 * 4);
    match last {
        // Six bits are no byte.
        [alone] => {
            (STANDARD.as_str().as_bytes().contains(alone)).then(|| ENGINE.decode(groups).ok())?
        }
        _ => ENGINE.decode(&text).ok(),
    }
}
