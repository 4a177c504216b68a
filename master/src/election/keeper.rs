//! Asks etcd what the machine wants to know.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse};
use mezz_proto::error::chain;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::{
    machine::{Answer, Ask, Election, Leader, Lost, News, Next},
    tenure::{Tenure, now},
};
use crate::etcd::{Etcd, EtcdError};

/// A lease is given back within this, or left to its end.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(1);

/// Of which the member of etcd that is asked first may have so much.
const RESIGN_ATTEMPT: Duration = Duration::from_millis(300);

/// Between two attempts.
const RESIGN_PAUSE: Duration = Duration::from_millis(20);

/// One master in the election.
#[derive(Debug)]
pub struct Candidate {
    etcd: Etcd,
    election: Election,
    lease: Duration,
    /// Tells this process's own key from those of others.
    id: String,
    address: String,
    held: Option<Held>,
    /// Asked for with the leadership, and not known to be of use or to be gone.
    granted: Option<i64>,
}

/// A leadership.
#[derive(Clone, Copy, Debug)]
struct Held {
    lease: i64,
    /// The create revision of the leader's key.
    fence: i64,
}

/// A leadership that has begun.
#[derive(Clone, Debug)]
pub struct Won {
    /// The create revision of the leader's key: grows from leader to leader.
    pub fence: i64,
    /// How long it lasts.
    pub tenure: Tenure,
}

impl Candidate {
    /// With a lease of whole seconds. `address` is what peers are told.
    pub fn new(etcd: Etcd, lease: Duration, address: String) -> Self {
        Self {
            etcd,
            election: Election::new(lease),
            lease,
            id: uuid::Uuid::new_v4().to_string(),
            address,
            held: None,
            granted: None,
        }
    }

    /// Stands by until this master leads; `heard` is told who does meanwhile.
    ///
    /// # Errors
    /// [`EtcdError`] where waiting would not help. While etcd does not answer, it waits.
    pub async fn campaign(
        &mut self,
        mut heard: impl FnMut(Option<Leader>),
    ) -> Result<Won, EtcdError> {
        let mut failures = 0u32;
        loop {
            let began = now();
            let (ask, patience) = match self.election.next(began) {
                Next::Ask(ask, patience) => (ask, patience),
                Next::Sleep(until) => {
                    sleep(until.since(began)).await;
                    continue;
                }
                Next::Lost(_) => continue,
            };
            let answer = match self.ask_within(ask, patience).await {
                Err(error) if !error.may_pass() && !expired(&error) => return Err(error),
                Err(error) => {
                    failures += 1;
                    // Once at first, then about every ten seconds.
                    if failures % 8 == 1 {
                        let error = chain(&error);
                        warn!(failures, %error, "the election waits for etcd");
                    }
                    Answer::Failed
                }
                Ok(answer) => {
                    failures = 0;
                    answer
                }
            };
            match self.election.answer(began, now(), answer) {
                News::Leading(until) => {
                    if let Some(held) = self.held {
                        return Ok(Won { fence: held.fence, tenure: Tenure::until(until) });
                    }
                }
                News::TooLate => self.resign().await,
                News::Standby(leader) => heard(leader),
                News::Same | News::Lost(_) => {}
            }
        }
    }

    /// Renews the lease until that fails for too long, and then ends the tenure. To be
    /// called again only after [`campaign`](Self::campaign).
    pub async fn keep(&mut self, tenure: &Tenure) -> Lost {
        let lost = loop {
            let began = now();
            let (ask, patience) = match self.election.next(began) {
                Next::Ask(ask, patience) => (ask, patience),
                Next::Sleep(until) => {
                    sleep(until.since(began)).await;
                    continue;
                }
                Next::Lost(lost) => break lost,
            };
            let answer = match self.ask_within(ask, patience).await {
                Ok(answer) => answer,
                Err(error) if expired(&error) => Answer::Deposed,
                Err(error) => {
                    let error = chain(&error);
                    warn!(%error, "the leader's lease is not renewed yet");
                    Answer::Failed
                }
            };
            match self.election.answer(began, now(), answer) {
                News::Leading(until) => tenure.extend(until),
                News::Lost(lost) => break lost,
                News::Same | News::Standby(_) | News::TooLate => {}
            }
        };
        tenure.end();
        lost
    }

    /// Gives the lease back, so that another master need not wait for its end.
    pub async fn resign(&mut self) {
        self.election.stand_by(now());
        let fence = self.held.map(|held| held.fence);
        // Of a campaign that was broken off it is not known whether it was won.
        let lease = self.held.take().map(|held| held.lease).or(self.granted.take());
        let Some(lease) = lease else { return };
        let revoke = async {
            loop {
                match timeout(RESIGN_ATTEMPT, self.revoke(lease)).await {
                    Ok(Err(error)) if error.may_pass() => sleep(RESIGN_PAUSE).await,
                    Ok(done) => return done,
                    Err(_) => {}
                }
            }
        };
        match timeout(RESIGN_TIMEOUT, revoke).await {
            Ok(Ok(())) => info!(fence, "the leader's lease is given back"),
            Ok(Err(error)) => {
                debug!(error = %chain(&error), "the lease is left to its end");
            }
            Err(_) => debug!("the lease is left to its end"),
        }
    }

    async fn ask_within(&mut self, ask: Ask, patience: Duration) -> Result<Answer, EtcdError> {
        let asking = async {
            match ask {
                Ask::Look => self.look().await,
                Ask::Campaign => self.stand().await,
                Ask::Renew => self.renew().await,
            }
        };
        match timeout(patience, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(EtcdError::Unreachable {
                place: self.etcd.place().to_owned(),
                doing: "asking who leads",
                source: None,
            }),
        }
    }

    async fn look(&self) -> Result<Answer, EtcdError> {
        let Some(kv) = self.leader().await? else { return Ok(Answer::Vacant) };
        let (id, leader) = read(&kv);
        if id.as_deref() == Some(&*self.id) {
            // Of a campaign whose answer was lost.
            self.revoke(kv.lease()).await?;
            return Ok(Answer::Vacant);
        }
        Ok(Answer::Leads(leader))
    }

    async fn stand(&mut self) -> Result<Answer, EtcdError> {
        let seconds = i64::try_from(self.lease.as_secs()).unwrap_or(i64::MAX);
        let doing = "asking for a lease";
        let granted = self
            .etcd
            .ask(doing, |client| async move { client.lease_client().grant(seconds, None).await })
            .await?;
        self.granted = Some(granted.id());
        let key = self.etcd.keys().leader();
        let value = json!({ "id": self.id, "address": self.address }).to_string();
        let put = TxnOp::put(key.as_str(), value, Some(PutOptions::new().with_lease(granted.id())));
        let txn = Txn::new()
            .when([Compare::create_revision(key.as_str(), CompareOp::Equal, 0)])
            .and_then([put])
            .or_else([TxnOp::get(key, None)]);
        let answer = self
            .etcd
            .ask("asking for the leadership", |client| {
                let txn = txn.clone();
                async move { client.kv_client().txn(txn).await }
            })
            .await?;
        if answer.succeeded() {
            let fence = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
            self.held = Some(Held { lease: granted.id(), fence });
            self.granted = None;
            let seconds = u64::try_from(granted.ttl()).unwrap_or(0);
            return Ok(Answer::Won(Duration::from_secs(seconds)));
        }
        self.revoke(granted.id()).await?;
        self.granted = None;
        let holder = answer.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(mut got) => got.take_kvs().pop(),
            _ => None,
        });
        Ok(holder.map_or(Answer::Vacant, |kv| Answer::Leads(read(&kv).1)))
    }

    async fn renew(&self) -> Result<Answer, EtcdError> {
        let Some(held) = self.held else { return Ok(Answer::Deposed) };
        self.etcd
            .ask("renewing the leader's lease", |client| async move {
                // The lease is renewed with its first answer; the stream is for more.
                client.lease_client().keep_alive(held.lease).await.map(drop)
            })
            .await?;
        let ours = self.leader().await?.is_some_and(|kv| kv.create_revision() == held.fence);
        Ok(if ours { Answer::Renewed } else { Answer::Deposed })
    }

    async fn leader(&self) -> Result<Option<KeyValue>, EtcdError> {
        let key = self.etcd.keys().leader();
        let mut got = self
            .etcd
            .ask("asking who leads", |client| {
                let key = key.clone();
                async move { client.kv_client().get(key, None).await }
            })
            .await?;
        Ok(got.take_kvs().pop())
    }

    async fn revoke(&self, lease: i64) -> Result<(), EtcdError> {
        let revoked = self
            .etcd
            .ask("giving a lease back", |client| async move {
                client.lease_client().revoke(lease).await
            })
            .await;
        match revoked {
            Err(error) if expired(&error) => Ok(()),
            revoked => revoked.map(drop),
        }
    }
}

fn expired(error: &EtcdError) -> bool {
    matches!(error, EtcdError::LeaseExpired { .. })
}

/// The process and the address in the leader's key. What no master wrote is a leader
/// without an address: nobody can be sent there, but the key is taken.
fn read(kv: &KeyValue) -> (Option<String>, Leader) {
    let value: Value = serde_json::from_slice(kv.value()).unwrap_or_default();
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    (text("id"), Leader { address: text("address").unwrap_or_default() })
}
