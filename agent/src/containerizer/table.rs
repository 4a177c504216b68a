//! What one way of running containers knows of them, and starting one of them.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mezz_proto::ids::ContainerId;

use super::{BoxFuture, ContainerError, cgroup::is_plain_name};

/// All containers that are known, by their ids.
pub(super) struct Table<C>(Mutex<BTreeMap<ContainerId, Arc<C>>>);

impl<C> Default for Table<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<C> Table<C> {
    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Arc<C>>> {
        // Nothing panics while it is held; and a map is whole between two calls.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, id: &ContainerId) -> Result<Arc<C>, ContainerError> {
        self.lock().get(id).cloned().ok_or_else(|| ContainerError::Unknown(id.clone()))
    }

    /// Makes room for a container that has never been.
    pub(super) fn enter(&self, id: &ContainerId, container: &Arc<C>) -> Result<(), ContainerError> {
        let refuse = |kind, text| Err(failed(id, "its id")(io::Error::new(kind, text)));
        if !is_plain_name(id.as_str()) {
            return refuse(
                io::ErrorKind::InvalidInput,
                "must be one path component of at most 200 bytes",
            );
        }
        let mut containers = self.lock();
        if containers.contains_key(id) {
            return refuse(io::ErrorKind::AlreadyExists, "there is a container with this id");
        }
        containers.insert(id.clone(), Arc::clone(container));
        Ok(())
    }
}

/// An error on the way to a running container.
pub(super) fn failed(
    id: &ContainerId,
    doing: &str,
) -> impl FnOnce(io::Error) -> ContainerError + use<> {
    let (id, doing) = (id.clone(), doing.to_owned());
    move |source| ContainerError::Launch { id, doing, source }
}

/// Starts a container in a task of its own: half a launch must not be left behind when the
/// caller stops waiting.
pub(super) fn launch(
    id: ContainerId,
    start: impl Future<Output = Result<u32, ContainerError>> + Send + 'static,
) -> BoxFuture<'static, Result<u32, ContainerError>> {
    let task = tokio::spawn(start);
    Box::pin(async move {
        task.await
            .unwrap_or_else(|error| Err(failed(&id, "its start panicked")(io::Error::other(error))))
    })
}
