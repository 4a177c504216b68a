//! Which containerizer a container belongs to: by its type when it is started, and by who
//! knows it from then on.

use std::{collections::BTreeMap, path::PathBuf};

use mezz_proto::{ids::ContainerId, resources::Resources, v1::container_info};

use super::{
    Ability, Addressee, BoxFuture, ContainerError, ContainerSpec, Containerizer, Exec, ExecSpec,
    Recovery, Statistics, Termination,
    docker::{self, DockerContainers},
    process::Processes,
};

/// All containers of one agent.
pub(super) struct Choice {
    processes: Processes,
    docker: Option<DockerContainers>,
    work_dir: PathBuf,
}

impl Choice {
    pub(super) fn new(
        processes: Processes,
        docker: Option<DockerContainers>,
        work_dir: PathBuf,
    ) -> Self {
        Self { processes, docker, work_dir }
    }

    fn of(&self, id: &ContainerId) -> &dyn Containerizer {
        match &self.docker {
            Some(docker) if docker.has(id) => docker,
            _ => &self.processes,
        }
    }

    fn for_spec(&self, spec: &ContainerSpec) -> Result<&dyn Containerizer, ContainerError> {
        let docker = container_info::Type::Docker;
        if spec.info.as_ref().is_none_or(|info| info.r#type() != docker) {
            return Ok(&self.processes);
        }
        match &self.docker {
            Some(docker) => Ok(docker),
            None => Err(ContainerError::Unsupported {
                id: spec.id.clone(),
                what: "container.type is DOCKER, and this agent was started without a Docker \
                       engine (its --docker)"
                    .to_owned(),
            }),
        }
    }
}

impl Containerizer for Choice {
    fn name(&self) -> &'static str {
        self.processes.name()
    }

    fn is_of_engine(&self, id: &ContainerId) -> bool {
        self.docker.as_ref().is_some_and(|docker| docker.has(id))
    }

    fn prepare(&self, spec: &ContainerSpec) -> BoxFuture<'_, Result<(), ContainerError>> {
        match self.for_spec(spec) {
            Ok(containerizer) => containerizer.prepare(spec),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn launch(&self, spec: ContainerSpec) -> BoxFuture<'_, Result<u32, ContainerError>> {
        match self.for_spec(&spec) {
            Ok(containerizer) => containerizer.launch(spec),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn wait(&self, id: &ContainerId) -> BoxFuture<'_, Result<Termination, ContainerError>> {
        self.of(id).wait(id)
    }

    fn signal(
        &self,
        id: &ContainerId,
        signal: i32,
        to: Addressee,
    ) -> BoxFuture<'_, Result<(), ContainerError>> {
        self.of(id).signal(id, signal, to)
    }

    fn destroy(&self, id: &ContainerId) -> BoxFuture<'_, Result<(), ContainerError>> {
        self.of(id).destroy(id)
    }

    fn update(
        &self,
        id: &ContainerId,
        resources: Resources,
        limits: BTreeMap<String, f64>,
    ) -> BoxFuture<'_, Result<(), ContainerError>> {
        self.of(id).update(id, resources, limits)
    }

    fn statistics(&self, id: &ContainerId) -> BoxFuture<'_, Result<Statistics, ContainerError>> {
        self.of(id).statistics(id)
    }

    fn processes(&self, id: &ContainerId) -> BoxFuture<'_, Result<Vec<i32>, ContainerError>> {
        self.of(id).processes(id)
    }

    fn network(&self, id: &ContainerId) -> BoxFuture<'_, Result<Option<PathBuf>, ContainerError>> {
        self.of(id).network(id)
    }

    fn exec(
        &self,
        id: &ContainerId,
        spec: ExecSpec,
    ) -> BoxFuture<'_, Result<Exec, ContainerError>> {
        self.of(id).exec(id, spec)
    }

    fn abilities(&self) -> Vec<Ability> {
        let docker = self.docker.iter().flat_map(DockerContainers::abilities);
        self.processes.abilities().into_iter().chain(docker).collect()
    }

    fn recover(&self, known: Vec<ContainerId>) -> BoxFuture<'_, Result<Recovery, ContainerError>> {
        Box::pin(async move {
            let Some(docker) = &self.docker else {
                docker::refuse_to_abandon(self.work_dir.clone()).await?;
                return self.processes.recover(known).await;
            };
            let (processes, docker) =
                tokio::join!(self.processes.recover(known.clone()), docker.recover(known));
            let (mut all, docker) = (processes?, docker?);
            for (id, found) in docker.known {
                *all.known.entry(id).or_default() |= found;
            }
            all.unended.extend(docker.unended);
            Ok(all)
        })
    }

    fn remove(&self, id: &ContainerId) -> BoxFuture<'_, Result<(), ContainerError>> {
        self.of(id).remove(id)
    }
}
