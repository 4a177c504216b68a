//! Keys that the leader alone may change: every write is fenced by the leader's key, so
//! that one who leads no more can change nothing, and numbered, so that one that is
//! repeated is done once.

use std::{collections::BTreeMap, time::Duration};

use etcd_client::{
    Compare, CompareOp, GetOptions, GetResponse, KeyValue, Txn, TxnOp, TxnOpResponse,
};
use mezz_proto::error::chain;
use thiserror::Error;
use tracing::{info, warn};

use super::Tenure;
use crate::etcd::{Etcd, EtcdError, Keys};

/// Operations in one transaction: etcd allows 128 unless told otherwise
/// (`--max-txn-ops`), and one is the writer's own.
const MAX_OPS: usize = 127;

/// Bytes of keys and values in one transaction. etcd takes 1.5 MiB unless told
/// otherwise (`--max-request-bytes`). No single value may have more than 1 MiB.
const MAX_BYTES: usize = 1280 << 10;

/// Records that are read at once, at first. etcd goes through all that are left of a range to
/// count them, so many small pages of many records cost it more than the records.
const PAGE: i64 = 500;

/// Then as many as have so many bytes, if they are like those before: a page must come within
/// [`ATTEMPT`](crate::etcd::ATTEMPT) also from a busy etcd.
const PAGE_BYTES: usize = 1 << 20;

/// And no more than this.
const LARGEST_PAGE: i64 = 4096;

/// Between attempts, from the first to the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How often reading is begun anew because etcd was compacted meanwhile.
const READINGS: usize = 10;

/// One key and what is to become of it: its value, or nothing.
pub type Change = (String, Option<Vec<u8>>);

/// Why the leader's keys cannot be written or read.
#[derive(Debug, Error)]
pub enum FencedError {
    /// This process leads no more, so it may not write.
    #[error("this process leads no more; the keys in {place} are another one's to write")]
    Deposed {
        /// An address.
        place: String,
    },
    /// etcd's.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
}

/// The keys of the process that leads. After an error, or a call that was broken off, it
/// is not to be used again: the next write would have the number of one that may be done.
#[derive(Debug)]
pub struct Fenced {
    etcd: Etcd,
    tenure: Tenure,
    /// The create revision of the leader's key.
    fence: i64,
    /// The last write that is done, once this leader has begun to write.
    written: Option<u64>,
}

impl Fenced {
    /// For the leader whose key was created at revision `fence`. It tries as long as
    /// the tenure holds.
    pub fn new(etcd: Etcd, fence: i64, tenure: Tenure) -> Self {
        Self { etcd, tenure, fence, written: None }
    }

    /// Where they are, for people.
    pub fn place(&self) -> &str {
        self.etcd.place()
    }

    /// Where everything lies.
    pub fn keys(&self) -> &Keys {
        self.etcd.keys()
    }

    /// Whether this process may still decide.
    pub fn holds(&self) -> bool {
        self.tenure.holds()
    }

    /// Makes these changes; they are durable when it returns. The last one of each key
    /// counts; transactions are made in the order of the rest. Values have at most 1 MiB.
    /// When this fails, a part may be written: whole values, in order.
    ///
    /// # Errors
    /// [`FencedError::Deposed`], or etcd's if waiting does not help.
    pub async fn apply(&mut self, changes: Vec<Change>) -> Result<(), FencedError> {
        let changes = last_of_each(changes);
        for batch in batches(&changes) {
            self.commit(batch).await?;
        }
        Ok(())
    }

    /// All keys with each of these prefixes, in order, as they were at one moment of
    /// this leadership. Prefixes end with `/`.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub async fn read(&mut self, prefixes: &[String]) -> Result<Vec<Vec<KeyValue>>, FencedError> {
        self.read_as(prefixes, |_, kv| kv).await
    }

    /// The same, each as `decode` makes it of the place of its prefix and of what was found:
    /// while etcd looks for more.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub async fn read_as<T>(
        &mut self,
        prefixes: &[String],
        decode: impl Fn(usize, KeyValue) -> T,
    ) -> Result<Vec<Vec<T>>, FencedError> {
        // Only the leader's own view is worth anything.
        self.commit(&[]).await?;
        let mut readings = 0;
        let mut pause = BACKOFF.0;
        loop {
            readings += 1;
            match self.read_once(prefixes, &decode).await {
                Err(error)
                    if error.may_pass()
                        && self.tenure.holds()
                        && (readings < READINGS
                            || !matches!(error, EtcdError::Compacted { .. })) =>
                {
                    let error = chain(&error);
                    warn!(%error, "the leader's keys are read anew");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF.1);
                }
                read => return Ok(read?),
            }
        }
    }

    fn number(&self, written: u64) -> String {
        format!("{}:{written}", self.fence)
    }

    fn is_leader(&self) -> Compare {
        Compare::create_revision(self.etcd.keys().leader(), CompareOp::Equal, self.fence)
    }

    /// The first write of a leader, from which its own are numbered. A predecessor's last
    /// write is older than the fence: an attempt that arrives late finds a newer one, and
    /// changes nothing.
    async fn begin(&mut self) -> Result<u64, FencedError> {
        let writer = self.etcd.keys().writer();
        let put = TxnOp::put(writer.as_str(), self.number(0), None);
        let of_others = Compare::mod_revision(writer, CompareOp::Less, self.fence);
        self.write("beginning to write", of_others, vec![put], 0).await
    }

    /// Writes all of `changes` at once.
    async fn commit(&mut self, changes: &[Change]) -> Result<(), FencedError> {
        let last = match self.written {
            Some(last) => last,
            None => self.begin().await?,
        };
        let writer = self.etcd.keys().writer();
        let mut ops: Vec<TxnOp> = changes
            .iter()
            .map(|(key, value)| match value {
                Some(value) => TxnOp::put(key.as_str(), value.as_slice(), None),
                None => TxnOp::delete(key.as_str(), None),
            })
            .collect();
        ops.push(TxnOp::put(writer.as_str(), self.number(last + 1), None));
        let follows = Compare::value(writer, CompareOp::Equal, self.number(last));
        self.write("writing", follows, ops, last + 1).await?;
        Ok(())
    }

    /// One transaction, by which the writer's number becomes `number`.
    async fn write(
        &mut self,
        doing: &'static str,
        follows: Compare,
        ops: Vec<TxnOp>,
        number: u64,
    ) -> Result<u64, FencedError> {
        let keys = self.etcd.keys();
        let txn = Txn::new()
            .when([self.is_leader(), follows])
            .and_then(ops)
            .or_else([TxnOp::get(keys.leader(), None), TxnOp::get(keys.writer(), None)]);
        let answer = self.persist(doing, &txn).await?;
        if !answer.succeeded() {
            let mut found = answer.op_responses().into_iter().map(|response| match response {
                TxnOpResponse::Get(mut got) => got.take_kvs().pop(),
                _ => None,
            });
            let (leader, writer) = (found.next().flatten(), found.next().flatten());
            // An attempt whose answer was lost has done it.
            let done_before = writer.is_some_and(|kv| kv.value() == self.number(number).as_bytes());
            if leader.is_none_or(|kv| kv.create_revision() != self.fence) || !done_before {
                return Err(self.deposed());
            }
        }
        self.written = Some(number);
        Ok(number)
    }

    /// Makes the transaction, again and again while this may help and the tenure holds.
    async fn persist(
        &self,
        doing: &'static str,
        txn: &Txn,
    ) -> Result<etcd_client::TxnResponse, FencedError> {
        self.retry(|| {
            self.etcd.ask(doing, |client| {
                let txn = txn.clone();
                async move { client.kv_client().txn(txn).await }
            })
        })
        .await
    }

    async fn retry<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, FencedError>
    where
        F: Future<Output = Result<T, EtcdError>>,
    {
        let mut pause = BACKOFF.0;
        let mut failures = 0u32;
        loop {
            // Also the first: what is not asked in time is not asked.
            if !self.tenure.holds() {
                return Err(self.deposed());
            }
            match attempt().await {
                Ok(done) => {
                    if failures > 0 {
                        info!(failures, "{} answers again", self.etcd.place());
                    }
                    return Ok(done);
                }
                Err(error) if error.may_pass() => {
                    failures += 1;
                    // Once at first, then about every ten seconds.
                    if failures % 10 == 1 {
                        let error = chain(&error);
                        warn!(failures, %error, "a write waits for etcd");
                    }
                }
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    fn deposed(&self) -> FencedError {
        FencedError::Deposed { place: self.etcd.place().to_owned() }
    }

    async fn read_once<T>(
        &self,
        prefixes: &[String],
        decode: &impl Fn(usize, KeyValue) -> T,
    ) -> Result<Vec<Vec<T>>, EtcdError> {
        let mut revision = None;
        let mut all = Vec::new();
        for (place, prefix) in prefixes.iter().enumerate() {
            let (found, at) = self.range(prefix, revision, |kv| decode(place, kv)).await?;
            // All of it as it was at one moment.
            revision = Some(at);
            all.push(found);
        }
        Ok(all)
    }

    /// All keys with this prefix, in order, and the revision that was read.
    async fn range<T>(
        &self,
        prefix: &str,
        revision: Option<i64>,
        decode: impl Fn(KeyValue) -> T,
    ) -> Result<(Vec<T>, i64), EtcdError> {
        let end = range_end(prefix);
        let mut all = Vec::new();
        let mut page = self.page(prefix.as_bytes().to_vec(), &end, PAGE, revision).await?;
        let at = page.header().map_or(0, etcd_client::ResponseHeader::revision);
        let revision = revision.unwrap_or(at);
        loop {
            let bytes = page.kvs().iter().map(|kv| kv.key().len() + kv.value().len()).sum();
            let limit = next_page(page.kvs().len(), bytes);
            let more = page.more();
            let found = page.take_kvs();
            let last = found.last().filter(|_| more).map(|last| last.key().to_vec());
            // Etcd is asked for the next page first, and makes it meanwhile.
            let decoding = async { all.extend(found.into_iter().map(&decode)) };
            let Some(mut from) = last else {
                decoding.await;
                return Ok((all, revision));
            };
            from.push(0);
            let asking = self.page(from, &end, limit, Some(revision));
            page = tokio::join!(biased; asking, decoding).0?;
        }
    }

    /// Keys from the first to before the last, up to so many, and of fewer if so many do not
    /// come.
    async fn page(
        &self,
        from: Vec<u8>,
        end: &[u8],
        limit: i64,
        revision: Option<i64>,
    ) -> Result<GetResponse, EtcdError> {
        let mut limit = limit;
        loop {
            let options = GetOptions::new()
                .with_range(end)
                .with_limit(limit)
                .with_revision(revision.unwrap_or(0));
            let page = self
                .etcd
                .ask("reading", |client| {
                    let (from, options) = (from.clone(), options.clone());
                    async move { Etcd::reader(&client).get(from, Some(options)).await }
                })
                .await;
            match page {
                // The records that follow may be much larger than those before.
                Err(_) if limit > PAGE => limit = PAGE,
                page => return page,
            }
        }
    }
}

/// etcd refuses a transaction that changes a key twice.
fn last_of_each(changes: Vec<Change>) -> Vec<Change> {
    let last: BTreeMap<String, usize> =
        changes.iter().enumerate().map(|(n, (key, _))| (key.clone(), n)).collect();
    let keep = |n: usize, key: &String| last.get(key) == Some(&n);
    changes.into_iter().enumerate().filter(|(n, (key, _))| keep(*n, key)).map(|(_, c)| c).collect()
}

/// Cuts into what one transaction takes.
fn batches(changes: &[Change]) -> Vec<&[Change]> {
    let mut batches = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for (n, (key, value)) in changes.iter().enumerate() {
        let size = key.len() + value.as_ref().map_or(0, Vec::len);
        if n > first && (n - first == MAX_OPS || bytes + size > MAX_BYTES) {
            batches.push(&changes[first..n]);
            (first, bytes) = (n, 0);
        }
        bytes += size;
    }
    if first < changes.len() {
        batches.push(&changes[first..]);
    }
    batches
}

/// How many records to read after so many that had so many bytes.
fn next_page(records: usize, bytes: usize) -> i64 {
    let fit = PAGE_BYTES.saturating_mul(records) / bytes.max(1);
    i64::try_from(fit).map_or(PAGE, |fit| fit.clamp(PAGE, LARGEST_PAGE))
}

/// The first key after all that begin with this. Ours end with `/`, which has a
/// successor.
fn range_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
#[path = "fenced_tests.rs"]
mod tests;
