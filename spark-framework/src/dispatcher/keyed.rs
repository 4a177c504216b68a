//! What several dispatchers remember together, in a store of keys that only the one that
//! leads may write.

use std::str::{self, FromStr};

use super::{
    core::Submission,
    store::{Snapshot, Source, StoreError, StoreOp, SubmissionStore},
};

/// The folder of submissions, each a JSON object under its id.
const SUBMISSIONS: &str = "submissions";
/// The folder of what there is once, as text.
const META: &str = "meta";

const FRAMEWORK: &str = "framework";
const NEXT: &str = "next";
const FILE_KEY: &str = "file-key";

/// A key `FOLDER/NAME` and what is to become of it: its value, or nothing.
pub type KeyChange = (String, Option<Vec<u8>>);

/// Names below a folder, with their values.
pub type Folder = Vec<(String, Vec<u8>)>;

/// Keys that the leading dispatcher writes, and whoever leads after it reads. It is
/// handed in by `mezz`: this crate knows neither etcd nor elections.
///
/// Its errors are [`StoreError::Deposed`] and [`StoreError::Shared`].
pub trait Keyspace: Send + 'static {
    /// Where it is, for people.
    fn place(&self) -> String;

    /// Whether this process still leads.
    fn holds(&self) -> bool;

    /// All that is in these folders at one moment of this leadership, folder by folder.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(
        &mut self,
        folders: &[&str],
    ) -> impl Future<Output = Result<Vec<Folder>, StoreError>> + Send;

    /// Makes these changes; the last one of a key counts. Durable when it returns.
    ///
    /// # Errors
    /// When a part may not be written: each value is there wholly or not at all.
    fn write(
        &mut self,
        changes: Vec<KeyChange>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The store of the dispatcher that leads.
#[derive(Debug)]
pub struct KeyedStore<K> {
    keys: K,
    /// As it is stored: it only grows.
    next: u64,
}

impl<K: Keyspace> KeyedStore<K> {
    /// To be [loaded](SubmissionStore::load) before it is written.
    pub fn new(keys: K) -> Self {
        Self { keys, next: 0 }
    }

    fn corrupt(&self, folder: &str, name: &str, source: impl Into<Source>) -> StoreError {
        StoreError::Corrupt {
            place: self.keys.place(),
            record: format!("{folder}/{name}"),
            source: source.into(),
        }
    }

    fn submission(&self, name: &str, value: &[u8]) -> Result<Submission, StoreError> {
        let corrupt = |source: Source| self.corrupt(SUBMISSIONS, name, source);
        let submission: Submission =
            serde_json::from_slice(value).map_err(|error| corrupt(error.into()))?;
        // Under another key it could never be changed.
        if submission.id != name {
            return Err(corrupt(format!("it is the record of {}", submission.id).into()));
        }
        Ok(submission)
    }

    fn meta<T: FromStr<Err: Into<Source>>>(
        &self,
        meta: &Folder,
        name: &str,
    ) -> Result<Option<T>, StoreError> {
        let Some((_, value)) = meta.iter().find(|(key, _)| key == name) else { return Ok(None) };
        let corrupt = |source: Source| self.corrupt(META, name, source);
        let text = str::from_utf8(value).map_err(|error| corrupt(error.into()))?;
        text.parse().map(Some).map_err(|error: T::Err| corrupt(error.into()))
    }

    fn changes(&mut self, ops: Vec<StoreOp>) -> Result<Vec<KeyChange>, StoreError> {
        let mut changes = Vec::with_capacity(ops.len() + 1);
        let meta = |name: &str, value: Option<String>| {
            (format!("{META}/{name}"), value.map(String::into_bytes))
        };
        for op in ops {
            let change = match op {
                StoreOp::Put(submission) => {
                    let value = serde_json::to_vec(&submission)
                        .map_err(|error| self.corrupt(SUBMISSIONS, &submission.id, error))?;
                    // First, so that no number is given twice, whatever comes between.
                    let next = submission.seq.saturating_add(1);
                    if next > self.next {
                        self.next = next;
                        changes.push(meta(NEXT, Some(next.to_string())));
                    }
                    (format!("{SUBMISSIONS}/{}", submission.id), Some(value))
                }
                StoreOp::Remove(id) => (format!("{SUBMISSIONS}/{id}"), None),
                StoreOp::Framework(id) => meta(FRAMEWORK, id),
                StoreOp::FileKey(key) => meta(FILE_KEY, Some(key)),
            };
            changes.push(change);
        }
        Ok(changes)
    }
}

impl<K: Keyspace> SubmissionStore for KeyedStore<K> {
    async fn load(&mut self) -> Result<Snapshot, StoreError> {
        let mut folders = self.keys.read(&[SUBMISSIONS, META]).await?.into_iter();
        let submissions = folders.next().unwrap_or_default();
        let meta = folders.next().unwrap_or_default();
        let snapshot = Snapshot {
            framework: self.meta(&meta, FRAMEWORK)?,
            next: self.meta(&meta, NEXT)?.unwrap_or_default(),
            file_key: self.meta(&meta, FILE_KEY)?,
            submissions: submissions
                .iter()
                .map(|(name, value)| self.submission(name, value))
                .collect::<Result<_, _>>()?,
        };
        self.next = snapshot.next;
        Ok(snapshot)
    }

    async fn apply(&mut self, ops: Vec<StoreOp>) -> Result<(), StoreError> {
        let changes = self.changes(ops)?;
        self.keys.write(changes).await
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.keys.holds() {
            Ok(())
        } else {
            Err(StoreError::Deposed { place: self.keys.place() })
        }
    }

    fn is_shared(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{Arc, Mutex},
    };

    use super::*;
    use crate::dispatcher::store::tests::{exercise, submission};

    /// Shared by those who lead one after the other.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Inner>>);

    #[derive(Default)]
    struct Inner {
        term: u32,
        keys: BTreeMap<String, Vec<u8>>,
    }

    struct Term {
        shared: Shared,
        term: u32,
    }

    impl Shared {
        fn lead(&self) -> KeyedStore<Term> {
            let mut inner = self.0.lock().unwrap();
            inner.term += 1;
            KeyedStore::new(Term { shared: self.clone(), term: inner.term })
        }

        fn set(&self, key: &str, value: &[u8]) {
            self.0.lock().unwrap().keys.insert(key.to_owned(), value.to_vec());
        }

        fn keys(&self) -> Vec<String> {
            self.0.lock().unwrap().keys.keys().cloned().collect()
        }
    }

    impl Keyspace for Term {
        fn place(&self) -> String {
            "there".to_owned()
        }

        fn holds(&self) -> bool {
            self.shared.0.lock().unwrap().term == self.term
        }

        async fn read(&mut self, folders: &[&str]) -> Result<Vec<Folder>, StoreError> {
            let inner = self.shared.0.lock().unwrap();
            let of = |folder: &&str| {
                let prefix = format!("{folder}/");
                let inside = inner.keys.iter().filter_map(|(key, value)| {
                    Some((key.strip_prefix(&prefix)?.to_owned(), value.clone()))
                });
                inside.collect()
            };
            Ok(folders.iter().map(of).collect())
        }

        async fn write(&mut self, changes: Vec<KeyChange>) -> Result<(), StoreError> {
            if !self.holds() {
                return Err(StoreError::Deposed { place: self.place() });
            }
            let mut inner = self.shared.0.lock().unwrap();
            for (key, value) in changes {
                match value {
                    Some(value) => inner.keys.insert(key, value),
                    None => inner.keys.remove(&key),
                };
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn keys_keep_what_a_file_keeps() {
        let shared = Shared::default();
        exercise(|| shared.lead()).await;
        assert_eq!(shared.keys(), ["meta/file-key", "meta/next"]);
    }

    #[tokio::test]
    async fn the_last_leader_changes_nothing() {
        let shared = Shared::default();
        let mut first = shared.lead();
        first.load().await.unwrap();
        let one = submission();
        first.apply(vec![StoreOp::Put(Box::new(one.clone()))]).await.unwrap();
        assert_eq!(shared.keys(), ["meta/next".to_owned(), format!("submissions/{}", one.id)]);
        let mut second = shared.lead();
        let held = second.load().await.unwrap();
        assert!(matches!(first.check(), Err(StoreError::Deposed { .. })));
        let late = first.apply(vec![StoreOp::Remove(one.id.clone())]).await;
        assert!(matches!(late, Err(StoreError::Deposed { .. })));
        assert_eq!(second.load().await.unwrap(), held);
    }

    #[tokio::test]
    async fn keys_that_make_no_sense_are_named() {
        let other = serde_json::to_vec(&submission()).unwrap();
        for (key, value, why) in [
            ("submissions/driver-1", b"{".as_slice(), "EOF"),
            ("submissions/driver-1", &other, "it is the record of driver-"),
            ("meta/next", b"many", "invalid digit"),
            ("meta/framework", b"\xff", "invalid utf-8"),
        ] {
            let shared = Shared::default();
            shared.set(key, value);
            let error = shared.lead().load().await.unwrap_err();
            assert_eq!(error.to_string(), format!("there: {key} makes no sense"));
            let why_not = std::error::Error::source(&error).unwrap().to_string();
            assert!(why_not.starts_with(why), "{key}: {why_not}");
        }
        // Of a later version of mezz.
        let shared = Shared::default();
        shared.set("meta/colour", b"blue");
        assert_eq!(shared.lead().load().await.unwrap(), Snapshot::default());
    }
}
