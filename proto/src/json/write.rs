//! Messages to JSON, from their protobuf encoding: nothing stands between the two.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::{
    plan::{Field, Index, Kind, Plan, Plans, Shape},
    wire::{Raw, fields, unpack},
};
use crate::pages::Float;

/// A message that is written as an object.
pub(super) struct Message<'a> {
    pub(super) of: Index,
    /// Its encoding, as prost makes it.
    pub(super) bytes: &'a [u8],
}

/// One value that a field has.
#[derive(Clone, Copy)]
struct Single<'a> {
    kind: &'a Kind,
    raw: Raw<'a>,
}

/// All values of a field that is repeated.
struct List<'a> {
    kind: &'a Kind,
    found: &'a [(usize, Raw<'a>)],
}

/// All entries of a map, which prost writes in the order of their keys.
struct Entries<'a> {
    entry: &'a Plan,
    found: &'a [(usize, Raw<'a>)],
}

impl Serialize for Message<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let plan = Plans::get().at(self.of);
        let mut found = placed(plan, self.bytes);
        // Stable: the values of a list stay in their order.
        found.sort_by_key(|(place, _)| *place);
        let mut found = found.as_slice();
        let mut out = serializer.serialize_map(None)?;
        for (place, field) in plan.fields.iter().enumerate() {
            let length = found.iter().take_while(|(at, _)| *at == place).count();
            let (here, rest) = found.split_at(length);
            found = rest;
            let Some((_, last)) = here.last() else {
                write_unset(&mut out, field)?;
                continue;
            };
            match (field.shape, &field.kind) {
                (Shape::Map, Kind::Message(entry)) => {
                    let entry = Plans::get().at(*entry);
                    out.serialize_entry(&field.name, &Entries { entry, found: here })?;
                }
                (Shape::Single, kind) => {
                    out.serialize_entry(&field.name, &Single { kind, raw: *last })?;
                }
                (_, kind) => out.serialize_entry(&field.name, &List { kind, found: here })?,
            }
        }
        out.end()
    }
}

/// The fields of a message with their places in its plan, in the order of the bytes. As in
/// proto2 an enum's number that no name has is not there.
fn placed<'a>(plan: &Plan, bytes: &'a [u8]) -> Vec<(usize, Raw<'a>)> {
    let there = |(number, raw)| {
        let place = plan.numbered(number)?;
        let field = plan.fields.get(place)?;
        let known = match field.shape {
            Shape::List => unpack(&field.kind, raw).any(|raw| field.kind.is_known(raw)),
            _ => field.kind.is_known(raw),
        };
        known.then_some((place, raw))
    };
    fields(bytes).filter_map(there).collect()
}

fn write_unset<M: SerializeMap>(out: &mut M, field: &Field) -> Result<(), M::Error> {
    match (&field.default, field.required) {
        (Some(default), _) => out.serialize_entry(&field.name, default),
        // A typed message always has its required fields, but prost leaves a map's
        // value that is all zeros out.
        (None, true) => {
            out.serialize_entry(&field.name, &Single { kind: &field.kind, raw: field.kind.zero() })
        }
        (None, false) => Ok(()),
    }
}

impl Serialize for Single<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let raw = self.raw;
        match self.kind {
            Kind::Bool => to.serialize_bool(raw.varint() != 0),
            Kind::Int32 => to.serialize_i32(raw.varint() as i32),
            Kind::Int64 => to.serialize_i64(raw.varint() as i64),
            Kind::Uint32 => to.serialize_u32(raw.varint() as u32),
            Kind::Uint64 => to.serialize_u64(raw.varint()),
            Kind::Sint32 | Kind::Sint64 => {
                let n = raw.varint();
                to.serialize_i64((n >> 1) as i64 ^ -((n & 1) as i64))
            }
            Kind::Fixed32 => to.serialize_u32(raw.fixed32()),
            Kind::Sfixed32 => to.serialize_i32(raw.fixed32() as i32),
            Kind::Fixed64 => to.serialize_u64(raw.fixed64()),
            Kind::Sfixed64 => to.serialize_i64(raw.fixed64() as i64),
            Kind::Float => Float(f64::from(f32::from_bits(raw.fixed32()))).serialize(to),
            Kind::Double => Float(f64::from_bits(raw.fixed64())).serialize(to),
            // A typed message's strings are UTF-8.
            Kind::String => to.serialize_str(&String::from_utf8_lossy(raw.bytes())),
            Kind::Bytes => to.serialize_str(&STANDARD.encode(raw.bytes())),
            // Without a name it is not there, see `placed`; but a required one has to be.
            kind @ Kind::Enum(_) => to.serialize_str(
                kind.name_of(raw).or_else(|| kind.name_of(kind.zero())).unwrap_or_default(),
            ),
            Kind::Message(of) => Message { of: *of, bytes: raw.bytes() }.serialize(to),
        }
    }
}

impl Serialize for List<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let kind = self.kind;
        let mut out = to.serialize_seq(None)?;
        for (_, raw) in self.found {
            for raw in unpack(kind, *raw).filter(|raw| kind.is_known(*raw)) {
                out.serialize_element(&Single { kind, raw })?;
            }
        }
        out.end()
    }
}

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut out = to.serialize_map(Some(self.found.len()))?;
        if let [key, value] = self.entry.fields.as_slice() {
            for (_, raw) in self.found {
                let parts = placed(self.entry, raw.bytes());
                let part = |field: &Field, place| {
                    let given = parts.iter().rfind(|(at, _)| *at == place);
                    given.map_or_else(|| field.kind.zero(), |(_, raw)| *raw)
                };
                // All maps of the Mesos API have text keys.
                let name = part(key, 0);
                out.serialize_key(&String::from_utf8_lossy(name.bytes()))?;
                out.serialize_value(&Single { kind: &value.kind, raw: part(value, 1) })?;
            }
        }
        out.end()
    }
}
