//! Addresses as text (`network.c`, `inet_net_ntop.c`, `mac.c`, `mac8.c`).

use std::fmt::Write;

/// How the family of an address is stored.
const IPV4: u8 = 2;
const IPV6: u8 = 3;

/// The length of the mask is shown unless it is that of a single address.
pub(super) fn inet(bytes: &[u8]) -> Option<String> {
    let (address, bits, longest) = address(bytes)?;
    Some(if bits == longest { address } else { format!("{address}/{bits}") })
}

/// The length of the mask is always shown.
pub(super) fn cidr(bytes: &[u8]) -> Option<String> {
    let (address, bits, _) = address(bytes)?;
    Some(format!("{address}/{bits}"))
}

pub(super) fn macaddr(bytes: &[u8]) -> Option<String> {
    (bytes.len() == 6).then(|| groups(bytes))
}

pub(super) fn macaddr8(bytes: &[u8]) -> Option<String> {
    (bytes.len() == 8).then(|| groups(bytes))
}

fn groups(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// u8 family, u8 length of the mask, the address: its text, the length, and the length for a single address.
fn address(bytes: &[u8]) -> Option<(String, u8, u8)> {
    let ([family, bits], address) = bytes.split_first_chunk()?;
    let (text, longest) = match *family {
        IPV4 => (ipv4(address.try_into().ok()?), 32),
        IPV6 => (ipv6(address.try_into().ok()?), 128),
        _ => return None,
    };
    (*bits <= longest).then_some((text, *bits, longest))
}

fn ipv4([a, b, c, d]: [u8; 4]) -> String {
    format!("{a}.{b}.{c}.{d}")
}

/// `::` stands for the first of the longest runs of zeros, if that has two groups. The last two groups are printed as an IPv4
/// address behind six groups of zeros, and behind five and `ffff`. The standard library does not print the former so.
fn ipv6(address: [u8; 16]) -> String {
    let mut words = [0u16; 8];
    for (word, pair) in words.iter_mut().zip(address.chunks_exact(2)) {
        *word = pair.iter().fold(0, |word, byte| word << 8 | u16::from(*byte));
    }
    let zeros = |start: usize| words.iter().skip(start).take_while(|word| **word == 0).count();
    let (mut run_start, mut run_length) = (0, 0);
    for start in 0..words.len() {
        if zeros(start) > run_length {
            (run_start, run_length) = (start, zeros(start));
        }
    }
    let run = if run_length < 2 { 0..0 } else { run_start..run_start + run_length };
    let has_ipv4 = run.start == 0 && (run.len() == 6 || run.len() == 5 && words[5] == 0xffff);
    let mut text = String::new();
    for (index, word) in words.iter().enumerate() {
        if run.contains(&index) {
            if index == run.start {
                text.push(':');
            }
            continue;
        }
        if index != 0 {
            text.push(':');
        }
        if index == 6 && has_ipv4 {
            let [.., a, b, c, d] = address;
            text.push_str(&ipv4([a, b, c, d]));
            return text;
        }
        let _ = write!(text, "{word:x}");
    }
    if !run.is_empty() && run.end == words.len() {
        text.push(':');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v6(bits: u8, words: [u16; 8]) -> Vec<u8> {
        [IPV6, bits].into_iter().chain(words.into_iter().flat_map(u16::to_be_bytes)).collect()
    }

    #[test]
    fn ipv4_addresses() {
        assert_eq!(inet(&[2, 32, 192, 168, 0, 1]).as_deref(), Some("192.168.0.1"));
        assert_eq!(inet(&[2, 24, 192, 168, 0, 1]).as_deref(), Some("192.168.0.1/24"));
        assert_eq!(cidr(&[2, 32, 10, 0, 0, 0]).as_deref(), Some("10.0.0.0/32"));
        for damaged in [&[2u8, 33, 1, 2, 3, 4][..], &[2, 32, 1, 2, 3], &[4, 32, 1, 2, 3, 4], &[2]] {
            assert_eq!(inet(damaged), None);
        }
    }

    #[test]
    fn ipv6_addresses() {
        for (words, text) in [
            ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], "2001:db8::1"),
            ([0, 0, 0, 0, 0, 0, 0, 0], "::"),
            ([0, 0, 0, 0, 0, 0, 0, 1], "::1"),
            ([0, 0, 0, 0, 0, 0, 0x0102, 0x0304], "::1.2.3.4"),
            ([0, 0, 0, 0, 0, 0xffff, 0x0102, 0x0304], "::ffff:1.2.3.4"),
            ([0, 0, 0, 0, 1, 0, 0x0102, 0x0304], "::1:0:102:304"),
            ([1, 0, 0, 2, 0, 0, 0, 3], "1:0:0:2::3"),
            ([1, 0, 0, 2, 0, 0, 3, 4], "1::2:0:0:3:4"),
            ([1, 0, 2, 3, 4, 5, 6, 7], "1:0:2:3:4:5:6:7"),
            ([0xfe80, 0, 0, 0, 0, 0, 0, 0], "fe80::"),
        ] {
            assert_eq!(inet(&v6(128, words)).as_deref(), Some(text));
            assert_eq!(inet(&v6(64, words)), Some(format!("{text}/64")));
        }
        assert_eq!(inet(&v6(129, [0; 8])), None);
    }

    #[test]
    fn hardware_addresses() {
        assert_eq!(macaddr(&[8, 0, 0x2b, 1, 2, 0xff]).as_deref(), Some("08:00:2b:01:02:ff"));
        assert_eq!(macaddr8(&[8, 0, 0x2b, 1, 2, 3, 4, 5]).as_deref(), Some("08:00:2b:01:02:03:04:05"));
        assert_eq!(macaddr(&[1, 2]), None);
    }
}
