//! How fast the registry in etcd is written: one writer, as a master is. Beside it what
//! etcd does with plain puts of the same size.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mezz_master::{
    election::Candidate,
    etcd::{Etcd as Connection, EtcdOptions, TlsFiles},
    registry::{EtcdRegistry, Registry, RegistryOp},
};
use mezz_proto::{
    mezz::v1 as mezz,
    resources::{Dialect, Resources},
    v1,
};
use prost::Message;

use super::FailoverArgs;
use crate::{
    etcd::{Etcd, PREFIX},
    report::{Measurement, Report},
};

/// Different agents in turn.
const AGENTS: usize = 10_000;

/// Records of one call, as when a storm of agents is admitted while the call before is
/// written: many transactions, one after the other.
const BATCH: usize = 4096;

/// Clients that put at the same time.
const CLIENTS: usize = 64;

pub(super) async fn run(args: &FailoverArgs, report: &mut Report) -> Result<()> {
    let etcd = Etcd::start(args.etcd_dir.as_deref()).await?;
    let time = Duration::from_secs(args.seconds);
    let records: Vec<_> = (0..AGENTS).map(record).collect::<Result<_>>()?;
    let bytes = records.iter().map(Message::encoded_len).sum::<usize>() / AGENTS;

    let alone = puts(&etcd, &records, 1, time).await?;
    let together = puts(&etcd, &records, CLIENTS, time).await?;

    let options = EtcdOptions {
        endpoints: vec![format!("http://{}", etcd.address)],
        prefix: PREFIX.to_owned(),
        user: None,
        tls: TlsFiles::default(),
        // Longer than the measurement, so that nothing renews it meanwhile.
        lease: Duration::from_secs(300),
    };
    let connection = Connection::connect(&options).await?;
    let mut candidate = Candidate::new(connection.clone(), options.lease, "bench:1".to_owned());
    let won = candidate.campaign(|_| {}).await?;
    let mut registry = EtcdRegistry::new(connection, won.fence, won.tenure);
    registry.load().await?;
    let single = writes(&mut registry, &records, 1, time).await?;
    let transaction = writes(&mut registry, &records, 127, time).await?;
    let batch = writes(&mut registry, &records, BATCH, time).await?;
    let read = Instant::now();
    let found = registry.load().await?.agents.len();
    let read = read.elapsed().as_secs_f64();
    for (name, unit, value) in [
        ("registry.puts_1_client", "puts/s", alone),
        ("registry.puts_64_clients", "puts/s", together),
        ("registry.writes_of_1", "records/s", single),
        ("registry.writes_of_127", "records/s", transaction),
        ("registry.writes_of_4096", "records/s", batch),
        ("registry.read", "records/s", found as f64 / read),
    ] {
        report.add(Measurement::new(name, unit, vec![value]).with("record_bytes", bytes));
    }
    Ok(())
}

fn record(n: usize) -> Result<mezz::AgentRecord> {
    let resources = Resources::parse("cpus:24;mem:4096;disk:4096;ports:[31000-32000]")?;
    Ok(mezz::AgentRecord {
        agent: v1::AgentInfo {
            id: Some(v1::AgentId { value: format!("00000000-0000-0000-0000-000000000000-S{n}") }),
            hostname: format!("host{n}.example"),
            port: Some(5051),
            resources: resources.to_proto(Dialect::Refined, None),
            ..Default::default()
        },
        ..Default::default()
    })
}

/// Puts in a second, by so many clients with a request each.
async fn puts(
    etcd: &Etcd,
    records: &[mezz::AgentRecord],
    clients: usize,
    time: Duration,
) -> Result<f64> {
    let values: Vec<Vec<u8>> = records.iter().map(Message::encode_to_vec).collect();
    let values = std::sync::Arc::new(values);
    let mut tasks = tokio::task::JoinSet::new();
    let began = Instant::now();
    for n in 0..clients {
        let (mut client, values) = (etcd.client().await?, values.clone());
        tasks.spawn(async move {
            let mut done = 0usize;
            while began.elapsed() < time {
                let at = (done * CLIENTS + n) % values.len();
                client.put(format!("/plain/{at}"), values[at].clone(), None).await?;
                done += 1;
            }
            anyhow::Ok(done)
        });
    }
    let mut all = 0;
    while let Some(done) = tasks.join_next().await {
        all += done??;
    }
    Ok(all as f64 / began.elapsed().as_secs_f64())
}

/// Records in a second, so many in each call.
async fn writes(
    registry: &mut EtcdRegistry,
    records: &[mezz::AgentRecord],
    size: usize,
    time: Duration,
) -> Result<f64> {
    let began = Instant::now();
    let mut done = 0;
    let mut records = records.iter().cycle();
    while began.elapsed() < time {
        let ops: Vec<_> = records.by_ref().take(size).cloned().map(RegistryOp::PutAgent).collect();
        registry.apply(ops).await.context("writing the registry")?;
        done += size;
    }
    Ok(done as f64 / began.elapsed().as_secs_f64())
}
