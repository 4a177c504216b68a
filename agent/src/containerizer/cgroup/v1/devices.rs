//! `devices`: which of them may be opened.

use std::{collections::BTreeSet, path::Path};

use super::super::{
    devices,
    file::{self, CgroupError},
};

const ALLOW: &str = "devices.allow";
const DENY: &str = "devices.deny";
const LIST: &str = "devices.list";

/// Lets a container open harmless devices, and so many GPUs that no other container of
/// the agent has.
pub(super) fn confine(agent: &Path, id: &str, gpus: usize) -> Result<(), CgroupError> {
    let directory = agent.join(id);
    let taken = if gpus > 0 { taken(agent, id)? } else { BTreeSet::new() };
    let rules = devices::rules(gpus, &taken, Path::new("/dev"))?;
    file::write(&directory, DENY, "a")?;
    rules.iter().try_for_each(|rule| file::write(&directory, ALLOW, rule))
}

/// One that may open nothing has no GPU.
pub(super) fn release(directory: &Path) -> Result<(), CgroupError> {
    if directory.exists() { file::write(directory, DENY, "a") } else { Ok(()) }
}

/// What the others may open.
fn taken(agent: &Path, id: &str) -> Result<BTreeSet<String>, CgroupError> {
    let mut taken = BTreeSet::new();
    for other in file::children(agent)?.into_iter().filter(|other| other != id) {
        // One that goes away meanwhile has nothing.
        let list = file::read(&agent.join(other), LIST).unwrap_or_default();
        taken.extend(list.lines().map(str::to_owned));
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn all_is_forbidden_first_and_others_are_asked_what_they_have() {
        let agent = tempfile::tempdir().unwrap();
        for id in ["a", "b"] {
            fs::create_dir(agent.path().join(id)).unwrap();
            for name in [ALLOW, DENY, LIST] {
                fs::write(agent.path().join(id).join(name), "").unwrap();
            }
        }
        fs::write(agent.path().join("a").join(LIST), "c 1:3 rwm\nc 195:0 rw\n").unwrap();
        confine(agent.path(), "b", 0).unwrap();
        let text = |name| file::read(&agent.path().join("b"), name).unwrap();
        assert_eq!(text(DENY), "a");
        // A plain file keeps what was written last; control files take one at a time.
        assert!(text(ALLOW).starts_with("c 136:* rwm"));
        let taken = taken(agent.path(), "b").unwrap();
        assert!(taken.contains("c 195:0 rw"), "{taken:?}");
        release(&agent.path().join("a")).unwrap();
        assert_eq!(file::read(&agent.path().join("a"), DENY).unwrap(), "a");
        release(&agent.path().join("gone")).unwrap();
    }
}
