//! Host name verification for `sslmode=verify-full`, by libpq's rules.

use std::net::IpAddr;

use openssl::nid::Nid;
use openssl::x509::X509Ref;

use super::error::ConnectProblem;

/// Checks that the certificate is for `host`, a name or an address.
///
/// The common name is considered only if there is no subject alternative name of the kind of `host`.
pub(super) fn check(certificate: &X509Ref, host: Option<&str>) -> Result<(), ConnectProblem> {
    let host = host.filter(|host| !host.is_empty()).ok_or(ConnectProblem::NoHostName)?;
    let address: Option<IpAddr> = host.parse().ok();
    let mut names = Vec::new();
    let mut common_name_counts = true;
    for name in certificate.subject_alt_names().iter().flatten() {
        if let Some(name) = name.dnsname() {
            common_name_counts &= address.is_some();
            if is_name(name, host)? {
                return Ok(());
            }
            names.push(name.to_owned());
        } else if let Some(octets) = name.ipaddress() {
            common_name_counts &= address.is_none();
            let Some(ip) = ip_of(octets) else { continue };
            if address == Some(ip) {
                return Ok(());
            }
            names.push(ip.to_string());
        }
    }
    if common_name_counts
        && let Some(entry) = certificate.subject_name().entries_by_nid(Nid::COMMONNAME).next()
    {
        let name = String::from_utf8_lossy(entry.data().as_slice()).into_owned();
        if is_name(&name, host)? {
            return Ok(());
        }
        names.push(name);
    }
    let others = names.len().saturating_sub(1);
    match names.into_iter().next() {
        Some(first) => Err(ConnectProblem::HostName { first, others, host: host.to_owned() }),
        None => Err(ConnectProblem::NoCertificateName),
    }
}

fn ip_of(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}

/// Whether a name in a certificate matches the host. A leading `*.` matches exactly one label.
fn is_name(pattern: &str, host: &str) -> Result<bool, ConnectProblem> {
    if pattern.contains('\0') {
        return Err(ConnectProblem::NulInName);
    }
    if pattern.eq_ignore_ascii_case(host) {
        return Ok(true);
    }
    let (Some(domain), Some((label, rest))) = (pattern.strip_prefix("*."), host.split_once('.')) else {
        return Ok(false);
    };
    Ok(!domain.is_empty() && !label.is_empty() && domain.eq_ignore_ascii_case(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_matches_one_label() {
        for (pattern, host, fits) in [
            ("db.example.com", "DB.example.COM", true),
            ("*.example.com", "db.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "a.db.example.com", false),
            ("*.example.com", ".example.com", false),
            ("d*.example.com", "db.example.com", false),
            ("*", "localhost", false),
            ("*.", "localhost.", false),
            ("127.0.0.1", "127.0.0.1", true),
        ] {
            assert_eq!(is_name(pattern, host).unwrap(), fits, "{pattern} {host}");
        }
        assert!(is_name("db.example.com\0.evil.com", "db.example.com").is_err());
    }
}
