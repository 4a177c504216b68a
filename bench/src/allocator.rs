//! The allocator alone, in process: the workload of Mesos' `DeclineOffers`
//! benchmark, so that the figures can be set beside those of Mesos.
//!
//! Every agent has 24 cpus, 4096 MiB of memory and of disk, and the ports
//! 31000-32000, of which 16 cpus, 2014 MiB, 1024 MiB and 16 fragments of ports
//! are held, agent by agent, by the frameworks in turn.

use std::{
    collections::BTreeMap,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use mezz_master::allocator::{
    AgentKey, AgentSpec, Allocator, AllocatorOptions, DrfAllocator, FrameworkCapabilities,
    FrameworkKey, FrameworkSpec, Grant, MAX_REFUSE,
};
use mezz_proto::{
    ids::{AgentId, FrameworkId},
    resources::Resources,
    time::Time,
};

use crate::report::{Measurement, Report};

const TOTAL: &str = "cpus:24;mem:4096;disk:4096;ports:[31000-32000]";
const HELD: &str = "cpus:16;mem:2014;disk:1024";

/// Agents, frameworks, roles and workload of the table that is run by default.
const TABLE: [(u32, u32, Roles, Workload); 13] = [
    (1_000, 200, Roles::One, Workload::Decline),
    (1_000, 1_000, Roles::One, Workload::Decline),
    (10_000, 200, Roles::One, Workload::Decline),
    (10_000, 1_000, Roles::One, Workload::Decline),
    (50_000, 200, Roles::One, Workload::Decline),
    (50_000, 1_000, Roles::One, Workload::Decline),
    (10_000, 200, Roles::PerFramework, Workload::Decline),
    (10_000, 1_000, Roles::PerFramework, Workload::Decline),
    (50_000, 1_000, Roles::PerFramework, Workload::Decline),
    (1_000, 200, Roles::One, Workload::Refused),
    (10_000, 200, Roles::One, Workload::Refused),
    (10_000, 1_000, Roles::One, Workload::Refused),
    (10_000, 1_000, Roles::One, Workload::Unchanged),
];

/// How frameworks are spread over roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Roles {
    /// All in `*`.
    One,
    /// Each in its own.
    PerFramework,
}

/// What happens between two cycles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Every offer is declined without a filter, and made again
    Decline,
    /// Every framework has refused every agent for a year; then on each agent a
    /// cpu is taken and given back, so that all filters are asked again
    Refused,
    /// Nothing; all offers are outstanding
    Unchanged,
}

/// Options of `allocator`.
#[derive(Debug, Args)]
pub struct AllocatorArgs {
    /// Agents; without it the table of sizes is run
    #[arg(long)]
    agents: Option<u32>,
    /// Frameworks
    #[arg(long, default_value_t = 1_000, requires = "agents")]
    frameworks: u32,
    /// How they are spread over roles
    #[arg(long, value_enum, default_value = "one", requires = "agents")]
    roles: Roles,
    /// What happens between two cycles
    #[arg(long, value_enum, default_value = "decline", requires = "agents")]
    workload: Workload,
    /// Cycles
    #[arg(long, default_value_t = 20)]
    cycles: u32,
}

impl AllocatorArgs {
    /// Runs one workload, or the table.
    ///
    /// # Errors
    /// When there is nothing to run, or the allocator does not do what the
    /// workload expects of it.
    pub fn run(&self, report: &mut Report) -> Result<()> {
        ensure!(self.cycles > 0, "--cycles 0: nothing to measure; give at least 1");
        match self.agents {
            Some(0) => bail!("--agents 0: nothing to allocate; give at least 1"),
            Some(agents) => {
                ensure!(self.frameworks > 0, "--frameworks 0: nobody to offer to; give at least 1");
                self.workload(agents, report)
            }
            None => self.table(report),
        }
    }

    /// Each line in a process of its own, so that memory is its own too.
    fn table(&self, report: &Report) -> Result<()> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        for (agents, frameworks, roles, workload) in TABLE {
            let name = |v: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
                v().map_or_else(String::new, |v| v.get_name().to_owned())
            };
            let mut command = Command::new(&program);
            command.args(["allocator", "--agents", &agents.to_string()]);
            command.args(["--frameworks", &frameworks.to_string()]);
            command.args(["--roles", &name(&|| roles.to_possible_value())]);
            command.args(["--workload", &name(&|| workload.to_possible_value())]);
            command.args(["--cycles", &self.cycles.to_string()]);
            command.args(report.is_json().then_some("--json"));
            let status = command.status().context("cannot start the benchmark again")?;
            ensure!(status.success(), "the benchmark ended with {status}");
        }
        Ok(())
    }

    fn workload(&self, agents: u32, report: &mut Report) -> Result<()> {
        let mut bench = Bench::new(agents, self.frameworks, self.roles)?;
        let mut add = |what: &str, unit: &str, values: Vec<f64>| {
            let kind = |v: Option<clap::builder::PossibleValue>| {
                v.map_or_else(String::new, |v| v.get_name().to_owned())
            };
            report.add(
                Measurement::new(&format!("allocator.{what}"), unit, values)
                    .with("agents", agents)
                    .with("frameworks", self.frameworks)
                    .with("roles", kind(self.roles.to_possible_value()))
                    .with("workload", kind(self.workload.to_possible_value())),
            );
        };
        let (first, grants) = bench.cycle();
        ensure!(grants.len() == agents as usize, "{} first offers", grants.len());
        add("first_offers", "ms", vec![first]);
        match self.workload {
            Workload::Decline => {
                let (mut cycles, mut declines, mut grants) = (Vec::new(), Vec::new(), grants);
                for _ in 0..self.cycles {
                    declines.push(bench.decline(&grants));
                    let (ms, again) = bench.cycle();
                    ensure!(again.len() == agents as usize, "{} offers", again.len());
                    cycles.push(ms);
                    grants = again;
                }
                let each = cycles.iter().map(|ms| ms * 1000.0 / f64::from(agents)).collect();
                add("cycle", "ms", cycles);
                add("offer", "us", each);
                add("decline_all", "ms", declines);
            }
            Workload::Refused => {
                let start = Instant::now();
                let mut grants = grants;
                while !grants.is_empty() {
                    bench.refuse(&grants);
                    grants = bench.cycle().1;
                }
                add("refuse_all", "s", vec![start.elapsed().as_secs_f64()]);
                let (mut cycles, mut idle) = (Vec::new(), Vec::new());
                for _ in 0..self.cycles {
                    bench.shake()?;
                    let (ms, grants) = bench.cycle();
                    ensure!(grants.is_empty(), "{} offers in spite of filters", grants.len());
                    cycles.push(ms);
                    idle.push(bench.cycle().0);
                }
                add("cycle", "ms", cycles);
                add("unchanged", "ms", idle);
            }
            Workload::Unchanged => {
                let cycles = (0..self.cycles).map(|_| bench.cycle().0).collect();
                add("cycle", "ms", cycles);
            }
        }
        add("rss", "MB", vec![resident_mb()?]);
        Ok(())
    }
}

/// A cluster under the workload.
struct Bench {
    allocator: DrfAllocator,
    agents: u32,
    role: Arc<str>,
    now: Time,
}

impl Bench {
    fn new(agents: u32, frameworks: u32, roles: Roles) -> Result<Self> {
        let mut allocator = DrfAllocator::new(AllocatorOptions::default());
        let role = |i: u32| -> Arc<str> {
            match roles {
                Roles::One => Arc::from("*"),
                Roles::PerFramework => Arc::from(format!("role{i:05}")),
            }
        };
        for i in 0..frameworks {
            let spec = FrameworkSpec {
                id: FrameworkId::new(format!("0a1b2c3d-0000-4000-8000-123456789abc-{i:04}")),
                roles: vec![role(i)],
                suppressed: Vec::new(),
                capabilities: FrameworkCapabilities::default(),
                min_allocatable: BTreeMap::new(),
                constraints: BTreeMap::new(),
            };
            allocator.add_framework(FrameworkKey(i), spec);
        }
        let total = Resources::parse(TOTAL)?;
        // 16 fragments of 16 ports, as far from each other as they can be.
        let ports: Vec<String> =
            (0..16).map(|i| 31_000 + i * 62).map(|p| format!("{p}-{}", p + 15)).collect();
        let held = Arc::new(Resources::parse(&format!("{HELD};ports:[{}]", ports.join(",")))?);
        for i in 0..agents {
            let spec = AgentSpec {
                id: AgentId::new(format!("0a1b2c3d-0000-4000-8000-123456789abc-S{i}")),
                hostname: format!("agent{i}.example.org"),
                attributes: Vec::new(),
                domain: None,
                total: total.clone(),
            };
            allocator.add_agent(AgentKey(i), spec);
            let holder = i % frameworks;
            allocator.hold(AgentKey(i), FrameworkKey(holder), &role(holder), &held);
        }
        Ok(Self { allocator, agents, role: role(0), now: Time::from_secs(1) })
    }

    /// One allocation and how many milliseconds it took.
    fn cycle(&mut self) -> (f64, Vec<Grant>) {
        self.now = self.now + Duration::from_secs(1);
        let start = Instant::now();
        let grants = self.allocator.allocate(self.now);
        (start.elapsed().as_secs_f64() * 1000.0, grants)
    }

    fn decline(&mut self, grants: &[Grant]) -> f64 {
        let start = Instant::now();
        for g in grants {
            self.allocator.recover(g.agent, g.framework, &g.role, &g.resources);
        }
        start.elapsed().as_secs_f64() * 1000.0
    }

    fn refuse(&mut self, grants: &[Grant]) {
        for g in grants {
            self.allocator.recover(g.agent, g.framework, &g.role, &g.resources);
            self.allocator.refuse(
                g.agent,
                g.framework,
                &g.role,
                g.resources.clone(),
                self.now + MAX_REFUSE,
            );
        }
    }

    /// Changes what is left of every agent, and changes it back.
    fn shake(&mut self) -> Result<()> {
        let cpu = Arc::new(Resources::parse("cpus:1")?);
        for i in 0..self.agents {
            self.allocator.hold(AgentKey(i), FrameworkKey(0), &self.role, &cpu);
            self.allocator.recover(AgentKey(i), FrameworkKey(0), &self.role, &cpu);
        }
        Ok(())
    }
}

/// Memory of this process, in MB.
fn resident_mb() -> Result<f64> {
    let file = "/proc/self/status";
    let status = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let kib = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok())
        .with_context(|| format!("{file} has no VmRSS"))?;
    Ok(kib * 1024.0 / 1e6)
}
