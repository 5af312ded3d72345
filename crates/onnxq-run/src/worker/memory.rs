//! What memory a process has.

use std::fs;

/// In bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Pages of its own.
    pub anonymous: u64,
    /// Everything that is resident, mapped files too.
    pub resident: u64,
}

impl Memory {
    /// Of another process, or of this one; `None` where the system does not tell.
    pub fn of(process: Option<u32>) -> Option<Memory> {
        let process = process.map_or("self".to_owned(), |it| it.to_string());
        let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let field = |key: &str| bytes(&text, key);
        Some(Memory { anonymous: field("RssAnon:")?, resident: field("VmRSS:")? })
    }

    /// All that the machine has, or that the control group of this process may have.
    pub fn whole() -> Option<u64> {
        let machine = machine("MemTotal:")?;
        Some(machine.min(group("memory.max").unwrap_or(machine)))
    }

    /// What the system could give to new processes, in bytes.
    pub fn available() -> Option<u64> {
        Some(machine("MemAvailable:")?.min(group_left().unwrap_or(u64::MAX)))
    }
}

/// A line of what the kernel says of this process, in bytes.
pub(super) fn own(key: &str) -> Option<u64> {
    bytes(&fs::read_to_string("/proc/self/status").ok()?, key)
}

fn machine(key: &str) -> Option<u64> {
    bytes(&fs::read_to_string("/proc/meminfo").ok()?, key)
}

/// A line `key: N kB`, in bytes.
fn bytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|it| it.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|it| it * 1024)
}

/// What is left of the limit of the control group, if it has one.
fn group_left() -> Option<u64> {
    Some(group("memory.max")?.saturating_sub(group("memory.current")?))
}

fn group(file: &str) -> Option<u64> {
    fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok()?.trim().parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_there_is_more() {
        let own = Memory::of(None).unwrap();
        assert!(own.anonymous > 0 && own.resident >= own.anonymous);
        assert!(Memory::available().unwrap() > 0);
        assert_eq!(Memory::of(Some(u32::MAX)), None);
    }
}
