//! The threads that carry the SDK's drivers, and the log: one of each for all drivers of
//! this JVM.

use std::{
    env,
    sync::{Mutex, PoisonError},
};

use tokio::runtime::{Builder, Handle, Runtime};
use tracing::warn;
use tracing_subscriber::EnvFilter;

use crate::error::Error;

/// Enough for the links of a program's few drivers; callbacks have threads of their own.
const WORKERS: usize = 2;

static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);

/// The runtime, started when it is first asked for. Threads of the JVM wait for the SDK by its
/// `block_on`; none of them is its own.
pub(crate) fn handle() -> Result<Handle, Error> {
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = &*runtime {
        return Ok(runtime.handle().clone());
    }
    log_to_stderr();
    let started = Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("mezz")
        .enable_all()
        .build()
        .map_err(Error::Thread)?;
    Ok(runtime.insert(started).handle().clone())
}

/// What RUST_LOG asks for, or else warnings: libmesos, too, writes its log to stderr.
fn log_to_stderr() {
    let wanted = env::var("RUST_LOG").map(|text| text.parse::<EnvFilter>());
    let (filter, unreadable) = match wanted {
        Ok(Ok(filter)) => (filter, None),
        Ok(Err(error)) => (EnvFilter::new("warn"), Some(error)),
        Err(_) => (EnvFilter::new("warn"), None),
    };
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // A JVM outlives whoever reads its stderr: what cannot be written is lost, and must
        // not panic.
        .log_internal_errors(false)
        .try_init();
    // Fails only when logging has been started already.
    drop(started);
    if let Some(error) = unreadable {
        warn!(%error, "RUST_LOG: cannot be read; warnings are logged");
    }
}
