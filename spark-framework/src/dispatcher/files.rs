//! Files that clients upload, for agents to fetch.
//!
//! A file's address holds a token that is made of its content and a key of the
//! dispatcher: nobody can guess it, and the same content has the same address, so
//! that agents fetch it once.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::{Stream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::{fs, io::AsyncWriteExt as _, sync::Mutex};

/// Where files are, in addresses.
pub(super) const PATH: &str = "/mezz/v1/files";

/// A file that no driver names is kept this long: its driver may be on its way.
const UNUSED: Duration = Duration::from_secs(3600);

/// An upload to a folder that several dispatchers share, to which nothing was added for so
/// long, was given up: far longer than [`STALL`].
const ABANDONED: Duration = Duration::from_secs(3600);

/// A client that sends nothing for so long is given up.
const STALL: Duration = Duration::from_secs(60);

/// Length of a token in hexadecimal digits.
const TOKEN: usize = 32;

/// The folder of uploaded files.
#[derive(Clone, Debug)]
pub(super) struct Files {
    folder: PathBuf,
    key: String,
    limits: Limits,
    /// Bytes in the folder, those of unfinished uploads too.
    stored: Arc<AtomicU64>,
    /// Held while whole files come and go, so that each is counted once.
    moves: Arc<Mutex<()>>,
}

/// How much is taken, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Of one file.
    pub(super) file: u64,
    /// Of all together.
    pub(super) all: u64,
}

/// Why an upload failed.
#[derive(Debug, Error)]
pub(super) enum UploadError {
    #[error("the file is larger than {0} bytes, the most that is taken (--max-file-size)")]
    TooLarge(u64),
    #[error(
        "the dispatcher has no room for it: uploaded files may have {0} bytes in all \
         (--max-files-size), and those of drivers that it remembers stay; \
         a file that no driver names goes an hour after its upload"
    )]
    Full(u64),
    #[error("the upload broke off: {0}")]
    Broken(String),
    #[error("the file cannot be stored")]
    Store(#[from] io::Error),
}

/// An uploaded file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Uploaded {
    pub(super) token: String,
    pub(super) sha256: String,
}

impl Files {
    /// Makes the folder. With `shared`, other dispatchers may be writing to it.
    pub(super) async fn open(
        folder: PathBuf,
        key: String,
        limits: Limits,
        shared: bool,
    ) -> io::Result<Self> {
        // Names are tokens: who may list them may read the files.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).await?;
        let mut stored = 0;
        let mut entries = fs::read_dir(&folder).await?;
        while let Some(entry) = entries.next_entry().await? {
            // Another dispatcher may have taken it away just now.
            let Ok(metadata) = entry.metadata().await else { continue };
            if is_token(&entry.file_name().to_string_lossy()) {
                stored += metadata.len();
                continue;
            }
            // What a former run did not finish.
            let age = metadata.modified()?.elapsed().unwrap_or_default();
            if metadata.is_file() && (!shared || age > ABANDONED) {
                fs::remove_file(entry.path()).await?;
            }
        }
        let (stored, moves) = (Arc::new(AtomicU64::new(stored)), Arc::default());
        Ok(Self { folder, key, limits, stored, moves })
    }

    /// Stores what comes; `name` tells uploads that go on at the same time apart.
    pub(super) async fn store<E: std::fmt::Display>(
        &self,
        name: &str,
        body: impl Stream<Item = Result<impl AsRef<[u8]>, E>>,
    ) -> Result<Uploaded, UploadError> {
        let path = self.folder.join(format!("part-{name}"));
        let mut part = Part { path, size: 0, stored: &self.stored };
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&part.path).await?;
        let mut hash = Sha256::new();
        let mut body = std::pin::pin!(body);
        loop {
            let next = tokio::time::timeout(STALL, body.next()).await;
            let stalled = |_| UploadError::Broken("nothing came for a minute".to_owned());
            let Some(piece) = next.map_err(stalled)? else { break };
            let piece = piece.map_err(|error| UploadError::Broken(error.to_string()))?;
            let all = part.grow(piece.as_ref().len() as u64);
            if part.size > self.limits.file {
                return Err(UploadError::TooLarge(self.limits.file));
            }
            if all > self.limits.all {
                return Err(UploadError::Full(self.limits.all));
            }
            hash.update(piece.as_ref());
            file.write_all(piece.as_ref()).await?;
        }
        file.sync_all().await?;
        let sha256 = hex(&hash.finalize());
        let mut token = hex(&Sha256::digest(format!("{}{sha256}", self.key)));
        token.truncate(TOKEN);
        let whole = self.folder.join(&token);
        let _moving = self.moves.lock().await;
        // Over an older one of the same content, which makes it new.
        // All at once: a client that goes away ends this at any `await`.
        let before = std::fs::metadata(&whole).map_or(0, |older| older.len());
        std::fs::rename(&part.path, &whole)?;
        self.stored.fetch_sub(before, Ordering::Relaxed);
        part.size = 0;
        Ok(Uploaded { token, sha256 })
    }

    /// Where the file of a token is, if the token is one.
    pub(super) fn path(&self, token: &str) -> Option<PathBuf> {
        path(&self.folder, token)
    }

    /// Of the uploaded files.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Those of these tokens whose files are here.
    ///
    /// # Errors
    /// When that cannot be told, as of a folder that this user may not enter.
    pub(super) fn held(&self, tokens: BTreeSet<String>) -> io::Result<BTreeSet<String>> {
        let mut held = BTreeSet::new();
        for token in tokens {
            let Some(path) = self.path(&token) else { continue };
            match std::fs::metadata(path) {
                Ok(_) => held.insert(token),
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => return Err(error),
            };
        }
        Ok(held)
    }

    /// Removes what is not in `used` and older than an hour; those of `forgotten`, which
    /// are of drivers submitted at that time, at once, unless they have been uploaded
    /// again since: the driver that needs them may be on its way.
    pub(super) async fn sweep(
        &self,
        used: &BTreeSet<String>,
        forgotten: &BTreeMap<String, SystemTime>,
    ) -> io::Result<()> {
        let _moving = self.moves.lock().await;
        let mut entries = fs::read_dir(&self.folder).await?;
        while let Some(entry) = entries.next_entry().await? {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !is_token(&name) || used.contains(&name) {
                continue;
            }
            let metadata = entry.metadata().await?;
            let uploaded = metadata.modified()?;
            let old = uploaded.elapsed().is_ok_and(|age| age > UNUSED);
            if old || forgotten.get(&name).is_some_and(|submitted| uploaded <= *submitted) {
                std::fs::remove_file(entry.path())?;
                self.stored.fetch_sub(metadata.len(), Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// A file that is not whole; removed unless it was moved away.
struct Part<'a> {
    path: PathBuf,
    size: u64,
    stored: &'a AtomicU64,
}

impl Part<'_> {
    /// Counts what comes; returns the bytes of all files.
    fn grow(&mut self, by: u64) -> u64 {
        self.size += by;
        self.stored.fetch_add(by, Ordering::Relaxed) + by
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        self.stored.fetch_sub(self.size, Ordering::Relaxed);
    }
}

/// Where the file of a token is in this folder, if the token is one.
pub(super) fn path(folder: &Path, token: &str) -> Option<PathBuf> {
    is_token(token).then(|| folder.join(token))
}

/// The address of a file, with that of another dispatcher at its front: files that
/// several share are fetched from the one that leads.
pub(super) fn at(uri: &str, address: &str) -> String {
    match uri.find(PATH) {
        Some(at) => format!("http://{address}{}", &uri[at..]),
        None => uri.to_owned(),
    }
}

/// The tokens of our files in these texts.
pub(super) fn tokens<'a>(texts: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut tokens = BTreeSet::new();
    for text in texts {
        for (at, _) in text.match_indices(PATH) {
            let token = text[at + PATH.len()..].trim_start_matches('/').get(..TOKEN);
            tokens.extend(token.filter(|t| is_token(t)).map(str::to_owned));
        }
    }
    tokens
}

fn is_token(text: &str) -> bool {
    text.len() == TOKEN && text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Piece = Result<Vec<u8>, String>;

    fn pieces(all: &[&str]) -> impl Stream<Item = Piece> {
        let all: Vec<Piece> = all.iter().map(|p| Ok(p.as_bytes().to_vec())).collect();
        futures_util::stream::iter(all)
    }

    async fn files(dir: &Path, key: &str) -> Files {
        Files::open(dir.join("files"), key.to_owned(), Limits { file: 10, all: 25 }, false)
            .await
            .unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir.join("files")).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[tokio::test]
    async fn the_same_content_has_one_address_that_needs_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let ours = files(dir.path(), "key").await;
        let first = ours.store("1", pieces(&["ab", "c"])).await.unwrap();
        assert_eq!(ours.store("2", pieces(&["abc"])).await.unwrap(), first);
        assert!(first.sha256.starts_with("ba7816bf8f01cfea"), "{}", first.sha256);
        assert_eq!(std::fs::read(ours.path(&first.token).unwrap()).unwrap(), b"abc");
        assert_eq!(names(dir.path()), std::slice::from_ref(&first.token));
        let theirs = files(dir.path(), "other").await.store("1", pieces(&["abc"])).await.unwrap();
        assert_ne!(theirs.token, first.token);
        for bad in ["", "..", "../x", &first.sha256, &first.token.to_uppercase()] {
            assert_eq!(ours.path(bad), None, "{bad}");
        }
    }

    /// They may hold secrets, and their names are what they are fetched by.
    #[tokio::test]
    async fn others_can_neither_read_nor_list_the_files() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path(), "key").await;
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let part = dir.path().join("files/part-1");
        let seen = std::sync::Mutex::new(None);
        let body = futures_util::stream::iter(["a", "b"]).map(|piece| {
            *seen.lock().unwrap() = Some(mode(&part));
            Ok::<_, String>(piece)
        });
        let token = files.store("1", body).await.unwrap().token;
        assert_eq!(*seen.lock().unwrap(), Some(0o600), "while it comes");
        assert_eq!(mode(&files.path(&token).unwrap()), 0o600);
        assert_eq!(mode(&dir.path().join("files")), 0o700);
    }

    #[tokio::test]
    async fn nothing_is_left_of_an_upload_that_fails() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path(), "key").await;
        let error = files.store("1", pieces(&["0123456789", "0"])).await.unwrap_err();
        assert!(matches!(error, UploadError::TooLarge(10)));
        let broken = futures_util::stream::iter([Ok("a"), Err("gone")]);
        let error = files.store("1", broken).await.unwrap_err();
        assert_eq!(error.to_string(), "the upload broke off: gone");
        assert!(names(dir.path()).is_empty());
        std::fs::write(dir.path().join("files/part-9"), "").unwrap();
        super::tests::files(dir.path(), "key").await;
        assert!(names(dir.path()).is_empty());
    }

    #[tokio::test]
    async fn files_go_with_the_last_driver_that_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path(), "key").await;
        let token = async |text| files.store("1", pieces(&[text])).await.unwrap().token;
        let (a, b, c, d) = (token("a").await, token("b").await, token("c").await, token("d").await);
        let set = |all: &[&String]| all.iter().map(|t| (*t).clone()).collect::<BTreeSet<_>>();
        let uploaded = |t: &String, at: SystemTime| {
            let file = std::fs::File::options().write(true).open(files.path(t).unwrap()).unwrap();
            file.set_modified(at).unwrap();
        };
        let now = SystemTime::now();
        uploaded(&b, now - Duration::from_secs(1));
        uploaded(&d, now + Duration::from_secs(1));
        let forgotten = [&a, &b, &d].map(|t| (t.clone(), now)).into();
        files.sweep(&set(&[&a]), &forgotten).await.unwrap();
        let left: BTreeSet<String> = names(dir.path()).into_iter().collect();
        assert_eq!(left, set(&[&a, &c, &d]), "c is too new to go, and d was uploaded again");
        uploaded(&c, now - 2 * UNUSED);
        uploaded(&d, now - 2 * UNUSED);
        files.sweep(&set(&[&a]), &BTreeMap::new()).await.unwrap();
        assert_eq!(names(dir.path()), [a]);
    }

    #[tokio::test]
    async fn all_files_together_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let ours = files(dir.path(), "key").await;
        let store = async |text: &str| ours.store("1", pieces(&[text])).await;
        // The same content counts once.
        for text in ["0123456789", "01234", "0123456789", "0123456789", "abcdefghij"] {
            store(text).await.unwrap();
        }
        assert!(matches!(store("f").await, Err(UploadError::Full(25))));
        // Also after a restart, until some are gone.
        let ours = files(dir.path(), "key").await;
        assert!(matches!(ours.store("1", pieces(&["f"])).await, Err(UploadError::Full(25))));
        let later = SystemTime::now() + Duration::from_secs(1);
        let forgotten = names(dir.path()).into_iter().map(|name| (name, later)).collect();
        ours.sweep(&BTreeSet::new(), &forgotten).await.unwrap();
        ours.store("1", pieces(&["f"])).await.unwrap();
    }

    #[tokio::test]
    async fn in_a_shared_folder_uploads_of_others_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("files");
        std::fs::create_dir(&folder).unwrap();
        for part in ["part-1", "part-2"] {
            std::fs::write(folder.join(part), "half").unwrap();
        }
        let old = std::fs::File::options().write(true).open(folder.join("part-2")).unwrap();
        old.set_modified(SystemTime::now() - 2 * ABANDONED).unwrap();
        let limits = Limits { file: 10, all: 25 };
        let files = Files::open(folder, "key".to_owned(), limits, true).await.unwrap();
        assert_eq!(names(dir.path()), ["part-1"]);
        let token = files.store("3", pieces(&["a"])).await.unwrap().token;
        let asked = BTreeSet::from([token.clone(), "0".repeat(TOKEN)]);
        assert_eq!(files.held(asked).unwrap(), BTreeSet::from([token]));
    }

    #[test]
    fn a_file_is_fetched_from_whoever_leads() {
        let t = "0123456789abcdef0123456789abcdef";
        let there = format!("http://old:7077{PATH}/{t}/a.jar#b");
        assert_eq!(at(&there, "new:7078"), format!("http://new:7078{PATH}/{t}/a.jar#b"));
        assert_eq!(at("hdfs://a/b", "new:7078"), "hdfs://a/b");
    }

    #[test]
    fn tokens_are_found_in_settings() {
        let t = "0123456789abcdef0123456789abcdef";
        let list = format!("http://h:7077{PATH}/{t}/a.jar,http://x/{t},http://h{PATH}/short/b");
        assert_eq!(tokens([list.as_str()].into_iter()), BTreeSet::from([t.to_owned()]));
    }
}
