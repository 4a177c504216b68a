//! Names of roles.

/// Longest role name; Mesos has no limit, but names go into every offer.
const MAX_ROLE: usize = 1024;

/// Rule 17: `*`, or a path of components separated by single `/`. No component
/// may be `.`, `..` or `*`, begin with `-`, or contain whitespace.
pub(in crate::core) fn role(field: &str, role: &str) -> Result<(), String> {
    let bad = |what: &str| Err(format!("{field}: role `{role}` {what}"));
    if role == "*" {
        return Ok(());
    }
    if role.is_empty() {
        return Err(format!("{field}: a role must not be empty"));
    }
    if role.len() > MAX_ROLE {
        return Err(format!("{field}: a role has at most {MAX_ROLE} bytes"));
    }
    if role.starts_with('/') || role.ends_with('/') {
        return bad("must not begin or end with `/`");
    }
    for component in role.split('/') {
        if component.is_empty() {
            return bad("must not contain `//`");
        }
        if matches!(component, "." | ".." | "*") {
            return bad("must not have `.`, `..` or `*` as a component");
        }
        if component.starts_with('-') {
            return bad("must not have a component that begins with `-`");
        }
        if component.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return bad("must not contain whitespace or control characters");
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
            assert_eq!(role("roles", good), Ok(()), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", ".", "a/..", "a/*", "-a", "a/-b", "a b", "a\tb"] {
            let text = role("roles", bad).unwrap_err();
            assert!(text.starts_with("roles: "), "{text}");
        }
    }
}
