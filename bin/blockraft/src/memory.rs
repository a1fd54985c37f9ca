//! How a serving process gets its memory.

/// Has the kernel give memory in small pages. The allocator asks for huge ones, of which the first touch clears two
/// megabytes: on a node whose threads touch many places a little, that was a fifth of all its work.
pub(crate) fn use_small_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "memory comes in huge pages");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_off_once_asked() {
        use_small_pages();
        assert_eq!(nix::sys::prctl::get_thp_disable(), Ok(true));
    }
}
