//! Messages from JSON, to their protobuf encoding: no tree of values stands between the
//! two, and what no field is called is skipped.

use std::ops::Range;

use prost::encoding::{WireType, encode_key};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    JsonError,
    plan::{Field, Index, Kind, Plan, Plans, Shape},
    scalar::{Given, brief, encoded},
};
use crate::weight::Budget;

/// Bytes of the length of a message, which is written before it is known: as many for each.
const LENGTH: usize = 5;

/// Reads messages, and remembers why it could not.
pub(super) struct Reader {
    out: Vec<u8>,
    budget: Budget,
    failed: Option<JsonError>,
}

/// Takes an encoded message.
pub(super) type Each<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), JsonError>;

/// Where a value stands, for the errors alone: the text is made when there is one.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    /// The whole, by its message's name.
    Top(&'a str),
    Field(&'a Path<'a>, &'a str),
    /// Of a map, by its key: any text of the peer's.
    Entry(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Top(message) => f.write_str(message),
            Self::Field(Self::Top(_), name) => f.write_str(name),
            Self::Field(of, name) => write!(f, "{of}.{name}"),
            Self::Entry(of, key) => write!(f, "{of}.{}", brief(key)),
            Self::Item(Self::Top(_), i) => write!(f, "[{i}]"),
            Self::Item(of, i) => write!(f, "{of}[{i}]"),
        }
    }
}

impl Reader {
    pub(super) fn new(budget: Budget) -> Self {
        Self { out: Vec::new(), budget, failed: None }
    }

    /// Reads the message that `from` is. Why there is none is in [`Self::failed`], unless
    /// `from` is no object, or no JSON.
    pub(super) fn message<'de, D: Deserializer<'de>>(
        &mut self,
        of: Index,
        from: D,
    ) -> Result<(), D::Error> {
        let plan = Plans::get().at(of);
        Top { reader: self, plan, path: Path::Top(&plan.name) }.deserialize(from)
    }

    /// What was read last.
    pub(super) fn read(&self) -> &[u8] {
        &self.out
    }

    /// Gives each message of the list that `from` is to `each`, encoded.
    pub(super) fn list<'de, D: Deserializer<'de>>(
        &mut self,
        of: Index,
        from: D,
        each: Each<'_>,
    ) -> Result<(), D::Error> {
        from.deserialize_seq(Items { reader: self, plan: Plans::get().at(of), each })
    }

    /// Why it failed, if that is not the parser's to say.
    pub(super) fn failed(&mut self) -> Option<JsonError> {
        self.failed.take()
    }

    /// The parser is told that it ends, and no more: its errors are texts.
    fn fail<T, E: Error>(&mut self, error: JsonError) -> Result<T, E> {
        self.failed = Some(error);
        Err(E::custom("not of the message"))
    }

    fn wrong<T, E: Error>(&mut self, path: Path<'_>, wants: &str, got: &str) -> Result<T, E> {
        let problem = format!("expected {wants}, got {got}");
        self.fail(JsonError::Field { path: path.to_string(), problem })
    }

    fn missing<T, E: Error>(&mut self, path: Path<'_>, field: &Field) -> Result<T, E> {
        let path = Path::Field(&path, &field.name).to_string();
        self.fail(JsonError::Field { path, problem: "is required and missing".to_owned() })
    }

    fn take<E: Error>(&mut self, field: &Field) -> Result<(), E> {
        match self.budget.take(field) {
            Ok(()) => Ok(()),
            Err(error) => self.fail(error.into()),
        }
    }

    /// Begins a message; returns where its length goes.
    fn begin(&mut self, number: u32) -> usize {
        encode_key(number, WireType::LengthDelimited, &mut self.out);
        let at = self.out.len();
        self.out.extend_from_slice(&[0; LENGTH]);
        at
    }

    fn end(&mut self, at: usize) {
        let mut length = self.out.len() - at - LENGTH;
        let Some(place) = self.out.get_mut(at..at + LENGTH) else { return };
        for (i, byte) in place.iter_mut().enumerate() {
            // A varint may be longer than it must.
            let more = if i + 1 < LENGTH { 0x80 } else { 0 };
            *byte = (length & 0x7f) as u8 | more;
            length >>= 7;
        }
    }

    /// The fields of one message.
    fn fields<'de, A: MapAccess<'de>>(
        &mut self,
        plan: &Plan,
        path: Path<'_>,
        mut given: A,
    ) -> Result<(), A::Error> {
        let mut spans: Vec<Option<Range<usize>>> = vec![None; plan.fields.len()];
        while let Some(place) = given.next_key_seed(Named(plan))? {
            let Some((place, field)) = place.and_then(|at| Some((at, plan.fields.get(at)?))) else {
                given.next_value::<IgnoredAny>()?;
                continue;
            };
            if let Some(span) = spans.get_mut(place).and_then(Option::take) {
                self.remove(span, &mut spans);
            }
            let begin = self.out.len();
            let path = Path::Field(&path, &field.name);
            if given.next_value_seed(Slot { reader: self, field, path })?
                && let Some(span) = spans.get_mut(place)
            {
                *span = Some(begin..self.out.len());
            }
        }
        for (field, span) in plan.fields.iter().zip(spans) {
            if field.required && span.is_none() {
                return self.missing(path, field);
            }
        }
        Ok(())
    }

    /// Of several values of one name the last counts.
    fn remove(&mut self, span: Range<usize>, others: &mut [Option<Range<usize>>]) {
        self.out.drain(span.clone());
        for other in others.iter_mut().flatten().filter(|other| other.start >= span.end) {
            *other = other.start - span.len()..other.end - span.len();
        }
    }

    fn entries<'de, A: MapAccess<'de>>(
        &mut self,
        field: &Field,
        path: Path<'_>,
        mut given: A,
    ) -> Result<(), A::Error> {
        let Kind::Message(entry) = field.kind else { return self.wrong(path, "a map", "a map") };
        let [key, value] = Plans::get().at(entry).fields.as_slice() else { return Ok(()) };
        while let Some(name) = given.next_key::<String>()? {
            self.take(field)?;
            let at = self.begin(field.number);
            // All maps of the Mesos API have text keys.
            prost::encoding::bytes::encode(key.number, &name.as_bytes().to_vec(), &mut self.out);
            let path = Path::Entry(&path, &name);
            let set = given.next_value_seed(Slot { reader: self, field: value, path })?;
            // As in Mesos an entry without a value is one whose value has no fields.
            if let (false, Kind::Message(of)) = (set, &value.kind)
                && let Some(field) = Plans::get().at(*of).fields.iter().find(|f| f.required)
            {
                return self.missing(path, field);
            }
            self.end(at);
        }
        Ok(())
    }
}

/// The place of the field that a name says.
struct Named<'a>(&'a Plan);

impl<'de> DeserializeSeed<'de> for Named<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Named<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.named(name))
    }
}

/// A value of a field, or a list of them. Gives whether there was one.
struct Slot<'a> {
    reader: &'a mut Reader,
    field: &'a Field,
    path: Path<'a>,
}

impl Slot<'_> {
    fn scalar<E: Error>(self, given: Given<'_>) -> Result<bool, E> {
        let Self { reader, field, path } = self;
        if field.shape == Shape::Map {
            return reader.wrong(path, "an object", &given.to_string());
        }
        match encoded(&field.kind, given) {
            Ok(Some(value)) => {
                reader.take(field)?;
                value.write(field.number, &mut reader.out);
                Ok(true)
            }
            Ok(None) if field.required => reader.wrong(path, "a known name", &given.to_string()),
            Ok(None) => Ok(false),
            Err(wants) => reader.wrong(path, wants, &given.to_string()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Slot<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Slot<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.field.name)
    }

    fn visit_bool<E: Error>(self, b: bool) -> Result<bool, E> {
        self.scalar(Given::Bool(b))
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<bool, E> {
        self.scalar(Given::Whole(n.into()))
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<bool, E> {
        self.scalar(Given::Whole(n.into()))
    }

    fn visit_f64<E: Error>(self, n: f64) -> Result<bool, E> {
        self.scalar(Given::Float(n))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
        self.scalar(Given::Text(text))
    }

    /// `null` is unset, in a list, too.
    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, given: A) -> Result<bool, A::Error> {
        let Self { reader, field, path } = self;
        match (field.shape, &field.kind) {
            (Shape::Map, _) => reader.entries(field, path, given)?,
            (_, Kind::Message(of)) => {
                reader.take(field)?;
                let at = reader.begin(field.number);
                reader.fields(Plans::get().at(*of), path, given)?;
                reader.end(at);
            }
            (_, kind) => return reader.wrong(path, kind.wants(), "an object"),
        }
        Ok(true)
    }

    /// A value in place of a list is a list of one, and lists in a list are one (as in
    /// Mesos, which gives each value to the same field).
    fn visit_seq<A: SeqAccess<'de>>(self, mut given: A) -> Result<bool, A::Error> {
        let Self { reader, field, path } = self;
        if field.shape == Shape::Single {
            return reader.wrong(path, field.kind.wants(), "a list");
        }
        for i in 0.. {
            let slot = Slot { reader: &mut *reader, field, path: Path::Item(&path, i) };
            if given.next_element_seed(slot)?.is_none() {
                break;
            }
        }
        Ok(true)
    }
}

/// A message that stands in nothing else.
struct Top<'a> {
    reader: &'a mut Reader,
    plan: &'a Plan,
    path: Path<'a>,
}

impl<'de> DeserializeSeed<'de> for Top<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Top<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, given: A) -> Result<(), A::Error> {
        self.reader.out.clear();
        self.reader.fields(self.plan, self.path, given)
    }
}

/// A list of messages that stands in nothing else.
struct Items<'a> {
    reader: &'a mut Reader,
    plan: &'a Plan,
    each: Each<'a>,
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut given: A) -> Result<(), A::Error> {
        let Self { reader, plan, each } = self;
        let top = Path::Top(&plan.name);
        for i in 0.. {
            let path = Path::Item(&top, i);
            if given.next_element_seed(Top { reader: &mut *reader, plan, path })?.is_none() {
                break;
            }
            let done = reader.budget.take_message(plan).map_err(JsonError::from);
            if let Err(error) = done.and_then(|()| each(&reader.out)) {
                return reader.fail(error);
            }
        }
        Ok(())
    }
}
