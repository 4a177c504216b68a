//! Where everything lies, see `docs/high-availability.md`.

/// The layout's version, a part of every key: a later layout can be written beside
/// this one before masters change over.
const VERSION: &str = "v1";

/// The keys below one prefix.
#[derive(Clone, Debug)]
pub struct Keys {
    root: String,
}

impl Keys {
    /// `prefix` has no `/` at the end.
    pub fn new(prefix: &str) -> Self {
        Self { root: format!("{prefix}/{VERSION}") }
    }

    /// Held by the leader, with its lease. Its create revision is the leader's fence.
    pub fn leader(&self) -> String {
        format!("{}/leader", self.root)
    }

    /// Which write was the last: `FENCE:NUMBER`.
    pub fn writer(&self) -> String {
        format!("{}/writer", self.root)
    }

    /// Where the agents' records begin.
    pub fn agents(&self) -> String {
        format!("{}/agents/", self.root)
    }

    /// Where the frameworks' records begin.
    pub fn frameworks(&self) -> String {
        format!("{}/frameworks/", self.root)
    }

    /// Where the roles' weights begin.
    pub fn weights(&self) -> String {
        format!("{}/weights/", self.root)
    }
}
