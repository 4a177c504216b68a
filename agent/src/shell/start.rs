//! Before the first event: options, the store, and what earlier runs left.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::Arc,
};

use mezz_proto::{
    ids::{AgentId, ContainerId},
    resources::{Dialect, Resources},
    v1,
};

use super::{
    AgentError,
    collect::{self, Orphan},
    now,
};
use crate::{
    containerizer::{self, Ability, Containerizer},
    core::{
        Abilities, Core, CoreOptions, ExecutorKey, ExecutorRecord, Recovered, SandboxRecord,
        TaskKey, Token,
    },
    fetcher::Fetcher,
    options::AgentOptions,
    store::{Store, StoreError, Stored, Writer},
};

/// Everything that the agent runs with.
pub(super) struct Started {
    pub(super) core: Core,
    pub(super) writer: Writer,
    pub(super) containerizer: Arc<dyn Containerizer>,
    pub(super) fetcher: Fetcher,
    pub(super) sandboxes: Vec<SandboxRecord>,
    pub(super) orphans: Vec<Orphan>,
    pub(super) sandbox_tasks: Vec<(ContainerId, TaskKey)>,
    pub(super) executors: Vec<(ExecutorKey, Token)>,
    pub(super) api_address: String,
}

pub(super) async fn start(
    options: &AgentOptions,
    local: SocketAddr,
) -> Result<Started, AgentError> {
    check(options)?;
    if nix::unistd::geteuid().is_root() {
        tracing::warn!(
            "the agent runs as root, and so does every task that names no user: set \
             command.user of the task, or user of its framework (FrameworkInfo.user)"
        );
    }
    let (store, stored) = open_store(&options.work_dir)?;
    let agent = describe(options, local);
    if let Some(before) = &stored.agent {
        check_still_fits(before, &stored, options)?;
    }
    let boot_id = boot_id();
    let executors = stored.executors.iter().map(ExecutorRecord::proof).collect();
    let containerizer = containerizer::open(options)?;
    let mut recovered = Recovered {
        agent_id: stored.agent.as_ref().and_then(|agent| agent.id.as_ref()).map(AgentId::from),
        starts: stored.starts,
        frameworks: stored.frameworks,
        executors: stored.executors,
        tasks: stored.tasks,
        rebooted: stored.boot_id.is_some() && stored.boot_id != boot_id,
        ..Recovered::default()
    };
    let recovery =
        containerizer.recover(recovered.containers()).await.map_err(AgentError::Recovery)?;
    recovered.found =
        recovery.known.into_iter().filter(|(_, found)| *found).map(|(id, _)| id).collect();
    let abilities = containerizer.abilities();
    for Ability { name, version, problem } in &abilities {
        let version = version.as_deref().unwrap_or("-");
        match problem {
            None => tracing::info!(name, version, "containers can be run"),
            Some(problem) => tracing::warn!(name, version, "containers cannot be run: {problem}"),
        }
    }
    let known = stored.sandboxes.iter().map(|record| PathBuf::from(&record.path)).collect();
    let work_dir = options.work_dir.clone();
    let orphans =
        tokio::task::spawn_blocking(move || collect::orphans(&work_dir, &known, &recovery.unended));
    let orphans = orphans.await.unwrap_or_default();
    if !orphans.is_empty() {
        tracing::info!(count = orphans.len(), "found sandboxes of containers that nobody knows");
    }
    let core =
        Core::new(core_options(options, &*containerizer, agent, boot_id, local), recovered, now());
    let fetcher = Fetcher::new(options).map_err(AgentError::Fetcher)?;
    let writer = Writer::start(store)
        .map_err(|source| AgentError::Io { doing: "starting the store's thread", source })?;
    Ok(Started {
        core,
        writer,
        containerizer,
        fetcher,
        sandboxes: stored.sandboxes,
        orphans,
        sandbox_tasks: stored.sandbox_tasks,
        executors,
        api_address: api_address(options, local),
    })
}

fn check(options: &AgentOptions) -> Result<(), AgentError> {
    let wrong = |text: &str| Err(AgentError::Options(text.to_owned()));
    if !options.work_dir.is_absolute() {
        return wrong("--work-dir must be an absolute path");
    }
    if options.masters.is_empty() {
        return wrong("--master: name at least one master as host:port");
    }
    for (name, interval) in [
        ("--disk-watch-interval", options.monitor.disk_watch_interval),
        ("--container-disk-watch-interval", options.monitor.container_disk_interval),
        ("--container-ports-watch-interval", options.monitor.container_ports_interval),
        ("--fetch-timeout", options.fetcher.timeout),
    ] {
        if interval.is_zero() {
            return Err(AgentError::Options(format!("{name} must be more than nothing")));
        }
    }
    for (scheme, command) in &options.fetcher.commands {
        crate::fetcher::check_command(scheme, command)
            .map_err(|problem| AgentError::Options(format!("--fetcher-command: {problem}")))?;
    }
    if let Some(library) = options.native_library.as_ref().filter(|path| !path.is_file()) {
        return Err(AgentError::Options(format!(
            "--native-library: {} is no file on this machine; give the path of libmezzmesos.so",
            library.display()
        )));
    }
    if options.max_tasks == 0 {
        return wrong("--max-tasks must be at least 1");
    }
    for (name, (first, longest)) in
        [("--update-retry", options.update_retry), ("--register-backoff", options.register_backoff)]
    {
        if first.is_zero() || first > longest {
            return Err(AgentError::Options(format!(
                "{name}-min ({first:?}) must be more than nothing, and not more than {name}-max \
                 ({longest:?})"
            )));
        }
    }
    Ok(())
}

fn open_store(work_dir: &Path) -> Result<(Store, Stored), AgentError> {
    let meta = work_dir.join("meta");
    fs::create_dir_all(&meta).map_err(|source| AgentError::WorkDir {
        doing: "cannot make",
        path: meta.clone(),
        source,
    })?;
    let store = |error: StoreError| AgentError::Store(Arc::new(error));
    let opened = Store::open(&meta.join("agent.redb")).map_err(store)?;
    restrict(&meta)?;
    let stored = opened.load().map_err(store)?;
    Ok((opened, stored))
}

/// The store holds executors' tokens: for the agent's user only.
fn restrict(meta: &Path) -> Result<(), AgentError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(meta, fs::Permissions::from_mode(0o700)).map_err(|source| {
        AgentError::WorkDir { doing: "cannot restrict", path: meta.to_owned(), source }
    })
}

/// Without `id`.
fn describe(options: &AgentOptions, local: SocketAddr) -> v1::AgentInfo {
    v1::AgentInfo {
        hostname: options.hostname.clone(),
        resources: options.resources.to_proto(Dialect::Refined, None),
        attributes: options.attributes.clone(),
        id: None,
        port: Some(local.port().into()),
        domain: options.domain.clone(),
    }
}

/// host:port that peers are told.
fn api_address(options: &AgentOptions, local: SocketAddr) -> String {
    match &options.advertise {
        Some(address) => address.clone(),
        None if local.ip().is_unspecified() => format!("{}:{}", options.hostname, local.port()),
        None => local.to_string(),
    }
}

/// An address that programs here can listen on, the one by which this agent is known if it
/// is one.
fn executor_ip(options: &AgentOptions, local: SocketAddr) -> Option<IpAddr> {
    let known = || {
        let advertised: SocketAddr = options.advertise.as_ref()?.parse().ok()?;
        // It may be that of a gateway.
        UdpSocket::bind((advertised.ip(), 0)).ok().map(|_| advertised.ip())
    };
    Some(local.ip()).filter(|ip| !ip.is_unspecified()).or_else(known)
}

/// For admission: what is refused with a sentence before anything is made for it.
fn abilities(options: &AgentOptions, containerizer: &dyn Containerizer) -> Abilities {
    Abilities {
        // One that is away fails the launch itself, and may come back.
        docker: containerizer.abilities().iter().any(|ability| ability.name == "docker"),
        images: options.isolation.image_dir.is_some(),
        isolation: nix::unistd::geteuid().is_root(),
    }
}

fn core_options(
    options: &AgentOptions,
    containerizer: &dyn Containerizer,
    agent: v1::AgentInfo,
    boot_id: Option<String>,
    local: SocketAddr,
) -> CoreOptions {
    CoreOptions {
        agent,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id,
        api_address: api_address(options, local),
        work_dir: options.work_dir.clone(),
        native_library: options.native_library.clone(),
        // Only root may become somebody else; others run everything as themselves.
        switch_user: nix::unistd::geteuid().is_root(),
        abilities: abilities(options, containerizer),
        kill_grace: options.kill_grace,
        executor_registration_timeout: options.executor_registration_timeout,
        executor_reregistration_timeout: options.executor_reregistration_timeout,
        executor_shutdown_grace: options.executor_shutdown_grace,
        authenticate_executors: options.authenticate_http_executors,
        executor_ip: executor_ip(options, local),
        update_retry: options.update_retry,
        max_tasks: options.max_tasks,
        seed: rand::random(),
    }
}

fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// More than before is welcome; less only while nothing needs it (rule 52).
fn check_still_fits(
    before: &v1::AgentInfo,
    stored: &Stored,
    options: &AgentOptions,
) -> Result<(), AgentError> {
    let changed = |what: String| {
        Err(AgentError::Options(format!(
            "{what}. Start with options that hold at least what runs, or, to start as a new agent \
             without these tasks, remove {}",
            options.work_dir.join("meta").display()
        )))
    };
    let mut used = Resources::new();
    let live = stored.tasks.iter().filter(|(_, state)| !state.latest().is_terminal());
    let of_tasks = live.clone().map(|(task, _)| &task.info.resources);
    let of_executors = stored.executors.iter().map(|executor| &executor.info.resources);
    for resources in of_tasks.chain(of_executors) {
        // What was stored was parsed before.
        used += &Resources::from_proto(resources).unwrap_or_default();
    }
    let running = live.count() + stored.executors.len();
    if !options.resources.contains(&used) {
        return changed(format!(
            "--resources: {} is less than what {running} tasks and executors use here ({used})",
            options.resources
        ));
    }
    if running > 0 {
        let gone = before.attributes.iter().find(|old| !options.attributes.contains(old));
        if let Some(gone) = gone {
            return changed(format!(
                "--attributes: `{}` was removed or changed while {running} tasks and executors run \
                 here",
                gone.name
            ));
        }
        if before.hostname != options.hostname {
            return changed(format!(
                "--hostname: was `{}` and is now `{}` while {running} tasks and executors run here",
                before.hostname, options.hostname
            ));
        }
    }
    Ok(())
}
