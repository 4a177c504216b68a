//! The threads that carry the SDK's drivers, and the log: one of each for all drivers of
//! this JVM.

use std::{
    future::Future,
    sync::{Mutex, PoisonError},
};

use tokio::runtime::{Builder, Handle, Runtime};
use tracing_subscriber::EnvFilter;

use crate::error::Error;

/// Enough for the links of a program's few drivers; callbacks have threads of their own.
const WORKERS: usize = 2;

static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);

/// The runtime, started when it is first asked for.
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

/// Waits for the SDK on a thread that is not the runtime's: any of the JVM's.
pub(crate) fn block_on<F: Future>(handle: &Handle, future: F) -> F::Output {
    handle.block_on(future)
}

/// What RUST_LOG asks for, or else warnings: libmesos, too, writes its log to stderr.
fn log_to_stderr() {
    let filter = std::env::var("RUST_LOG").ok().and_then(|text| text.parse().ok());
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|| EnvFilter::new("warn")))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
    // Fails only when logging has been started already.
    drop(started);
}
