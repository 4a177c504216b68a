//! Unpacking, on the assumption that the archive is hostile.

use std::{
    cell::Cell,
    fs::{self, File},
    io::{self, BufReader, Read},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Component, Path, PathBuf},
};

use thiserror::Error;

use super::{
    meter::{MAX_HEADER_BYTES, Meter},
    place::{create_new, inside, make_directories},
};

/// No archive creates more files and directories than this.
const MAX_ENTRIES: u64 = 1_000_000;

/// All that a tar holds beside its entries' data is at most this: room for as many
/// entries as there may be, each with a long name.
const MAX_TAR_HEADER_BYTES: u64 = MAX_ENTRIES * 4096;

/// What an xz file may make us set aside, in KiB: its strongest setting needs 65 MiB, while
/// a hostile one could ask for 4 GiB.
const XZ_MEMORY_KIB: u32 = 128 << 10;

/// A link's text in a zip is read up to this (Linux' own limit).
const MAX_LINK_BYTES: u64 = 4096;

/// Why an archive is not unpacked.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// A name or link that leads out of the sandbox.
    #[error("`{entry}`: {problem}")]
    Hostile {
        /// The entry's name.
        entry: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It grows too much.
    #[error("its content is larger than the limit of {0} bytes (--max-fetch-size)")]
    TooLarge(u64),
    /// Too many entries.
    #[error("it has more than {MAX_ENTRIES} entries")]
    TooMany,
    /// An entry's name, link or attributes are too long.
    #[error(
        "it is hostile or broken: the name, link and attributes of one entry take more than \
         {MAX_HEADER_BYTES} bytes"
    )]
    LongHeader,
    /// It is broken, or the disk is.
    #[error(transparent)]
    Io(io::Error),
    /// It is broken.
    #[error(transparent)]
    Zip(#[from] zip::result::ZipError),
}

impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> Self {
        // Those of the meter come through the reader of tars.
        error.downcast().unwrap_or_else(Self::Io)
    }
}

/// What can be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Tar,
    TarGz,
    TarXz,
    TarBz2,
    TarZst,
    Zip,
    Gz,
}

impl Format {
    /// By the file's name. None: it is no archive.
    pub(super) fn of(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let (_, format) =
            BY_NAME.iter().find(|(suffixes, _)| suffixes.iter().any(|s| name.ends_with(s)))?;
        Some(*format)
    }
}

/// The first that fits is it.
const BY_NAME: [(&[&str], Format); 7] = [
    (&[".tar.gz", ".tgz"], Format::TarGz),
    (&[".tar.xz", ".txz"], Format::TarXz),
    (&[".tar.bz2", ".tbz2"], Format::TarBz2),
    (&[".tar.zst", ".tzst"], Format::TarZst),
    (&[".tar"], Format::Tar),
    (&[".zip"], Format::Zip),
    (&[".gz"], Format::Gz),
];

/// Unpacks an archive beside `named`, which is below `sandbox` and its name there; all
/// paths stay below `sandbox`.
pub(super) fn extract(
    format: Format,
    archive: &Path,
    named: &Path,
    sandbox: &Path,
    max_bytes: u64,
) -> Result<(), ArchiveError> {
    let into = named.parent().unwrap_or(sandbox);
    let mut out = Unpacker { root: into, left: max_bytes, max_bytes, entries: 0, links: vec![] };
    let file = BufReader::new(File::open(archive)?);
    match format {
        Format::Tar => out.tar(file)?,
        Format::TarGz => out.tar(flate2::read::MultiGzDecoder::new(file))?,
        Format::TarXz => {
            out.tar(lzma_rust2::XzReader::new_mem_limit(file, true, XZ_MEMORY_KIB))?;
        }
        Format::TarBz2 => out.tar(bzip2::read::MultiBzDecoder::new(file))?,
        Format::TarZst => out.tar(zstd::Decoder::with_buffer(file)?)?,
        Format::Zip => out.zip(file)?,
        Format::Gz => {
            let name = named.file_stem().map(PathBuf::from).unwrap_or_default();
            out.file(&name, flate2::read::MultiGzDecoder::new(file), 0o644)?;
        }
    }
    out.check_links(&fs::canonicalize(sandbox)?)
}

struct Unpacker<'a> {
    root: &'a Path,
    left: u64,
    max_bytes: u64,
    entries: u64,
    links: Vec<PathBuf>,
}

fn hostile(entry: &Path, problem: impl Into<String>) -> ArchiveError {
    ArchiveError::Hostile { entry: entry.display().to_string(), problem: problem.into() }
}

impl Unpacker<'_> {
    fn tar(&mut self, reader: impl Read) -> Result<(), ArchiveError> {
        let allowed = Cell::new(MAX_HEADER_BYTES);
        let mut archive = tar::Archive::new(Meter {
            from: reader,
            allowed: &allowed,
            left: self.max_bytes.saturating_add(MAX_TAR_HEADER_BYTES),
            max_bytes: self.max_bytes,
        });
        for entry in archive.entries()? {
            let entry = entry?;
            let size = entry.size();
            allowed.set(size.saturating_add(MAX_HEADER_BYTES));
            let path = entry.path()?.into_owned();
            let mode = entry.header().mode().unwrap_or(0o644);
            let kind = entry.header().entry_type();
            let target = || -> Result<PathBuf, ArchiveError> {
                let name = entry.link_name()?.ok_or_else(|| hostile(&path, "a link to nothing"))?;
                Ok(name.into_owned())
            };
            match kind {
                _ if kind.is_dir() => self.directory(&path)?,
                _ if kind.is_symlink() => {
                    let target = target()?;
                    self.link(&path, &target)?;
                }
                _ if kind.is_hard_link() => {
                    let target = target()?;
                    self.hard_link(&path, &target)?;
                }
                _ if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() => {
                    self.file(&path, entry, mode)?;
                    // Of a sparse file less was read than its size.
                    allowed.set(MAX_HEADER_BYTES);
                    continue;
                }
                _ if kind.is_pax_global_extensions() || kind.is_pax_local_extensions() => {}
                _ => return Err(hostile(&path, "devices, fifos and the like are not allowed")),
            }
            // Its data is skipped, which takes as long as a file's.
            self.left =
                self.left.checked_sub(size).ok_or(ArchiveError::TooLarge(self.max_bytes))?;
        }
        Ok(())
    }

    fn zip(&mut self, reader: BufReader<File>) -> Result<(), ArchiveError> {
        let mut archive = zip::ZipArchive::new(reader)?;
        for i in 0..archive.len() {
            let mut entry = archive.by_index(i)?;
            let path = PathBuf::from(entry.name()?.as_ref());
            let mode = entry.unix_mode().unwrap_or(0o644);
            if entry.is_dir() {
                self.directory(&path)?;
            } else if entry.is_symlink() {
                let mut target = String::new();
                entry.by_ref().take(MAX_LINK_BYTES).read_to_string(&mut target)?;
                self.link(&path, Path::new(&target))?;
            } else if !matches!(mode & 0o170_000, 0 | 0o100_000) {
                return Err(hostile(&path, "devices, fifos and the like are not allowed"));
            } else {
                self.file(&path, entry, mode)?;
            }
        }
        Ok(())
    }

    /// Counts an entry, and returns where it goes; its directory is there then.
    fn enter(&mut self, path: &Path) -> Result<Option<PathBuf>, ArchiveError> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(ArchiveError::TooMany);
        }
        if path.components().all(|c| c == Component::CurDir) {
            return Ok(None);
        }
        let relative = inside(path).map_err(|problem| hostile(path, problem))?;
        let parent = relative.parent().unwrap_or(Path::new(""));
        make_directories(self.root, parent).map_err(|e| hostile(path, e.to_string()))?;
        Ok(Some(self.root.join(relative)))
    }

    fn directory(&mut self, path: &Path) -> Result<(), ArchiveError> {
        let Some(to) = self.enter(path)? else { return Ok(()) };
        let relative = to.strip_prefix(self.root).unwrap_or(&to).to_owned();
        make_directories(self.root, &relative).map_err(|e| hostile(path, e.to_string()))
    }

    fn file(&mut self, path: &Path, from: impl Read, mode: u32) -> Result<(), ArchiveError> {
        let Some(to) = self.enter(path)? else {
            return Err(hostile(path, "a file without a name"));
        };
        // Also keeps what a link points to from being overwritten.
        remove_old(&to)?;
        let mut file = create_new(&to, 0o600)?;
        let copied = io::copy(&mut from.take(self.left.saturating_add(1)), &mut file)?;
        let Some(left) = self.left.checked_sub(copied) else {
            let _ = fs::remove_file(&to);
            return Err(ArchiveError::TooLarge(self.max_bytes));
        };
        self.left = left;
        // Neither set-user-id nor anything that the owner could not read.
        file.set_permissions(fs::Permissions::from_mode((mode & 0o777) | 0o600))?;
        Ok(())
    }

    fn link(&mut self, path: &Path, target: &Path) -> Result<(), ArchiveError> {
        let Some(to) = self.enter(path)? else {
            return Err(hostile(path, "a link without a name"));
        };
        let out = || hostile(path, format!("its target `{}` is not below it", target.display()));
        let mut depth = inside(path).map_or(0, |p| p.components().count()) as i64 - 1;
        let mut down = false;
        for component in target.components() {
            match component {
                Component::Normal(_) => down = true,
                Component::CurDir => {}
                // What it would go up from may become a link, by another archive too.
                Component::ParentDir if down => {
                    let target = target.display();
                    return Err(hostile(
                        path,
                        format!("`..` is not first in its target `{target}`"),
                    ));
                }
                Component::ParentDir if depth > 0 => depth -= 1,
                _ => return Err(out()),
            }
        }
        remove_old(&to)?;
        symlink(target, &to)?;
        self.links.push(to);
        Ok(())
    }

    fn hard_link(&mut self, path: &Path, target: &Path) -> Result<(), ArchiveError> {
        let Some(to) = self.enter(path)? else {
            return Err(hostile(path, "a link without a name"));
        };
        let Some(from) = self.enter(target)? else {
            return Err(hostile(path, "a link to nothing"));
        };
        if !fs::symlink_metadata(&from).is_ok_and(|m| m.is_file()) {
            return Err(hostile(path, "a hard link to what is no file of the archive"));
        }
        if from != to {
            remove_old(&to)?;
            fs::hard_link(from, to)?;
        }
        Ok(())
    }

    /// Others may have put links into the sandbox, by which those of an archive lead out.
    /// Nothing was written through them; here those that do are removed.
    fn check_links(self, sandbox: &Path) -> Result<(), ArchiveError> {
        let mut bad = None;
        for link in self.links {
            if fs::canonicalize(&link).is_ok_and(|real| !real.starts_with(sandbox)) {
                fs::remove_file(&link)?;
                bad = bad.or(Some(link));
            }
        }
        match bad {
            Some(link) => {
                let name = link.strip_prefix(self.root).unwrap_or(&link);
                Err(hostile(name, "a link that leads out of the sandbox"))
            }
            None => Ok(()),
        }
    }
}

fn remove_old(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
