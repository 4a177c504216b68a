//! What the core is told.

use mezz_proto::{mezz::v1 as mezz, v1};

/// One connection: a framework's subscription or an agent's link. Numbered by
/// the shell, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// One request that waits for its [`Reply`](super::Effect::Reply), or its
/// [`Answer`](super::Effect::Answer).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// Something that happened outside.
#[derive(Clone, Debug)]
pub enum Event {
    /// A framework's call came. SUBSCRIBE binds the connection to a framework;
    /// any other call needs that.
    SchedulerCall {
        /// On which it came.
        connection: ConnectionId,
        /// What it says.
        call: Box<v1::scheduler::Call>,
    },
    /// A framework's call came by itself, as HTTP has it: not on the connection of its
    /// subscription, but for that. A bad one costs only itself.
    SchedulerRequest {
        /// To be answered under this id.
        request: RequestId,
        /// The framework's subscription.
        connection: ConnectionId,
        /// What it says; never SUBSCRIBE.
        call: Box<v1::scheduler::Call>,
    },
    /// A framework's connection ended.
    SchedulerDisconnected {
        /// Which.
        connection: ConnectionId,
    },
    /// An agent's message came. Register or reregister binds the connection.
    AgentMessage {
        /// On which it came.
        connection: ConnectionId,
        /// What it says.
        message: Box<mezz::AgentMessage>,
    },
    /// An agent's link ended.
    AgentDisconnected {
        /// Which.
        connection: ConnectionId,
    },
    /// An operator asks for something.
    Operator {
        /// To be answered under this id.
        request: RequestId,
        /// What.
        command: OperatorCommand,
    },
}

/// What operators may ask of the core itself. Lists are answered by the read
/// model instead.
#[derive(Clone, Debug)]
pub enum OperatorCommand {
    /// Why no (more) offers.
    Explain(mezz::ExplainRequest),
    /// Kill one task.
    KillTask(mezz::OperatorKillTaskRequest),
    /// End a framework.
    Teardown(mezz::TeardownRequest),
    /// Set roles' weights.
    UpdateWeights(mezz::UpdateWeightsRequest),
    /// All roles with shares.
    ListRoles,
    /// Empty an agent.
    DrainAgent(mezz::DrainAgentRequest),
    /// Offer no more of an agent.
    DeactivateAgent(mezz::DeactivateAgentRequest),
    /// Offer an agent again.
    ReactivateAgent(mezz::ReactivateAgentRequest),
    /// Give an agent up, whatever runs there: the agent with this id may not come back
    /// (rule 47).
    MarkAgentGone(String),
}
