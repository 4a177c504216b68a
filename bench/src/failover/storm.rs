//! Thousands of agents with running tasks that lose their leader and come to the next.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use mezz_proto::{resources::Resources, v1};

use super::{EndsBy, FailoverArgs};
use crate::{
    agents::{self, AgentsOptions, Carried},
    cluster::{Process, cpu_of_this_process, free_address, mezz_program, raise_file_limit},
    etcd::{Etcd, wait_for_leader},
    health::{self, Watch},
    report::{Measurement, Report},
};

/// What is measured in one round.
struct Round {
    /// From the election to the first answer of the new leader, which has read the
    /// registry by then; seconds.
    read: f64,
    /// From the election until the last agent is back; seconds.
    back: f64,
    /// The new leader's processor time between the election and then; seconds.
    processor: f64,
    /// What it had used before, since the old leader's end, while the agents waited at it;
    /// seconds.
    standby: f64,
    /// The simulated agents' processor time, like `processor`: they share the machine.
    clients: f64,
    /// Its memory at the highest; MB.
    peak: f64,
    /// The slowest answer of `/health` of the new leader; ms.
    health: f64,
    /// Answers of `/health` that were none.
    failures: f64,
    /// All agents admitted by the first leader, for the first time; seconds.
    admitted: f64,
}

/// A measurement's name, its unit, and where it is in a round.
type Figure = (&'static str, &'static str, fn(&Round) -> f64);

pub(super) async fn run(args: &FailoverArgs, report: &mut Report) -> Result<()> {
    for agents in &args.agents {
        raise_file_limit(*agents, args.connections)?;
        let mut rounds = Vec::new();
        for _ in 0..args.rounds {
            rounds.push(round(args, *agents).await?);
        }
        let figures: [Figure; 9] = [
            ("storm.admitted", "s", |r| r.admitted),
            ("storm.registry_read", "s", |r| r.read),
            ("storm.all_back", "s", |r| r.back),
            ("storm.master_cpu", "s", |r| r.processor),
            ("storm.standby_cpu", "s", |r| r.standby),
            ("storm.clients_cpu", "s", |r| r.clients),
            ("storm.peak", "MB", |r| r.peak),
            ("storm.slowest_health", "ms", |r| r.health),
            ("storm.health_failures", "", |r| r.failures),
        ];
        for (name, unit, value) in figures {
            report.add(
                Measurement::new(name, unit, rounds.iter().map(value).collect())
                    .with("agents", *agents)
                    .with("tasks_each", args.tasks)
                    .with("connections", args.connections)
                    .with(
                        "ends_by",
                        if args.ends_by == EndsBy::Kill { "kill -9" } else { "SIGTERM" },
                    ),
            );
        }
    }
    Ok(())
}

async fn round(args: &FailoverArgs, count: usize) -> Result<Round> {
    let mezz = mezz_program(args.mezz.as_deref())?;
    let etcd = Etcd::start(args.etcd_dir.as_deref()).await?;
    let mut client = etcd.client().await?;
    let registry = etcd.registry();
    let options = ["--registry", registry.as_str()];
    let addresses = [free_address()?, free_address()?];
    let mut first = Process::master(&mezz, Some(&addresses[0]), &options).await?;
    health::wait_until(&first.address, "ok").await?;
    let second = Process::master(&mezz, Some(&addresses[1]), &options).await?;
    health::wait_until(&second.address, "standby; the leader is").await?;

    let options = AgentsOptions {
        masters: addresses.to_vec(),
        agents: count,
        connections: args.connections,
        resources: "cpus:24;mem:4096;disk:4096;ports:[31000-32000]".to_owned(),
        finish: false,
        returns: true,
    };
    let carried = Carried {
        framework: v1::FrameworkInfo {
            id: Some(v1::FrameworkId { value: "before-0000".to_owned() }),
            user: "root".to_owned(),
            name: "bench".to_owned(),
            failover_timeout: Some(3600.0),
            ..Default::default()
        },
        tasks: args.tasks,
        resources: Resources::cpus_mem(1.0, 128.0),
    };
    let began = Instant::now();
    let agents = agents::start(&options, Some(carried))?;
    agents.wait_registered(count).await?;
    let admitted = began.elapsed().as_secs_f64();

    let watch = Watch::start(&second.address);
    let before = second.cpu()?;
    match args.ends_by {
        EndsBy::Kill => first.kill(),
        EndsBy::Term => first.terminate()?,
    }
    wait_for_leader(&mut client, &second.address).await?;
    let elected = Instant::now();
    let (standby, clients) = (second.cpu()?, cpu_of_this_process()?);
    agents.wait_registered(2 * count).await?;
    let back = elected.elapsed().as_secs_f64();
    let processor = second.cpu()?.saturating_sub(standby).as_secs_f64();
    let clients = cpu_of_this_process()?.saturating_sub(clients).as_secs_f64();
    let standby = standby.saturating_sub(before).as_secs_f64();
    let peak = second.memory()?.peak as f64 / 1e6;
    let seen = watch.end()?;
    ensure!(seen.answers > 0, "the new leader never answered /health");
    let leads = seen.leads.context("the new leader never led")?;
    Ok(Round {
        read: leads.saturating_duration_since(elected).as_secs_f64(),
        back,
        processor,
        standby,
        clients,
        peak,
        health: seen.slowest.as_secs_f64() * 1e3,
        failures: seen.failures as f64,
        admitted,
    })
}
