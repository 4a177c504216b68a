//! Who this agent is to engines, and which engine has its containers: in
//! `<work_dir>/docker.json`, beside the records of its containers in `<work_dir>/docker`.
//!
//! Paths are no names: two agents may see two folders by the same path, and one address
//! may lead to another engine tomorrow.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

const FILE: &str = "docker.json";

/// What it says of how it is written.
const VERSION: u32 = 1;

/// Of records of containers.
const RECORDS: &str = "docker";

/// What is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    v: u32,
    /// Random, made once. Stands on the labels of this agent's containers.
    agent: String,
    /// The id of the engine that was used last.
    engine: Option<String>,
}

/// What an agent knows of itself and its engine.
#[derive(Debug)]
pub(super) struct Identity {
    path: PathBuf,
    records: PathBuf,
    agent: String,
    known: Mutex<Known>,
}

/// Why an engine is not used.
#[derive(Debug)]
pub(super) enum Objection {
    /// Another one has containers of this agent.
    Another(String),
    /// It cannot be known.
    Io(io::Error),
}

impl Identity {
    /// Of the agent whose folder that is; made if there is none.
    ///
    /// # Errors
    /// With the path that cannot be made or read.
    pub(super) fn open(work_dir: &Path) -> Result<Self, (PathBuf, io::Error)> {
        let path = work_dir.join(FILE);
        let known = match fs::read(&path) {
            Ok(text) => Known::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let agent = uuid::Uuid::new_v4().to_string();
                let known = Known { v: VERSION, agent, engine: None };
                known.write(&path).map(|()| known)
            }
            Err(error) => Err(error),
        };
        match known {
            Ok(known) => Ok(Self {
                path,
                records: work_dir.join(RECORDS),
                agent: known.agent.clone(),
                known: Mutex::new(known),
            }),
            Err(error) => Err((path, error)),
        }
    }

    /// What stands on the labels of this agent's containers.
    pub(super) fn agent(&self) -> &str {
        &self.agent
    }

    /// Whether an engine may be used. One with another id than the last may if no
    /// container is on record, and is remembered from then on. Blocks.
    pub(super) fn admit(&self, engine: &str) -> Result<(), Objection> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.engine.as_deref() == Some(engine) {
            return Ok(());
        }
        let count = count(&self.records).map_err(self.io())?;
        if let Some(before) = known.engine.as_deref().filter(|_| count > 0) {
            return Err(Objection::Another(format!(
                "its id is {engine}, and {} on that with the id {before}. {}",
                containers(count),
                advice(&self.records)
            )));
        }
        let now = Known { engine: Some(engine.to_owned()), ..known.clone() };
        now.write(&self.path).map_err(self.io())?;
        *known = now;
        Ok(())
    }

    fn io(&self) -> impl FnOnce(io::Error) -> Objection + use<'_> {
        |error| {
            let text = format!("{}, which tells which engine it is: {error}", self.path.display());
            Objection::Io(io::Error::new(error.kind(), text))
        }
    }
}

/// Refuses to leave behind what an earlier agent of this folder has in an engine.
///
/// # Errors
/// A sentence that tells what to do.
pub(super) fn refuse_to_abandon(work_dir: &Path) -> io::Result<()> {
    let records = work_dir.join(RECORDS);
    match count(&records)? {
        0 => Ok(()),
        count => Err(io::Error::other(format!(
            "{} in a Docker engine, and the agent was started without one (--docker). {}",
            containers(count),
            advice(&records)
        ))),
    }
}

fn containers(count: usize) -> String {
    match count {
        1 => "one container of this agent is".to_owned(),
        _ => format!("{count} containers of this agent are"),
    }
}

fn advice(records: &Path) -> String {
    format!(
        "Start the agent with --docker as it was before; or, to leave them behind, \
         whatever they do, and to report their tasks as lost, stop the agent and remove {}",
        records.display()
    )
}

fn count(records: &Path) -> io::Result<usize> {
    match fs::read_dir(records) {
        Ok(entries) => Ok(entries.count()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

impl Known {
    fn parse(text: &[u8]) -> io::Result<Self> {
        let known: Self = serde_json::from_slice(text)?;
        if known.v != VERSION {
            return Err(io::Error::other(format!(
                "it is of version {}, and this agent knows only version {VERSION}",
                known.v
            )));
        }
        Ok(known)
    }

    /// Whole or not at all, and still there after a power cut.
    fn write(&self, path: &Path) -> io::Result<()> {
        let fresh = path.with_extension("json.new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objection(identity: &Identity, engine: &str) -> String {
        match identity.admit(engine).unwrap_err() {
            Objection::Another(text) => text,
            Objection::Io(error) => panic!("{error}"),
        }
    }

    #[test]
    fn it_is_made_once_and_never_twice_the_same() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Identity::open(one.path()).unwrap();
        first.admit("A").unwrap();
        let again = Identity::open(one.path()).unwrap();
        assert_eq!(first.agent(), again.agent());
        assert_eq!(again.known.lock().unwrap().engine.as_deref(), Some("A"));
        assert_ne!(first.agent(), Identity::open(two.path()).unwrap().agent());
        for broken in ["{", r#"{"v":2,"agent":"a","engine":null}"#] {
            fs::write(one.path().join(FILE), broken).unwrap();
            let (path, _) = Identity::open(one.path()).unwrap_err();
            assert_eq!(path, one.path().join(FILE));
        }
    }

    #[test]
    fn another_engine_may_be_used_only_when_the_last_has_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let records = dir.path().join(RECORDS);
        fs::create_dir(&records).unwrap();
        let identity = Identity::open(dir.path()).unwrap();
        fs::write(records.join("c1"), "").unwrap();
        identity.admit("A").expect("nothing is known of any other");
        let text = objection(&identity, "B");
        assert!(text.starts_with("its id is B, and one container of this agent is on"), "{text}");
        assert!(text.contains(&format!("remove {}", records.display())), "{text}");
        identity.admit("A").unwrap();
        assert!(objection(&Identity::open(dir.path()).unwrap(), "B").contains("the id A"));
        let text = refuse_to_abandon(dir.path()).unwrap_err().to_string();
        assert!(text.contains("without one (--docker)"), "{text}");
        fs::remove_dir_all(&records).unwrap();
        refuse_to_abandon(dir.path()).unwrap();
        identity.admit("B").unwrap();
        identity.admit("A").unwrap();
    }
}
