//! What an agent says of itself.

use mezz_proto::{LINK_PROTOCOL, mezz::v1 as mezz, resources::Resources, v1};
use prost::Message;

use super::MAX_RECORD_BYTES;

/// Longest hostname, address or version, in bytes.
const MAX_TEXT: usize = 1024;
/// Entries of an agent's resources and attributes.
const MAX_ENTRIES: usize = 10_000;

/// A description whose every part has been checked.
#[derive(Debug)]
pub(in crate::core) struct Described {
    /// `id` and `resources` emptied.
    pub info: v1::AgentInfo,
    pub total: Resources,
    pub version: String,
    pub api_address: String,
}

/// Why an agent is not taken in.
#[derive(Debug, Default)]
pub(in crate::core) struct Refusal {
    /// A sentence for its log.
    pub reason: String,
    /// It should not come back.
    pub permanent: bool,
    /// Nor should anything of it go on.
    pub gone: bool,
    /// At this start of its process it has said something newer.
    pub newer_start: Option<u64>,
}

impl Refusal {
    /// Coming back with the same would change nothing.
    pub fn permanent(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), permanent: true, ..Self::default() }
    }
}

/// Checks a description.
pub(in crate::core) fn described(given: mezz::AgentDescription) -> Result<Described, Refusal> {
    let mezz::AgentDescription { mut agent, version, protocol, api_address, .. } = given;
    if protocol != LINK_PROTOCOL {
        return Err(Refusal::permanent(format!(
            "description.protocol: the agent (version {version}) speaks protocol {protocol}, this master speaks {LINK_PROTOCOL}; install the same version of both"
        )));
    }
    let texts =
        [("agent.hostname", &agent.hostname), ("version", &version), ("api_address", &api_address)];
    for (name, text) in texts {
        if text.len() > MAX_TEXT {
            return Err(Refusal::permanent(format!(
                "description.{name}: is longer than {MAX_TEXT} bytes"
            )));
        }
    }
    if agent.hostname.is_empty() {
        return Err(Refusal::permanent("description.agent.hostname: must not be empty"));
    }
    if agent.resources.len() > MAX_ENTRIES || agent.attributes.len() > MAX_ENTRIES {
        return Err(Refusal::permanent(format!(
            "description.agent: more than {MAX_ENTRIES} resources or attributes"
        )));
    }
    let size = agent.encoded_len();
    if size > MAX_RECORD_BYTES {
        return Err(Refusal::permanent(format!(
            "description.agent: is {size} bytes long; {MAX_RECORD_BYTES} are allowed"
        )));
    }
    let total = Resources::from_proto(&agent.resources)
        .map_err(|error| Refusal::permanent(format!("description.agent.resources: {error}")))?;
    agent.id = None;
    // Not `clear`: the room for them would be kept for the agent's life.
    agent.resources = Vec::new();
    Ok(Described { info: agent, total, version, api_address })
}
