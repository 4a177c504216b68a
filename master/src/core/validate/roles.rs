//! Names of roles.

/// Longest role name; Mesos has no limit, but names go into every offer.
const MAX_ROLE: usize = 1024;

/// Rule 17: `*`, or a path of components separated by single `/`. No component
/// may be `.`, `..` or `*`, begin with `-`, or contain whitespace. The texts are Mesos'.
pub(in crate::core) fn role(role: &str) -> Result<(), String> {
    let bad = |what: &str| Err(format!("Role '{role}' {what}"));
    if role == "*" {
        return Ok(());
    }
    if role.is_empty() {
        return Err("Role names cannot be the empty string".to_owned());
    }
    if role.len() > MAX_ROLE {
        return Err(format!("Role names cannot be longer than {MAX_ROLE} bytes"));
    }
    if role.starts_with('/') {
        return bad("cannot start with a slash");
    }
    if role.ends_with('/') {
        return bad("cannot end with a slash");
    }
    for component in role.split('/') {
        if component.is_empty() {
            return bad("cannot contain two adjacent slashes");
        }
        if matches!(component, "." | ".." | "*") {
            return bad(&format!("cannot include '{component}' as a component"));
        }
        let because =
            |what: &str| Err(format!("Role component '{component}' is invalid because it {what}"));
        if component.starts_with('-') {
            return because("starts with a dash");
        }
        if component.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return because("contains backspace or whitespace");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::role;

    #[test]
    fn rule_17() {
        for good in ["*", "a", "a/b/c", "a-b", "a.b", "…"] {
            assert_eq!(role(good), Ok(()), "{good}");
        }
        assert!(role("").is_err());
        for bad in ["/a", "a/", "a//b", ".", "a/..", "a/*", "-a", "a/-b", "a b", "a\tb"] {
            let text = role(bad).unwrap_err();
            assert!(text.starts_with("Role "), "{text}");
        }
    }
}
