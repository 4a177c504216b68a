//! Users by name.

use std::{ffi::CString, io};

use nix::unistd::{User, getgrouplist};

use crate::launcher::Credentials;

/// The ids of a user, with all groups. May ask a directory server, so it blocks.
///
/// # Errors
/// `NotFound` when there is no such user.
pub(crate) fn look_up(name: &str) -> io::Result<Credentials> {
    let unknown = || {
        let text = format!("this machine has no user `{name}`");
        io::Error::new(io::ErrorKind::NotFound, text)
    };
    let user = User::from_name(name)?.ok_or_else(unknown)?;
    let c_name = CString::new(name).map_err(|_| unknown())?;
    let groups = getgrouplist(&c_name, user.gid)?;
    Ok(Credentials {
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: groups.into_iter().map(|g| g.as_raw()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_zero() {
        let root = look_up("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.groups.contains(&0));
    }

    #[test]
    fn an_unknown_user_is_named() {
        let error = look_up("no-such-user-here").unwrap_err();
        assert_eq!(error.to_string(), "this machine has no user `no-such-user-here`");
        assert!(look_up("nul\0").is_err());
    }
}
