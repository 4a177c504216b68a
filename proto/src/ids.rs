//! Ids as types of their own, cheap to clone, so that an agent's id cannot
//! stand where a task's is meant.

use std::{borrow::Borrow, fmt, sync::Arc};

use crate::v1;

/// Declares a string id and its conversions from and to the wire message.
macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident, $wire:ty) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id with this text. Nothing is checked; see the master's
            /// validation for what is legal.
            pub fn new(value: impl AsRef<str>) -> Self {
                Self(Arc::from(value.as_ref()))
            }

            /// The id's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(value: &str) -> Self {
                Self::new(value)
            }
        }

        impl From<String> for $name {
            fn from(value: String) -> Self {
                Self(Arc::from(value))
            }
        }

        impl From<$wire> for $name {
            fn from(wire: $wire) -> Self {
                Self(Arc::from(wire.value))
            }
        }

        impl From<&$wire> for $name {
            fn from(wire: &$wire) -> Self {
                Self::new(&wire.value)
            }
        }

        // `ContainerID` has a second field on the wire, the others have none.
        #[allow(clippy::needless_update)]
        impl From<&$name> for $wire {
            fn from(id: &$name) -> Self {
                Self { value: id.as_str().to_owned(), ..Default::default() }
            }
        }

        impl From<$name> for $wire {
            fn from(id: $name) -> Self {
                Self::from(&id)
            }
        }
    };
}

string_id!(
    /// A framework, for its whole life, over reconnections and master restarts.
    FrameworkId, v1::FrameworkId
);
string_id!(
    /// An agent, over its reconnections.
    AgentId, v1::AgentId
);
string_id!(
    /// A task; unique among a framework's live tasks.
    TaskId, v1::TaskId
);
string_id!(
    /// An executor; unique within a framework and agent.
    ExecutorId, v1::ExecutorId
);
string_id!(
    /// One offer; never used twice.
    OfferId, v1::OfferId
);
string_id!(
    /// One container on an agent; never used twice.
    ContainerId, v1::ContainerId
);
