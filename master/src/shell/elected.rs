//! A master among several: stands by, leads when it is elected, and stands by again.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::serve::{MasterError, Process};
use crate::{
    election::{Candidate, Won},
    etcd::{Etcd, EtcdError, EtcdOptions},
    options::MasterOptions,
    registry::{EtcdRegistry, RegistryError},
};

/// Between attempts to get a token for user and password.
const CONNECT_PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn run(
    options: MasterOptions,
    etcd: EtcdOptions,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), MasterError> {
    let stop = shutdown.child_token();
    let _stop_on_drop = stop.clone().drop_guard();
    let process = Process::new(&options, &listener, stop)?;
    process.serve_while(listener, stand(&process, &etcd)).await
}

/// Takes part until the process is to stop.
async fn stand(process: &Process, options: &EtcdOptions) -> Result<(), MasterError> {
    let connected = process.stop.run_until_cancelled(connect(options)).await;
    let Some(etcd) = connected.transpose()? else { return Ok(()) };
    let address = process.address().to_owned();
    let mut candidate = Candidate::new(etcd.clone(), options.lease, address);
    loop {
        let mut known = None;
        let campaign = candidate.campaign(|leader| {
            let leader = leader.map(|l| l.address).filter(|a| !a.is_empty());
            if known.as_ref() != Some(&leader) {
                let leader = leader.as_deref().unwrap_or("nobody");
                info!(leader, "standing by");
            }
            known = Some(leader.clone());
            process.front.stand_by(leader);
        });
        let won = process.stop.run_until_cancelled(campaign).await;
        let Some(won) = won.transpose().map_err(RegistryError::from)? else {
            // It may have won just now.
            candidate.resign().await;
            return Ok(());
        };
        let led = lead(process, &etcd, &mut candidate, won).await;
        process.front.stand_by(None);
        candidate.resign().await;
        match led {
            // Another master has the registry; whatever this one had in mind was not
            // told to anybody.
            Err(MasterError::Registry(RegistryError::Deposed { .. })) => {}
            Err(MasterError::Registry(RegistryError::Etcd(error))) if error.may_pass() => {
                let error = mezz_proto::error::chain(&error);
                warn!(error, "cannot lead without the registry");
            }
            led => led?,
        }
        if process.stop.is_cancelled() {
            return Ok(());
        }
        warn!("this master leads no more");
    }
}

async fn lead(
    process: &Process,
    etcd: &Etcd,
    candidate: &mut Candidate,
    won: Won,
) -> Result<(), MasterError> {
    let Won { fence, tenure } = won;
    info!(fence, "elected");
    let over = process.stop.child_token();
    let term = async {
        let registry = EtcdRegistry::new(etcd.clone(), fence, tenure.clone());
        let id = uuid::Uuid::new_v4().to_string();
        let begun = over.run_until_cancelled(process.begin(registry, tenure.clone(), id)).await;
        match begun.transpose()? {
            Some(term) => term.run(over.clone()).await,
            None => Ok(()),
        }
    };
    tokio::pin!(term);
    tokio::select! {
        led = &mut term => led,
        lost = candidate.keep(&tenure) => {
            warn!(fence, "the leadership is lost: {lost}");
            // Before the last write that hangs is given up.
            process.front.stand_by(None);
            over.cancel();
            term.await
        }
    }
}

/// Connects; while etcd does not answer, it waits.
async fn connect(options: &EtcdOptions) -> Result<Etcd, RegistryError> {
    loop {
        match Etcd::connect(options).await {
            Err(error @ EtcdError::Unreachable { .. }) => {
                let error = mezz_proto::error::chain(&error);
                warn!(error, "waiting for etcd");
                tokio::time::sleep(CONNECT_PAUSE).await;
            }
            connected => return Ok(connected?),
        }
    }
}
