//! Comparing hosts: an address can be written in several ways, and a name in upper or lower case.

use std::net::{IpAddr, ToSocketAddrs};

/// Whether two texts are the same address or the same name. Nothing is looked up.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    match (address(one), address(other)) {
        (Some(one), Some(other)) => one == other,
        (None, None) => one.eq_ignore_ascii_case(other),
        _ => false,
    }
}

/// Whether two names or addresses have an address in common.
pub(crate) fn resolves_to_same(one: &str, other: &str) -> bool {
    let (one, others) = (addresses(one), addresses(other));
    one.iter().any(|address| others.contains(address))
}

fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// The addresses of a host; none if it cannot be resolved.
fn addresses(host: &str) -> Vec<IpAddr> {
    let found = (host, 0).to_socket_addrs().into_iter().flatten();
    found.map(|found| found.ip().to_canonical()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_as_what_they_mean() {
        for (one, other, is_it) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("fd00:0::0001", "FD00::1", true),
            ("10.0.0.1", "10.0.0.10", false),
            ("db1", "DB1", true),
            ("db1", "10.0.0.1", false),
        ] {
            assert_eq!(is_same(one, other), is_it, "{one} {other}");
        }
        assert!(resolves_to_same("localhost", "127.0.0.1") || resolves_to_same("localhost", "::1"));
        assert!(!resolves_to_same("no-such-host.invalid", "no-such-host.invalid"));
    }
}
