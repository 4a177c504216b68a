//! Giving a sandbox to its user.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, lchown},
    path::Path,
};

use crate::launcher::Credentials;

/// Gives a sandbox and all in it to a user, unless it is theirs already.
///
/// By path, though as root: until the last step the sandbox itself is the agent's, as
/// are all folders above, so no process of the user has anything in it, a hard link
/// neither, nor can change what a path means. What is below a folder is given away
/// before the folder is. Links are given away and not followed.
///
/// # Errors
/// When the sandbox is somebody else's, or as the disk fails.
pub(crate) fn hand_over(sandbox: &Path, user: &Credentials) -> io::Result<()> {
    let sandbox_is = fs::symlink_metadata(sandbox)?;
    if sandbox_is.uid() == user.uid {
        return Ok(());
    }
    if !sandbox_is.is_dir() || sandbox_is.uid() != nix::unistd::geteuid().as_raw() {
        let text = format!("{} is no folder of the agent's user", sandbox.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    let mut folders = vec![sandbox.to_path_buf()];
    let mut next = 0;
    while let Some(folder) = folders.get(next).cloned() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                lchown(entry.path(), Some(user.uid), Some(user.gid))?;
            }
        }
        next += 1;
    }
    // Parents come before children in it; the sandbox is the first.
    folders.iter().rev().try_for_each(|folder| lchown(folder, Some(user.uid), Some(user.gid)))
}
