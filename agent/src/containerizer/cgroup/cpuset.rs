//! `cpuset`: cores of its own for a container with whole cpus, and the others for all the
//! rest.
//!
//! Whose the cores are stands in the cgroups themselves: one with cores of its own bears
//! [`OWN`]. So an agent that comes back knows as much as the one before.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::file::{self, CgroupError};

const CPUS: &str = "cpuset.cpus";
const MEMORIES: &str = "cpuset.mems";

/// Where v2 tells what [`CPUS`] comes to.
const EFFECTIVE: &str = "cpuset.cpus.effective";

/// The attribute of a cgroup with cores of its own.
const OWN: &str = "user.mezz.cores";

/// Cores by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Cores(BTreeSet<u32>);

impl Cores {
    /// As the kernel writes them: `0-3,7`.
    fn parse(text: &str) -> Option<Self> {
        let mut cores = BTreeSet::new();
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            cores.extend(first.parse::<u32>().ok()?..=last.parse().ok()?);
        }
        Some(Self(cores))
    }

    fn without(&self, others: &Self) -> Self {
        Self(self.0.difference(&others.0).copied().collect())
    }

    /// The last ones: the first have the machine's own work, such as interrupts.
    fn last(&self, n: usize) -> Self {
        Self(self.0.iter().rev().take(n).copied().collect())
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, core) in self.0.iter().enumerate() {
            write!(f, "{}{core}", if n > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

/// What a container runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Share {
    /// Nobody else has these.
    Own(Cores),
    /// With all who have none of their own.
    Pool(Cores),
}

/// Whole cpus are cores of its own, unless none would be left to the others then: who
/// comes last shares what is left, which in a machine that is not oversold is as much.
/// Those that it holds already stay its own.
fn share(all: &Cores, taken: &Cores, held: Option<&Cores>, cpus: f64) -> Share {
    let free = all.without(taken);
    let whole = (cpus >= 1.0 && cpus.fract() == 0.0).then_some(cpus as usize);
    match (whole.filter(|n| *n < free.0.len()), held) {
        (Some(n), Some(held)) if held.0.len() == n && held.0.is_subset(&free.0) => {
            Share::Own(held.clone())
        }
        (Some(n), _) => Share::Own(free.last(n)),
        // Cores may have gone from the machine.
        (None, _) if free.0.is_empty() => Share::Pool(all.clone()),
        (None, _) => Share::Pool(free),
    }
}

/// The cores of an agent's containers.
pub(super) struct Cpusets {
    /// The agent's cgroup, with one below it per container.
    agent: PathBuf,
    /// Held while they are shared out.
    sharing: Mutex<()>,
}

impl Cpusets {
    /// In a hierarchy of v1, where a cgroup begins with no cores and no memory.
    pub(super) fn v1(root: &Path, agent: PathBuf) -> Result<Self, CgroupError> {
        for name in [CPUS, MEMORIES] {
            let all = file::read(root, name)?;
            if file::read(&agent, name)? != all {
                file::write(&agent, name, all)?;
            }
        }
        Self::open(agent)
    }

    /// In the unified hierarchy.
    pub(super) fn v2(agent: PathBuf) -> Result<Self, CgroupError> {
        Self::open(agent)
    }

    fn open(agent: PathBuf) -> Result<Self, CgroupError> {
        let sets = Self { agent, sharing: Mutex::default() };
        // A kernel before 5.7 has no such attributes, and says so now.
        file::attribute(&sets.agent, OWN)?;
        // The one before may have died while it shared out.
        let pool = sets.all()?.without(&sets.taken(None)?);
        sets.give_pool(&pool, None)?;
        Ok(sets)
    }

    /// The agent's cgroup.
    pub(super) fn agent(&self) -> &Path {
        &self.agent
    }

    /// Gives a container what so many cpus come to; what the others share may change.
    pub(super) fn assign(&self, id: &str, cpus: f64) -> Result<(), CgroupError> {
        let _sharing = self.lock();
        let directory = self.agent.join(id);
        if !directory.exists() {
            // Made by an agent without these; it runs on all.
            return Ok(());
        }
        let memories = file::read(&self.agent, MEMORIES)?;
        // With v2 nothing said means all that the agent has.
        if !memories.is_empty() {
            file::write(&directory, MEMORIES, memories)?;
        }
        let (all, taken) = (self.all()?, self.taken(Some(id))?);
        let held = own(&directory)?;
        match share(&all, &taken, held.as_ref(), cpus) {
            Share::Own(cores) if held.as_ref() == Some(&cores) => Ok(()),
            Share::Own(cores) => {
                file::write(&directory, CPUS, &cores)?;
                file::set_attribute(&directory, OWN, Some("1"))?;
                self.give_pool(&all.without(&taken).without(&cores), Some(id))
            }
            Share::Pool(cores) => {
                file::write(&directory, CPUS, &cores)?;
                if held.is_some() {
                    file::set_attribute(&directory, OWN, None)?;
                    self.give_pool(&cores, Some(id))?;
                }
                Ok(())
            }
        }
    }

    /// When nothing runs in a container any more: the others get its cores.
    pub(super) fn release(&self, id: &str) -> Result<(), CgroupError> {
        let _sharing = self.lock();
        let directory = self.agent.join(id);
        if !directory.exists() || own(&directory)?.is_none() {
            return Ok(());
        }
        // First: its cgroup may stay for long, and is not asked any more then.
        file::set_attribute(&directory, OWN, None)?;
        self.give_pool(&self.all()?.without(&self.taken(None)?), Some(id))
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.sharing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Result<Cores, CgroupError> {
        let v2 = self.agent.join(EFFECTIVE).exists();
        cores(&self.agent, if v2 { EFFECTIVE } else { CPUS })
    }

    /// The cores that containers have for themselves, save this one.
    fn taken(&self, except: Option<&str>) -> Result<Cores, CgroupError> {
        let mut taken = Cores::default();
        for other in self.others(except)? {
            match own(&other) {
                Ok(cores) => taken.0.extend(cores.unwrap_or_default().0),
                // It went meanwhile.
                Err(_) if !other.exists() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    fn others(&self, except: Option<&str>) -> Result<Vec<PathBuf>, CgroupError> {
        let all = file::children(&self.agent)?.into_iter();
        Ok(all.filter(|id| Some(id.as_str()) != except).map(|id| self.agent.join(id)).collect())
    }

    /// To all who have no cores of their own, save this one. One that does not take them
    /// (it may have set up cgroups below its own) keeps what it has.
    fn give_pool(&self, pool: &Cores, except: Option<&str>) -> Result<(), CgroupError> {
        for other in self.others(except)? {
            let shares = matches!(own(&other), Ok(None));
            if shares
                && let Err(error) = file::write(&other, CPUS, pool)
                && other.exists()
            {
                tracing::warn!(%error, "a container keeps cores that are not its own");
            }
        }
        Ok(())
    }
}

/// The cores that a cgroup has for itself.
fn own(directory: &Path) -> Result<Option<Cores>, CgroupError> {
    match file::attribute(directory, OWN)? {
        Some(_) => cores(directory, CPUS).map(Some),
        None => Ok(None),
    }
}

fn cores(directory: &Path, name: &str) -> Result<Cores, CgroupError> {
    let text = file::read(directory, name)?;
    Cores::parse(&text).ok_or_else(|| {
        let error = std::io::Error::new(std::io::ErrorKind::InvalidData, text);
        CgroupError::new("understanding", &directory.join(name), error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Cores {
        Cores::parse(text).unwrap()
    }

    fn share_of(all: &str, taken: &str, held: Option<&str>, cpus: f64) -> Share {
        share(&set(all), &set(taken), held.map(set).as_ref(), cpus)
    }

    /// A folder that looks like an agent's cgroup, with the cores of its containers.
    fn agent(all: &str, containers: &[(&str, &str)]) -> (tempfile::TempDir, Cpusets) {
        let agent = tempfile::tempdir().unwrap();
        for (id, cores) in containers.iter().chain([&("", all)]) {
            let directory = agent.path().join(id);
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join(CPUS), cores).unwrap();
            std::fs::write(directory.join(MEMORIES), "").unwrap();
        }
        let sets = Cpusets { agent: agent.path().to_owned(), sharing: Mutex::default() };
        (agent, sets)
    }

    #[test]
    fn what_is_released_can_be_had_before_its_cgroup_goes() {
        let (agent, sets) = agent("0-1", &[("a", "1"), ("b", "0")]);
        let at = |id: &str| agent.path().join(id);
        file::set_attribute(&at("a"), OWN, Some("1")).unwrap();
        sets.release("a").unwrap();
        assert_eq!(cores(&at("b"), CPUS).unwrap(), set("0-1"));
        sets.assign("b", 1.0).unwrap();
        assert_eq!(own(&at("b")).unwrap(), Some(set("1")));
        sets.release("gone").unwrap();
        sets.assign("gone", 1.0).unwrap();
    }

    #[test]
    fn cores_are_read_and_written() {
        assert_eq!(set("0-2,7\n").to_string(), "0,1,2,7");
        assert_eq!(set("").to_string(), "");
        assert_eq!((Cores::parse("x"), Cores::parse("1-")), (None, None));
    }

    #[test]
    fn whole_cpus_are_cores_of_its_own_and_others_share() {
        assert_eq!(share_of("0-3", "", None, 2.0), Share::Own(set("2-3")));
        assert_eq!(share_of("0-3", "3", None, 2.0), Share::Own(set("1-2")));
        assert_eq!(share_of("0-3", "3", None, 0.5), Share::Pool(set("0-2")));
        assert_eq!(share_of("0-3", "3", None, 1.5), Share::Pool(set("0-2")));
    }

    #[test]
    fn one_core_is_always_left_to_those_who_share() {
        assert_eq!(share_of("0-1", "", None, 2.0), Share::Pool(set("0-1")));
        assert_eq!(share_of("0-1", "1", None, 1.0), Share::Pool(set("0")));
        assert_eq!(share_of("0-1", "", None, 64.0), Share::Pool(set("0-1")));
        // The second core is gone, the first was somebody's.
        assert_eq!(share_of("0", "0", None, 0.1), Share::Pool(set("0")));
    }

    #[test]
    fn what_is_held_stays_while_it_is_as_much() {
        assert_eq!(share_of("0-3", "3", Some("0"), 1.0), Share::Own(set("0")));
        assert_eq!(share_of("0-3", "3", Some("0"), 2.0), Share::Own(set("1-2")));
        assert_eq!(share_of("0-3", "3", Some("0"), 0.5), Share::Pool(set("0-2")));
        assert_eq!(share_of("1-3", "", Some("0"), 1.0), Share::Own(set("3")));
    }
}
