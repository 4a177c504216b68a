//! The registry in the simulated etcd: fenced, numbered, in several transactions
//! (as `master/src/election/fenced.rs` and `shell/writer.rs`).

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use mezz_master::{
    etcd::ATTEMPT,
    registry::{RegistryOp, RegistrySnapshot},
};
use mezz_proto::{mezz::v1 as mezz, time::Time};
use prost::Message as _;

use super::candidate::LEADER;
use crate::{
    etcd::{Compare, Kv, Op, Reply, Request, Txn},
    world::{Node, World},
};

const ROOT: &str = "/mezz/v1/";
const WRITER: &str = "/mezz/v1/writer";

/// Records in one transaction: few, so that writes of several transactions happen.
const MAX_OPS: usize = 3;

/// Between attempts, from the first to the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

pub fn agents_key(id: &str) -> String {
    format!("{ROOT}agents/{id}")
}

pub fn frameworks_key(id: &str) -> String {
    format!("{ROOT}frameworks/{id}")
}

/// One key and what is to become of it.
type Change = (String, Option<Vec<u8>>);

fn change(op: RegistryOp) -> Change {
    match op {
        RegistryOp::PutAgent(record) => {
            let id = record.agent.id.as_ref().map_or("", |id| &id.value);
            (agents_key(id), Some(record.encode_to_vec()))
        }
        RegistryOp::RemoveAgent(id) => (agents_key(id.as_str()), None),
        RegistryOp::PutFramework(record) => {
            let id = record.framework.id.as_ref().map_or("", |id| &id.value);
            (frameworks_key(id), Some(record.encode_to_vec()))
        }
        RegistryOp::RemoveFramework(id) => (frameworks_key(id.as_str()), None),
        RegistryOp::PutWeight(role, weight) => {
            (format!("{ROOT}weights/{role}"), Some(weight.to_string().into_bytes()))
        }
    }
}

/// Which write of which leader a request is, if it writes the registry.
pub fn number(request: &Request) -> Option<(i64, u64)> {
    let Request::Txn(txn) = request else { return None };
    txn.then.iter().find_map(|op| match op {
        Op::Put(key, value, _) if key == WRITER => {
            let (fence, number) = std::str::from_utf8(value).ok()?.split_once(':')?;
            Some((fence.parse().ok()?, number.parse().ok()?))
        }
        _ => None,
    })
}

/// The frameworks that a request ends for good.
pub fn ended_frameworks(request: &Request) -> Vec<String> {
    let Request::Txn(txn) = request else { return Vec::new() };
    let ended = txn.then.iter().filter_map(|op| match op {
        Op::Put(key, value, _) => {
            let id = key.strip_prefix(&frameworks_key(""))?;
            let record = mezz::FrameworkRecord::decode(&**value).ok()?;
            record.completed_time.map(|_| id.to_owned())
        }
        Op::Delete(_) => None,
    });
    ended.collect()
}

/// The agents that a request gives up for now.
pub fn lost_agents(request: &Request) -> Vec<String> {
    let Request::Txn(txn) = request else { return Vec::new() };
    let lost = txn.then.iter().filter_map(|op| match op {
        Op::Put(key, value, _) => {
            let id = key.strip_prefix(&agents_key(""))?;
            let record = mezz::AgentRecord::decode(&**value).ok()?;
            record.unreachable_time.map(|_| id.to_owned())
        }
        Op::Delete(_) => None,
    });
    lost.collect()
}

/// What is done with etcd.
#[derive(Debug)]
enum Work {
    /// From now on the writes of this leader are numbered.
    Begin,
    /// A write of nothing: who reads must be the leader still.
    Claim,
    Read,
    /// Transactions, and the write that is durable after the last.
    Commit {
        upto: u64,
        left: VecDeque<Vec<Change>>,
    },
}

/// The registry of a leader: one piece of work at a time.
#[derive(Debug)]
pub struct Writer {
    fence: i64,
    /// Transactions that are done.
    done: u64,
    work: Option<Work>,
    /// The request that is under way, and when it is given up.
    request: Option<(u64, Time)>,
    /// After a failure.
    again: Option<Time>,
    pause: Duration,
    /// The core's writes, which wait.
    queue: VecDeque<(u64, Vec<RegistryOp>)>,
    /// It has failed, for the master leads no more.
    pub deposed: bool,
    wakes: Option<Time>,
}

impl Writer {
    pub fn new(fence: i64) -> Self {
        Self {
            fence,
            done: 0,
            work: Some(Work::Begin),
            request: None,
            again: None,
            pause: BACKOFF.0,
            queue: VecDeque::new(),
            deposed: false,
            wakes: None,
        }
    }

    pub fn put(&mut self, number: u64, ops: Vec<RegistryOp>) {
        self.queue.push_back((number, ops));
    }

    pub fn next(&self) -> Option<Time> {
        self.wakes
    }

    pub fn is_idle(&self) -> bool {
        self.deposed || (self.work.is_none() && self.queue.is_empty())
    }

    fn number(&self, done: u64) -> Vec<u8> {
        format!("{}:{done}", self.fence).into_bytes()
    }

    fn is_leader(&self) -> Compare {
        Compare::Created(LEADER.to_owned(), self.fence)
    }

    /// All that came meanwhile, the last word on each record, in a few transactions.
    fn take_queue(&mut self) -> Option<Work> {
        let upto = self.queue.back()?.0;
        let ops = self.queue.drain(..).flat_map(|(_, ops)| ops);
        let changes: Vec<Change> = ops.map(change).collect();
        let last: BTreeMap<String, usize> =
            changes.iter().enumerate().map(|(n, (key, _))| (key.clone(), n)).collect();
        let kept = changes.into_iter().enumerate().filter(|(n, (key, _))| last[key] == *n);
        let kept: Vec<Change> = kept.map(|(_, change)| change).collect();
        let left = kept.chunks(MAX_OPS).map(<[Change]>::to_vec).collect();
        Some(Work::Commit { upto, left })
    }

    fn request(&self) -> Option<Request> {
        Some(match self.work.as_ref()? {
            Work::Begin => Request::Txn(Txn {
                // An attempt that arrives late must not begin the count again.
                when: vec![
                    self.is_leader(),
                    Compare::ModifiedBefore(WRITER.to_owned(), self.fence),
                ],
                then: vec![Op::Put(WRITER.to_owned(), self.number(0), 0)],
                otherwise: vec![LEADER.to_owned(), WRITER.to_owned()],
            }),
            Work::Claim => self.write(&[]),
            Work::Read => Request::Range(ROOT.to_owned()),
            Work::Commit { left, .. } => self.write(left.front()?),
        })
    }

    fn write(&self, changes: &[Change]) -> Request {
        let changes = changes.iter().cloned();
        let mut then: Vec<Op> = changes
            .map(|(key, value)| match value {
                Some(value) => Op::Put(key, value, 0),
                None => Op::Delete(key),
            })
            .collect();
        then.push(Op::Put(WRITER.to_owned(), self.number(self.done + 1), 0));
        let last = Compare::Value(WRITER.to_owned(), self.number(self.done));
        Request::Txn(Txn {
            when: vec![self.is_leader(), last],
            then,
            otherwise: vec![LEADER.to_owned(), WRITER.to_owned()],
        })
    }

    /// Whether a write is made, now or by an attempt whose answer was lost.
    fn is_made(&self, reply: &Reply, number: u64) -> bool {
        match reply {
            Reply::Done(_) => true,
            Reply::Refused(read) => {
                let [leader, writer] = &read[..] else { return false };
                leader.as_ref().is_some_and(|kv| kv.created == self.fence)
                    && writer.as_ref().is_some_and(|kv| kv.value == self.number(number))
            }
            _ => false,
        }
    }
}

fn snapshot(all: &[(String, Kv)]) -> RegistrySnapshot {
    let of = |kind: &str| {
        let prefix = format!("{ROOT}{kind}/");
        let all = all.iter().filter_map(move |(key, kv)| {
            Some((key.strip_prefix(&prefix)?.to_owned(), kv.value.clone()))
        });
        all.collect::<Vec<_>>()
    };
    let agents = of("agents").into_iter();
    let frameworks = of("frameworks").into_iter();
    let weights = of("weights").into_iter();
    RegistrySnapshot {
        agents: agents.map(|(_, v)| mezz::AgentRecord::decode(&*v).expect("a record")).collect(),
        frameworks: frameworks
            .map(|(_, v)| mezz::FrameworkRecord::decode(&*v).expect("a record"))
            .collect(),
        weights: weights
            .map(|(role, v)| (role, String::from_utf8_lossy(&v).parse().expect("a number")))
            .collect(),
    }
}

impl World {
    /// Goes on with the registry's work.
    pub(super) fn registry_turn(&mut self, n: usize) {
        let now = self.local(Node::Master(n));
        let Some(term) = &mut self.masters[n].term else { return };
        let holds = term.holds(now);
        let writer = &mut term.writer;
        writer.wakes = None;
        if writer.deposed {
            return;
        }
        if let Some((_, gives_up)) = writer.request {
            if now < gives_up {
                writer.wakes = Some(gives_up);
                return;
            }
            // No answer in time.
            writer.request = None;
            writer.again = Some(now + writer.pause);
            writer.pause = (writer.pause * 2).min(BACKOFF.1);
        }
        if let Some(again) = writer.again {
            if now < again {
                writer.wakes = Some(again);
                return;
            }
            writer.again = None;
        }
        if writer.work.is_none() {
            writer.work = writer.take_queue();
        }
        let Some(request) = writer.request() else { return };
        if !holds {
            return self.registry_deposed(n);
        }
        writer.wakes = Some(now + ATTEMPT);
        let id = self.ask_etcd(n, request);
        if let Some(term) = &mut self.masters[n].term {
            term.writer.request = Some((id, now + ATTEMPT));
        }
    }

    pub(super) fn registry_answered(&mut self, n: usize, id: u64, reply: Reply) {
        let Some(term) = &mut self.masters[n].term else { return };
        let writer = &mut term.writer;
        if writer.request.is_none_or(|(request, _)| request != id) {
            return;
        }
        writer.request = None;
        writer.pause = BACKOFF.0;
        match reply {
            reply if matches!(writer.work, Some(Work::Begin)) && writer.is_made(&reply, 0) => {
                writer.work = Some(Work::Claim);
            }
            reply
                if matches!(writer.work, Some(Work::Claim))
                    && writer.is_made(&reply, writer.done + 1) =>
            {
                writer.done += 1;
                writer.work = Some(Work::Read);
            }
            Reply::Range(all) if matches!(writer.work, Some(Work::Read)) => {
                writer.work = None;
                let snapshot = snapshot(&all);
                self.term_begins(n, snapshot);
            }
            reply if matches!(writer.work, Some(Work::Commit { .. })) => {
                if writer.is_made(&reply, writer.done + 1) {
                    self.committed(n);
                } else {
                    self.registry_deposed(n);
                }
            }
            _ => self.registry_deposed(n),
        }
    }

    /// One transaction more is made.
    fn committed(&mut self, n: usize) {
        let Some(term) = &mut self.masters[n].term else { return };
        let writer = &mut term.writer;
        writer.done += 1;
        let Some(Work::Commit { upto, left }) = &mut writer.work else { return };
        left.pop_front();
        if left.is_empty() {
            let upto = *upto;
            writer.work = None;
            self.core_written(n, upto);
        }
    }

    /// Another master has the registry.
    fn registry_deposed(&mut self, n: usize) {
        if let Some(term) = &mut self.masters[n].term {
            term.writer.deposed = true;
        }
        self.end_term(n, "the registry is another one's to write");
    }
}
