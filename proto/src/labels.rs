//! Labels of tasks that mean something to Mezz. All others are the frameworks' own.

use crate::v1;

/// Whom the first signal of a kill goes to (behaviour rule 59): [`KILL_SIGNAL_TREE`] or
/// [`KILL_SIGNAL_FIRST_PROCESS`].
pub const KILL_SIGNAL: &str = "dev.mezz.kill-signal";

/// All processes of the task's container, as Mesos does. The default.
pub const KILL_SIGNAL_TREE: &str = "tree";

/// The container's first process alone, as Docker does: for programs that end what they
/// have started themselves, in their own time.
pub const KILL_SIGNAL_FIRST_PROCESS: &str = "first-process";

/// The value of the first label with this name; empty when it has none.
pub fn find<'a>(labels: Option<&'a v1::Labels>, name: &str) -> Option<&'a str> {
    let found = labels?.labels.iter().find(|label| label.key == name)?;
    Some(found.value.as_deref().unwrap_or_default())
}

/// One label.
pub fn label(name: &str, value: &str) -> v1::Label {
    v1::Label { key: name.to_owned(), value: Some(value.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_name_is_found() {
        let bare = v1::Label { key: "bare".into(), value: None };
        let labels = vec![label("a", "1"), bare, label("a", "2")];
        let labels = v1::Labels { labels };
        assert_eq!(find(Some(&labels), "a"), Some("1"));
        assert_eq!(find(Some(&labels), "bare"), Some(""));
        assert_eq!((find(Some(&labels), "c"), find(None, "a")), (None, None));
    }
}
