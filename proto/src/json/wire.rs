//! Protobuf's wire format, taken apart without types.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::plan::Kind;

/// A value as it stands in the bytes.
#[derive(Clone, Copy)]
pub(crate) enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// As with protobuf's own readers, a value of another wire type is not there: zero.
impl<'a> Raw<'a> {
    pub(crate) fn varint(self) -> u64 {
        if let Self::Varint(n) = self { n } else { 0 }
    }

    pub(crate) fn fixed64(self) -> u64 {
        if let Self::Fixed64(n) = self { n } else { 0 }
    }

    pub(crate) fn fixed32(self) -> u32 {
        if let Self::Fixed32(n) = self { n } else { 0 }
    }

    pub(crate) fn bytes(self) -> &'a [u8] {
        if let Self::Bytes(bytes) = self { bytes } else { &[] }
    }
}

impl Kind {
    /// What a field of this kind has that was left out.
    pub(crate) fn zero(&self) -> Raw<'static> {
        match self {
            Self::Fixed64 | Self::Sfixed64 | Self::Double => Raw::Fixed64(0),
            Self::Fixed32 | Self::Sfixed32 | Self::Float => Raw::Fixed32(0),
            Self::String | Self::Bytes | Self::Message(_) => Raw::Bytes(&[]),
            // Sign-extended, as on the wire.
            Self::Enum(values) => {
                Raw::Varint(values.first().map_or(0, |(n, _)| i64::from(*n) as u64))
            }
            _ => Raw::Varint(0),
        }
    }

    /// Whether a field has such a value: a number that no name has is none, as in proto2.
    pub(crate) fn is_known(&self, raw: Raw<'_>) -> bool {
        match self {
            Self::Enum(_) => self.name_of(raw).is_some(),
            _ => true,
        }
    }

    /// The name of an enum's value.
    pub(crate) fn name_of(&self, raw: Raw<'_>) -> Option<&str> {
        let Self::Enum(values) = self else { return None };
        let number = raw.varint() as i32;
        values.iter().find(|(n, _)| *n == number).map(|(_, name)| name.as_str())
    }

    fn wire_type(&self) -> WireType {
        match self.zero() {
            Raw::Varint(_) => WireType::Varint,
            Raw::Fixed64(_) => WireType::SixtyFourBit,
            Raw::Fixed32(_) => WireType::ThirtyTwoBit,
            Raw::Bytes(_) => WireType::LengthDelimited,
        }
    }
}

/// The fields of an encoded message: number and value. It ends at the first byte that is
/// no protobuf.
pub(crate) fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u32, Raw<'_>)> {
    std::iter::from_fn(move || {
        while !bytes.is_empty() {
            let (number, wire_type) = decode_key(&mut bytes).ok()?;
            match raw(wire_type, &mut bytes) {
                Some(raw) => return Some((number, raw)),
                // A group: no message here has one.
                None => {
                    let context = DecodeContext::default();
                    skip_field(wire_type, number, &mut bytes, context).ok()?;
                }
            }
        }
        None
    })
}

/// The values in one occurrence of a repeated field: one, or many that are packed.
pub(crate) fn unpack<'a>(kind: &Kind, raw: Raw<'a>) -> impl Iterator<Item = Raw<'a>> {
    let wire_type = kind.wire_type();
    let (single, mut packed) = match raw {
        Raw::Bytes(bytes) if wire_type != WireType::LengthDelimited => (None, bytes),
        raw => (Some(raw), &[][..]),
    };
    single.into_iter().chain(std::iter::from_fn(move || self::raw(wire_type, &mut packed)))
}

fn raw<'a>(wire_type: WireType, bytes: &mut &'a [u8]) -> Option<Raw<'a>> {
    match wire_type {
        WireType::Varint => decode_varint(bytes).ok().map(Raw::Varint),
        WireType::SixtyFourBit => take(bytes).map(|b| Raw::Fixed64(u64::from_le_bytes(b))),
        WireType::ThirtyTwoBit => take(bytes).map(|b| Raw::Fixed32(u32::from_le_bytes(b))),
        WireType::LengthDelimited => {
            let length = usize::try_from(decode_varint(bytes).ok()?).ok()?;
            let (value, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Some(Raw::Bytes(value))
        }
        WireType::StartGroup | WireType::EndGroup => None,
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (value, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*value)
}
