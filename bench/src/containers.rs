//! Many containers alive at once on one real agent: how long their launch takes,
//! and what they cost the agent and each launcher.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Result, ensure};
use clap::Args;
use mezz_proto::{resources::Resources, v1};

use crate::{
    cluster::{Process, mezz_program},
    containment::Containment,
    framework::{Framework, unless_broken_off},
    report::{Measurement, Report},
};

/// Options of `containers`.
#[derive(Debug, Args)]
pub struct ContainersArgs {
    /// Containers alive at once
    #[arg(long, default_value_t = 1000)]
    count: usize,
    /// What holds the tasks
    #[arg(long, value_delimiter = ',', value_enum, default_value = "cgroup")]
    containment: Vec<Containment>,
    /// The `mezz` program [default: the one beside this program]
    #[arg(long)]
    mezz: Option<PathBuf>,
}

impl ContainersArgs {
    /// Measures.
    pub async fn run(&self, report: &mut Report) -> Result<()> {
        for containment in &self.containment {
            self.one(*containment, report).await?;
        }
        Ok(())
    }

    async fn one(&self, containment: Containment, report: &mut Report) -> Result<()> {
        let mezz = mezz_program(self.mezz.as_deref())?;
        let folder = tempfile::tempdir()?;
        let work_dir = folder.path().to_string_lossy().into_owned();
        let master = Process::master(&mezz, None, &["--registry", "memory"]).await?;
        let resources = format!("cpus:{};mem:{}", self.count, self.count * 32);
        let args = [
            "--resources",
            &resources,
            "--containment",
            containment.of_agent(),
            "--work-dir",
            &work_dir,
            "--cgroup-root",
            "mezz-bench",
        ];
        let agent = Process::agent(&mezz, &master.address, &args).await?;
        let task = Resources::parse("cpus:0.1;mem:32")?;
        let mut framework = Framework::connect(&master.address, "bench", task)?
            .command("sleep", &["100000"])
            .container(containment.container());
        let measured = self.measure(containment, &agent, &work_dir, &mut framework, report);
        let measured = unless_broken_off(measured).await;
        let ended = framework.end(&work_dir).await;
        measured.and(ended)
    }

    async fn measure(
        &self,
        containment: Containment,
        agent: &Process,
        work_dir: &str,
        framework: &mut Framework,
        report: &mut Report,
    ) -> Result<()> {
        let took = framework.run_tasks(self.count, v1::TaskState::TaskRunning).await?;

        let add = |report: &mut Report, name: &str, unit: &str, values: Vec<f64>| {
            report.add(
                Measurement::new(name, unit, values)
                    .with("containment", containment.name())
                    .with("count", self.count),
            );
        };
        add(report, "containers.launch", "s", vec![took.as_secs_f64()]);
        let mb = |bytes: u64| bytes as f64 / 1e6;
        add(report, "containers.agent_memory", "MB", vec![mb(agent.memory()?.now)]);
        if containment != Containment::Docker {
            let launchers = launchers(work_dir)?;
            ensure!(launchers.len() == self.count, "{} launchers", launchers.len());
            let (resident, own) = launchers.into_iter().unzip();
            add(report, "containers.launcher_resident", "KiB", resident);
            add(report, "containers.launcher_share", "KiB", own);
        }
        Ok(())
    }
}

/// Resident memory of each launcher (with a pid namespace: of its two processes), and
/// its share of it when pages that several processes have are divided among them; in
/// KiB.
fn launchers(work_dir: &str) -> Result<Vec<(f64, f64)>> {
    let mut found: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if !line.contains(work_dir) || !line.contains("plan.json") {
            continue;
        }
        let text = fs::read_to_string(path.join("smaps_rollup")).unwrap_or_default();
        let field = |name: &str| -> Option<f64> {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        if let (Some(resident), Some(share)) = (field("Rss:"), field("Pss:")) {
            let (all_resident, all_share) = found.entry(line.into_owned()).or_default();
            *all_resident += resident;
            *all_share += share;
        }
    }
    Ok(found.into_values().collect())
}
