//! How much memory this process may still take: what the machine has available, and what its control groups leave.
//! Linux only.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Bytes that can still be taken; `None` where that cannot be known.
pub(crate) fn free_memory() -> Option<u64> {
    free_below(Path::new("/"))
}

/// As [`free_memory`], of the machine whose files are below `root`.
fn free_below(root: &Path) -> Option<u64> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let available = field(&meminfo, "MemAvailable:")?.saturating_mul(1024);
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mounts = root.join("sys/fs/cgroup");
    let left = groups.lines().filter_map(|line| left_by_group(&mounts, line)).min();
    Some(left.map_or(available, |left| left.min(available)))
}

/// What the control group of a line of `/proc/self/cgroup` and those above it leave; `None` if they have no limit.
fn left_by_group(mounts: &Path, line: &str) -> Option<u64> {
    let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
    let (mount, limit, usage, cached) = if controllers.is_empty() {
        (mounts.to_owned(), "memory.max", "memory.current", "inactive_file ")
    } else if controllers.split(',').any(|c| c == "memory") {
        (mounts.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
    } else {
        return None;
    };
    let number = |file: PathBuf| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let left = |group: &Path| {
        let (limit, used) = (number(group.join(limit))?, number(group.join(usage))?);
        // cached pages of files go when memory is needed
        let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let used = used.saturating_sub(field(&stat, cached).unwrap_or(0));
        Some(limit.saturating_sub(used))
    };
    // a container may see its own group as the root, whatever the path says
    let group = mount.join(path.trim_start_matches('/'));
    group.ancestors().take_while(|g| g.starts_with(&mount)).filter_map(left).min()
}

/// The number after a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:  8000 kB\nMemAvailable:    4000 kB\n");

    #[test]
    fn a_machine_without_groups_has_what_is_available() {
        assert_eq!(free_below(machine(&[MEMINFO]).path()), Some(4_096_000));
        assert_eq!(free_below(machine(&[]).path()), None);
    }

    #[test]
    fn the_tightest_group_counts_and_cached_pages_do_not() {
        let root = machine(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/memory.max", "3000000\n"),
            ("sys/fs/cgroup/a/memory.current", "2500000\n"),
            ("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 1000000\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/b/memory.current", "2000000\n"),
        ]);
        assert_eq!(free_below(root.path()), Some(1_500_000));
    }

    #[test]
    fn groups_of_the_first_version_are_read_too() {
        let root = machine(&[
            MEMINFO,
            ("proc/self/cgroup", "5:cpu:/x\n3:memory:/docker/abc\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "900000\n"),
            ("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 100000\n"),
        ]);
        assert_eq!(free_below(root.path()), Some(200_000));
    }
}
