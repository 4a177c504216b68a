//! What a container writes, from the engine into the sandbox, each byte once.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bollard::{container::LogOutput, errors::Error, query_parameters::LogsOptionsBuilder};
use bytes::Bytes;
use futures_util::StreamExt as _;

use super::{
    engine::{Engine, EngineError},
    gpus::Gpus,
    position::{Position, Record, split_time},
};
use crate::containerizer::Stream;

/// Messages that are written at one time; the engine's are of 16 KiB at most.
const BATCH: usize = 256;

/// More than a batch: a sandbox's file that grew by more was written by others.
const MOST_UNRECORDED: u64 = 8 << 20;

/// The engine takes the time of a message before it brings two streams in order.
const DISORDER_SECS: i64 = 2;

const NANOS: i64 = 1_000_000_000;

/// The sandbox's files, and how far they are written.
#[derive(Clone)]
pub(super) struct Sink(Arc<Mutex<Files>>);

struct Files {
    record_file: File,
    record: Record,
    /// Which reading of the engine's copy may write: the last one that began.
    reading: u64,
    stdout: Output,
    stderr: Output,
}

struct Output {
    path: PathBuf,
    file: Option<File>,
    resume: Option<Resume>,
    /// Whether a failure was reported.
    complained: bool,
}

/// What is to be skipped, since it is written already.
struct Resume {
    from: Position,
    /// Whether the first message of the newest time has come by.
    reached: bool,
    /// Messages that came by from that one on.
    seen: u32,
    /// Bytes after those, which an agent wrote that died before it recorded them.
    bytes: u64,
}

impl Sink {
    /// For a container that is about to be created, with the files as they are.
    pub(super) fn create(record: &Path, sandbox: &Path, gpus: Gpus) -> io::Result<Self> {
        let record_file = Record::open(record)?;
        let [stdout, stderr] = outputs(sandbox);
        let mut record = Record::new(stdout.length(), stderr.length());
        record.gpus = gpus.bits();
        record.write(&record_file)?;
        Ok(Self(Arc::new(Mutex::new(Files { record_file, record, reading: 0, stdout, stderr }))))
    }

    /// For one that was there before the agent. Without a record all is written that
    /// the engine has.
    pub(super) fn open(record: &Path, sandbox: &Path) -> io::Result<Self> {
        let record_file = Record::open(record)?;
        let [stdout, stderr] = outputs(sandbox);
        let record = match Record::read(&record_file)? {
            Some(record) => record,
            None => Record::new(stdout.length(), stderr.length()),
        };
        Ok(Self(Arc::new(Mutex::new(Files { record_file, record, reading: 0, stdout, stderr }))))
    }

    /// Remembers that the container was started.
    pub(super) fn set_started(&self) -> io::Result<()> {
        self.with(|files| {
            files.record.started = true;
            files.record.write(&files.record_file)
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Files) -> T) -> T {
        // Nothing panics while it is held.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes what the engine has, and with `follow` what comes, until it ends. Without,
    /// whatever lets nothing happen for the engine's patience is an error.
    ///
    /// Another call ends this one's writing, even when it is dropped amidst of it: no
    /// byte is written by both.
    pub(super) async fn fill(
        &self,
        engine: &Engine,
        name: &str,
        follow: bool,
    ) -> Result<(), EngineError> {
        let patience = if follow { Duration::MAX } else { engine.patience() };
        let silent = || EngineError::Silent(patience);
        let sink = self.clone();
        let begun = blocking(move || sink.with(|files| files.resume(now())));
        let begun = tokio::time::timeout(patience, begun).await.map_err(|_| silent())?;
        // The runtime ends.
        let Some((reading, since)) = begun else { return Ok(()) };
        let link = engine.link().await?;
        let options = LogsOptionsBuilder::new()
            .follow(follow)
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .since(since)
            .tail("all")
            .build();
        let mut batches = link.logs(name, Some(options)).ready_chunks(BATCH);
        loop {
            let next = async {
                let Some(batch) = batches.next().await else { return Ok(true) };
                self.take(reading, batch).await.map(|()| false)
            };
            match tokio::time::timeout(patience, next).await {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => return Ok(()),
                Ok(Err(error)) => return Err(engine.explain(error)),
                Err(_) => return Err(silent()),
            }
        }
    }

    async fn take(&self, reading: u64, batch: Vec<Result<LogOutput, Error>>) -> Result<(), Error> {
        let mut messages = Vec::with_capacity(batch.len());
        let mut failure = None;
        for message in batch {
            match message {
                Ok(LogOutput::StdErr { message }) => messages.push((Stream::Stderr, message)),
                Ok(
                    LogOutput::StdOut { message }
                    | LogOutput::StdIn { message }
                    | LogOutput::Console { message },
                ) => messages.push((Stream::Stdout, message)),
                Err(error) => failure = Some(error),
            }
        }
        if !messages.is_empty() {
            let sink = self.clone();
            blocking(move || sink.with(|files| files.write(reading, &messages))).await;
        }
        failure.map_or(Ok(()), Err)
    }
}

/// Nanoseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Files may block, on a broken disk for long. None when the runtime ends.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

fn outputs(sandbox: &Path) -> [Output; 2] {
    ["stdout", "stderr"].map(|name| {
        let path = sandbox.join(name);
        let file = open(&path)
            .inspect_err(|error| {
                tracing::warn!(path = %path.display(), %error, "output will not be written");
            })
            .ok();
        let complained = file.is_none();
        Output { path, file, resume: None, complained }
    })
}

/// The sandbox is the task's own: what stands there under the name may be a trap.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file"));
    }
    Ok(file)
}

impl Files {
    /// Begins to read anew: which reading that is, and the time, in seconds, from which
    /// on it is of interest.
    fn resume(&mut self, now: i64) -> (u64, i32) {
        for (output, at) in
            [(&mut self.stdout, &self.record.stdout), (&mut self.stderr, &self.record.stderr)]
        {
            let bytes = output.length().saturating_sub(at.size);
            let bytes = if bytes <= MOST_UNRECORDED { bytes } else { 0 };
            output.resume = Some(Resume { from: *at, reached: false, seen: 0, bytes });
        }
        self.reading += 1;
        let since = self.record.since(now) / NANOS - DISORDER_SECS;
        (self.reading, since.clamp(0, i32::MAX.into()) as i32)
    }

    /// Nothing, if another reading has begun since this one.
    fn write(&mut self, reading: u64, messages: &[(Stream, Bytes)]) {
        if reading != self.reading {
            return;
        }
        let mut pending = [Vec::new(), Vec::new()];
        for (stream, line) in messages {
            let (output, at, pending) = match stream {
                Stream::Stdout => (&mut self.stdout, &mut self.record.stdout, &mut pending[0]),
                Stream::Stderr => (&mut self.stderr, &mut self.record.stderr, &mut pending[1]),
            };
            let Some((time, text)) = split_time(line) else {
                pending.extend_from_slice(line);
                continue;
            };
            let Some(text) = output.unwritten(time, text) else { continue };
            at.advance(time);
            self.record.hear(time);
            pending.extend_from_slice(text);
        }
        let [stdout, stderr] = &pending;
        self.record.stdout.size = self.stdout.append(stdout);
        self.record.stderr.size = self.stderr.append(stderr);
        if let Err(error) = self.record.write(&self.record_file) {
            tracing::warn!(
                path = %self.stdout.path.display(), %error,
                "how far output was written cannot be recorded; after a restart some may come twice"
            );
        }
    }
}

impl Output {
    fn length(&self) -> u64 {
        self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |data| data.len())
    }

    /// What of a message is not in the file yet; none if all of it is.
    fn unwritten<'a>(&mut self, time: i64, text: &'a [u8]) -> Option<&'a [u8]> {
        let Some(resume) = &mut self.resume else { return Some(text) };
        if !resume.reached {
            if time < resume.from.time {
                return None;
            }
            resume.reached = true;
            if time > resume.from.time {
                // The engine does not have them any more.
                resume.seen = resume.from.count;
            }
        }
        if resume.seen < resume.from.count {
            resume.seen += 1;
            return None;
        }
        let skipped = usize::try_from(resume.bytes).unwrap_or(usize::MAX).min(text.len());
        resume.bytes -= skipped as u64;
        if resume.bytes == 0 {
            self.resume = None;
        }
        Some(&text[skipped..])
    }

    /// Appends, and returns how long the file is then.
    fn append(&mut self, text: &[u8]) -> u64 {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(text)
            && !self.complained
        {
            self.complained = true;
            tracing::warn!(path = %self.path.display(), %error, "output is lost");
        }
        self.length()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn line(second: u32, text: &str) -> Bytes {
        format!("2026-11-21T11:41:{second:02}.000000000Z {text}").into()
    }

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn open(&self) -> Sink {
            Sink::open(&self.0.path().join("record"), self.0.path()).unwrap()
        }

        fn text(&self, name: &str) -> String {
            fs::read_to_string(self.0.path().join(name)).unwrap()
        }
    }

    fn write(sink: &Sink, messages: &[(Stream, Bytes)]) {
        sink.with(|files| {
            let (reading, _) = files.resume(now());
            files.write(reading, messages);
        });
    }

    #[test]
    fn what_is_written_is_skipped_when_it_comes_again() {
        let folder = Folder::new();
        let all = [
            (Stream::Stdout, line(1, "a\n")),
            (Stream::Stdout, line(2, "same\n")),
            (Stream::Stdout, line(2, "same\n")),
            (Stream::Stderr, line(1, "err\n")),
            (Stream::Stdout, line(2, "other\n")),
            (Stream::Stdout, line(3, "b\n")),
        ];
        for upto in 0..=all.len() {
            // Each time as another agent, that hears all from the beginning.
            write(&folder.open(), &all[..upto]);
        }
        assert_eq!(folder.text("stdout"), "a\nsame\nsame\nother\nb\n");
        assert_eq!(folder.text("stderr"), "err\n");
    }

    #[test]
    fn bytes_that_were_written_and_not_recorded_are_skipped_too() {
        let folder = Folder::new();
        let all = [(Stream::Stdout, line(1, "first\n")), (Stream::Stdout, line(2, "second\n"))];
        write(&folder.open(), &all[..1]);
        let mut file =
            OpenOptions::new().append(true).open(folder.0.path().join("stdout")).unwrap();
        file.write_all(b"sec").unwrap();
        write(&folder.open(), &all);
        assert_eq!(folder.text("stdout"), "first\nsecond\n");
    }

    #[test]
    fn a_file_that_was_cut_goes_on_where_it_was() {
        let folder = Folder::new();
        let all = [(Stream::Stdout, line(1, "first\n")), (Stream::Stdout, line(2, "second\n"))];
        write(&folder.open(), &all[..1]);
        fs::write(folder.0.path().join("stdout"), "").unwrap();
        write(&folder.open(), &all);
        assert_eq!(folder.text("stdout"), "second\n");
    }

    #[test]
    fn output_of_before_is_kept() {
        let folder = Folder::new();
        fs::write(folder.0.path().join("stdout"), "before\n").unwrap();
        let sink = Sink::create(&folder.0.path().join("record"), folder.0.path(), Gpus::default())
            .unwrap();
        write(&sink, &[(Stream::Stdout, line(1, "after\n"))]);
        assert_eq!(folder.text("stdout"), "before\nafter\n");
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = Folder::new();
        let target = folder.0.path().join("precious");
        fs::write(&target, "gold").unwrap();
        std::os::unix::fs::symlink(&target, folder.0.path().join("stdout")).unwrap();
        write(&folder.open(), &[(Stream::Stdout, line(1, "lead"))]);
        assert_eq!(fs::read_to_string(&target).unwrap(), "gold");
    }

    #[test]
    fn it_is_asked_for_what_is_new() {
        let folder = Folder::new();
        let since = |now| folder.open().with(|files| files.resume(now)).1;
        assert_eq!(since(0), 0);
        write(&folder.open(), &[(Stream::Stderr, line(21, "x\n"))]);
        assert_eq!(since(1_795_261_281 * NANOS), 1_795_261_281 - 2);
        assert_eq!(since(1_795_261_280 * NANOS), 0, "new messages may bear any time now");
        write(&folder.open(), &[(Stream::Stderr, line(21, "x\n")), (Stream::Stdout, line(9, "y"))]);
        assert_eq!(since(i64::MAX), 1_795_261_269 - 2, "the clock was set back before");
    }

    #[test]
    fn a_clock_that_is_set_back_brings_nothing_twice() {
        let folder = Folder::new();
        let all = [
            (Stream::Stdout, line(30, "a\n")),
            (Stream::Stdout, line(31, "b\n")),
            (Stream::Stdout, line(5, "c\n")),
            (Stream::Stdout, line(6, "d\n")),
            (Stream::Stdout, line(6, "e\n")),
            (Stream::Stdout, line(40, "f\n")),
        ];
        for upto in 0..=all.len() {
            write(&folder.open(), &all[..upto]);
        }
        assert_eq!(folder.text("stdout"), "a\nb\nc\nd\ne\nf\n");
    }

    #[test]
    fn what_the_engine_has_cut_is_not_waited_for() {
        let folder = Folder::new();
        write(
            &folder.open(),
            &[(Stream::Stdout, line(1, "a\n")), (Stream::Stdout, line(1, "b\n"))],
        );
        write(
            &folder.open(),
            &[(Stream::Stdout, line(2, "c\n")), (Stream::Stdout, line(3, "d\n"))],
        );
        assert_eq!(folder.text("stdout"), "a\nb\nc\nd\n");
    }

    #[test]
    fn a_reading_that_was_given_up_writes_no_more() {
        let folder = Folder::new();
        let sink = folder.open();
        let all = [(Stream::Stdout, line(1, "a\n")), (Stream::Stdout, line(2, "b\n"))];
        sink.with(|files| {
            let (first, _) = files.resume(now());
            files.write(first, &all[..1]);
            // Its next write waits for a thread when the container's end is noticed.
            let (second, _) = files.resume(now());
            files.write(second, &all);
            files.write(first, &all[1..]);
        });
        assert_eq!(folder.text("stdout"), "a\nb\n");
    }
}
