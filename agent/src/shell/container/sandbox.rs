//! Making sandboxes.

use std::{
    fs::Permissions,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use mezz_proto::error::chain;

/// What tasks write is for their user and the agent, not for every user of the
/// machine: Spark keeps its data there.
pub(super) const SANDBOX_MODE: u32 = 0o750;

/// The members of a pod, of whatever user, reach their sandboxes through its own.
pub(super) const POD_MODE: u32 = 0o711;

/// Before anything is fetched for nothing.
pub(super) fn check_user(name: &str) -> Result<(), String> {
    match nix::unistd::User::from_name(name) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(format!("user `{name}` does not exist on this agent")),
        Err(error) => Err(format!("looking up the user `{name}`: {error}")),
    }
}

/// Makes the folder and the files for output, and points `link`, or `latest` beside it,
/// at it (rule 56).
/// The files are there to be read before anything runs.
///
/// All of it is the agent's own, and so is what is fetched into it, so that no process
/// of the task's user can play tricks with links meanwhile. The containerizer gives it
/// to the user last.
pub(super) fn make_sandbox(sandbox: &Path, mode: u32, link: Option<&Path>) -> Result<(), String> {
    let failed = |doing: &str, error: &dyn std::error::Error| {
        format!("sandbox {}: {doing}: {}", sandbox.display(), chain(error))
    };
    sandbox
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        // Never an older one, for the id is new: that might be somebody else's.
        .and_then(|()| std::fs::create_dir(sandbox))
        .and_then(|()| std::fs::set_permissions(sandbox, Permissions::from_mode(mode)))
        .map_err(|error| failed("cannot be made", &error))?;
    let logs = ["stdout", "stderr"].map(|name| sandbox.join(name));
    for log in &logs {
        let mut options = std::fs::OpenOptions::new();
        let made = options.write(true).create_new(true).mode(0o644).open(log);
        made.map_err(|error| failed("its logs cannot be made", &error))?;
    }
    if let (Some(runs), Some(name)) = (sandbox.parent(), sandbox.file_name()) {
        let (link, target) = match link {
            None => (runs.join("latest"), PathBuf::from(name)),
            // Both are in folders of one folder.
            Some(link) => {
                let folder = runs.file_name().unwrap_or_default();
                (link.to_owned(), Path::new("..").join(folder).join(name))
            }
        };
        let folder = link.parent().unwrap_or(runs);
        // Replaced in one step: a reader always finds one. The helper's name is
        // the container's own, so two launches do not meet.
        let mut fresh = std::ffi::OsString::from(".latest-");
        fresh.push(name);
        let fresh = folder.join(fresh);
        std::fs::create_dir_all(folder)
            .and_then(|()| symlink(target, &fresh))
            .and_then(|()| std::fs::rename(&fresh, &link))
            .map_err(|error| failed("the link to it", &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_points_at_the_newest_sandbox() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            let sandbox = folder.path().join("runs").join(name);
            make_sandbox(&sandbox, SANDBOX_MODE, None).unwrap();
        }
        let latest = std::fs::read_link(folder.path().join("runs/latest")).unwrap();
        assert_eq!(latest, Path::new("b"));
        for name in ["stdout", "stderr"] {
            assert_eq!(std::fs::read(folder.path().join("runs/b").join(name)).unwrap(), b"");
        }
    }

    #[test]
    fn a_members_sandbox_is_found_by_its_task() {
        let pod = tempfile::tempdir().unwrap();
        let link = pod.path().join("tasks/t");
        for name in ["a", "b"] {
            let sandbox = pod.path().join("containers").join(name);
            make_sandbox(&sandbox, SANDBOX_MODE, Some(&link)).unwrap();
            assert_eq!(link.canonicalize().unwrap(), sandbox.canonicalize().unwrap());
        }
        assert!(!pod.path().join("containers/latest").exists());
    }

    #[test]
    fn an_unknown_user_is_named() {
        let error = check_user("nobody-of-that-name").unwrap_err();
        assert!(error.contains("nobody-of-that-name"), "{error}");
    }

    #[test]
    fn a_folder_that_is_there_is_no_sandbox() {
        let folder = tempfile::tempdir().unwrap();
        let error = make_sandbox(folder.path(), SANDBOX_MODE, None).unwrap_err();
        assert!(error.contains("cannot be made: File exists"), "{error}");
    }
}
