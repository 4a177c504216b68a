//! Reading and writing the control files, with errors that name them.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use thiserror::Error;

use crate::launcher::process;

/// No attribute is longer, in bytes.
const LONGEST_ATTRIBUTE: usize = 4096;

/// A control file or directory that did not do as told.
#[derive(Debug, Error)]
#[error("{doing} {path}: {source}")]
pub struct CgroupError {
    /// With the value, where there is one.
    pub doing: String,
    /// Which file or directory.
    pub path: String,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl CgroupError {
    pub(super) fn new(doing: impl Into<String>, path: &Path, source: io::Error) -> Self {
        Self { doing: doing.into(), path: path.display().to_string(), source }
    }
}

impl From<CgroupError> for io::Error {
    fn from(error: CgroupError) -> Self {
        io::Error::new(error.source.kind(), error)
    }
}

/// How long a cgroup may take to become empty or to go away.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Writes a value. The file must be there.
pub fn write(directory: &Path, name: &str, value: impl ToString) -> Result<(), CgroupError> {
    let (path, value) = (directory.join(name), value.to_string());
    // Neither created nor truncated: these are no plain files.
    OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|e| CgroupError::new(format!("writing `{value}` to"), &path, e))
}

/// The whole text, without spaces around it.
pub fn read(directory: &Path, name: &str) -> Result<String, CgroupError> {
    let path = directory.join(name);
    let text = fs::read_to_string(&path).map_err(|e| CgroupError::new("reading", &path, e))?;
    Ok(text.trim().to_owned())
}

/// A file with one number; none when it is missing or says something else (`max`).
pub fn number(directory: &Path, name: &str) -> Option<u64> {
    read(directory, name).ok()?.parse().ok()
}

/// A value of a file with lines of `key value`; none when it is missing.
pub fn keyed(directory: &Path, name: &str, key: &str) -> Option<u64> {
    let text = read(directory, name).ok()?;
    text.lines().find_map(|line| {
        let (k, v) = line.split_once(' ')?;
        (k == key).then(|| v.trim().parse().ok())?
    })
}

/// An extended attribute of a cgroup, by which we remember what no control file says.
/// It goes away with the cgroup.
pub fn attribute(directory: &Path, name: &str) -> Result<Option<String>, CgroupError> {
    let failed = |e: Errno| {
        CgroupError::new(format!("reading the attribute {name} of"), directory, e.into())
    };
    let mut value = Vec::with_capacity(LONGEST_ATTRIBUTE);
    match rustix::fs::getxattr(directory, name, rustix::buffer::spare_capacity(&mut value)) {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
        Err(Errno::NODATA) => Ok(None),
        Err(e) => Err(failed(e)),
    }
}

/// Sets an attribute, or removes one that is there.
pub fn set_attribute(directory: &Path, name: &str, value: Option<&str>) -> Result<(), CgroupError> {
    let done = match value {
        Some(value) => {
            rustix::fs::setxattr(directory, name, value.as_bytes(), rustix::fs::XattrFlags::empty())
        }
        None => rustix::fs::removexattr(directory, name),
    };
    done.map_err(|e| {
        CgroupError::new(format!("setting the attribute {name} of"), directory, e.into())
    })
}

/// Makes a directory with its parents; it may be there already.
pub fn make(path: &Path) -> Result<(), CgroupError> {
    fs::create_dir_all(path).map_err(|e| CgroupError::new("creating", path, e))
}

/// The names of the cgroups right below one; none below one that is not there.
pub fn children(path: &Path) -> Result<Vec<String>, CgroupError> {
    let failed = |e| CgroupError::new("listing", path, e);
    let entries = match fs::read_dir(path) {
        Err(e) if gone(&e) => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().is_ok_and(|t| t.is_dir())
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// The cgroup and those that something made below it, parents first.
fn tree(path: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let mut found = vec![path.to_path_buf()];
    let mut next = 0;
    while let Some(parent) = found.get(next).cloned() {
        found.extend(children(&parent)?.into_iter().map(|name| parent.join(name)));
        next += 1;
    }
    Ok(found)
}

/// The pids in a cgroup and below it; none when it is gone.
pub fn processes(path: &Path) -> Result<Vec<i32>, CgroupError> {
    let mut pids = Vec::new();
    for directory in tree(path)? {
        match fs::read_to_string(directory.join("cgroup.procs")) {
            Ok(text) => pids.extend(text.lines().filter_map(|l| l.trim().parse::<i32>().ok())),
            Err(e) if gone(&e) => {}
            Err(e) => return Err(CgroupError::new("reading the processes of", &directory, e)),
        }
    }
    Ok(pids)
}

/// SIGKILL to all in it and below. How many there were.
pub fn kill_each(path: &Path) -> Result<usize, CgroupError> {
    let pids = processes(path)?;
    for pid in &pids {
        process::send(*pid, nix::libc::SIGKILL)
            .map_err(|e| CgroupError::new(format!("killing {pid} in"), path, e))?;
    }
    Ok(pids.len())
}

/// Removes a cgroup and those below it. It must be empty; the kernel may need a
/// moment to see that it is.
pub fn remove(path: &Path) -> Result<(), CgroupError> {
    for directory in tree(path)?.iter().rev() {
        until(|| match fs::remove_dir(directory) {
            Ok(()) => Ok(true),
            Err(e) if gone(&e) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => Ok(false),
            Err(e) => Err(CgroupError::new("removing", directory, e)),
        })?
        .then_some(())
        .ok_or_else(|| {
            CgroupError::new("removing", directory, io::ErrorKind::ResourceBusy.into())
        })?;
    }
    Ok(())
}

/// Tries until it is done, at growing intervals, for [`PATIENCE`] at most. Whether
/// it got done.
pub fn until(mut done: impl FnMut() -> Result<bool, CgroupError>) -> Result<bool, CgroupError> {
    let end = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(100);
    loop {
        if done()? {
            return Ok(true);
        }
        if Instant::now() > end {
            return Ok(false);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// What a cgroup that is being removed answers.
fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

/// That not all was killed in time.
pub fn still_alive(path: &Path) -> CgroupError {
    CgroupError::new("killing all processes in", path, io::ErrorKind::TimedOut.into())
}
