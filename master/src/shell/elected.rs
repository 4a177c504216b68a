//! A master among several: stands by, leads when it is elected, and stands by again.

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::serve::{MasterError, Process};
use crate::{
    election::{Won, stand},
    etcd::{Etcd, EtcdError, EtcdOptions},
    options::MasterOptions,
    registry::{EtcdRegistry, RegistryError},
};

impl From<EtcdError> for MasterError {
    fn from(error: EtcdError) -> Self {
        Self::Registry(error.into())
    }
}

pub(super) async fn run(
    options: MasterOptions,
    etcd: EtcdOptions,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), MasterError> {
    let stop = shutdown.child_token();
    let _stop_on_drop = stop.clone().drop_guard();
    let process = Process::new(&options, &listener, stop)?;
    let standing = stand(
        &etcd,
        process.address(),
        &process.stop,
        |leader| process.front.stand_by(leader),
        |etcd, won, over| lead(&process, etcd, won, over),
    );
    process.serve_while(listener, standing).await
}

/// Leads until the leadership is over, and says so.
async fn lead(
    process: &Process,
    etcd: Etcd,
    won: Won,
    over: CancellationToken,
) -> Result<(), MasterError> {
    match term(process, etcd, won, over).await {
        // Another master has the registry; whatever this one had in mind was not
        // told to anybody.
        Err(MasterError::Registry(RegistryError::Deposed { .. })) => {}
        Err(MasterError::Registry(RegistryError::Etcd(error))) if error.may_pass() => {
            let error = mezz_proto::error::chain(&error);
            warn!(error, "cannot lead without the registry");
        }
        led => led?,
    }
    if !process.stop.is_cancelled() {
        warn!("this master leads no more");
    }
    Ok(())
}

async fn term(
    process: &Process,
    etcd: Etcd,
    Won { fence, tenure }: Won,
    over: CancellationToken,
) -> Result<(), MasterError> {
    let registry = EtcdRegistry::new(etcd, fence, tenure.clone());
    let id = uuid::Uuid::new_v4().to_string();
    match over.run_until_cancelled(process.begin(registry, tenure, id)).await.transpose()? {
        Some(term) => term.run(over.clone()).await,
        None => Ok(()),
    }
}
