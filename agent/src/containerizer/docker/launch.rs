//! Starting a container.

use std::{io, sync::Arc};

use bollard::query_parameters::{CreateContainerOptionsBuilder, StartContainerOptions};
use mezz_proto::{ids::ContainerId, v1};

use super::{
    ContainerError, ContainerSpec, Inner,
    container::{Container, State},
    engine::EngineError,
    guard,
    logs::Sink,
    spec::{self, Context, Request},
    watch,
};
use crate::{
    containerizer::{
        process::{hand_over, look_up_user},
        table::failed,
    },
    launcher::{Credentials, points::beneath},
};

fn unsupported(id: &ContainerId) -> impl FnOnce(String) -> ContainerError + use<> {
    let id = id.clone();
    move |what| ContainerError::Unsupported { id, what }
}

impl Inner {
    /// Fetches the image, which may take long.
    pub(super) async fn prepare(
        &self,
        id: &ContainerId,
        info: Option<&v1::ContainerInfo>,
    ) -> Result<(), ContainerError> {
        let Some(info) = info else { return Ok(()) };
        let (image, force) = spec::image(info).map_err(unsupported(id))?;
        self.pulls
            .ensure(&image, force)
            .await
            .map_err(|why| failed(id, "getting its image")(io::Error::other(why)))
    }

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
            self.forget_record(&id);
        }
        result
    }

    async fn start(
        self: Arc<Self>,
        spec: ContainerSpec,
        container: &Arc<Container>,
    ) -> Result<u32, ContainerError> {
        let id = &spec.id;
        let inner = Arc::clone(&self);
        let (of_task, name, it) = (spec.clone(), id.clone(), Arc::clone(container));
        let prepare = move || inner.prepare_folder(&of_task, &it);
        let (request, sink) = tokio::task::spawn_blocking(prepare)
            .await
            .unwrap_or_else(|e| Err(failed(&name, "preparing it")(io::Error::other(e))))?;
        // Set once: the container is new.
        let _ = container.sink.set(sink.clone());

        let made = self.create(id, &request).await?;
        let name = &made;
        let started =
            self.engine
                .call(|link| async move {
                    link.start_container(name, None::<StartContainerOptions>).await
                })
                .await;
        if let Err(error) = started {
            // Not by its name, which may be another's.
            if let Err(error) = self.withdraw(&made).await {
                tracing::debug!(container = %id, %error, "a failed container is removed later");
            }
            return Err(failed(id, "starting it in the Docker engine")(error.into()));
        }
        if let Err(error) = sink.set_started() {
            tracing::warn!(container = %id, %error, "its start is not on record");
        }
        container.set(State::Running);
        watch::watch(Arc::clone(&self), Arc::clone(container));
        // A program that has already ended has none.
        let state = self.inspect(container).await.ok().and_then(|now| now.state);
        Ok(state.and_then(|state| state.pid?.try_into().ok()).unwrap_or_default())
    }

    /// All that blocks.
    fn prepare_folder(
        &self,
        spec: &ContainerSpec,
        container: &Container,
    ) -> Result<(Request, Sink), ContainerError> {
        let id = &spec.id;
        let user = spec
            .user
            .as_deref()
            .map(look_up_user)
            .transpose()
            .map_err(failed(id, "looking up its user"))?
            .filter(|user| user.uid != nix::unistd::geteuid().as_raw());
        let ids = user.as_ref().map(|user: &Credentials| (user.uid, user.gid));
        let gpus = spec::wanted_gpus(spec).map_err(unsupported(id))?;
        let gpus = self
            .take_gpus(container, gpus)
            .map_err(|why| failed(id, "giving it GPUs")(io::Error::other(why)))?;
        let context = Context {
            agent: self.identity.agent(),
            cpu_quota: self.cpu_quota,
            pids_limit: self.pids_limit,
            user: ids,
            gpus,
        };
        let mut request = spec::translate(spec, &context).map_err(unsupported(id))?;
        for folder in &request.folders {
            // Never through a link that leads out. What was fetched may be a file already.
            let path = folder.strip_prefix(&spec.sandbox).unwrap_or(folder);
            beneath(&spec.sandbox, path, true, user.as_ref()).map_err(|why| {
                failed(id, "making the folder of a volume")(io::Error::other(why))
            })?;
        }
        if let Some(host) = &mut request.body.host_config {
            guard::check(host, &spec.sandbox, &self.isolation).map_err(unsupported(id))?;
        }
        if let Some(user) = &user {
            hand_over(&spec.sandbox, user).map_err(failed(id, "giving the sandbox to its user"))?;
        }
        let sink = Sink::create(&self.record(id), &spec.sandbox, gpus)
            .map_err(failed(id, "recording it in docker/ of the --work-dir"))?;
        Ok((request, sink))
    }

    /// The engine's id of a new container. The image may have been removed since it was
    /// looked for: who waits for it then holds no place among those that start.
    async fn create(&self, id: &ContainerId, request: &Request) -> Result<String, ContainerError> {
        self.create_once(request).await.map_err(|error| {
            let id = id.clone();
            if error.is_not_found() && error.to_string().contains("No such image") {
                return ContainerError::ImageGone { id, image: request.image.clone() };
            }
            failed(&id, "creating it in the Docker engine")(error.into())
        })
    }

    async fn create_once(&self, request: &Request) -> Result<String, EngineError> {
        let options = CreateContainerOptionsBuilder::new().name(&request.name).build();
        let body = request.body.clone();
        self.engine
            .call(|link| async move { link.create_container(Some(options), body).await })
            .await
            .map(|made| {
                for warning in made.warnings {
                    tracing::debug!(container = request.name, warning, "the Docker engine warns");
                }
                made.id
            })
    }
}
