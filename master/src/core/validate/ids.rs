//! Ids that peers choose.

/// Longest id, in bytes (rule 28).
pub(in crate::core) const MAX_ID: usize = 255;

/// Rule 28: at most 255 characters, no control characters, `/` or `\`, and not
/// `.` or `..`, for ids become names of directories.
pub(in crate::core) fn id(field: &str, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err(format!("{field}: must not be empty"));
    }
    if value.len() > MAX_ID {
        return Err(format!("{field}: is {} bytes long; {MAX_ID} are allowed", value.len()));
    }
    if value == "." || value == ".." {
        return Err(format!("{field}: `{value}` is not allowed as an id"));
    }
    if let Some(c) = value.chars().find(|c| c.is_control() || *c == '/' || *c == '\\') {
        return Err(format!(
            "{field}: contains {c:?}; control characters, `/` and `\\` are not allowed"
        ));
    }
    Ok(())
}

/// Rule 8: a uuid is 16 bytes.
pub(in crate::core) fn uuid(field: &str, value: &[u8]) -> Result<[u8; 16], String> {
    value.try_into().map_err(|_| format!("{field}: is {} bytes long; a uuid has 16", value.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_directory_name() {
        for bad in ["", ".", "..", "a/b", "a\\b", "a\nb", &"x".repeat(256)] {
            assert!(id("task_id", bad).is_err(), "{bad:?}");
        }
        for good in ["a", "...", "task 1", &"x".repeat(255), "ü"] {
            assert_eq!(id("task_id", good), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn uuids_have_sixteen_bytes() {
        assert!(uuid("uuid", &[0; 16]).is_ok());
        assert_eq!(uuid("uuid", &[0; 4]), Err("uuid: is 4 bytes long; a uuid has 16".to_owned()));
    }
}
