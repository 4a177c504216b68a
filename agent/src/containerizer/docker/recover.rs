//! After an agent's start: which containers are there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bollard::{
    models::ContainerSummaryStateEnum as Status, query_parameters::ListContainersOptionsBuilder,
};
use mezz_proto::ids::ContainerId;

use super::{
    ContainerError, Inner, Recovery,
    container::{Container, State},
    engine::EngineError,
    gpus::Gpus,
    identity,
    position::Record,
    spec::{LABEL_AGENT, LABEL_CONTAINER},
    watch,
};

/// So long the agent's start waits for an engine that says nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// So long it waits for containers that nobody knows to end.
const STRANGER_PATIENCE: Duration = Duration::from_secs(5);

/// Which Docker containers there are cannot be found out.
fn failed(source: io::Error) -> ContainerError {
    ContainerError::Operation {
        id: ContainerId::new("(all)"),
        doing: "looking for Docker containers",
        source,
    }
}

/// Without an engine: refuses to leave behind what an earlier agent of this folder has in
/// one.
pub(in super::super) async fn refuse_to_abandon(work_dir: PathBuf) -> Result<(), ContainerError> {
    tokio::task::spawn_blocking(move || identity::refuse_to_abandon(&work_dir))
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(failed)
}

impl Inner {
    pub(super) async fn recover(
        self: Arc<Self>,
        known: Vec<ContainerId>,
    ) -> Result<Recovery, ContainerError> {
        let inner = Arc::clone(&self);
        let records = tokio::task::spawn_blocking(move || inner.records())
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(failed)?;
        let there = match tokio::time::timeout(PATIENCE, self.list()).await {
            Ok(Ok(there)) => Some(there),
            // What runs on the right one would be given up.
            Ok(Err(error)) if error.is_another() => return Err(failed(error.into())),
            Ok(Err(error)) => {
                tracing::warn!(%error, "Docker containers cannot be looked for");
                None
            }
            Err(_) => {
                tracing::warn!("Docker containers cannot be looked for: the engine says nothing");
                None
            }
        };
        let mut found = BTreeMap::new();
        for id in known {
            let record = records.get(&id);
            let adopted = match (&there, record) {
                (None, Some(_)) => {
                    tracing::warn!(
                        container = %id,
                        "a container of the Docker engine is looked for until that answers"
                    );
                    true
                }
                (None, None) => false,
                // What was made and not started never will be: the next line ends it.
                (Some(there), _) if there.get(&id).is_some_and(|(_, s)| *s == Status::CREATED) => {
                    false
                }
                (Some(there), _) if there.contains_key(&id) => true,
                // It did run, and is gone.
                (Some(_), record) => record.is_some_and(|record| record.started),
            };
            if adopted {
                // The record is only gone if somebody removed it.
                let gpus = record.map(|record| record.gpus).unwrap_or_default();
                self.adopt(&id, Gpus::from_bits(gpus));
            } else if record.is_some() {
                self.forget_record(&id);
            }
            found.insert(id, adopted);
        }
        for id in records.keys().filter(|id| !found.contains_key(*id)) {
            self.forget_record(id);
        }
        let unended = match there {
            Some(_) => self.end_strangers_soon().await,
            None => BTreeSet::new(),
        };
        // From now on strangers are looked for now and then; not twice at a time.
        self.recovered.store(true, Ordering::Release);
        Ok(Recovery { known: found, unended })
    }

    /// All containers that an earlier agent of this folder made, or was about to.
    fn records(&self) -> io::Result<BTreeMap<ContainerId, Record>> {
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let record = Record::read(&fs::File::open(entry.path())?)?;
            records.insert(ContainerId::new(name), record.unwrap_or_default());
        }
        Ok(records)
    }

    /// All containers of this agent in the engine, with the engine's ids.
    async fn list(&self) -> Result<BTreeMap<ContainerId, (String, Status)>, EngineError> {
        let label = format!("{LABEL_AGENT}={}", self.identity.agent());
        let filters = HashMap::from([("label", vec![label.as_str()])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let all = self
            .engine
            .call(|link| async move { link.list_containers(Some(options)).await })
            .await?;
        let id = |labels: Option<HashMap<String, String>>| labels?.remove(LABEL_CONTAINER);
        Ok(all
            .into_iter()
            .filter_map(|one| {
                let state = one.state.unwrap_or(Status::EMPTY);
                Some((ContainerId::new(id(one.labels)?), (one.id?, state)))
            })
            .collect())
    }

    fn adopt(self: &Arc<Self>, id: &ContainerId, gpus: Gpus) {
        let container = Container::new(id.clone(), State::Running);
        container.set_gpus(gpus);
        self.containers.lock().insert(id.clone(), Arc::clone(&container));
        watch::watch(Arc::clone(self), container);
    }

    async fn end_strangers_soon(&self) -> BTreeSet<ContainerId> {
        let error = match tokio::time::timeout(STRANGER_PATIENCE, self.end_strangers()).await {
            Ok(Ok(())) => return BTreeSet::new(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it takes too long".to_owned(),
        };
        tracing::warn!(error, "containers that nobody knows do not end; the agent goes on trying");
        match tokio::time::timeout(STRANGER_PATIENCE, self.list()).await {
            Ok(Ok(there)) => there.into_keys().filter(|id| !self.knows(id)).collect(),
            _ => BTreeSet::new(),
        }
    }

    /// Ends and removes the containers of this agent that nobody knows.
    pub(super) async fn end_strangers(&self) -> Result<(), EngineError> {
        let mut ended = Ok(());
        for (id, (engines, _)) in self.list().await? {
            // Asked now: it may have been started since the engine was asked.
            if !self.knows(&id) {
                tracing::warn!(container = %id, "ending a container that nobody knows");
                ended = ended.and(self.withdraw(&engines).await);
            }
        }
        ended
    }

    fn knows(&self, id: &ContainerId) -> bool {
        self.containers.lock().contains_key(id)
    }
}
