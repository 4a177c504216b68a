//! A process among several: stands by, leads when it is elected, and stands by again.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Candidate, Won};
use crate::etcd::{Etcd, EtcdError, EtcdOptions};

/// Between attempts to get a token for user and password.
const CONNECT_PAUSE: Duration = Duration::from_secs(1);

/// Takes part until `stop` is cancelled. `stand_by` hears who else leads, or that nobody
/// is known to. `lead` does what a leader does until its token is cancelled or its tenure
/// ends; when it returns without an error, this process stands by again.
///
/// `address` is the host:port that peers are told while this process leads.
///
/// # Errors
/// Those of `lead`, and etcd's where waiting would not help. While etcd does not
/// answer, it waits.
pub async fn stand<E, F>(
    options: &EtcdOptions,
    address: &str,
    stop: &CancellationToken,
    stand_by: impl Fn(Option<String>),
    lead: impl Fn(Etcd, Won, CancellationToken) -> F,
) -> Result<(), E>
where
    E: From<EtcdError>,
    F: Future<Output = Result<(), E>>,
{
    let connected = stop.run_until_cancelled(connect(options)).await;
    let Some(etcd) = connected.transpose()? else { return Ok(()) };
    let mut candidate = Candidate::new(etcd.clone(), options.lease, address.to_owned());
    loop {
        let mut known = None;
        let campaign = candidate.campaign(|leader| {
            let leader = leader.map(|l| l.address).filter(|a| !a.is_empty());
            if known.as_ref() != Some(&leader) {
                let leader = leader.as_deref().unwrap_or("nobody");
                info!(leader, "standing by");
            }
            known = Some(leader.clone());
            stand_by(leader);
        });
        let won = stop.run_until_cancelled(campaign).await;
        let Some(won) = won.transpose()? else {
            // It may have won just now.
            candidate.resign().await;
            return Ok(());
        };
        let (fence, tenure) = (won.fence, won.tenure.clone());
        info!(fence, "elected");
        let over = stop.child_token();
        let led = {
            let term = lead(etcd.clone(), won, over.clone());
            tokio::pin!(term);
            tokio::select! {
                led = &mut term => led,
                lost = candidate.keep(&tenure) => {
                    warn!(fence, "the leadership is lost: {lost}");
                    // Before the last write that hangs is given up.
                    stand_by(None);
                    over.cancel();
                    term.await
                }
            }
        };
        stand_by(None);
        candidate.resign().await;
        led?;
        if stop.is_cancelled() {
            return Ok(());
        }
    }
}

/// Connects; while etcd does not answer, it waits.
async fn connect(options: &EtcdOptions) -> Result<Etcd, EtcdError> {
    loop {
        match Etcd::connect(options).await {
            Err(error @ EtcdError::Unreachable { .. }) => {
                let error = mezz_proto::error::chain(&error);
                warn!(error, "waiting for etcd");
                tokio::time::sleep(CONNECT_PAUSE).await;
            }
            connected => return connected,
        }
    }
}
