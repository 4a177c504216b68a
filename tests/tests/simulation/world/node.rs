//! Who there is, and what happens to them.

use std::fmt;

use mezz_proto::{ids::ContainerId, mezz::v1::AgentMessage, time::Time, v1};

use crate::{
    clock::Clock,
    etcd::{Reply, Request},
    faults::Fault,
    machine,
    net::{End, Stream},
};

/// A process, or etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    Master(usize),
    Agent(usize),
    Framework(usize),
    Etcd,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Master(n) => write!(f, "master{n}"),
            Self::Agent(n) => write!(f, "agent{n}"),
            Self::Framework(n) => write!(f, "framework{n}"),
            Self::Etcd => f.write_str("etcd"),
        }
    }
}

/// How a process is.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    pub up: bool,
    /// Grows with every start.
    pub epoch: u64,
    /// It stands still since.
    pub paused: Option<Time>,
    /// And goes on then.
    pub resumes: Time,
    /// Its machine is off: nobody says that it is gone.
    pub off: bool,
    /// Since when it is as it is.
    pub since: Time,
    pub clock: Clock,
    /// When it next wants to do something.
    pub(super) wakes: Option<Time>,
}

/// Something that happens.
#[derive(Debug)]
pub enum What {
    /// A process wanted to be woken at this time.
    Wake(Time),
    Dialed(Stream),
    DialFailed(Stream),
    Ping(Stream, End),
    Arrives(Stream, End),
    Cut(Stream, End),
    /// A question of this process of a master is at etcd.
    EtcdAsked {
        master: usize,
        epoch: u64,
        id: u64,
        request: Request,
    },
    EtcdAnswers {
        id: u64,
        reply: Reply,
    },
    /// An agent's store has written what was handed to it.
    Stored,
    /// Of the machine of an agent, as it was booted.
    Machine {
        agent: usize,
        boot: u64,
        container: ContainerId,
        step: machine::Step,
    },
    /// A container's news for its agent.
    Container(mezz_agent::core::Event),
    /// A framework has made up its mind on an offer.
    Decide(Box<v1::Offer>),
    /// A framework acknowledges.
    Acknowledge(Box<v1::TaskStatus>),
    Fault(Fault),
    /// What an agent has said comes to a master again.
    Echo {
        agent: usize,
        master: usize,
        /// If it still leads as it did then.
        term: Option<u64>,
        message: Box<AgentMessage>,
    },
}
