//! Writes the registry: one write at a time, and all that came meanwhile goes
//! into the next.

use std::{sync::Arc, time::Instant};

use tokio::sync::{mpsc, watch};

use super::metrics::Metrics;
use crate::registry::{Registry, RegistryError, RegistryOp};

/// One call's operations, numbered from 1 without gaps.
#[derive(Debug)]
pub struct Write {
    /// Its number.
    pub number: u64,
    /// What to write.
    pub ops: Vec<RegistryOp>,
}

/// Writes until the queue is closed and empty. `written` is the number of the
/// last write that is durable.
///
/// # Errors
/// The registry's; nothing is written after it.
pub async fn write_registry<R: Registry>(
    mut registry: R,
    mut queue: mpsc::UnboundedReceiver<Write>,
    written: watch::Sender<u64>,
    metrics: Arc<Metrics>,
) -> Result<(), RegistryError> {
    while let Some(Write { mut number, mut ops }) = queue.recv().await {
        while let Ok(more) = queue.try_recv() {
            number = more.number;
            ops.extend(more.ops);
        }
        metrics.hot.registry_write_ops.record(ops.len() as f64);
        let started = Instant::now();
        registry.apply(ops).await?;
        metrics.hot.registry_write_seconds.record(started.elapsed().as_secs_f64());
        written.send_replace(number);
    }
    Ok(())
}
