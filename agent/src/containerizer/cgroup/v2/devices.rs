//! Devices: this version has no controller for them, but asks a program that is attached
//! to the cgroup (BPF) each time one is made or opened.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use nix::libc;

use super::super::{
    devices::{self, Rule},
    file::{self, CgroupError},
};

/// The attribute of a cgroup that holds its rules, a line each, in v1's words: a program
/// cannot be asked what it allows.
const RULES: &str = "user.mezz.devices";

/// Lets a container open harmless devices, and so many GPUs that no other container of
/// the agent has. The kernel keeps the program for as long as there is the cgroup.
pub(super) fn confine(agent: &Path, id: &str, gpus: usize) -> Result<(), CgroupError> {
    let directory = agent.join(id);
    let taken = if gpus > 0 { taken(agent, id)? } else { BTreeSet::new() };
    let rules = devices::rules(gpus, &taken, Path::new("/dev"))?;
    let failed = |e| CgroupError::new("attaching a device filter to", &directory, e);
    let program = load(&rules).map_err(failed)?;
    attach(&program, &File::open(&directory).map_err(failed)?).map_err(failed)?;
    let text: Vec<_> = rules.iter().map(Rule::to_string).collect();
    file::set_attribute(&directory, RULES, Some(&text.join("\n")))
}

/// One that bears no rules has no GPU.
pub(super) fn release(directory: &Path) -> Result<(), CgroupError> {
    if directory.exists() && file::attribute(directory, RULES)?.is_some() {
        file::set_attribute(directory, RULES, None)?;
    }
    Ok(())
}

/// Whether this kernel takes such programs from us: those of later containers.
pub(in super::super) fn check() -> io::Result<()> {
    let rules = devices::rules(0, &BTreeSet::new(), Path::new("/dev")).map_err(io::Error::from)?;
    load(&rules).map(drop)
}

/// A kernel before 5.7 has no such attributes, and says so now.
pub(super) fn check_attributes(agent: &Path) -> Result<(), CgroupError> {
    file::attribute(agent, RULES).map(drop)
}

fn taken(agent: &Path, id: &str) -> Result<BTreeSet<String>, CgroupError> {
    let mut taken = BTreeSet::new();
    for other in file::children(agent)?.into_iter().filter(|other| other != id) {
        // One that goes away meanwhile has nothing.
        let rules = file::attribute(&agent.join(other), RULES).ok().flatten().unwrap_or_default();
        taken.extend(rules.lines().map(str::to_owned));
    }
    Ok(taken)
}

/// One instruction of the kernel's machine (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// The register that is changed, and above its four bits the one that is read.
    registers: u8,
    offset: i16,
    value: i32,
}

/// Codes: a load of 32 bits; arithmetic of 32 bits with a value or a register; jumps of
/// 32 bits; the end.
mod code {
    pub const LOAD: u8 = 0x61;
    pub const AND: u8 = 0x54;
    pub const SHIFT_RIGHT: u8 = 0x74;
    pub const MOVE: u8 = 0xb4;
    pub const MOVE_REGISTER: u8 = 0xbc;
    pub const JUMP_UNLESS_EQUAL: u8 = 0x56;
    pub const EXIT: u8 = 0x95;
}

/// The answer; what is asked, as a pointer; and what we take out of it.
mod register {
    pub const ANSWER: u8 = 0;
    pub const ASKED: u8 = 1;
    pub const KIND: u8 = 2;
    pub const ACCESS: u8 = 3;
    pub const MAJOR: u8 = 4;
    pub const MINOR: u8 = 5;
    pub const SCRATCH: u8 = 6;
}

/// `BPF_DEVCG_DEV_BLOCK` and `BPF_DEVCG_DEV_CHAR`.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

const fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset, value }
}

/// Allows what one of the rules does as a whole, and nothing else; as v1.
fn assemble(rules: &[Rule]) -> Vec<Instruction> {
    use code::*;
    use register::*;
    // `struct bpf_cgroup_dev_ctx`: kind in the lower half of the first word and access in
    // the upper, then major and minor number.
    let mut program = vec![
        instruction(LOAD, KIND, ASKED, 0, 0),
        instruction(MOVE_REGISTER, ACCESS, KIND, 0, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(LOAD, MAJOR, ASKED, 4, 0),
        instruction(LOAD, MINOR, ASKED, 8, 0),
    ];
    for rule in rules {
        let kind = if rule.block { BLOCK } else { CHARACTER };
        let mut tests = vec![
            instruction(JUMP_UNLESS_EQUAL, KIND, 0, 0, kind),
            instruction(MOVE_REGISTER, SCRATCH, ACCESS, 0, 0),
            instruction(AND, SCRATCH, 0, 0, !i32::from(rule.access)),
            instruction(JUMP_UNLESS_EQUAL, SCRATCH, 0, 0, 0),
        ];
        for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
            if let Some(number) = number {
                let number = number.cast_signed();
                tests.push(instruction(JUMP_UNLESS_EQUAL, register, 0, 0, number));
            }
        }
        tests.push(instruction(MOVE, ANSWER, 0, 0, 1));
        tests.push(instruction(EXIT, 0, 0, 0, 0));
        // To the next rule, behind the last of these: at most eight away.
        for (left, test) in (0..).zip(tests.iter_mut().rev()) {
            if test.code == JUMP_UNLESS_EQUAL {
                test.offset = left;
            }
        }
        program.append(&mut tests);
    }
    program.push(instruction(MOVE, ANSWER, 0, 0, 0));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    program
}

/// A kernel before 5.11 takes its memory for locked, of which a process may have little.
fn load(rules: &[Rule]) -> io::Result<OwnedFd> {
    match load_now(rules) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            with_locked_memory(|| load_now(rules))
        }
        loaded => loaded,
    }
}

/// Only for a moment: what is started meanwhile inherits it.
fn with_locked_memory<T>(what: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    use nix::sys::resource::{RLIM_INFINITY, Resource::RLIMIT_MEMLOCK, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(RLIMIT_MEMLOCK)?;
    if setrlimit(RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_err() {
        setrlimit(RLIMIT_MEMLOCK, hard, hard)?;
    }
    let done = what();
    setrlimit(RLIMIT_MEMLOCK, soft, hard)?;
    done
}

/// `BPF_PROG_LOAD` with `BPF_PROG_TYPE_CGROUP_DEVICE`.
fn load_now(rules: &[Rule]) -> io::Result<OwnedFd> {
    #[derive(Default)]
    #[repr(C)]
    struct Load {
        kind: u32,
        instructions: u32,
        first: u64,
        licence: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    const COMMAND: libc::c_long = 5;
    const CGROUP_DEVICE: u32 = 15;
    let program = assemble(rules);
    let mut request = Load {
        kind: CGROUP_DEVICE,
        instructions: u32::try_from(program.len()).map_err(io::Error::other)?,
        first: program.as_ptr() as u64,
        licence: c"".as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: the request and what it points to live until the call has returned; the
    // kernel copies them. The sizes are those of what they point to.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, COMMAND, &raw mut request, size_of::<Load>()) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: it was made a moment ago, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `BPF_PROG_ATTACH`; what other programs of cgroups above forbid stays forbidden.
fn attach(program: &OwnedFd, cgroup: &File) -> io::Result<()> {
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }
    const COMMAND: libc::c_long = 8;
    const CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    let mut request = Attach {
        target: cgroup.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        kind: CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: the request lives until the call has returned, and has the size that is said.
    match unsafe { libc::syscall(libc::SYS_bpf, COMMAND, &raw mut request, size_of::<Attach>()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What the kernel would answer: the instructions that we use, carried out.
    fn ask(rules: &[Rule], kind: i32, access: i32, major: i32, minor: i32) -> i32 {
        let (program, asked) = (assemble(rules), [kind | access << 16, major, minor]);
        let (mut registers, mut at) = (BTreeMap::new(), 0_usize);
        loop {
            let Instruction { code, registers: both, offset, value } = program[at];
            let (to, from) = (both & 15, both >> 4);
            let old: i32 = registers.get(&to).copied().unwrap_or_default();
            let new = match code {
                code::LOAD => asked[offset as usize / 4],
                code::AND => old & value,
                code::SHIFT_RIGHT => (old.cast_unsigned() >> value).cast_signed(),
                code::MOVE => value,
                code::MOVE_REGISTER => registers[&from],
                code::JUMP_UNLESS_EQUAL => {
                    at += if old == value { 0 } else { offset as usize };
                    old
                }
                code::EXIT => return registers[&register::ANSWER],
                other => panic!("{other:#x}"),
            };
            registers.insert(to, new);
            at += 1;
        }
    }

    #[test]
    fn what_is_released_is_not_taken() {
        let agent = tempfile::tempdir().unwrap();
        let gpu = agent.path().join("a");
        std::fs::create_dir(&gpu).unwrap();
        check_attributes(agent.path()).unwrap();
        file::set_attribute(&gpu, RULES, Some("c 195:0 rw")).unwrap();
        assert!(taken(agent.path(), "b").unwrap().contains("c 195:0 rw"));
        for _ in 0..2 {
            release(&gpu).unwrap();
            assert!(taken(agent.path(), "b").unwrap().is_empty());
        }
        release(&agent.path().join("gone")).unwrap();
    }

    #[test]
    fn memory_may_be_locked_only_meanwhile() {
        use nix::sys::resource::{Resource::RLIMIT_MEMLOCK, getrlimit, setrlimit};
        setrlimit(RLIMIT_MEMLOCK, 4096, 8192).unwrap();
        let (soft, _) = with_locked_memory(|| Ok(getrlimit(RLIMIT_MEMLOCK)?)).unwrap();
        // All, for one who may raise it.
        assert!(soft >= 8192, "{soft}");
        assert_eq!(getrlimit(RLIMIT_MEMLOCK).unwrap(), (4096, 8192));
    }

    #[test]
    fn only_what_a_rule_allows_as_a_whole_is_allowed() {
        let (none, devices) = (BTreeSet::new(), tempfile::tempdir().unwrap());
        let rules = devices::rules(0, &none, devices.path()).unwrap();
        let (make, read, write) = (1, 2, 4);
        let ask = |kind, access, major, minor| ask(&rules, kind, access, major, minor);
        assert_eq!(ask(CHARACTER, read | write, 1, 3), 1, "null");
        assert_eq!(ask(CHARACTER, read | write, 136, 77), 1, "a terminal");
        assert_eq!(ask(CHARACTER, read, 1, 1), 0, "mem");
        assert_eq!(ask(CHARACTER, make, 1, 1), 1, "to make one opens none");
        assert_eq!(ask(CHARACTER, make | read, 1, 1), 0);
        assert_eq!(ask(BLOCK, read, 1, 3), 0, "another kind");
        assert_eq!(ask(BLOCK, make, 8, 0), 1);
        assert_eq!(super::tests::ask(&[], CHARACTER, read, 1, 3), 0, "no rule, nothing");
    }
}
