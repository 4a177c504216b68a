//! What the simulation of a whole cluster (`tests/tests/simulation`) drives itself, in
//! place of tasks, sockets and clocks. No interface: it changes as the shell does.

pub use crate::{
    election::machine::{Answer, Ask, Election, Leader, Lost, News, Next},
    etcd::Keys,
    shell::{
        dispatch::{Dispatch, Peer},
        metrics::Metrics,
        outbox::{Outbox, OutboxStream, Weigh},
    },
};
