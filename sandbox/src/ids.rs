//! Which ids inside a user namespace are which ids outside of it.

use rustix::io::Errno;

/// As many ranges as the kernel takes in one map.
const MAX_RANGES: usize = 340;

/// A run of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    inside: u32,
    outside: u32,
    count: u32,
}

/// A map of user ids, or one of group ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct IdMap(Vec<Range>);

impl IdMap {
    /// Reads a map as the kernel shows it in `/proc/self/uid_map`.
    pub(crate) fn parse(text: &str) -> Self {
        let range = |line: &str| {
            let mut numbers = line.split_whitespace().map(str::parse::<u32>);
            let mut next = || numbers.next()?.ok();
            Some(Range { inside: next()?, outside: next()?, count: next()? })
        };
        Self(text.lines().filter_map(range).collect())
    }

    /// Maps 0 to `own`, and the numbers from 1 up to the ranges that the text of `/etc/subuid` or `/etc/subgid` has for a
    /// user of one of these names. `None` if there are none.
    pub(crate) fn subordinate(own: u32, text: &str, names: &[&str]) -> Option<Self> {
        let mut ranges = vec![Range { inside: 0, outside: own, count: 1 }];
        let mut inside: u32 = 1;
        for line in text.lines() {
            let fields: Vec<&str> = line.trim().split(':').collect();
            let [name, start, count] = fields.as_slice() else { continue };
            let (Ok(start), Ok(count)) = (start.parse::<u32>(), count.parse::<u32>()) else {
                continue;
            };
            // An id that is mapped twice is refused by the kernel.
            let is_taken = |it: &Range| {
                start < it.outside.saturating_add(it.count)
                    && it.outside < start.saturating_add(count)
            };
            let end = inside.checked_add(count);
            let (true, Some(end)) = (names.contains(name) && count > 0, end) else { continue };
            if ranges.iter().any(is_taken) || ranges.len() == MAX_RANGES {
                continue;
            }
            ranges.push(Range { inside, outside: start, count });
            inside = end;
        }
        (ranges.len() > 1).then_some(Self(ranges))
    }

    /// Maps 0 to `own`, and nothing else.
    pub(crate) fn single(own: u32) -> Self {
        Self(vec![Range { inside: 0, outside: own, count: 1 }])
    }

    /// Every id that a map knows, as itself.
    pub(crate) fn identity(&self) -> Self {
        Self(self.0.iter().map(|it| Range { outside: it.inside, ..*it }).collect())
    }

    /// Whether there is such an id inside.
    pub(crate) fn has(&self, id: u32) -> bool {
        self.0.iter().any(|it| id >= it.inside && id - it.inside < it.count)
    }

    /// The numbers that a map consists of, as the kernel and its helpers take them.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = [u32; 3]> {
        self.0.iter().map(|it| [it.inside, it.outside, it.count])
    }

    /// The map as the kernel takes it.
    pub(crate) fn to_text(&self) -> String {
        self.numbers()
            .map(|[inside, outside, count]| format!("{inside} {outside} {count}\n"))
            .collect()
    }

    /// The ids inside, for messages: `0 to 65536`.
    pub(crate) fn describe(&self) -> String {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for it in &self.0 {
            let end = it.inside.saturating_add(it.count - 1);
            match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(it.inside) => *last = end,
                _ => ranges.push((it.inside, end)),
            }
        }
        let range = |(first, last): &(u32, u32)| {
            if first == last { first.to_string() } else { format!("{first} to {last}") }
        };
        ranges.iter().map(range).collect::<Vec<_>>().join(", ")
    }
}

/// The two maps of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct IdMaps {
    pub(crate) users: IdMap,
    pub(crate) groups: IdMap,
}

impl IdMaps {
    /// Those of this process. A kernel without user namespaces maps everything.
    pub(crate) fn of_process() -> Self {
        let all = || IdMap(vec![Range { inside: 0, outside: 0, count: u32::MAX }]);
        let read = |name| match std::fs::read_to_string(format!("/proc/self/{name}")) {
            Ok(text) => IdMap::parse(&text),
            Err(_) => all(),
        };
        Self { users: read("uid_map"), groups: read("gid_map") }
    }

    /// Whether there is one user.
    pub(crate) fn has_one_user(&self) -> bool {
        matches!(self.users.0.as_slice(), [Range { count: 1, .. }])
    }

    /// The first of these that has no place inside.
    pub(crate) fn missing(&self, uid: u32, gids: &[u32]) -> Option<(&'static str, u32, String)> {
        if !self.users.has(uid) {
            return Some(("user", uid, self.users.describe()));
        }
        let gid = gids.iter().find(|gid| !self.groups.has(**gid))?;
        Some(("group", *gid, self.groups.describe()))
    }
}

/// Writes a map to a file of `/proc`, in the one call that the kernel accepts.
pub(crate) fn write(path: &str, map: &IdMap) -> rustix::io::Result<()> {
    write_text(path, &map.to_text())
}

/// Writes to a file of `/proc` in one call.
pub(crate) fn write_text(path: &str, text: &str) -> rustix::io::Result<()> {
    use rustix::fs::{Mode, OFlags};
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    let n_written = rustix::io::write(file, text.as_bytes())?;
    if n_written == text.len() { Ok(()) } else { Err(Errno::IO) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ranges_follow_the_own_id() {
        let text = "other:1:5\nfred:100000:65536\n# fred:9:9\n1000:300000:10\nfred:x:1\nfred:1000:1\nfred:100010:5\n";
        let map = IdMap::subordinate(1000, text, &["fred", "1000"]).unwrap();
        assert_eq!(map.to_text(), "0 1000 1\n1 100000 65536\n65537 300000 10\n");
        assert_eq!(map.describe(), "0 to 65546");
        assert!(map.has(0) && map.has(65546) && !map.has(65547));
        assert_eq!(IdMap::subordinate(1000, text, &["nobody"]), None);
        assert_eq!(IdMap::subordinate(1000, "fred:1:0\n", &["fred"]), None);
    }

    #[test]
    fn maps_of_the_kernel() {
        let all = IdMap::parse("         0          0 4294967295\n");
        assert!(all.has(u32::MAX - 1) && !all.has(u32::MAX));
        let some = IdMap::parse("0 1000 1\n1 100000 10\n20 5 1\n");
        assert_eq!(some.describe(), "0 to 10, 20");
        assert_eq!(some.identity().to_text(), "0 0 1\n1 1 10\n20 20 1\n");
        let maps = IdMaps { users: all, groups: some };
        assert_eq!(maps.missing(70_000, &[3]), None);
        assert_eq!(maps.missing(0, &[3, 11]), Some(("group", 11, "0 to 10, 20".to_owned())));
    }
}
