//! Real masters and agents under clients that were written for Mesos: in Python, with
//! nothing but its standard library, over HTTP in both content types.
//!
//! The clients and what they check are in `tests/mesos/`: `rules.py` runs the functions of one
//! subject, which are named after the rules and scenarios that they check.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mezz_tests::{
    Cluster, ClusterOptions, Etcd, QUICK_LOSS, asking_frameworks, eventually, processes_of,
    run_mesos_client,
};

/// What a subject takes in the worst case on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(240);

/// Agents are given up one by one.
const LOSSES: &str = "--agent-removal-rate-limit=1/2s";

/// Those that were given up are forgotten soon.
const RETENTION: &str = "--unreachable-retention=3s";

fn options(master_args: &[&str]) -> ClusterOptions {
    ClusterOptions {
        master_args: master_args.iter().map(|&arg| arg.to_owned()).collect(),
        ..Default::default()
    }
}

fn follows(subject: &str, options: ClusterOptions) -> Result<()> {
    follows_with(None, subject, options)
}

fn follows_with(etcd: Option<&Etcd>, subject: &str, options: ClusterOptions) -> Result<()> {
    let mut cluster = Cluster::start(options)?;
    // One function while something is looked into.
    let only = std::env::var("MEZZ_TEST_ONLY").unwrap_or_default();
    let args = ["--subject", subject, "--only", &only];
    println!("{}", run_mesos_client(&mut cluster, etcd, "rules.py", &args, PATIENCE)?);
    stop(cluster)
}

/// The executors of frameworks that are torn down end by themselves, before their agent does.
fn stop(mut cluster: Cluster) -> Result<()> {
    let mut own = Vec::new();
    for n in 0..cluster.master_addresses().len() {
        own.push(cluster.master_of(n)?.pid());
    }
    for n in 0..cluster.agent_addresses().len() {
        // It may have ended by itself.
        own.extend(cluster.agent(n).map(|agent| agent.pid()));
    }
    let folder = cluster.folder().to_owned();
    eventually(mezz_tests::PATIENCE, "all containers have ended", || {
        let mut left = processes_of(&folder)?;
        left.retain(|pid| !own.contains(pid));
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
    })?;
    cluster.stop()
}

fn runs_a_hundred_tasks(format: &str) -> Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { agents: 2, ..Default::default() })?;
    let args = ["--format", format, "--faults"];
    println!("{}", run_mesos_client(&mut cluster, None, "framework.py", &args, PATIENCE)?);
    stop(cluster)
}

#[test]
fn a_framework_in_json_runs_a_hundred_tasks_while_master_and_agent_are_killed() -> Result<()> {
    runs_a_hundred_tasks("json")
}

#[test]
fn a_framework_in_protobuf_runs_a_hundred_tasks_while_master_and_agent_are_killed() -> Result<()> {
    runs_a_hundred_tasks("protobuf")
}

#[test]
fn calls_of_schedulers_are_checked_as_mesos_does() -> Result<()> {
    follows("calls", options(&[]))
}

#[test]
fn frameworks_subscribe_as_with_mesos() -> Result<()> {
    follows("subscription", options(&[]))
}

#[test]
fn offers_are_used_and_refused_as_with_mesos() -> Result<()> {
    follows("offers", options(&[]))
}

#[test]
fn offers_that_nobody_answers_time_out() -> Result<()> {
    follows("offer_timeout", options(&["--offer-timeout=3s"]))
}

#[test]
fn tasks_are_reported_killed_and_reconciled_as_with_mesos() -> Result<()> {
    let agent_args = vec!["--update-retry-min=1s".to_owned()];
    follows("tasks", ClusterOptions { agent_args, ..Default::default() })
}

#[test]
fn executors_over_http_are_served_as_with_mesos() -> Result<()> {
    follows("executors", options(&[]))
}

#[test]
fn agents_are_lost_return_and_are_drained_as_with_mesos() -> Result<()> {
    follows("agents", options(&QUICK_LOSS))
}

#[test]
fn agents_that_are_lost_for_good_are_answered_for_as_with_mesos() -> Result<()> {
    let mut options = options(&[QUICK_LOSS.as_slice(), &[LOSSES, RETENTION]].concat());
    options.agents = 2;
    follows("losses", options)
}

#[test]
fn offers_go_to_whom_mesos_gives_them() -> Result<()> {
    // cpus, and memory and disk in MiB.
    let resources = [(2, 1024), (1, 512), (3, 2048), (4, 4096), (1, 512)];
    let resources = resources.map(|(cpus, mem)| format!("cpus:{cpus};mem:{mem};disk:{mem}"));
    let attributes = ["rack:r1;gen:7", "rack:r2", "rack:row-2;ssd:yes", "gen:[1-5]", ""];
    let attributes = attributes.map(|given| match given {
        "" => Vec::new(),
        given => vec![format!("--attributes={given}")],
    });
    let options = ClusterOptions {
        agents: attributes.len(),
        resources_of_agents: resources.into(),
        args_of_agents: attributes.into(),
        ..Default::default()
    };
    follows("shares", options)
}

#[test]
fn masters_send_clients_to_their_leader_as_with_mesos() -> Result<()> {
    let etcd = Etcd::start(&[])?;
    let args = ["--registry", &etcd.registry("mezz"), "--leader-lease=2s"];
    follows_with(Some(&etcd), "masters", ClusterOptions { masters: 3, ..options(&args) })
}

#[test]
fn frameworks_prove_who_they_are_as_with_mesos() -> Result<()> {
    let etcd = Etcd::start(&[])?;
    let registry = etcd.registry("mezz");
    let election = ["--registry", &registry, "--leader-lease=2s"];
    let mut options = ClusterOptions { masters: 2, agents: 0, ..options(&election) };
    options.master_args.extend(asking_frameworks());
    follows_with(Some(&etcd), "principals", options)
}

#[test]
fn operators_and_tools_read_what_mesos_shows() -> Result<()> {
    follows("operators", options(&[]))
}

/// The functions below `tests/mesos/subjects`, as `subject.function`.
fn functions_of_subjects() -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for file in std::fs::read_dir(tree().join("tests/mesos/subjects"))? {
        let path = file?.path();
        let subject = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let text = if path.is_file() { std::fs::read_to_string(&path)? } else { String::new() };
        let defined = text.lines().filter_map(|line| line.strip_prefix("def ")?.split('(').next());
        let tests = defined.filter(|n| n.starts_with("rule_") || n.starts_with("scenario_"));
        names.extend(tests.map(|name| format!("{subject}.{name}")));
    }
    Ok(names)
}

/// All that is declared by `fn` in the sources below a folder.
fn functions_in_rust(folder: &Path, names: &mut BTreeSet<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            functions_in_rust(&path, names)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path)?;
            let declared =
                text.lines().filter_map(|line| line.split_once("fn ")?.1.split('(').next());
            names.extend(declared.map(str::to_owned));
        }
    }
    Ok(())
}

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_tables_of_what_is_tested_name_what_there_is() -> Result<()> {
    let page = std::fs::read_to_string(tree().join("docs/mesos-compatibility.md"))?;
    let (_, tables) = page.split_once("## What tests it").context("the tables")?;
    let rows = tables.lines().filter(|line| line.starts_with('|'));
    let named: BTreeSet<&str> = rows
        .flat_map(|row| row.split('`').skip(1).step_by(2))
        .filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.".contains(&b)))
        .filter(|name| name.contains('_'))
        .collect();
    let ours = functions_of_subjects()?;
    let mut in_rust = BTreeSet::new();
    for package in std::fs::read_dir(tree())? {
        let package = package?.path();
        if package.join("Cargo.toml").is_file() {
            functions_in_rust(&package, &mut in_rust)?;
        }
    }
    let (functions, others): (Vec<&str>, Vec<&str>) =
        named.into_iter().partition(|name| name.contains('.'));
    let begins = |name: &String, with: &str| {
        name.strip_prefix(with).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    };
    let is_ours = |with: &str| ours.iter().any(|name| begins(name, with));
    let mut unknown: Vec<&str> = functions.iter().copied().filter(|with| !is_ours(with)).collect();
    unknown.extend(others.iter().filter(|name| !in_rust.contains(**name)));
    let is_named = |name: &&String| functions.iter().any(|with| begins(name, with));
    let missing: Vec<_> = ours.iter().filter(|name| !is_named(name)).collect();
    ensure!(unknown.is_empty(), "there is no {unknown:?}");
    ensure!(missing.is_empty(), "the tables lack {missing:?}");
    ensure!(functions.len() > 50 && others.len() > 30, "{functions:?} {others:?}");
    Ok(())
}
