//! What the dialect needs to know of each message, taken from the descriptors once.

use std::{collections::HashMap, sync::LazyLock};

use prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor, Value as Proto};
use serde_json::{Number, Value};

use super::descriptors;

/// Full names of fields, with a dot before.
const BOXED: &[&str] = include!("../../boxed.rs");

/// A message's place in [`Plans`].
pub(crate) type Index = usize;

/// Every message of this crate.
#[derive(Default)]
pub(crate) struct Plans {
    by_name: HashMap<String, Index>,
    all: Vec<Plan>,
}

/// One message.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) name: String,
    /// In the order of declaration, as Mesos writes them; not by number, as the
    /// descriptors list them.
    pub(crate) fields: Vec<Field>,
    /// Number and place in `fields`, by number.
    by_number: Vec<(u32, usize)>,
    by_name: HashMap<String, usize>,
    /// Places in `fields`.
    pub(crate) required: Vec<usize>,
    /// About what one takes in memory, in bytes, without what its lists and texts hold and
    /// what is boxed.
    pub(crate) size: usize,
}

/// One field.
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) shape: Shape,
    pub(crate) required: bool,
    /// Behind a pointer.
    boxed: bool,
    /// What is written while it is unset: a declared default, unless deprecated.
    pub(crate) default: Option<Value>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Single,
    List,
    /// The field's kind is that of the entry, a message of a key (1) and a value (2).
    Map,
}

pub(crate) enum Kind {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Float,
    Double,
    String,
    Bytes,
    /// Numbers and names, in the order of declaration.
    Enum(Vec<(i32, String)>),
    Message(Index),
}

impl Plans {
    /// Those of this crate's descriptors.
    pub(crate) fn get() -> &'static Self {
        static PLANS: LazyLock<Plans> = LazyLock::new(|| Plans::of(descriptors()));
        &PLANS
    }

    fn of(pool: &DescriptorPool) -> Self {
        let by_name: HashMap<String, Index> =
            pool.all_messages().enumerate().map(|(i, m)| (m.full_name().to_owned(), i)).collect();
        let mut plans = Self {
            all: pool.all_messages().map(|message| Plan::of(&message, &by_name)).collect(),
            by_name,
        };
        let sizes: Vec<usize> =
            (0..plans.all.len()).map(|of| plans.size(of, &mut vec![])).collect();
        for (plan, size) in plans.all.iter_mut().zip(sizes) {
            plan.size = size;
        }
        plans
    }

    /// `within` are the messages that this one is a part of: prost puts what would hold
    /// itself behind a pointer.
    fn size(&self, of: Index, within: &mut Vec<Index>) -> usize {
        const POINTER: usize = 8;
        const LIST: usize = 24;
        within.push(of);
        let mut size = 0;
        for field in &self.at(of).fields {
            size += match (&field.shape, &field.kind) {
                (Shape::List | Shape::Map, _) | (_, Kind::String | Kind::Bytes) => LIST,
                (_, Kind::Message(of)) if field.boxed || within.contains(of) => POINTER,
                (_, Kind::Message(of)) => self.size(*of, within),
                // With whether it is there.
                (_, Kind::Int64 | Kind::Uint64 | Kind::Double | Kind::Fixed64) => 16,
                _ => 8,
            };
        }
        within.pop();
        size
    }

    pub(crate) fn find(&self, full_name: &str) -> Option<Index> {
        self.by_name.get(full_name).copied()
    }

    /// The plan at an index that these plans gave.
    pub(crate) fn at(&self, index: Index) -> &Plan {
        static NONE: LazyLock<Plan> = LazyLock::new(Plan::default);
        self.all.get(index).unwrap_or(&NONE)
    }
}

impl Field {
    /// Whether each value of it takes memory of its own.
    pub(crate) fn is_apart(&self) -> bool {
        self.boxed || self.shape != Shape::Single
    }
}

impl Plan {
    fn of(message: &MessageDescriptor, indices: &HashMap<String, Index>) -> Self {
        let declared = &message.descriptor_proto().field;
        let place = |field: &FieldDescriptor| {
            declared.iter().position(|d| d.number() == field.number() as i32)
        };
        let mut ordered: Vec<FieldDescriptor> = message.fields().collect();
        ordered.sort_by_key(place);
        let fields: Vec<Field> = ordered.iter().map(|field| Field::of(field, indices)).collect();
        let mut by_number: Vec<_> = fields.iter().map(|f| f.number).zip(0..).collect();
        by_number.sort_unstable();
        let by_name = fields.iter().map(|f| f.name.clone()).zip(0..).collect();
        let required = (0..).zip(&fields).filter(|(_, f)| f.required).map(|(place, _)| place);
        let required = required.collect();
        Self { name: message.name().to_owned(), fields, by_number, by_name, required, size: 0 }
    }

    /// The place in `fields` of the field of this number.
    pub(crate) fn numbered(&self, number: u32) -> Option<usize> {
        let at = self.by_number.binary_search_by_key(&number, |(n, _)| *n).ok()?;
        self.by_number.get(at).map(|(_, place)| *place)
    }

    /// The place in `fields` of the field of this name.
    pub(crate) fn named(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }
}

impl Field {
    fn of(field: &FieldDescriptor, indices: &HashMap<String, Index>) -> Self {
        let declared = field.field_descriptor_proto();
        let deprecated = declared.options.as_ref().is_some_and(|o| o.deprecated());
        let kind = Kind::of(field, indices);
        let default = (declared.default_value.is_some() && !deprecated)
            .then(|| default(&field.default_value(), &kind));
        Self {
            name: field.name().to_owned(),
            number: field.number(),
            kind,
            shape: match (field.is_map(), field.is_list()) {
                (true, _) => Shape::Map,
                (_, true) => Shape::List,
                _ => Shape::Single,
            },
            required: field.is_required(),
            boxed: BOXED.iter().any(|path| path.strip_prefix('.') == Some(field.full_name())),
            default,
        }
    }
}

impl Kind {
    fn of(field: &FieldDescriptor, indices: &HashMap<String, Index>) -> Self {
        use prost_reflect::Kind as K;
        match field.kind() {
            K::Bool => Self::Bool,
            K::Int32 => Self::Int32,
            K::Int64 => Self::Int64,
            K::Uint32 => Self::Uint32,
            K::Uint64 => Self::Uint64,
            K::Sint32 => Self::Sint32,
            K::Sint64 => Self::Sint64,
            K::Fixed32 => Self::Fixed32,
            K::Fixed64 => Self::Fixed64,
            K::Sfixed32 => Self::Sfixed32,
            K::Sfixed64 => Self::Sfixed64,
            K::Float => Self::Float,
            K::Double => Self::Double,
            K::String => Self::String,
            K::Bytes => Self::Bytes,
            K::Enum(of) => {
                Self::Enum(of.values().map(|v| (v.number(), v.name().to_owned())).collect())
            }
            // The pool that has the field has its message.
            K::Message(of) => {
                Self::Message(indices.get(of.full_name()).copied().unwrap_or_default())
            }
        }
    }
}

/// A default as it is written.
fn default(value: &Proto, kind: &Kind) -> Value {
    match (value, kind) {
        (Proto::EnumNumber(n), Kind::Enum(values)) => {
            let name = values.iter().find(|(number, _)| number == n).map(|(_, name)| name.clone());
            name.map_or(Value::Null, Value::String)
        }
        (Proto::Bool(b), _) => Value::Bool(*b),
        (Proto::I32(n), _) => Value::from(*n),
        (Proto::I64(n), _) => Value::from(*n),
        (Proto::U32(n), _) => Value::from(*n),
        (Proto::U64(n), _) => Value::from(*n),
        (Proto::F32(n), _) => Number::from_f64(f64::from(*n)).map_or(Value::Null, Value::Number),
        (Proto::F64(n), _) => Number::from_f64(*n).map_or(Value::Null, Value::Number),
        (Proto::String(s), _) => Value::String(s.clone()),
        // No message here has a default of another type.
        _ => Value::Null,
    }
}
