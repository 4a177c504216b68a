//! Mesos' v1 API beside gRPC: events of a framework's stream, and `/state` for many
//! that poll it while the master allocates.

mod client;
mod pollers;
mod processor;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use client::Connection;
use mezz_proto::{
    media::Format,
    recordio::Decoder,
    resources::Resources,
    v1::{
        self,
        scheduler::{Call, Event as WireEvent, call, event},
    },
};
use mezz_sdk::scheduler::Event;
use pollers::Pollers;
use processor::Processor;

use crate::{
    agents::{self, Agents, AgentsOptions},
    cluster::{Process, mezz_program, raise_file_limit},
    framework::Framework,
    report::{Measurement, Report},
};

/// Options of `http`.
#[derive(Debug, Args)]
pub struct HttpArgs {
    /// Simulated agents that run tasks
    #[arg(long, default_value_t = 1000)]
    agents: usize,
    /// TCP connections that they share; 0 is one for each agent
    #[arg(long, default_value_t = 0)]
    connections: usize,
    /// Tasks that run on them all the time
    #[arg(long, default_value_t = 20_000)]
    tasks: usize,
    /// How often all of them are told to the framework by each way
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How often each poller reads `/state` at least
    #[arg(long, default_value_t = 20)]
    reads: usize,
    /// Pause of each poller after each answer, in milliseconds
    #[arg(long, default_value_t = 1000)]
    pause_ms: u64,
    /// How often the time from a freed resource to its offer is measured at least
    #[arg(long, default_value_t = 1000)]
    samples: usize,
    /// The `mezz` program [default: the one beside this program]
    #[arg(long)]
    mezz: Option<PathBuf>,
}

const AGENT: &str = "cpus:24;mem:4096;disk:4096;ports:[31000-32000]";
const TASK: &str = "cpus:0.1;mem:16";
/// More memory than the others have: they are offered to this framework in vain.
const MEASURED_AGENT: &str = "cpus:1;mem:8192";
const MEASURED_TASK: &str = "cpus:1;mem:8000";
/// The longest record of a stream.
const MAX_RECORD: usize = 64 << 20;
const PATH: &str = "POST /api/v1/scheduler";

impl HttpArgs {
    /// Measures.
    pub async fn run(&self, report: &mut Report) -> Result<()> {
        raise_file_limit(self.agents, self.connections)?;
        let mezz = mezz_program(self.mezz.as_deref())?;
        let master = Process::master(&mezz, None, &["--registry", "memory"]).await?;
        let options = AgentsOptions {
            masters: vec![master.address.clone()],
            agents: self.agents,
            connections: self.connections,
            resources: AGENT.to_owned(),
            finish: false,
            returns: false,
        };
        let busy = agents::start(&options, None)?;
        busy.wait_registered(self.agents).await?;
        let mut framework = Framework::connect(&master.address, "bench", Resources::parse(TASK)?)?;
        let id = loop {
            if let Event::Subscribed { framework_id, .. } = framework.next().await? {
                break framework_id;
            }
        };
        framework.run_tasks(self.tasks, v1::TaskState::TaskRunning).await?;
        framework.scheduler.suppress(&[]).await?;
        // Acknowledgements that are under way arrive.
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.grpc_events(&master, &mut framework, report).await?;
        let mut streams = Vec::new();
        for format in [Format::Protobuf, Format::Json] {
            let mut stream = Stream::subscribe(&master.address, &id, format).await?;
            self.http_events(&master, &mut stream, report).await?;
            // The framework stays with its newest stream.
            streams.push(stream);
        }
        let options = AgentsOptions {
            agents: 1,
            resources: MEASURED_AGENT.to_owned(),
            finish: true,
            ..options
        };
        let measured = agents::start(&options, None)?;
        measured.wait_registered(1).await?;
        self.pages(&master, &measured, report).await
    }

    async fn grpc_events(
        &self,
        master: &Process,
        framework: &mut Framework,
        report: &mut Report,
    ) -> Result<()> {
        let mut measured = Rates::default();
        for _ in 0..self.rounds {
            let (cpu, begin) = (Processor::of(master.pid())?, Instant::now());
            framework.scheduler.reconcile(Vec::new()).await?;
            let mut updates = 0;
            while updates < self.tasks {
                updates += usize::from(matches!(framework.next().await?, Event::Update(_)));
            }
            measured.add(updates, begin.elapsed(), cpu.since()?);
        }
        measured.report(report, "grpc", self.tasks);
        Ok(())
    }

    async fn http_events(
        &self,
        master: &Process,
        stream: &mut Stream,
        report: &mut Report,
    ) -> Result<()> {
        let mut measured = Rates::default();
        for _ in 0..self.rounds {
            let (cpu, begin) = (Processor::of(master.pid())?, Instant::now());
            stream.reconcile(&master.address).await?;
            let mut updates = 0;
            while updates < self.tasks {
                updates += usize::from(stream.next().await?.r#type() == event::Type::Update);
            }
            measured.add(updates, begin.elapsed(), cpu.since()?);
        }
        let name = if stream.format == Format::Json { "http-json" } else { "http-protobuf" };
        measured.report(report, name, self.tasks);
        Ok(())
    }

    /// `/state` and the time from a freed resource to its offer, with pollers and without.
    async fn pages(&self, master: &Process, measured: &Agents, report: &mut Report) -> Result<()> {
        let task = Resources::parse(MEASURED_TASK)?;
        let mut framework = Framework::connect(&master.address, "measured", task)?;
        let pause = Duration::from_millis(self.pause_ms);
        for pollers in [0, 1, 100] {
            let polls = Pollers::start(&master.address, pollers, self.reads, pause)?;
            // Each as long as the other: neither is measured without the other.
            let latency = self.latency(&mut framework, measured, &polls).await?;
            let polled = polls.stop().await?;
            let add = |report: &mut Report, name: &str, values: Vec<f64>| {
                report.add(
                    Measurement::new(name, "ms", values)
                        .with("pollers", pollers)
                        .with("agents", self.agents + 1)
                        .with("tasks", self.tasks),
                );
            };
            add(report, "http.freed_to_offer", latency);
            if pollers > 0 {
                add(report, "http.state", polled.millis);
                for (name, unit, value) in [
                    ("http.state_size", "bytes", polled.bytes),
                    ("http.fewest_reads", "of a poller", polled.fewest),
                ] {
                    report.add(
                        Measurement::new(name, unit, vec![value as f64])
                            .with("pollers", pollers)
                            .with("tasks", self.tasks),
                    );
                }
            }
        }
        Ok(())
    }

    /// Until there are enough samples, and the pollers have enough.
    async fn latency(
        &self,
        framework: &mut Framework,
        measured: &Agents,
        polls: &Pollers,
    ) -> Result<Vec<f64>> {
        framework.scheduler.revive(&[]).await?;
        let mut millis = Vec::with_capacity(self.samples);
        let mut freed = None;
        while millis.len() < self.samples || !polls.have_enough() {
            match framework.next().await? {
                Event::Offers(offers) => {
                    let now = Instant::now();
                    let launched = framework.fill(offers, 1).await?;
                    if launched == 1
                        && let Some(at) = freed.take()
                    {
                        millis.push(now.duration_since(at).as_secs_f64() * 1e3);
                    }
                }
                Event::Update(status) if status.state() == v1::TaskState::TaskFinished => {
                    freed = measured.seen.last_terminal();
                }
                _ => {}
            }
        }
        Ok(millis)
    }
}

/// What each way of telling events came to.
#[derive(Default)]
struct Rates {
    rates: Vec<f64>,
    costs: Vec<f64>,
}

impl Rates {
    fn add(&mut self, events: usize, took: Duration, cpu: Duration) {
        self.rates.push(events as f64 / took.as_secs_f64());
        self.costs.push(cpu.as_secs_f64() * 1e6 / events as f64);
    }

    fn report(self, report: &mut Report, way: &str, events: usize) {
        for (name, unit, values) in
            [("http.events", "events/s", self.rates), ("http.master_cpu", "us/event", self.costs)]
        {
            let measured = Measurement::new(name, unit, values);
            report.add(measured.with("way", way).with("events", events));
        }
    }
}

/// A framework's stream over HTTP.
struct Stream {
    connection: Connection,
    records: Decoder,
    format: Format,
    framework: v1::FrameworkId,
    id: String,
}

impl Stream {
    async fn subscribe(address: &str, framework: &v1::FrameworkId, format: Format) -> Result<Self> {
        let framework = framework.clone();
        let mut call = Call { framework_id: Some(framework.clone()), ..Default::default() };
        call.set_type(call::Type::Subscribe);
        let multi_role = v1::framework_info::capability::Type::MultiRole as i32;
        call.subscribe = Some(call::Subscribe {
            framework_info: v1::FrameworkInfo {
                user: "root".to_owned(),
                name: "bench".to_owned(),
                id: Some(framework.clone()),
                roles: vec!["*".to_owned()],
                capabilities: vec![v1::framework_info::Capability { r#type: Some(multi_role) }],
                ..Default::default()
            },
            suppressed_roles: vec!["*".to_owned()],
            ..Default::default()
        });
        let mut connection = Connection::open(address).await?;
        let headers = [("Content-Type", format.name()), ("Accept", format.name())];
        let head = connection.ask(PATH, &headers, &format.encode(&call)).await?;
        ensure!(head.status == 200, "SUBSCRIBE is answered by {}", head.status);
        let id = head.header("mesos-stream-id").context("a stream id")?.to_owned();
        Ok(Self { connection, records: Decoder::new(MAX_RECORD), format, framework, id })
    }

    async fn reconcile(&self, address: &str) -> Result<()> {
        let mut call = Call { framework_id: Some(self.framework.clone()), ..Default::default() };
        call.set_type(call::Type::Reconcile);
        call.reconcile = Some(call::Reconcile::default());
        let headers = [("Content-Type", self.format.name()), ("Mesos-Stream-Id", &self.id)];
        let mut connection = Connection::open(address).await?;
        let head = connection.ask(PATH, &headers, &self.format.encode(&call)).await?;
        ensure!(head.status == 202, "RECONCILE is answered by {}", head.status);
        Ok(())
    }

    async fn next(&mut self) -> Result<WireEvent> {
        loop {
            if let Some(record) = self.records.next_record()? {
                return Ok(self.format.decode(&record)?);
            }
            let chunk = self.connection.chunk().await?.context("the stream's end")?;
            self.records.feed(&chunk);
        }
    }
}
