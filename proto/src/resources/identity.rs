//! What makes two amounts the same resource.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use prost::Message;

use crate::v1;

/// One copy of each name that most resources have: there are some for each task and agent.
static COMMON: LazyLock<[Arc<str>; 5]> =
    LazyLock::new(|| ["cpus", "mem", "disk", "ports", "gpus"].map(Arc::from));

/// Everything of a resource but its amount. Ordered by name first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    name: Arc<str>,
    /// Absent in the plain case, which is by far the commonest.
    detail: Option<Arc<Detail>>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
struct Detail {
    reservations: Vec<Reservation>,
    disk: Option<Disk>,
    revocable: bool,
    shared: bool,
    provider: Option<String>,
}

/// Who made a reservation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ReservationKind {
    /// The agent's own configuration.
    Static,
    /// A framework or an operator, at run time.
    Dynamic,
}

/// One entry of a reservation stack; the last one says who may use it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reservation {
    /// Who made it.
    pub kind: ReservationKind,
    /// For which role.
    pub role: String,
    /// Who reserved it, if that is known.
    pub principal: Option<String>,
    /// The encoded `Labels`, which only tell reservations apart.
    pub labels: Option<Vec<u8>>,
}

/// A `DiskInfo` as an opaque, comparable value: its canonical encoding.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Disk(Vec<u8>);

impl Disk {
    /// Of this message.
    pub fn from_proto(info: &v1::resource::DiskInfo) -> Self {
        Self(info.encode_to_vec())
    }

    /// The message again.
    pub fn to_proto(&self) -> v1::resource::DiskInfo {
        // The bytes are our own encoding, so this cannot fail; an empty message
        // would be the harmless answer if it did.
        v1::resource::DiskInfo::decode(self.0.as_slice()).unwrap_or_default()
    }
}

impl Identity {
    /// Unreserved, not revocable, not shared.
    pub fn named(name: &str) -> Self {
        let known = COMMON.iter().find(|known| &***known == name);
        Self { name: known.map_or_else(|| Arc::from(name), Arc::clone), detail: None }
    }

    /// The resource's name: `cpus`, `mem`, …
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The reservation stack, outermost first; empty when unreserved.
    pub fn reservations(&self) -> &[Reservation] {
        self.detail.as_ref().map_or(&[], |d| &d.reservations)
    }

    /// The role that may use it: that of the innermost reservation.
    pub fn reserved_for(&self) -> Option<&str> {
        self.reservations().last().map(|r| r.role.as_str())
    }

    /// Whether it may be taken back at any time.
    pub fn is_revocable(&self) -> bool {
        self.detail.as_ref().is_some_and(|d| d.revocable)
    }

    /// Whether several tasks may hold the same one.
    pub fn is_shared(&self) -> bool {
        self.detail.as_ref().is_some_and(|d| d.shared)
    }

    /// The disk it is of, for disk resources that are not the plain root disk.
    pub fn disk(&self) -> Option<&Disk> {
        self.detail.as_ref().and_then(|d| d.disk.as_ref())
    }

    /// The resource provider it comes from, if not the agent itself.
    pub fn provider(&self) -> Option<&str> {
        self.detail.as_ref().and_then(|d| d.provider.as_deref())
    }

    /// The same with this reservation stack.
    #[must_use]
    pub fn with_reservations(self, reservations: Vec<Reservation>) -> Self {
        self.with(|d| d.reservations = reservations)
    }

    /// The same, of this disk.
    #[must_use]
    pub fn with_disk(self, disk: Option<Disk>) -> Self {
        self.with(|d| d.disk = disk)
    }

    /// The same, revocable or not.
    #[must_use]
    pub fn with_revocable(self, revocable: bool) -> Self {
        self.with(|d| d.revocable = revocable)
    }

    /// The same, shared or not.
    #[must_use]
    pub fn with_shared(self, shared: bool) -> Self {
        self.with(|d| d.shared = shared)
    }

    /// The same, from this resource provider.
    #[must_use]
    pub fn with_provider(self, provider: Option<String>) -> Self {
        self.with(|d| d.provider = provider)
    }

    fn with(self, change: impl FnOnce(&mut Detail)) -> Self {
        let mut detail = self.detail.map_or_else(Detail::default, |d| (*d).clone());
        change(&mut detail);
        // The plain case has one representation, so that equality is structural.
        let detail = (detail != Detail::default()).then(|| Arc::new(detail));
        Self { name: self.name, detail }
    }
}

impl fmt::Display for Identity {
    /// `cpus`, `cpus(role)`, `cpus(role)[revocable]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(role) = self.reserved_for() {
            write!(f, "({role})")?;
        }
        if self.disk().is_some() {
            f.write_str("[disk]")?;
        }
        if self.is_revocable() {
            f.write_str("[revocable]")?;
        }
        if self.is_shared() {
            f.write_str("[shared]")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
