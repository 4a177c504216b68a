//! From the end of the leader to the first offer of the next: two masters, one real
//! agent, one framework of the SDK.

use std::time::Instant;

use anyhow::Result;
use mezz_proto::resources::Resources;
use mezz_sdk::scheduler::Event;

use super::{EndsBy, FailoverArgs};
use crate::{
    cluster::{Process, free_address, mezz_program},
    etcd::{Etcd, wait_for_leader},
    framework::Framework,
    health,
    report::{Measurement, Report},
};

pub(super) async fn run(args: &FailoverArgs, report: &mut Report) -> Result<()> {
    for lease in &args.leases {
        measure(args, EndsBy::Kill, lease, report).await?;
    }
    // No lease is waited for.
    measure(args, EndsBy::Term, "10s", report).await
}

async fn measure(
    args: &FailoverArgs,
    ends_by: EndsBy,
    lease: &str,
    report: &mut Report,
) -> Result<()> {
    let mezz = mezz_program(args.mezz.as_deref())?;
    let etcd = Etcd::start(args.etcd_dir.as_deref()).await?;
    let mut client = etcd.client().await?;
    let registry = etcd.registry();
    let options = ["--registry", registry.as_str(), "--leader-lease", lease];
    let addresses = [free_address()?, free_address()?];
    let mut leader = Process::master(&mezz, Some(&addresses[0]), &options).await?;
    wait_for_leader(&mut client, &leader.address).await?;
    let mut standby = Process::master(&mezz, Some(&addresses[1]), &options).await?;

    let masters = addresses.join(",");
    let folder = tempfile::tempdir()?;
    let work_dir = folder.path().to_string_lossy().into_owned();
    let agent = ["--resources", "cpus:1;mem:64", "--containment", "none", "--work-dir", &work_dir];
    let _agent = Process::agent(&mezz, &masters, &agent).await?;
    let mut framework = Framework::connect(&masters, "bench", Resources::parse("cpus:1;mem:64")?)?;
    offered(&mut framework, false).await?;

    let (mut elected, mut offers) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        health::wait_until(&standby.address, "standby; the leader is").await?;
        let (mut election, address) = (client.clone(), standby.address.clone());
        let ended = Instant::now();
        let watch = tokio::spawn(async move {
            wait_for_leader(&mut election, &address).await.map(|()| ended.elapsed())
        });
        match ends_by {
            EndsBy::Kill => leader.kill(),
            // It ends only when its connections have: that is not waited for.
            EndsBy::Term => leader.terminate()?,
        }
        offered(&mut framework, true).await?;
        offers.push(ended.elapsed().as_secs_f64());
        elected.push(watch.await??.as_secs_f64());
        // The one that ended is the next standby.
        leader.wait()?;
        let again = leader.address.clone();
        leader = standby;
        standby = Process::master(&mezz, Some(&again), &options).await?;
    }
    for (name, values) in [("failover.elected", elected), ("failover.first_offer", offers)] {
        report.add(
            Measurement::new(name, "s", values)
                .with("ends_by", if ends_by == EndsBy::Kill { "kill -9" } else { "SIGTERM" })
                .with("lease", lease),
        );
    }
    Ok(())
}

/// Waits for an offer; `anew` only counts one that came after a disconnection.
async fn offered(framework: &mut Framework, anew: bool) -> Result<()> {
    let mut fresh = !anew;
    loop {
        match framework.next().await? {
            Event::Disconnected { .. } => fresh = true,
            Event::Offers(_) if fresh => return Ok(()),
            _ => {}
        }
    }
}
