//! etcd as its clients see it: revisions, leases, transactions. Pure, and one: how
//! its members agree is not simulated, only that it answers late, twice or not.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mezz_proto::time::Time;

/// A key's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kv {
    pub value: Vec<u8>,
    /// The revision that made the key.
    pub created: i64,
    /// The revision that wrote it last.
    pub modified: i64,
    /// 0: none.
    pub lease: i64,
}

/// What a transaction needs to be true.
#[derive(Clone, Debug)]
pub enum Compare {
    /// The key was made at this revision; 0: there is none.
    Created(String, i64),
    /// The key was written last before this revision, or there is none.
    ModifiedBefore(String, i64),
    /// Its value; false where there is no key.
    Value(String, Vec<u8>),
}

#[derive(Clone, Debug)]
pub enum Op {
    /// With a lease, or 0.
    Put(String, Vec<u8>, i64),
    Delete(String),
}

#[derive(Clone, Debug, Default)]
pub struct Txn {
    pub when: Vec<Compare>,
    pub then: Vec<Op>,
    /// Keys to be read when it is not so.
    pub otherwise: Vec<String>,
}

#[derive(Clone, Debug)]
pub enum Request {
    Get(String),
    Grant(Duration),
    KeepAlive(i64),
    Revoke(i64),
    Txn(Txn),
    /// All keys with this prefix, at one moment.
    Range(String),
}

#[derive(Clone, Debug)]
pub enum Reply {
    Got(Option<Kv>),
    Granted(i64),
    Alive,
    Revoked,
    /// There is no such lease.
    Expired,
    /// The transaction was made, at this revision.
    Done(i64),
    /// It was not; what was to be read then.
    Refused(Vec<Option<Kv>>),
    Range(Vec<(String, Kv)>),
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    length: Duration,
    ends: Time,
}

#[derive(Debug, Default)]
pub struct Etcd {
    pub revision: i64,
    pub keys: BTreeMap<String, Kv>,
    leases: BTreeMap<i64, Lease>,
    last_lease: i64,
    /// Every key that there ever was.
    pub ever: BTreeSet<String>,
    /// Faults, to see that they are found: it compares only whether a key is there, and
    /// not when it was written.
    pub careless: bool,
    pub careless_of_time: bool,
}

impl Etcd {
    /// Its clock is the true one.
    pub fn apply(&mut self, now: Time, request: Request) -> Reply {
        self.expire(now);
        match request {
            Request::Get(key) => Reply::Got(self.keys.get(&key).cloned()),
            Request::Grant(length) => {
                self.last_lease += 1;
                self.leases.insert(self.last_lease, Lease { length, ends: now + length });
                Reply::Granted(self.last_lease)
            }
            Request::KeepAlive(id) => match self.leases.get_mut(&id) {
                Some(lease) => {
                    lease.ends = now + lease.length;
                    Reply::Alive
                }
                None => Reply::Expired,
            },
            Request::Revoke(id) => match self.leases.remove(&id) {
                Some(_) => {
                    self.drop_keys_of(id);
                    Reply::Revoked
                }
                None => Reply::Expired,
            },
            Request::Txn(txn) => self.txn(txn),
            Request::Range(prefix) => {
                let from = self.keys.range(prefix.clone()..);
                let all = from.take_while(|(key, _)| key.starts_with(&prefix));
                Reply::Range(all.map(|(key, kv)| (key.clone(), kv.clone())).collect())
            }
        }
    }

    /// Ends the leases whose time is over.
    pub fn expire(&mut self, now: Time) {
        let over: Vec<i64> =
            self.leases.iter().filter(|(_, l)| l.ends <= now).map(|(id, _)| *id).collect();
        for id in over {
            self.leases.remove(&id);
            self.drop_keys_of(id);
        }
    }

    fn drop_keys_of(&mut self, lease: i64) {
        let before = self.keys.len();
        self.keys.retain(|_, kv| kv.lease != lease);
        self.revision += i64::from(self.keys.len() < before);
    }

    fn txn(&mut self, txn: Txn) -> Reply {
        let holds = txn.when.iter().all(|compare| match compare {
            Compare::Created(key, revision) => {
                let created = self.keys.get(key).map_or(0, |kv| kv.created);
                created == *revision || (self.careless && *revision != 0)
            }
            Compare::ModifiedBefore(key, revision) => {
                self.careless_of_time || self.keys.get(key).is_none_or(|kv| kv.modified < *revision)
            }
            Compare::Value(key, value) => {
                self.careless || self.keys.get(key).is_some_and(|kv| kv.value == *value)
            }
        });
        if !holds {
            let read = txn.otherwise.iter().map(|key| self.keys.get(key).cloned());
            return Reply::Refused(read.collect());
        }
        let mut changed = BTreeSet::new();
        for op in &txn.then {
            let (Op::Put(key, ..) | Op::Delete(key)) = op;
            assert!(changed.insert(key), "etcd refuses to change {key} twice in a transaction");
            if let Op::Put(_, _, lease) = op
                && *lease != 0
                && !self.leases.contains_key(lease)
            {
                return Reply::Expired;
            }
        }
        self.revision += 1;
        for op in txn.then {
            match op {
                Op::Put(key, value, lease) => {
                    let modified = self.revision;
                    let created = self.keys.get(&key).map_or(modified, |kv| kv.created);
                    self.ever.insert(key.clone());
                    self.keys.insert(key, Kv { value, created, modified, lease });
                }
                Op::Delete(key) => {
                    self.keys.remove(&key);
                }
            }
        }
        Reply::Done(self.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(etcd: &mut Etcd, now: Time, lease: i64) -> Reply {
        etcd.apply(
            now,
            Request::Txn(Txn {
                when: vec![Compare::Created("k".into(), 0)],
                then: vec![Op::Put("k".into(), vec![1], lease)],
                otherwise: vec!["k".into()],
            }),
        )
    }

    #[test]
    fn a_key_ends_with_its_lease_and_is_another_one_afterwards() {
        let mut etcd = Etcd::default();
        let at = Time::from_secs;
        let grant =
            |etcd: &mut Etcd, now| match etcd.apply(now, Request::Grant(Duration::from_secs(2))) {
                Reply::Granted(lease) => lease,
                other => panic!("{other:?}"),
            };
        let first = grant(&mut etcd, at(0));
        let Reply::Done(created) = take(&mut etcd, at(0), first) else { panic!() };
        assert!(matches!(etcd.apply(at(1), Request::KeepAlive(first)), Reply::Alive));
        let second = grant(&mut etcd, at(2));
        let Reply::Refused(read) = take(&mut etcd, at(2), second) else { panic!() };
        assert_eq!(read[0].as_ref().map(|kv| kv.created), Some(created));
        let Reply::Done(again) = take(&mut etcd, at(3), second) else { panic!() };
        assert!(again > created);
        assert!(matches!(etcd.apply(at(3), Request::KeepAlive(first)), Reply::Expired));
        assert!(matches!(take(&mut etcd, at(9), first), Reply::Expired));
    }
}
