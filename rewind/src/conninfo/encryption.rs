//! The TLS options of a connection string.

use std::path::PathBuf;

use openssl::ssl::SslVersion;

use super::environment::Environment;
use super::error::ConninfoError;
use super::options::Values;
use super::passfile::Password;

/// `sslmode`, in ascending order of strength.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

const MODES: [(&str, SslMode); 6] = [
    ("disable", SslMode::Disable),
    ("allow", SslMode::Allow),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];

/// `sslnegotiation`: whether TLS is requested with an SSLRequest message, or begun directly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Negotiation {
    Asked,
    Direct,
}

/// The roots that server certificates are verified with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum TrustedRoots {
    /// The system's trusted roots.
    System,
    /// Those in this file. If it does not exist, certificates are not verified, unless `sslmode` requires it.
    File(PathBuf),
    /// No file is given, and there is no home directory for the default one.
    NoHome,
}

/// A file that was specified, or the default file in the home directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ChosenFile {
    pub(crate) path: PathBuf,
    pub(crate) given: bool,
}

/// The TLS options of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Encryption {
    pub(crate) mode: SslMode,
    pub(crate) negotiation: Negotiation,
    pub(crate) roots: TrustedRoots,
    /// The client certificate, if one may be sent.
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) key_password: Option<Password>,
    /// Certificate revocation lists: a file, and a directory.
    pub(crate) crl: Option<ChosenFile>,
    pub(crate) crl_dir: Option<PathBuf>,
    /// Whether the host name is sent to the server (SNI).
    pub(crate) server_name: bool,
    pub(crate) min_version: Option<SslVersion>,
    pub(crate) max_version: Option<SslVersion>,
}

impl Encryption {
    /// Reads and checks the options.
    pub(super) fn of(values: &Values, environment: &dyn Environment) -> Result<Encryption, ConninfoError> {
        let mode_name = values.raw("sslmode").unwrap_or("prefer");
        let mode = MODES.iter().find(|(name, _)| *name == mode_name).map(|(_, mode)| *mode);
        let mode =
            mode.ok_or_else(|| ConninfoError::Word { keyword: "sslmode", value: mode_name.to_owned() })?;
        let weak =
            |option, instead| ConninfoError::WeakSslMode { mode: mode_name.to_owned(), option, instead };
        let system = values.get("sslrootcert") == Some("system");
        if system && mode != SslMode::VerifyFull {
            return Err(weak("sslrootcert=system", "\"verify-full\""));
        }
        values.check_word("sslnegotiation", &["postgres", "direct"])?;
        let direct = values.get("sslnegotiation") == Some("direct");
        if direct && mode < SslMode::Require {
            return Err(weak("sslnegotiation=direct", "\"require\", \"verify-ca\", or \"verify-full\""));
        }
        values.check_word("sslcertmode", &["disable", "allow", "require"])?;
        let sends_cert = values.get("sslcertmode") != Some("disable");
        if values.get("sslcertmode") == Some("require") {
            return Err(ConninfoError::CertMode);
        }
        let (min_version, max_version) = (
            tls_version(values, "ssl_min_protocol_version")?,
            tls_version(values, "ssl_max_protocol_version")?,
        );
        if let (Some((min, _)), Some((max, _))) = (min_version, max_version)
            && min > max
        {
            return Err(ConninfoError::SslVersionRange);
        }

        let given = |keyword| values.get(keyword).map(PathBuf::from);
        let home = environment.home().map(|home| home.join(".postgresql"));
        let usual = |name: &str| home.as_ref().map(|home| home.join(name));
        let (crl, crl_dir) = (given("sslcrl"), given("sslcrldir"));
        let usual_crl = || usual("root.crl").filter(|_| crl_dir.is_none());
        Ok(Encryption {
            mode,
            negotiation: if direct { Negotiation::Direct } else { Negotiation::Asked },
            roots: match given("sslrootcert").or_else(|| usual("root.crt")) {
                Some(_) if system => TrustedRoots::System,
                Some(path) => TrustedRoots::File(path),
                None => TrustedRoots::NoHome,
            },
            cert: given("sslcert").or_else(|| usual("postgresql.crt")).filter(|_| sends_cert),
            key: given("sslkey").or_else(|| usual("postgresql.key")),
            key_password: values.get("sslpassword").map(|text| Password::new(text.to_owned())),
            crl: match crl {
                Some(path) => Some(ChosenFile { path, given: true }),
                None => usual_crl().map(|path| ChosenFile { path, given: false }),
            },
            crl_dir,
            server_name: values.get("sslsni").is_none_or(|value| value.starts_with('1')),
            min_version: min_version.map(|(_, version)| version),
            max_version: max_version.map(|(_, version)| version),
        })
    }
}

/// A TLS version and its position in ascending order.
fn tls_version(values: &Values, keyword: &'static str) -> Result<Option<(usize, SslVersion)>, ConninfoError> {
    const VERSIONS: [(&str, SslVersion); 4] = [
        ("TLSv1", SslVersion::TLS1),
        ("TLSv1.1", SslVersion::TLS1_1),
        ("TLSv1.2", SslVersion::TLS1_2),
        ("TLSv1.3", SslVersion::TLS1_3),
    ];
    let Some(value) = values.get(keyword) else { return Ok(None) };
    let known = VERSIONS.iter().position(|(name, _)| name.eq_ignore_ascii_case(value));
    match known.and_then(|rank| VERSIONS.get(rank).map(|(_, version)| (rank, *version))) {
        Some(found) => Ok(Some(found)),
        None => Err(ConninfoError::SslVersion { keyword, value: value.to_owned() }),
    }
}
