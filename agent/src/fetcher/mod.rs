//! Brings a task's URIs into its sandbox (behaviour rule 57).
//!
//! What is fetched is not trusted: names, archives and servers may be hostile, so
//! nothing is written outside of the sandbox or through a link, and nothing grows
//! beyond the limit.

mod archive;
mod source;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
    time::Duration,
};

pub use archive::ArchiveError;
use mezz_proto::v1;
use reqwest::StatusCode;
use source::Source;
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;

use crate::{containerizer::look_up_user, launcher::Credentials};

/// A server that sends nothing for so long is given up.
const STALL: Duration = Duration::from_secs(60);

/// A server that does not answer the call for so long is given up.
const CONNECT: Duration = Duration::from_secs(30);

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 10;

/// A URI could not be fetched. The text holds no credentials.
#[derive(Debug, Error)]
#[error("fetching {uri}: {reason}")]
pub struct FetchError {
    /// Which, without user, password and query.
    pub uri: String,
    /// Why not.
    #[source]
    pub reason: FetchReason,
}

/// Why a URI could not be fetched.
#[derive(Debug, Error)]
pub enum FetchReason {
    /// It is none that is understood.
    #[error("{0}")]
    Uri(String),
    /// It would be written to a bad place.
    #[error("`{name}` is no name for a file in the sandbox: {problem}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The user is not known here.
    #[error("{0}")]
    User(#[source] io::Error),
    /// The server cannot be reached, or broke off.
    #[error("{}", chain(.0))]
    Http(#[source] reqwest::Error),
    /// The server refuses.
    #[error("the server answered {0}; 200 is needed")]
    Status(StatusCode),
    /// The file cannot be read or written.
    #[error("{doing}: {source}")]
    File {
        /// At which step.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// More than the limit.
    #[error("it is larger than the limit of {0} bytes (max_fetch_bytes)")]
    TooLarge(u64),
    /// The archive is broken or hostile.
    #[error("extracting it: {0}")]
    Archive(#[from] ArchiveError),
}

fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn file_error(doing: &'static str) -> impl FnOnce(io::Error) -> FetchReason {
    move |source| FetchReason::File { doing, source }
}

/// Fetches URIs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: reqwest::Client,
    max_bytes: u64,
}

impl Fetcher {
    /// One whose files, and all that an archive holds, are at most `max_bytes` each.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(max_bytes: u64) -> Result<Self, FetchError> {
        Self::with_stall(max_bytes, STALL)
    }

    fn with_stall(max_bytes: u64, stall: Duration) -> Result<Self, FetchError> {
        // Fails where the process has one already, which then is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::limited(MAX_REDIRECTS))
            .connect_timeout(CONNECT)
            .read_timeout(stall)
            .user_agent(concat!("mezz/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| FetchError { uri: "(any)".into(), reason: FetchReason::Http(e) })?;
        Ok(Self { client, max_bytes })
    }

    /// Fetches one after the other into `sandbox`, which nobody but this process's user
    /// may change meanwhile; the files are that user's too.
    ///
    /// `file:` URIs and absolute paths are read with the rights of `user`. Archives
    /// (`.tar`, `.tgz`, `.tar.gz`, `.tar.zst`, `.zip`, `.gz`) are extracted beside
    /// themselves unless `extract` is false or `executable` is true.
    ///
    /// # Errors
    /// [`FetchError`] for the first that fails. Of that one no partial file stays,
    /// though parts of an archive may.
    pub async fn fetch(
        &self,
        uris: &[v1::command_info::Uri],
        sandbox: &Path,
        user: Option<&str>,
    ) -> Result<(), FetchError> {
        if uris.is_empty() {
            return Ok(());
        }
        let fail = |uri: &v1::command_info::Uri| {
            let uri = source::redact(&uri.value);
            move |reason| FetchError { uri, reason }
        };
        let credentials = match user.map(str::to_owned) {
            Some(name) => Some(
                blocking(move || look_up_user(&name).map_err(FetchReason::User))
                    .await
                    .map_err(fail(&uris[0]))?,
            ),
            None => None,
        };
        for uri in uris {
            self.fetch_one(uri, sandbox, credentials.clone()).await.map_err(fail(uri))?;
        }
        Ok(())
    }

    async fn fetch_one(
        &self,
        uri: &v1::command_info::Uri,
        sandbox: &Path,
        user: Option<Credentials>,
    ) -> Result<(), FetchReason> {
        let source = Source::parse(&uri.value).map_err(FetchReason::Uri)?;
        let name = match uri.output_file.as_deref() {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => source.file_name().map_err(FetchReason::Uri)?,
        };
        let executable = uri.executable.unwrap_or(false);
        let format = if executable || !uri.extract.unwrap_or(true) {
            None
        } else {
            archive::Format::of(&name).map_err(FetchReason::Archive)?
        };
        let root = sandbox.to_path_buf();
        let (target, partial) = blocking(move || place(&root, &name)).await?;

        match source {
            Source::File(path) => {
                let (to, max) = (partial.path.clone(), self.max_bytes);
                blocking(move || copy(&path, &to, max, user)).await?;
            }
            Source::Http(url) => self.download(&url, &partial.path).await?,
        }
        let (root, max_bytes) = (sandbox.to_path_buf(), self.max_bytes);
        blocking(move || {
            let mode = if executable { 0o755 } else { 0o644 };
            fs::set_permissions(&partial.path, fs::Permissions::from_mode(mode))
                .and_then(|()| fs::rename(&partial.path, &target))
                .map_err(file_error("putting it in place"))?;
            match format {
                Some(format) => Ok(archive::extract(format, &target, &root, max_bytes)?),
                None => Ok(()),
            }
        })
        .await
    }

    async fn download(&self, url: &str, to: &Path) -> Result<(), FetchReason> {
        let http = |e: reqwest::Error| FetchReason::Http(e.without_url());
        let mut response = self.client.get(url).send().await.map_err(http)?;
        if response.status() != StatusCode::OK {
            return Err(FetchReason::Status(response.status()));
        }
        if response.content_length().is_some_and(|n| n > self.max_bytes) {
            return Err(FetchReason::TooLarge(self.max_bytes));
        }
        let mut file = tokio::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(to)
            .await
            .map_err(file_error("creating the file"))?;
        let mut left = self.max_bytes;
        while let Some(chunk) = response.chunk().await.map_err(http)? {
            left = left
                .checked_sub(chunk.len() as u64)
                .ok_or(FetchReason::TooLarge(self.max_bytes))?;
            file.write_all(&chunk).await.map_err(file_error("writing the file"))?;
        }
        file.flush().await.map_err(file_error("writing the file"))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchReason> + Send + 'static,
) -> Result<T, FetchReason> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(file_error("doing it")(io::Error::other(e))))
}

/// A file that is removed unless it was renamed.
struct Partial {
    path: PathBuf,
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Where a file goes, and where it is written first. Makes the directories between.
fn place(sandbox: &Path, name: &str) -> Result<(PathBuf, Partial), FetchReason> {
    let bad = |problem| FetchReason::Name { name: name.to_owned(), problem };
    let relative = inside(Path::new(name)).map_err(bad)?;
    let target = sandbox.join(&relative);
    let parent = relative.parent().unwrap_or(Path::new(""));
    make_directories(sandbox, parent).map_err(file_error("creating its directory"))?;
    if fs::symlink_metadata(&target).is_ok_and(|m| m.is_dir()) {
        return Err(bad("a directory of this name is there"));
    }
    let last = relative.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let partial = Partial { path: sandbox.join(parent).join(format!(".{last}.fetching")) };
    let _ = fs::remove_file(&partial.path);
    Ok((target, partial))
}

/// A path without `.`; none that is absolute, goes up, or is empty.
fn inside(path: &Path) -> Result<PathBuf, &'static str> {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) if part.len() > 240 => return Err("a part is too long"),
            Component::Normal(part) => out.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err("it must not contain `..`"),
            Component::RootDir | Component::Prefix(_) => return Err("it must be relative"),
        }
    }
    if out.as_os_str().is_empty() { Err("it is empty") } else { Ok(out) }
}

/// Makes the directories of a path below `root`, never through a link.
fn make_directories(root: &Path, relative: &Path) -> io::Result<()> {
    let mut at = root.to_path_buf();
    for part in relative.components() {
        at.push(part);
        match fs::symlink_metadata(&at) {
            Ok(m) if m.is_dir() => {}
            Ok(_) => {
                let text = format!("{} is no directory", at.display());
                return Err(io::Error::new(io::ErrorKind::NotADirectory, text));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&at)?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path, max: u64, user: Option<Credentials>) -> Result<(), FetchReason> {
    let source = source::open_as(from, user).map_err(file_error("opening it"))?;
    let meta = source.metadata().map_err(file_error("opening it"))?;
    if !meta.is_file() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
        return Err(file_error("opening it")(error));
    }
    let file = create_new(to, 0o644).map_err(file_error("creating the file"))?;
    copy_at_most(source, file, max)
        .map_err(file_error("copying it"))?
        .then_some(())
        .ok_or(FetchReason::TooLarge(max))
}

/// `false` when there is more than `max` bytes.
fn copy_at_most(from: impl Read, mut to: impl Write, max: u64) -> io::Result<bool> {
    let copied = io::copy(&mut from.take(max.saturating_add(1)), &mut to)?;
    to.flush()?;
    Ok(copied <= max)
}

/// Fails where anything is, a link too.
fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

#[cfg(test)]
mod tests;
