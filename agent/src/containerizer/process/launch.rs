//! Starting a container.

use std::{
    fs::{DirBuilder, File},
    io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::Signal;
use tokio::{io::AsyncReadExt as _, net::unix::pipe};

use super::{
    ContainerError, ContainerSpec, Inner, blocking,
    container::{Container, Launcher, State},
    hand_over,
    isolation::{Pod, isolation},
    user, watch,
};
use crate::{
    containerizer::{
        Program,
        cgroup::{Bounds, is_plain_name},
        table::failed,
    },
    launcher::{Plan, STARTED, isolation::SANDBOX, plan, record},
};

/// Tells a program where its sandbox is.
const SANDBOX_VARIABLE: &str = "MESOS_SANDBOX";

/// A launcher that has not started its program by then is given up. Long, since a
/// machine out of breath is no reason to fail a task.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A launcher says one line.
const LONGEST_MESSAGE: u64 = 64 * 1024;

/// A launcher that was started a moment ago.
struct Spawned {
    launcher: Launcher,
    says: OwnedFd,
}

impl Inner {
    pub(super) async fn launch(
        self: Arc<Self>,
        spec: ContainerSpec,
    ) -> Result<u32, ContainerError> {
        let id = spec.id.clone();
        let container = Container::new(id.clone(), State::Starting);
        self.containers.enter(&id, &container)?;
        let result = Arc::clone(&self).start(spec, &container).await;
        if result.is_err() {
            container.set(State::Failed);
            self.containers.lock().remove(&id);
            let inner = Arc::clone(&self);
            let name = id.clone();
            if let Err(error) = blocking(move || inner.give_up(name.as_str())).await {
                tracing::warn!(container = %id, %error, "could not clean up after a failed launch");
            }
        }
        result
    }

    async fn start(
        self: Arc<Self>,
        spec: ContainerSpec,
        container: &Arc<Container>,
    ) -> Result<u32, ContainerError> {
        let id = spec.id.clone();
        let pod = spec.pod.as_ref().map(|pod| self.containers.get(pod)).transpose()?;
        let inner = Arc::clone(&self);
        let prepare = move || inner.prepare_and_spawn(&spec, pod.as_deref());
        let spawned = tokio::task::spawn_blocking(prepare)
            .await
            .unwrap_or_else(|e| Err(failed(&id, "preparing it")(io::Error::other(e))))?;
        let launcher = spawned.launcher;

        let message = tokio::time::timeout(START_PATIENCE, read_all(spawned.says))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .and_then(|text| match text.strip_prefix(STARTED) {
                Some(_) => Ok(()),
                None if text.is_empty() => Err(io::Error::other("it died without a word")),
                None => Err(io::Error::other(text.trim_end().to_owned())),
            });
        let directory = self.directory.join(id.as_str());
        let started = message.and_then(|()| {
            record::started(&directory)
                .map_err(io::Error::other)?
                .ok_or_else(|| io::Error::other("it left no record of the start"))
        });
        match started {
            Ok(started) => {
                let pid = started.child.pid.unsigned_abs();
                container.set_started(started);
                container.set(State::Running(launcher.clone()));
                watch::watch(self, Arc::clone(container), Some(launcher));
                Ok(pid)
            }
            Err(error) => {
                // Without its launcher the first process dies too (PDEATHSIG).
                let _ = launcher.signal(Signal::KILL);
                watch::until_dead(&launcher).await;
                Err(failed(&id, "by its launcher")(error))
            }
        }
    }

    fn prepare_and_spawn(
        &self,
        spec: &ContainerSpec,
        pod: Option<&Container>,
    ) -> Result<Spawned, ContainerError> {
        let id = &spec.id;
        let unsupported = |what| ContainerError::Unsupported { id: id.clone(), what };
        if matches!(spec.program, Program::Image { .. }) {
            let what = "command: only DOCKER images say what runs in them; set its value";
            return Err(unsupported(what.to_owned()));
        }
        let pod = pod.map(|pod| self.pod(pod)).transpose();
        let pod = pod.map_err(failed(id, "looking for its pod"))?;
        let isolation =
            isolation(&self.isolation, spec.info.as_deref(), &spec.sandbox, pod.as_ref())
                .map_err(unsupported)?;
        let credentials = spec
            .user
            .as_deref()
            .map(user::look_up)
            .transpose()
            .map_err(failed(id, "looking up its user"))?;
        if let Some(user) = &credentials {
            hand_over::hand_over(&spec.sandbox, user)
                .map_err(failed(id, "giving the sandbox to its user"))?;
        }
        let directory = self.directory.join(spec.id.as_str());
        DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .map_err(failed(id, &format!("creating {}", directory.display())))?;
        let join = match &self.cgroups {
            Some(cgroups) => {
                let bounds = Bounds::new(&spec.resources, &spec.limits, self.cpu_quota);
                cgroups
                    .create(spec.id.as_str(), &bounds)
                    .map_err(|e| failed(id, "its cgroup")(e.into()))?
            }
            None => Vec::new(),
        };
        let image = isolation.mounts.as_ref().is_some_and(|mounts| mounts.root.is_some());
        let mut environment = spec.environment.clone();
        let sandbox = if image { PathBuf::from(SANDBOX) } else { spec.sandbox.clone() };
        if image && let Some(told) = environment.get_mut(SANDBOX_VARIABLE) {
            *told = SANDBOX.to_owned();
        }
        let plan = Plan {
            v: plan::VERSION,
            program: spec.program.clone(),
            environment,
            user: credentials,
            stdout: sandbox.join("stdout"),
            stderr: sandbox.join("stderr"),
            directory: sandbox,
            join,
            isolation,
        };
        let plan = plan.write(&directory).map_err(failed(id, "writing its plan"))?;
        self.spawn(&directory, plan).map_err(failed(id, "starting its launcher"))
    }

    /// What the others of a pod need to know of its holder.
    fn pod(&self, holder: &Container) -> io::Result<Pod> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the pod has ended");
        if holder.has_ended() {
            return Err(gone());
        }
        let process = holder.started().ok_or_else(gone)?.child;
        let plan = self.directory.join(holder.id.as_str()).join(plan::FILE);
        let plan = Plan::read(&plan).map_err(io::Error::other)?;
        let mounts = plan.isolation.mounts;
        let shm = mounts.as_ref().is_some_and(|mounts| mounts.shm_bytes.is_some());
        let sandbox = mounts.map_or(plan.directory, |mounts| mounts.sandbox);
        Ok(Pod { process, sandbox, shm })
    }

    /// No closure runs between fork and exec, so that std can use `posix_spawn`: the
    /// agent's memory is not copied.
    fn spawn(&self, directory: &Path, plan: PathBuf) -> io::Result<Spawned> {
        let log = File::create(directory.join("launcher.log"))?;
        let mut child = Command::new(&self.launcher.program)
            .args(&self.launcher.args)
            .arg(plan)
            .env_clear()
            // Ours, where it is mimalloc: without a huge page to clear and to copy at the
            // fork, a launcher starts with a sixth less work. The program does not inherit it.
            .env("MIMALLOC_ARENA_RESERVE", "0")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|e| {
                let program = self.launcher.program.display();
                io::Error::new(e.kind(), format!("cannot run {program}: {e}"))
            })?;
        let launcher = Launcher::of_child(child.id());
        let says = child.stdout.take().map(OwnedFd::from).ok_or(io::ErrorKind::BrokenPipe);
        match (launcher, says) {
            (Ok(launcher), Ok(says)) => Ok(Spawned { launcher, says }),
            (launcher, says) => {
                let _ = child.kill().and_then(|()| child.wait());
                launcher.and(says.map_err(io::Error::from)).and(Err(io::ErrorKind::Other.into()))
            }
        }
    }

    /// Removes what a failed launch left behind.
    fn give_up(&self, id: &str) -> io::Result<()> {
        if !is_plain_name(id) {
            return Ok(());
        }
        if let Some(cgroups) = &self.cgroups {
            cgroups.kill(id)?;
        }
        self.clean_up(id)
    }
}

async fn read_all(says: OwnedFd) -> io::Result<String> {
    let mut text = String::new();
    let pipe = pipe::Receiver::from_owned_fd(says)?;
    pipe.take(LONGEST_MESSAGE).read_to_string(&mut text).await?;
    Ok(text)
}
