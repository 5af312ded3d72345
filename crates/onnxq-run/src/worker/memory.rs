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
        let field = |key: &str| {
            let line = text.lines().find_map(|it| it.strip_prefix(key))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|it| it * 1024)
        };
        Some(Memory { anonymous: field("RssAnon:")?, resident: field("VmRSS:")? })
    }

    /// What the system could give to new processes, in bytes.
    pub fn available() -> Option<u64> {
        let text = fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|it| it.strip_prefix("MemAvailable:"))?;
        let machine = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024;
        Some(machine.min(group_left().unwrap_or(u64::MAX)))
    }
}

/// What is left of the limit of the control group, if it has one.
fn group_left() -> Option<u64> {
    let number = |file: &str| -> Option<u64> {
        fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok()?.trim().parse().ok()
    };
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
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
