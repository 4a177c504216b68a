//! The secret that processes of one application prove themselves by
//! (`spark.authenticate`). Spark makes one itself only for YARN, Kubernetes and local
//! runs, and before the plugin is asked: who starts a driver makes it.

use std::fmt::Write as _;

/// The setting that asks for authentication.
const AUTHENTICATE: &str = "spark.authenticate";

/// The setting that holds the secret.
pub(crate) const SECRET: &str = "spark.authenticate.secret";

/// Settings that name files with it. Spark reads them on Kubernetes alone, and says so.
const FILES: [&str; 2] =
    ["spark.authenticate.secret.file", "spark.authenticate.secret.file.driver"];

/// How many random bytes it has.
pub(crate) const BYTES: usize = 32;

/// Whether these settings ask for authentication and give no secret.
pub(crate) fn is_lacking(get: impl Fn(&str) -> Option<String>) -> bool {
    let wanted = get(AUTHENTICATE).is_some_and(|v| v.trim().eq_ignore_ascii_case("true"));
    wanted && [SECRET].iter().chain(&FILES).all(|key| get(key).is_none())
}

/// A new one, in hexadecimal digits.
///
/// # Errors
/// When the system gives no random bytes.
pub(crate) fn make() -> std::io::Result<String> {
    let mut bytes = [0; BYTES];
    let mut filled = 0;
    while filled < BYTES {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags)?;
    }
    let mut text = String::with_capacity(2 * BYTES);
    for byte in bytes {
        // To a string this cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_lacking_where_authentication_is_on_and_nothing_is_said() {
        for (settings, lacking) in [
            (&[][..], false),
            (&[("spark.authenticate", "false")], false),
            (&[("spark.authenticate", " TRUE ")], true),
            (&[("spark.authenticate", "true"), ("spark.authenticate.secret", "hush")], false),
            (&[("spark.authenticate", "true"), ("spark.authenticate.secret.file", "/f")], false),
            (&[("spark.authenticate.secret", "hush")], false),
        ] {
            let get = |key: &str| {
                settings.iter().find(|(k, _)| *k == key).map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(is_lacking(get), lacking, "{settings:?}");
        }
    }

    #[test]
    fn each_is_new_and_of_256_bits() {
        let (one, other) = (make().unwrap(), make().unwrap());
        assert!(one.len() == 64 && one.bytes().all(|b| b.is_ascii_hexdigit()), "{one}");
        assert_ne!(one, other);
    }
}
