//! What the budget reads from the machine: its memory, the memory of the process, and the principal of a
//! client address.

use std::fs::read_to_string;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::stream::Principal;

/// The default budget: half of the memory that the process can have, which is that of the machine or the
/// lowest limit of its control groups (cgroups(7), versions 1 and 2).
pub fn half_of_machine() -> u64 {
    let limits =
        group_limits(&read_to_string("/proc/self/cgroup").unwrap_or_default(), Path::new("/sys/fs/cgroup"));
    let machine = read_to_string("/proc/meminfo").ok().and_then(|text| bytes_of(&text, "MemTotal:"));
    limits.into_iter().chain(machine).min().unwrap_or(u64::MAX) / 2
}

/// Resident anonymous memory of the process in bytes (`RssAnon`, proc(5), status). It excludes pages of
/// files, which the kernel can take back.
pub(super) fn resident_bytes() -> Option<u64> {
    bytes_of(&read_to_string("/proc/self/status").ok()?, "RssAnon:")
}

/// The principal of a client at `address`. An IPv6 /64 network is one principal, since one host may use all
/// of its addresses.
pub fn principal_of(address: IpAddr) -> Principal {
    match address.to_canonical() {
        // Mapped into a reserved part of the IPv6 space (RFC 4291, section 2.4).
        IpAddr::V4(address) => Principal(1 << 32 | u64::from(address.to_bits())),
        IpAddr::V6(address) => Principal((address.to_bits() >> 64) as u64),
    }
}

/// The value in bytes of a line such as `MemTotal:  1024 kB`.
fn bytes_of(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The memory limits, in bytes, of the control groups in `groups` (the text of `/proc/self/cgroup`) and of
/// their parents.
fn group_limits(groups: &str, mounted_at: &Path) -> Vec<u64> {
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => (mounted_at.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (mounted_at.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // Inside a container the path often does not exist, and the root of the mount is the group.
        let group: PathBuf = root.join(path.trim_start_matches('/'));
        let up = group.ancestors().take_while(|group| group.starts_with(&root));
        let found = up.filter_map(|group| read_to_string(group.join(file)).ok());
        limits.extend(found.filter_map(|text| text.trim().parse::<u64>().ok()));
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_its_address_or_its_network_of_64_bits() {
        let of = |text: &str| principal_of(text.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        let all = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1", "::1"].map(of);
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one) && *one != Principal::GATEWAY);
        }
    }

    #[test]
    fn the_least_limit_of_a_group_or_of_one_around_it_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("user/app/memory.max", "max\n");
        write("user/memory.max", "1048576\n");
        write("memory/docker/one/memory.limit_in_bytes", "2097152\n");
        assert_eq!(group_limits("0::/user/app\n", root.path()), [1_048_576]);
        assert_eq!(group_limits("5:cpu:/x\n3:memory,hugetlb:/docker/one\n", root.path()), [2_097_152]);
        assert_eq!(group_limits("0::/../outside\n", root.path()), [0; 0]);
        assert_eq!(
            bytes_of("MemTotal:       24030000 kB\nMemFree: 1 kB\n", "MemTotal:"),
            Some(24_606_720_000)
        );
    }

    #[test]
    fn the_process_is_resident() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 64 * 1024));
        assert!(half_of_machine() > 64 << 20);
    }
}
