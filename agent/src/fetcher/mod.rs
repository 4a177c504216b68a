//! Brings a task's URIs into its sandbox (behaviour rule 57).
//!
//! What is fetched is not trusted: names, archives and servers may be hostile, so
//! nothing is written outside of the sandbox or through a link, and nothing grows
//! beyond the limit.

mod archive;
mod cache;
mod command;
mod download;
mod error;
mod meter;
mod place;
mod source;
mod turns;

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

pub use archive::ArchiveError;
use archive::Format;
use cache::{Cache, Key};
use command::User;
use download::{Downloader, Patience};
pub use error::{FetchError, FetchReason, SetupError};
use error::{chain, file_error};
use mezz_proto::{ids::FrameworkId, v1};
use place::{create_new, place};
use sha2::{Digest as _, Sha256};
use source::{Checksum, Source};
use tokio::time::Instant;
use turns::{Bounds, Turn, Turns};

use crate::{
    containerizer::look_up_user,
    launcher::Credentials,
    options::{AgentOptions, FetcherOptions},
};

/// Downloads and commands that go on at one time, with the check of what they brought.
const TRANSFERS: Bounds = Bounds { each: 16, all: 64 };

/// Files that are copied, with their check, or extracted at one time; each takes a thread.
const LOCAL: Bounds = Bounds { each: 8, all: 16 };

/// Fetches URIs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fetcher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    downloader: Downloader,
    options: FetcherOptions,
    max_bytes: u64,
    folder: PathBuf,
    cache: Arc<Cache>,
    transfers: Turns,
    local: Turns,
    /// Folders of commands so far.
    commands: AtomicU64,
}

/// Checks one of [`FetcherOptions::commands`].
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn check_command(scheme: &str, command: &str) -> Result<(), String> {
    let mut letters = scheme.chars();
    let good = letters.next().is_some_and(|c| c.is_ascii_lowercase())
        && letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c));
    if !good {
        return Err(format!(
            "`{scheme}` is no scheme of URIs; it must be small letters, such as \
             hdfs"
        ));
    }
    let mut words = command.split_whitespace();
    let program = words.next().is_some_and(|word| !word.contains('{'));
    if program && ["{uri}", "{path}"].iter().all(|part| words.clone().any(|w| w.contains(part))) {
        return Ok(());
    }
    Err(format!(
        "the command for {scheme} must be a program with arguments that hold \
         {{uri}} and {{path}}, such as `hadoop fs -copyToLocal {{uri}} {{path}}`, not `{command}`"
    ))
}

/// What is wanted of one URI.
struct Wanted<'a> {
    framework: &'a FrameworkId,
    source: Source,
    checksum: Option<Checksum>,
    user: Option<User>,
}

impl Fetcher {
    /// One whose files, and all that an archive holds, are at most `max_fetch_bytes`
    /// each. Empties `work_dir/fetch`. Where https cannot work it is said in the log,
    /// and only https URIs fail.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(options: &AgentOptions) -> Result<Self, SetupError> {
        let folder = options.work_dir.join("fetch");
        Self::open(folder, options.max_fetch_bytes, options.fetcher.clone(), Patience::default())
    }

    fn open(
        folder: PathBuf,
        max_bytes: u64,
        options: FetcherOptions,
        patience: Patience,
    ) -> Result<Self, SetupError> {
        let made = match fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => fs::create_dir_all(&folder),
        };
        let cache = made
            // Commands of any user get through to their own folders.
            .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o711)))
            .and_then(|()| Cache::new(folder.join("cache"), options.cache_bytes))
            .map_err(|source| SetupError::Folder { path: folder.clone(), source })?;
        let downloader = Downloader::new(patience).map_err(SetupError::Client)?;
        Ok(Self(Arc::new(Inner {
            downloader,
            options,
            max_bytes,
            folder,
            cache: Arc::new(cache),
            transfers: Turns::new(TRANSFERS),
            local: Turns::new(LOCAL),
            commands: AtomicU64::new(0),
        })))
    }

    /// Fetches one after the other into `sandbox`, which nobody but this process's user
    /// may change meanwhile; the files are that user's too.
    ///
    /// `file:` URIs and absolute paths are read with the rights of `user`, who also runs
    /// the commands for other schemes. Archives are extracted beside themselves unless
    /// `extract` is false or `executable` is true; of one that is cached only the content
    /// comes into the sandbox.
    ///
    /// Each file waits for its turn, of which each `framework` has its share: one whose
    /// servers are slow keeps no other waiting. What is in the cache needs no download,
    /// and waits for none. May be dropped at any time.
    ///
    /// # Errors
    /// [`FetchError`] for the first that fails, or is not there by
    /// [`timeout`](FetcherOptions::timeout). Of that one no partial file stays, though
    /// parts of an archive may.
    pub async fn fetch(
        &self,
        uris: &[v1::command_info::Uri],
        framework: &FrameworkId,
        sandbox: &Path,
        user: Option<&str>,
    ) -> Result<(), FetchError> {
        if uris.is_empty() {
            return Ok(());
        }
        let fail = |uri: &v1::command_info::Uri| {
            let uri = mezz_proto::pages::without_credentials(&uri.value).into_owned();
            move |reason| FetchError { uri, reason }
        };
        let user = match user.map(str::to_owned) {
            Some(name) => {
                let look_up = move || {
                    let credentials = look_up_user(&name).map_err(FetchReason::User)?;
                    Ok(User { name, credentials })
                };
                Some(blocking(look_up).await.map_err(fail(&uris[0]))?)
            }
            None => None,
        };
        let patience = self.0.options.timeout;
        let deadline = Instant::now() + patience;
        for uri in uris {
            let fetched = self.0.fetch_one(uri, framework, sandbox, user.clone());
            let fetched = tokio::time::timeout_at(deadline, fetched).await;
            fetched.unwrap_or(Err(FetchReason::Late(patience))).map_err(fail(uri))?;
        }
        Ok(())
    }
}

impl Inner {
    async fn fetch_one(
        &self,
        uri: &v1::command_info::Uri,
        framework: &FrameworkId,
        sandbox: &Path,
        user: Option<User>,
    ) -> Result<(), FetchReason> {
        let (value, checksum) = source::split_checksum(&uri.value).map_err(FetchReason::Uri)?;
        let source = Source::parse(value, &self.options.commands).map_err(FetchReason::Uri)?;
        let name = match uri.output_file.as_deref() {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => source.file_name().map_err(FetchReason::Uri)?,
        };
        let mode = if uri.executable() { 0o755 } else { 0o644 };
        let extract = uri.extract() && !uri.executable();
        let format = Format::of(&name).filter(|_| extract);
        let key = Key { user: user.as_ref().map(|u| u.name.clone()), uri: uri.value.clone() };
        let wanted = Wanted { framework, source, checksum, user };
        let root = sandbox.to_path_buf();
        let (target, partial) = blocking(move || place(&root, &name)).await?;

        let (root, max) = (sandbox.to_path_buf(), self.max_bytes);
        if !uri.cache() {
            let turn = self.turn(&wanted).await;
            self.bring(&wanted, &partial.path, turn).await?;
            let turn = self.local.take(framework).await;
            return in_turn(turn, move || {
                put(&partial.path, &target, mode)?;
                match format {
                    Some(format) => Ok(archive::extract(format, &target, &target, &root, max)?),
                    None => Ok(()),
                }
            })
            .await;
        }
        let wanted = &wanted;
        let bring = |to: PathBuf, turn| async move { self.bring(wanted, &to, turn).await };
        let cached = self.cache.get(key, || self.turn(wanted), bring).await?;
        let turn = self.local.take(framework).await;
        in_turn(turn, move || match format {
            Some(format) => Ok(archive::extract(format, &cached.path(), &target, &root, max)?),
            None => {
                copy(&cached.path(), &partial.path, max, None)?;
                put(&partial.path, &target, mode)
            }
        })
        .await
    }

    async fn turn(&self, wanted: &Wanted<'_>) -> Turn {
        let turns = match &wanted.source {
            Source::File(_) => &self.local,
            Source::Http(_) | Source::Command { .. } => &self.transfers,
        };
        turns.take(wanted.framework).await
    }

    /// Into a new file, checked.
    async fn bring(&self, wanted: &Wanted<'_>, to: &Path, turn: Turn) -> Result<(), FetchReason> {
        let (path, max) = (to.to_owned(), self.max_bytes);
        let checksum = wanted.checksum;
        let checked = move || checksum.map_or(Ok(()), |checksum| check(&path, checksum));
        match &wanted.source {
            Source::File(from) => {
                let (from, to) = (from.clone(), to.to_owned());
                let user = wanted.user.as_ref().map(|user| user.credentials.clone());
                return in_turn(turn, move || {
                    copy(&from, &to, max, user)?;
                    checked()
                })
                .await;
            }
            Source::Http(url) => self.downloader.get(url, to, max).await?,
            Source::Command { command, uri } => {
                let folder = self.command_folder()?;
                let user = wanted.user.as_ref();
                command::run(command, uri, to, &folder.0, user, max).await?;
            }
        }
        // Not in a local turn: others may wait for what is to be cached, and nobody waits
        // for the turn of another.
        in_turn(turn, checked).await
    }

    fn command_folder(&self) -> Result<Folder, FetchReason> {
        let n = self.commands.fetch_add(1, Ordering::Relaxed);
        let folder = Folder(self.folder.join(format!("command-{n}")));
        fs::create_dir(&folder.0).map_err(file_error("making its folder"))?;
        Ok(folder)
    }
}

/// Removed with all in it.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn put(partial: &Path, target: &Path, mode: u32) -> Result<(), FetchReason> {
    fs::set_permissions(partial, fs::Permissions::from_mode(mode))
        .and_then(|()| fs::rename(partial, target))
        .map_err(file_error("putting it in place"))
}

fn check(file: &Path, wanted: Checksum) -> Result<(), FetchReason> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut file = fs::File::open(file).map_err(file_error("reading it again"))?;
    let (mut hash, mut part) = (Sha256::new(), vec![0; 64 << 10]);
    loop {
        match file.read(&mut part).map_err(file_error("reading it again"))? {
            0 => break,
            n => hash.update(&part[..n]),
        }
    }
    let found = hash.finalize();
    if found[..] == wanted {
        Ok(())
    } else {
        Err(FetchReason::Checksum { found: hex(&found), wanted: hex(&wanted) })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchReason> + Send + 'static,
) -> Result<T, FetchReason> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(file_error("doing it")(io::Error::other(e))))
}

/// The turn is over when the work is, also if nobody waits for it any more.
async fn in_turn<T: Send + 'static>(
    turn: Turn,
    work: impl FnOnce() -> Result<T, FetchReason> + Send + 'static,
) -> Result<T, FetchReason> {
    blocking(move || {
        let _turn = turn;
        work()
    })
    .await
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

#[cfg(test)]
mod tests;
