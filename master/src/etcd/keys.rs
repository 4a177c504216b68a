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

    /// What all of them begin with; no `/` at the end.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Held by the leader, with its lease. Its create revision is the leader's fence.
    pub fn leader(&self) -> String {
        format!("{}/leader", self.root)
    }

    /// Which write was the last: `FENCE:NUMBER`.
    pub fn writer(&self) -> String {
        format!("{}/writer", self.root)
    }

    /// Where the keys of this folder begin.
    pub fn folder(&self, name: &str) -> String {
        format!("{}/{name}/", self.root)
    }

    /// Where the agents' records begin.
    pub fn agents(&self) -> String {
        self.folder("agents")
    }

    /// Where the frameworks' records begin.
    pub fn frameworks(&self) -> String {
        self.folder("frameworks")
    }

    /// Where the roles' weights begin.
    pub fn weights(&self) -> String {
        self.folder("weights")
    }
}
