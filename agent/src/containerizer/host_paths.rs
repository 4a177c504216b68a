//! Which paths of the machine containers may have as volumes.

use std::path::{Path, PathBuf};

/// What a path comes to when all links are followed, if that is one of `allowed` or below
/// one; without a list all are.
///
/// # Errors
/// Why not, to stand behind the field's name.
pub(super) fn resolve(allowed: Option<&[PathBuf]>, path: &Path) -> Result<PathBuf, String> {
    let shown = path.display();
    let refused = |allowed: &[PathBuf]| {
        let list: Vec<_> = allowed.iter().map(|path| path.display().to_string()).collect();
        let list = if list.is_empty() { "none".to_owned() } else { list.join(", ") };
        format!("`{shown}` is nowhere below what this agent allows (--allowed-host-paths {list})")
    };
    let found = path.canonicalize();
    if let Some(allowed) = allowed {
        let real = |allowed: &PathBuf| allowed.canonicalize().unwrap_or_else(|_| allowed.clone());
        // What is not there is refused by its name, which tells nothing of what is.
        let name = found.as_deref().unwrap_or(path);
        if !allowed.iter().any(|allowed| name.starts_with(real(allowed))) {
            return Err(refused(allowed));
        }
    }
    found.map_err(|e| format!("`{shown}`: {e}"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn links_are_followed_before_it_is_judged() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        for name in ["data/in", "database"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        symlink("/etc", dir.join("data/out")).unwrap();
        symlink(dir.join("data"), dir.join("link")).unwrap();
        let allowed = [dir.join("link")];
        let resolve = |path: &str| resolve(Some(&allowed), &dir.join(path));
        assert_eq!(resolve("data/in"), Ok(dir.join("data/in")));
        assert_eq!(resolve("link/in"), Ok(dir.join("data/in")));
        assert_eq!(resolve("data"), Ok(dir.join("data")));
        for path in ["data/out", "data/out/passwd", "data/in/../..", "database", "no", "/etc"] {
            let error = resolve(path).unwrap_err();
            assert!(error.contains("is nowhere below what this agent allows"), "{error}");
        }
        assert!(
            resolve("data/no").unwrap_err().ends_with("No such file or directory (os error 2)")
        );
        assert_eq!(super::resolve(None, Path::new("/etc")), Ok("/etc".into()));
        assert!(
            super::resolve(Some(&[]), Path::new("/etc"))
                .unwrap_err()
                .ends_with("(--allowed-host-paths none)")
        );
    }
}
