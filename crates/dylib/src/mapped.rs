//! Which files the loader mapped into this process.

use std::fs;
use std::path::{Path, PathBuf};

/// The file of a loaded library whose name starts with `start`; none where the system does not say.
#[must_use]
pub fn mapped_file(start: &str) -> Option<PathBuf> {
    // Only Linux has this list; elsewhere the caller does without.
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    find(&maps, start)
}

fn find(maps: &str, start: &str) -> Option<PathBuf> {
    let mut paths = maps.lines().filter_map(|line| Some(Path::new(&line[line.find('/')?..])));
    let is_called = |path: &&Path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
    };
    paths.find(is_called).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_by_the_start_of_its_name() {
        let maps = "7f0-7f1 r--p 00000000 08:01 12 /usr/lib/libmigraphx_c.so.3.0\n\
                    7f1-7f2 rw-p 00000000 00:00 0\n\
                    7f2-7f3 r--p 00000000 08:01 13 /opt/my roc/libmigraphx.so.2014000.0\n";
        assert_eq!(
            find(maps, "libmigraphx.so."),
            Some(PathBuf::from("/opt/my roc/libmigraphx.so.2014000.0"))
        );
        assert_eq!(find(maps, "libhip"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_c_library_of_this_process_is_found() {
        assert!(mapped_file("libc.").is_some_and(|path| path.is_file()));
    }
}
